//! One thread that serves a thousand sockets fairly: every message comes back as it came.
//!
//! `cargo run --example event_loop -- /tmp/echo.sock`
//!
//! Fair means: one message per socket and turn, a socket whose peer does not read is not read, and one that drips, lies about lengths
//! or sends descriptors costs only itself.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flipcall::stream::{Access, BufferedWriter, Listener, NonBlockingReader, Step};
use flipcall::{Deadline, ErrorKind, Result};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// The largest message served.
const MAX_MESSAGE: u32 = 64 * 1024;

/// Answers kept for a peer that does not read them.
const MAX_BACKLOG: usize = 256 * 1024;

/// How long a frame that has begun may take: short, so that the example can be watched cutting a dripping peer off.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);

/// The listener's place among the sockets.
const LISTENER: u64 = u64::MAX;

struct Connection {
    socket: UnixStream,
    reader: NonBlockingReader,
    writer: BufferedWriter,
}

impl Connection {
    fn new(socket: UnixStream) -> Self {
        let reader = NonBlockingReader::new(MAX_MESSAGE).with_patience(PATIENCE);
        let writer = BufferedWriter::new(2 * MAX_BACKLOG).with_patience(PATIENCE);
        Self { socket, reader, writer }
    }

    /// One message, or as much of one as is there. `false`: the peer has closed.
    fn turn(&mut self) -> Result<bool> {
        self.writer.flush(&self.socket)?;
        if self.writer.backlog() > MAX_BACKLOG {
            return Ok(true);
        }
        match self.reader.read(&self.socket)? {
            Step::Message(message) => self.writer.push(&self.socket, message.tag, &[message.payload])?,
            Step::Nothing => {}
            Step::Closed => return Ok(false),
        }
        Ok(true)
    }

    /// What the loop should wait for.
    fn interest(&self) -> EventFlags {
        match self.writer.backlog() {
            0 => EventFlags::IN,
            backlog if backlog <= MAX_BACKLOG => EventFlags::IN | EventFlags::OUT,
            _ => EventFlags::OUT,
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: event_loop SOCKET")?;
    let listener = Listener::bind(path, Access::Owner)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    println!("listening {}", listener.path().display());
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut turns: VecDeque<u64> = VecDeque::new();
    let mut events = Vec::with_capacity(256);
    let mut tick = Instant::now();
    loop {
        // Sockets that already hold another message get no event for it: then only look, do not wait.
        let wait = if turns.is_empty() { TICK } else { Duration::ZERO };
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))?;
        for event in &events {
            match event.data.u64() {
                LISTENER => accept(&listener, &poll, &mut connections)?,
                // A socket is not queued twice, so it gets one turn a round.
                number if !turns.contains(&number) => turns.push_back(number),
                _ => {}
            }
        }
        for _ in 0..turns.len() {
            let Some(number) = turns.pop_front() else { break };
            let Some(connection) = connections.get_mut(&number) else { continue };
            match connection.turn() {
                Ok(true) => {
                    let data = EventData::new_u64(number);
                    epoll::modify(&poll, &connection.socket, data, connection.interest())?;
                    if connection.writer.backlog() <= MAX_BACKLOG && connection.reader.holds_message() {
                        turns.push_back(number);
                    }
                }
                // Closing a socket takes it out of the set.
                Ok(false) => drop(connections.remove(&number)),
                Err(error) => {
                    eprintln!("connection {number}: {error:#}");
                    connections.remove(&number);
                }
            }
        }
        if tick.elapsed() >= TICK {
            tick = Instant::now();
            connections.retain(|number, connection| {
                let late = connection.reader.check().and_then(|()| connection.writer.check());
                late.inspect_err(|error| eprintln!("connection {number}: {error:#}")).is_ok()
            });
        }
    }
}

/// Takes all connections that wait.
fn accept(listener: &Listener, poll: impl AsFd, connections: &mut HashMap<u64, Connection>) -> Result<()> {
    loop {
        match listener.accept(Deadline::after(Duration::ZERO)) {
            Ok(socket) => {
                let number = socket.as_raw_fd() as u64;
                let added = epoll::add(&poll, &socket, EventData::new_u64(number), EventFlags::IN);
                if added.is_ok() {
                    connections.insert(number, Connection::new(socket));
                }
            }
            Err(error) if error.kind() == ErrorKind::Timeout => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
