//! What a base connection serves besides calls: HELLO, and OPEN.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::connection::{Connection, check_hello, ending};
use super::quota::{Kind, Lease};
use super::socket::SocketServer;
use super::window::WindowServer;
use super::worker::Worker;
use crate::endpoint;
use crate::endpoint::Options;
use crate::rpc::codec::{Encode, from_bytes};
use crate::rpc::line::{Outgoing, Prefix, SocketLine, WindowLine};
use crate::rpc::wire::{self, Hello, Open, Opened, PREFIX, RESPONSE, VERSION};
use crate::rpc::{Code, Status};
use crate::stream::FrameSocket;
use crate::window::{Window, page_size, seal_after_map};
use crate::{Deadline, Error, ErrorKind, Result};

/// Answers HELLO.
pub(super) fn hello(server: &mut SocketServer) -> Result<()> {
    let connection = Arc::clone(&server.connection);
    let Some(message) = server.line.receive(Deadline::NEVER)? else { return Ok(()) };
    let hello: Result<Hello, Status> = from_bytes(message.payload).map_err(Status::from);
    drop(message);
    let checked = hello.and_then(|hello| {
        if !connection.shared.config.version1 {
            return Err(super::call::unknown(wire::HELLO));
        }
        if !server.is_first {
            return Err(Status::invalid_argument("HELLO is the first call on a connection"));
        }
        check_hello(&hello).map(|()| hello).map_err(Status::invalid_argument)
    });
    match checked {
        Err(status) => server.refuse(status),
        Ok(hello) => {
            server.line.socket.set_attachments(true)?;
            let config = &connection.shared.config;
            let mut extensions = if config.extensions { wire::extensions() } else { Vec::new() };
            extensions.retain(|extension| hello.has(extension));
            let answer = Hello { version: VERSION, maximum: u64::from(config.maximum), extensions };
            connection.agree(hello.maximum, answer.has(wire::PARTS));
            respond(server, &answer, &[])
        }
    }
}

/// Sends a response of the base connection's own.
fn respond(server: &mut SocketServer, value: &dyn Encode, fds: &[OwnedFd]) -> Result<()> {
    let message = Outgoing { tag: RESPONSE, prefix: Prefix::Ok, value, fds: 0 };
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let sent = server.line.send(&message, &fds, u64::MAX, Deadline::NEVER)?;
    sent.map_err(Error::from)
}

/// Answers OPEN; whether descriptors went out.
pub(super) fn open(server: &mut SocketServer) -> Result<bool> {
    let connection = Arc::clone(&server.connection);
    let Some(message) = server.line.receive(Deadline::NEVER)? else { return Ok(false) };
    let request = message.payload.get(PREFIX..).ok_or(()).and_then(|open| from_bytes::<Open>(open).map_err(drop));
    let has_fds = !message.attachments.is_empty();
    drop(message);
    let opened = match request {
        Ok(open) if !has_fds => open_channel(&connection, open.window),
        _ => Err(Status::invalid_argument("a malformed OPEN")),
    };
    match opened {
        Err(status) => server.refuse(status.op("open")).map(|()| false),
        Ok((opened, fds, worker)) => match respond(server, &opened, &fds) {
            Ok(()) => Ok(true),
            Err(error) if server.line.socket.is_usable() => {
                worker.kill();
                server.refuse(Status::new(Code::NoResource, format!("{error:#}")).op("open")).map(|()| false)
            }
            Err(error) => {
                worker.kill();
                Err(error)
            }
        },
    }
}

type Channel = (Opened, Vec<OwnedFd>, Arc<Worker>);

/// Makes a channel and starts its thread.
fn open_channel(connection: &Arc<Connection>, window: u32) -> Result<Channel, Status> {
    let length = window_length(window, connection.shared.config.window);
    let wanted = [(Kind::Channel, 1), (Kind::WindowBytes, u64::from(length))];
    let lease = connection.shared.quotas.lease(connection.peer.pid, &wanted)?;
    connection.check_room(u64::from(length))?;
    let made = if length == 0 { socket_channel(connection, lease) } else { window_channel(connection, length, lease) };
    made.map_err(|error| Status::new(Code::NoResource, format!("{error:#}")))
}

