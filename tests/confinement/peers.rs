//! The other side of each role, in the process of the tests.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options};
use flipcall::rpc::{Client, ClientConfig, Router, Server, WaitPolicy};
use flipcall::stream::FrameSocket;
use flipcall::stream::mux::{Channel, Mux, MuxConfig, Role};
use flipcall::window::Allocator;

use crate::attacker::{AGES, arena, next_window};

/// Methods: the sum of two numbers, a pause, bytes back, a descriptor for a descriptor, three chunks.
pub const ADD: u16 = 1;
pub const SLEEP: u16 = 2;
pub const ECHO: u16 = 3;
pub const GIVE: u16 = 4;
pub const STREAM: u16 = 5;
/// A descriptor that nobody asked for.
pub const UNASKED: u16 = 6;
/// Methods of a confined server: it has answered its first call, its last one.
pub const CALLED: u16 = 8;
pub const ENDS: u16 = 9;

/// Bytes of a long payload.
pub const LARGE: usize = 2 << 20;
/// What a window's peer takes its time to answer.
pub const SLOW: &[u8] = b"slow";
/// How much.
const PAUSE: Duration = Duration::from_millis(30);

pub fn router() -> Router {
    let mut router = Router::new();
    router.unary(ADD, |_, (a, b): (u64, u64)| Ok(a + b));
    router.unary(SLEEP, |_, millis: u32| {
        std::thread::sleep(Duration::from_millis(millis.into()));
        Ok(())
    });
    router.unary(ECHO, |_, bytes: Vec<u8>| Ok(bytes));
    router.raw_with_fds(GIVE, |context, _, reply| {
        let fd = context.take_fd();
        fd.into_iter().try_for_each(|fd| context.attach(fd))?;
        reply.send(context, &())
    });
    router.raw(UNASKED, |context, _, reply| {
        context.attach(std::fs::File::open("/dev/null")?)?;
        reply.send(context, &())
    });
    router.streaming(STREAM, |_, _, mut chunks| {
        (0..3u32).try_for_each(|chunk| chunks.send(&chunk))?;
        chunks.finish()
    });
    router
}

/// The other side of a role, and what the role is given.
pub struct Peer {
    pub fds: Vec<OwnedFd>,
    run: Box<dyn FnOnce(&str) + Send>,
}

impl Peer {
    /// Plays its part; `said` is what the role said first.
    pub fn start(self, said: String) -> JoinHandle<()> {
        std::thread::spawn(move || (self.run)(&said))
    }

    pub fn of(role: &str) -> Self {
        match role.split(',').next() {
            Some("window client") => with_window(|arena| {
                let window = next_window(arena);
                move |ours: &UnixStream| serve_window(window, watched(ours))
            }),
            Some("window server") => with_window(|arena| {
                let window = next_window(arena);
                move |ours: &UnixStream| call_window(window, watched(ours))
            }),
            _ => Self::with_socket(role),
        }
    }

    fn with_socket(role: &str) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        let grows = role.ends_with("grows");
        let run: Box<dyn FnOnce(&str) + Send> = match role {
            "mux" => Box::new(move |_| echo(ours)),
            "frames" => Box::new(move |_| crate::frames::answer(FrameSocket::new(ours))),
            "listener of frames" => Box::new(|path| crate::frames::connect(Path::new(path))),
            "typed server with a path" => Box::new(|path| {
                let path = Path::new(path);
                let begun = std::time::Instant::now();
                let connect = || Client::connect(path, ClientConfig::new(), AGES);
                // It may be there a moment before it listens.
                let first = loop {
                    match connect() {
                        Err(_) if begun.elapsed() < AGES => std::thread::sleep(Duration::from_millis(1)),
                        connected => break connected.expect("a server"),
                    }
                };
                use_server(&first, true, || {
                    let second = connect().expect("another connection");
                    assert_eq!(second.call::<_, u64>(ADD, &(1u64, 2u64), AGES).expect("an answer"), 3);
                });
            }),
            role if role.starts_with("typed server") => Box::new(move |_| {
                use_server(&Client::from_socket(ours, ClientConfig::new()).expect("a server"), grows, || ())
            }),
            _ => Box::new(move |_| {
                // Its client may be killed by a filter.
                let _ = Server::new(router(), Default::default()).serve_one(ours);
            }),
        };
        Self { fds: vec![theirs.into(), null.into()], run }
    }
}

