//! `flipcall echo`: a conformance peer for calls, so that an implementation in another language can be tested against the wire format.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use flipcall::rpc::codec::{Encode, Raw, from_bytes};
use flipcall::rpc::{
    Answered, Chunks, Code, Context, Reply, Router, Server, ServerConfig, Status, raise_descriptor_limit,
};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::endpoint::Policy;
use crate::outcome::Outcome;
use crate::output::announce;

/// How long calls in flight may take after a signal.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Options of `flipcall echo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen
    #[arg(long)]
    socket: PathBuf,
    /// How workers wait for the next call
    #[arg(long, value_enum, default_value_t = Policy::Adaptive)]
    policy: Policy,
    /// Serve like a server that knows the base protocol alone
    #[arg(long)]
    base: bool,
    /// The most connections at a time
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// The most channels at a time, in all
    #[arg(long, value_name = "N")]
    channels: Option<u32>,
    /// The most bytes of windows at a time, in all
    #[arg(long, value_name = "BYTES")]
    window_bytes: Option<u64>,
    /// The largest message in bytes
    #[arg(long, value_name = "BYTES")]
    max_message: Option<u32>,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    raise_descriptor_limit()?;
    let server = Server::new(router(), config(arguments));
    let listener = server.bind(&arguments.socket)?;
    announce(format_args!("listening {}", arguments.socket.display()))?;
    let handle = server.handle();
    let closer = std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            handle.close(CLOSE_WITHIN);
        }
    });
    server.serve(listener)?;
    closer.join().map_err(|_| "the closing thread panicked")?;
    Ok(())
}

fn config(arguments: &Arguments) -> ServerConfig {
    let mut config = ServerConfig::new().policy(arguments.policy.into());
    if arguments.base {
        config = config.base_protocol();
    }
    if let Some(connections) = arguments.connections {
        config = config.connections(connections);
    }
    if let Some(channels) = arguments.channels {
        config = config.channels_per_connection(channels.min(64)).channels_total(channels);
    }
    if let Some(bytes) = arguments.window_bytes {
        config = config.window_bytes_per_connection(bytes).window_bytes_total(bytes);
    }
    if let Some(bytes) = arguments.max_message {
        config = config.max_message(bytes);
    }
    config
}

/// The conformance service.
fn router() -> Router {
    let mut router = Router::new();
    router
        .raw(0x0001, |context, request, reply| reply.send_now(context, &from_bytes::<&[u8]>(request)?))
        .unary(0x0002, |_, (a, b): (u64, u64)| {
            a.checked_add(b).ok_or_else(|| Status::invalid_argument("the sum does not fit 64 bits"))
        })
        .unary(0x0003, sleep)
        .streaming(0x0004, chunks)
        .raw(0x0005, fail)
        .unary(0x0006, |_, ()| -> Result<(), Status> { panic!("as asked") })
        .unary(0x0007, |context, ()| {
            let peer = context.peer();
            Ok((peer.pid, peer.uid, peer.gid))
        })
        .raw_with_fds(0x0008, swap_descriptors);
    router
}

/// Sleeps, unless the caller goes away or its deadline passes.
fn sleep(context: &mut Context<'_>, milliseconds: u32) -> Result<(), Status> {
    let time = Duration::from_millis(milliseconds.into());
    let patience = context.remaining().map_or(time, |left| left.min(time));
    let _ = context.cancel_token().wait(patience);
    if patience < time { context.check() } else { Ok(()) }
}

/// Chunks of one size, each filled with its index.
fn chunks(context: &mut Context<'_>, request: &[u8], mut chunks: Chunks<'_>) -> Result<Answered, Status> {
    let (count, size): (u32, u32) = from_bytes(request)?;
    if size > context.max_chunk() {
        return Err(Status::new(Code::TooLarge, format!("a chunk has at most {} bytes", context.max_chunk())));
    }
    let mut chunk = vec![0; size as usize];
    for index in 0..count {
        chunk.fill(index as u8);
        chunks.send(&Raw(&chunk))?;
    }
    chunks.finish()
}

/// The error that was asked for.
fn fail(_: &mut Context<'_>, request: &[u8], _: Reply<'_>) -> Result<Answered, Status> {
    let (code, message, op, path): (u8, String, String, String) = from_bytes(request)?;
    match code {
        0 => Err(Status::invalid_argument("0 is no error")),
        code => Err(Status::new(code.into(), message).op(op).path(path)),
    }
}

/// Takes a memfd and answers with its size and a pipe.
fn swap_descriptors(context: &mut Context<'_>, request: &[u8], reply: Reply<'_>) -> Result<Answered, Status> {
    from_bytes::<()>(request)?;
    if context.received_fds() != 1 {
        return Err(Status::invalid_argument("one memfd is wanted"));
    }
    let file = context.take_fd().ok_or_else(|| Status::invalid_argument("one memfd is wanted"))?;
    // Only a memfd (or another file of tmpfs) knows seals; nothing else may be touched, its owner could make it block.
    if rustix::fs::fcntl_get_seals(file.as_fd()).is_err() {
        // A close could block as well, so it is not this thread's business.
        std::thread::spawn(move || drop(file));
        return Err(Status::invalid_argument("the descriptor is no memfd"));
    }
    let size = rustix::fs::fstat(&file).map_err(std::io::Error::from)?.st_size;
    let (reader, mut writer) = std::io::pipe()?;
    writer.write_all(b"flipcall\n")?;
    context.attach(reader)?;
    let size: &dyn Encode = &(size as u64);
    reply.send(context, size)
}