/// The window that a client gets that asks for `asked` bytes: whole pages, within what is configured.
fn window_length(asked: u32, most: u32) -> u32 {
    let page = page_size();
    let rounded = asked.min(most).checked_next_multiple_of(page).unwrap_or(most);
    if asked == 0 { 0 } else { rounded.min(most - most % page) }
}

fn socket_pair(connection: &Connection) -> Result<(FrameSocket, OwnedFd)> {
    let (mut ours, theirs) = FrameSocket::pair()?;
    connection.prepare(&mut ours, true)?;
    Ok((ours, theirs.into()))
}

fn socket_channel(connection: &Arc<Connection>, lease: Lease) -> Result<Channel> {
    let (ours, theirs) = socket_pair(connection)?;
    let worker = Arc::new(Worker::new(None, ours.shared(), 0));
    let mut server = SocketServer {
        line: SocketLine::new(ours, &connection.shared.kept),
        connection: Arc::clone(connection),
        worker: Arc::clone(&worker),
        is_base: false,
        is_first: false,
    };
    start(connection, &worker, lease, move || {
        let ended = server.serve();
        drop(server.line);
        ended
    })?;
    Ok((Opened { offset: 0, length: 0 }, vec![theirs], worker))
}

fn window_channel(connection: &Arc<Connection>, length: u32, lease: Lease) -> Result<Channel> {
    let (window, file, length) = Window::create(length)?;
    let (ours, theirs) = socket_pair(connection)?;
    let options = Options::new().policy(connection.shared.config.policy).watch_shared(ours.shared());
    let endpoint = endpoint::Acceptor::new(window, options)?;
    let worker = Arc::new(Worker::new(Some(endpoint.shutdown_handle()), ours.shared(), u64::from(length)));
    let shared = file.try_clone().map_err(|error| Error::system("dup", error))?;
    let (connection_of_thread, worker_of_thread) = (Arc::clone(connection), Arc::clone(&worker));
    start(connection, &worker, lease, move || {
        let endpoint = endpoint.greet(Deadline::after(wire::HANDSHAKE))?;
        seal_after_map::seal(&shared)?;
        drop(shared);
        let line =
            WindowLine::new(endpoint, ours, connection_of_thread.takes_parts(), &connection_of_thread.shared.kept);
        Err(WindowServer::new(line, connection_of_thread, worker_of_thread).serve())
    })?;
    Ok((Opened { offset: 0, length }, vec![file, theirs], worker))
}

/// Starts the thread of a channel. When it ends, the channel is gone: its window unmapped, its socket hung up, its lease returned.
fn start(
    connection: &Arc<Connection>,
    worker: &Arc<Worker>,
    lease: Lease,
    serve: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    connection.add(worker);
    let (connection_of_thread, worker_of_thread) = (Arc::clone(connection), Arc::clone(worker));
    let run = move || {
        let ended = serve();
        worker_of_thread.kill();
        connection_of_thread.remove(&worker_of_thread);
        drop(lease);
        if let Err(error) = ended {
            connection_of_thread.shared.note_end(ending(error));
        }
    };
    let started = std::thread::Builder::new().name("flipcall-channel".into()).spawn(run);
    started.map(|thread| connection.started(thread)).map_err(|error| {
        connection.remove(worker);
        Error::caused(ErrorKind::System, "starting a thread", error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_pages_within_the_maximum() {
        let page = page_size();
        assert_eq!(window_length(0, 1 << 20), 0);
        assert_eq!(window_length(1, 1 << 20), page);
        assert_eq!(window_length(page + 1, 1 << 20), 2 * page);
        assert_eq!(window_length(u32::MAX, 1 << 20), 1 << 20);
        assert_eq!(window_length(u32::MAX, u32::MAX), u32::MAX - u32::MAX % page);
        assert_eq!(window_length(7, 0), 0);
    }
}