/// A window and a socket to watch.
fn with_window<F: FnOnce(&UnixStream) + Send + 'static>(make: impl FnOnce(&Allocator) -> F) -> Peer {
    let arena = arena(1);
    let run = make(&arena);
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let file = arena.fd().try_clone_to_owned().expect("dup");
    let run = Box::new(move |_: &str| {
        run(&ours);
        drop((arena, ours));
    });
    Peer { fds: vec![file, theirs.into()], run }
}

fn answers(mut endpoint: Endpoint, mut length: u32) {
    loop {
        let mut start = [0; SLOW.len()];
        if length as usize == start.len() && endpoint.read_at(0, &mut start).is_ok() && start == *SLOW {
            std::thread::sleep(PAUSE);
        }
        match endpoint.send_recv(length, AGES) {
            Ok(next) => length = next,
            Err(_) => return,
        }
    }
}

/// A role that a filter ends is noticed.
fn watched(socket: &UnixStream) -> Options {
    Options::new().policy(WaitPolicy::Park).watch_socket(socket.try_clone().expect("dup").into())
}

fn serve_window(window: flipcall::window::Window, options: Options) {
    if let Ok((endpoint, length)) = Acceptor::new(window, options).expect("a server").recv_first(AGES) {
        answers(endpoint, length);
    }
}

fn call_window(window: flipcall::window::Window, options: Options) {
    let Ok(mut endpoint) = Connector::new(window, options).expect("a client").connect(AGES) else { return };
    for call in 0..2000 {
        if call % 500 == 0 {
            std::thread::sleep(PAUSE);
        }
        if endpoint.send_recv(0, AGES).is_err() {
            return;
        }
    }
}

/// Calls a confined server. Nothing is asserted: what it does wrong kills it.
fn use_server(client: &Client, grows: bool, more: impl FnOnce()) {
    if client.call::<_, u64>(ADD, &(1u64, 2u64), AGES / 2).is_err() {
        // It cannot open a channel.
        return;
    }
    let _ = client.call::<_, ()>(CALLED, &(), AGES);
    if (0..2000).any(|_| client.call::<_, u64>(ADD, &(1u64, 2u64), AGES / 2).is_err()) {
        return;
    }
    let _ = client.call::<_, ()>(SLEEP, &20u32, AGES);
    let _ = client.call::<_, Vec<u8>>(ECHO, &vec![7u8; LARGE], AGES);
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let _ = client.call_with_fds::<_, ()>(GIVE, &(), &[null.as_fd()], AGES);
    // Nobody takes this one.
    let _ = client.call_with_fds::<_, u64>(ADD, &(1u64, 2u64), &[null.as_fd()], AGES);
    if let Ok(stream) = client.stream(STREAM, &(), AGES) {
        stream.for_each(drop);
    }
    std::thread::sleep(5 * PAUSE);
    if grows {
        std::thread::scope(|scope| {
            scope.spawn(|| client.call::<_, ()>(SLEEP, &50u32, AGES));
            std::thread::sleep(PAUSE / 2);
            let _ = client.call::<_, ()>(SLEEP, &20u32, AGES);
        });
        more();
    }
    let _ = client.call::<_, ()>(ENDS, &(), AGES);
}

/// The acceptor of a mux, which echoes.
fn echo(socket: UnixStream) {
    let mux = Mux::new(socket, MuxConfig::new(Role::Acceptor)).expect("a mux");
    while let Ok(offer) = mux.accept(AGES) {
        let Ok(channel) = offer.accept() else { return };
        let Channel { mut sender, mut receiver, .. } = channel;
        while let Ok(Some(message)) = receiver.receive(AGES) {
            if sender.send(&message, AGES).is_err() {
                return;
            }
        }
        sender.end();
    }
}
