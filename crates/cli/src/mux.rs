//! `flipcall mux`: a conformance peer for the mux protocol, so that a peer in another language can be tested against the wire format.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Args;
use flipcall::stream::mux::{Channel, ChannelSender, Mux, MuxConfig, Offer, PlainMux, Reason, Role};
use flipcall::stream::{Access, Listener};
use flipcall::{Deadline, ErrorKind, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::outcome::Outcome;
use crate::output::announce;

/// How soon a signal is noticed.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// How long the goodbyes may take, all together.
const GOODBYE: Duration = Duration::from_secs(1);

/// Connections served at once: each costs two threads and the credit of its channels. Another one is closed at once.
const MAX_CONNECTIONS: usize = 256;

/// The largest message in plain mode, in bytes.
const PLAIN_MAX: u32 = 64 * 1024;

/// The period of the bytes that `source` sends.
const PATTERN: usize = 251;

/// Options of `flipcall mux`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to listen
    #[arg(long)]
    socket: PathBuf,
    /// Frames without credit: every message that is not empty comes back on its id
    #[arg(long)]
    plain: bool,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The only failure is a signal that cannot be caught, and these can.
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    let listener = Listener::bind(&arguments.socket, Access::Owner)?;
    announce(format_args!("listening {}", arguments.socket.display()))?;
    let mut muxes: Vec<Mux> = Vec::new();
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let connection = match listener.accept(POLL_EVERY) {
            Ok(connection) => connection,
            Err(error) if error.kind() == ErrorKind::Timeout => continue,
            Err(error) => return Err(error.into()),
        };
        threads.retain(|thread| !thread.is_finished());
        if threads.len() >= MAX_CONNECTIONS {
            continue;
        }
        // The end of a connection is its client's business.
        if arguments.plain {
            threads.push(thread::spawn(move || drop(serve_plain(PlainMux::new(connection, PLAIN_MAX)))));
            continue;
        }
        // Made here, so that a signal that comes right after its HELLO finds it among those to close.
        let Ok(mux) = Mux::new(connection, MuxConfig::new(Role::Acceptor)) else { continue };
        muxes.retain(|mux| mux.error().is_none());
        muxes.push(mux.clone());
        threads.push(thread::spawn(move || drop(serve(&mux))));
    }
    let deadline = Deadline::at(std::time::Instant::now() + GOODBYE);
    for mux in &muxes {
        // A client that does not read its goodbye does without.
        let _ = mux.close(Reason::CLOSING, deadline);
    }
    Ok(())
}

fn serve_plain(mut mux: PlainMux) -> Result<()> {
    while let Some(message) = mux.receive(Deadline::NEVER)? {
        let (id, payload) = (message.tag, message.payload.to_vec());
        if !payload.is_empty() {
            mux.send(id, &payload, Deadline::NEVER)?;
        }
    }
    mux.drain(0, GOODBYE)
}

fn serve(mux: &Mux) -> Result<()> {
    loop {
        let offer = mux.accept(Deadline::NEVER)?;
        let Some(service) = Service::by_name(offer.name()) else {
            offer.refuse(Reason::NO_SUCH_NAME);
            continue;
        };
        let mux = mux.clone();
        let started = thread::Builder::new().spawn(move || {
            // How a channel ends is its client's business.
            let _ = service.serve(&mux, offer);
        });
        // Without a thread the offer is dropped, which refuses it.
        drop(started);
    }
}

/// What a channel does, by the name it was opened with.
enum Service {
    Echo,
    Sink,
    Source(u64),
    Stall,
    Reset,
    Open(String),
}

impl Service {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name.split_once(':') {
            None if name == "echo" => Self::Echo,
            None if name == "sink" => Self::Sink,
            None if name == "stall" => Self::Stall,
            None if name == "reset" => Self::Reset,
            Some(("source", count)) if count.bytes().all(|byte| byte.is_ascii_digit()) => {
                Self::Source(count.parse().ok()?)
            }
            Some(("open", name)) if !name.is_empty() => Self::Open(name.to_owned()),
            _ => return None,
        })
    }

    fn serve(self, mux: &Mux, offer: Offer) -> Result<()> {
        let mut channel = offer.accept()?;
        match self {
            Self::Echo => echo(channel),
            Self::Sink => sink(channel),
            Self::Source(count) => {
                send_pattern(&mut channel.sender, count)?;
                channel.sender.end();
                while channel.receiver.receive(Deadline::NEVER)?.is_some() {}
                Ok(())
            }
            Self::Stall => channel.receiver.wait_end(Deadline::NEVER),
            Self::Reset => {
                if channel.receiver.receive(Deadline::NEVER)?.is_some() {
                    channel.sender.reset(Reason::CANCELLED);
                }
                Ok(())
            }
            Self::Open(name) => {
                let mux = mux.clone();
                let opened = thread::Builder::new().spawn(move || echo(mux.open(&name, Deadline::NEVER)?));
                drop(opened); // Without a thread the channel is a sink, too.
                sink(channel)
            }
        }
    }
}

/// Returns every message as it came, in several messages if it is longer than the peer takes; then ends.
fn echo(mut channel: Channel) -> Result<()> {
    let mut message = Vec::new();
    while channel.receiver.receive_into(&mut message, Deadline::NEVER)? {
        if message.is_empty() {
            channel.sender.send(&message, Deadline::NEVER)?;
        }
        for chunk in message.chunks(channel.sender.max_message()) {
            channel.sender.send(chunk, Deadline::NEVER)?;
        }
    }
    Ok(())
}

fn sink(mut channel: Channel) -> Result<()> {
    let mut message = Vec::new();
    while channel.receiver.receive_into(&mut message, Deadline::NEVER)? {}
    Ok(())
}

/// Sends `count` bytes, byte i being i mod 251.
fn send_pattern(sender: &mut ChannelSender, count: u64) -> Result<()> {
    let whole = sender.max_message().min(64 * 1024);
    let pattern: Vec<u8> = (0..whole + PATTERN).map(|index| (index % PATTERN) as u8).collect();
    let mut sent = 0;
    while sent < count {
        let start = (sent % PATTERN as u64) as usize;
        let length = whole.min(usize::try_from(count - sent).unwrap_or(usize::MAX));
        sender.send(&pattern[start..start + length], Deadline::NEVER)?;
        sent += length as u64;
    }
    Ok(())
}
