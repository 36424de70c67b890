//! The server: it accepts connections, and serves each on a thread of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use rustix::net::SendFlags;

use super::ServerConfig;
use super::base::Base;
use super::closing::{ServerHandle, wait_for_closers};
use super::limits;
use super::quota::{Holder, Kind};
use super::serve::Service;
use super::shared::{Connection, Shared, worth_telling};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::codec::to_bytes;
use crate::rpc::message::number::ERROR;
use crate::rpc::transport::SocketTransport;
use crate::rpc::{Code, Router, Status};
use crate::stream::{FrameSocket, Header, Listener, Peer};
use crate::sys::foreign::Foreign;
use crate::sys::lock::lock;
use crate::sys::memory;
use crate::sys::socket_kind::{check_stream, check_unix_stream};
use crate::sys::thread;

/// Serves the methods of a [`Router`].
///
/// Every connection has a thread, and so has every channel that a client opens. A handler runs on the thread of the channel that it was
/// called through.
///
/// ```
/// use flipcall::rpc::{Client, Router, Server};
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
///
/// let mut router = Router::new();
/// router.unary(1, |_context, name: String| Ok(format!("hello, {name}")));
/// let server = Server::new(router, Default::default());
///
/// let (ours, theirs) = UnixStream::pair()?;
/// std::thread::spawn(move || server.serve_one(theirs));
/// let client = Client::from_socket(ours, Default::default())?;
/// let answer: String = client.call(1, &"world", Duration::from_secs(5))?;
/// assert_eq!(answer, "hello, world");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// A server that does not listen yet. The limits of connections and channels are lowered, in proportion, to what fits the descriptors
    /// that this process may have open. [`raise_descriptor_limit`](super::raise_descriptor_limit) makes room for more, and
    /// [`config`](Self::config) tells the limits that hold.
    #[must_use]
    pub fn new(router: Router, mut config: ServerConfig) -> Self {
        limits::fit(&mut config);
        Self { shared: Arc::new(Shared::new(router, config)) }
    }

    /// The configuration that this server works by.
    pub fn config(&self) -> &ServerConfig {
        &self.shared.config
    }

    /// A handle that closes the server and reads its counters, from any thread.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(&self.shared)
    }

    /// Binds `path` for [`serve`](Self::serve). A file that a dead server left there is replaced, and the file is removed at the end.
    /// Only this user may connect, unless [`ServerConfig::access`] says otherwise.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind(&self, path: impl AsRef<Path>) -> Result<Listener> {
        self.shared.origin.check()?;
        Listener::bind(path, self.shared.config.access)
    }

    /// Accepts and serves connections until the server is [closed](ServerHandle::close), and returns when that is done. Each connection is
    /// served on a thread of its own.
    ///
    /// # Errors
    /// [`System`](crate::ErrorKind::System) if accepting fails for good. A process without descriptors left is no such failure: it accepts
    /// again when one is free.
    pub fn serve(&self, listener: Listener) -> Result<()> {
        self.shared.origin.check()?;
        let listening = Listening::new(&self.shared, listener);
        while !self.shared.is_closing() {
            match listening.listener.accept_frames(Deadline::NEVER) {
                Ok(_) | Err(_) if self.shared.is_closing() => {}
                Ok(socket) => accepted(&self.shared, socket),
                Err(error) => return Err(error),
            }
        }
        wait_for_closers(&self.shared);
        Ok(())
    }

    /// Serves one connected socket on this thread, until the client closes it or the server is closed. Its channels get threads of their
    /// own, and all of them have ended when this returns: it waits for a handler that still runs, which finds its caller gone.
    ///
    /// # Errors
    /// What the client did wrong, or [`Refused`](crate::ErrorKind::Refused) if a limit of connections is reached. The client's end is no
    /// error. [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is no unix stream socket; for the base protocol
    /// ([`ServerConfig::base_protocol`]) any stream socket will do, TCP included.
    pub fn serve_one(&self, socket: impl Into<OwnedFd>) -> Result<()> {
        self.shared.origin.check()?;
        let socket = Foreign::new(socket.into());
        match self.shared.config.version1 {
            true => check_unix_stream(socket.as_fd())?,
            false => check_stream(socket.as_fd())?,
        }
        let (admitted, socket) = admit(&self.shared, FrameSocket::new(socket.take()).end_at_drop())?;
        admitted.serve(socket)
    }
}

/// A connection came: serves it on a thread of its own. One over the quota is told so, and closed.
fn accepted(shared: &Arc<Shared>, socket: FrameSocket) {
    let Ok((admitted, socket)) = admit(shared, socket) else { return };
    let base = Arc::clone(&admitted.0.base);
    // The thread takes it from here, or nobody does.
    let admitted = Arc::new(Mutex::new(Some((admitted, socket))));
    let of_thread = Arc::clone(&admitted);
    let of_server = Arc::clone(shared);
    let serve = move || {
        let taken = lock(&of_thread).take();
        if let Some((admitted, socket)) = taken {
            of_server.note_end(admitted.serve(socket).err());
        }
    };
    if let Err(error) = thread::spawn("flipcall-base", serve) {
        refuse(shared, &base.socket(), &format!("this server cannot start a thread for the connection: {error}"));
    }
}

/// Finds out which process connected, and whether it may.
fn admit(shared: &Arc<Shared>, mut socket: FrameSocket) -> Result<(Admitted, FrameSocket)> {
    let peer = Peer::of(socket.as_fd())?;
    let lease = shared.quotas.lease(Holder::new(&peer), &[(Kind::Connection, 1)]).map_err(|exhausted| {
        let text = exhausted.to_string();
        refuse(shared, &socket, &text);
        Error::new(ErrorKind::Refused, text)
    })?;
    let peer = Arc::new(if shared.config.end_with_process { peer.watched(&socket) } else { peer });
    socket.end_with(&peer);
    let connection = Connection::new(shared, &socket, peer, lease);
    connection.prepare(&mut socket, false)?;
    Ok((Admitted::new(connection), socket))
}

/// Tells a client why it is not served, as the answer to whatever it calls first. It has not read anything yet, so there is room.
#[cold]
fn refuse(shared: &Shared, socket: &impl AsFd, why: &str) {
    shared.counters.refused.fetch_add(1, Ordering::Relaxed);
    let status = Status::new(Code::NoResource, why).op("connect");
    let payload = to_bytes(&status);
    let Ok(header) = Header::of_payload(ERROR, payload.len()) else { return };
    let frame = [&header.encode()[..], &payload].concat();
    // A client that is gone already needs no answer.
    let _ = rustix::net::send(socket, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// A connection that is registered. However its thread ends, the client sees a hang-up, its channels end and are waited for, and its share
/// of the quotas is returned.
struct Admitted(Arc<Connection>);

impl Admitted {
    fn new(connection: Arc<Connection>) -> Self {
        lock(&connection.shared.connections).push(Arc::clone(&connection));
        connection.shared.counters.connections.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }

    fn serve(self, socket: FrameSocket) -> Result<()> {
        let connection = &self.0;
        let transport = SocketTransport::new(socket, &connection.shared.budget);
        let ended = Service::new(transport, Base::new(), connection, &connection.base).serve();
        ended.err().and_then(worth_telling).map_or(Ok(()), Err)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let connection = &self.0;
        // In a child that a handler forked there is nobody to wait for: the other threads are the parent's.
        if !connection.shared.origin.is_here() {
            return;
        }
        connection.shared.note_panic();
        connection.base.kill();
        connection.end_channels();
        connection.join_channels();
        connection.shared.forget(connection);
        memory::give_back();
    }
}

/// A listener that is accepted from, until dropped: then nobody shuts it down any more.
struct Listening<'a> {
    shared: &'a Shared,
    listener: Arc<Listener>,
}

impl<'a> Listening<'a> {
    fn new(shared: &'a Shared, listener: Listener) -> Self {
        let listener = Arc::new(listener);
        lock(&shared.listeners).push(Arc::clone(&listener));
        Self { shared, listener }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        lock(&self.shared.listeners).retain(|other| !Arc::ptr_eq(other, &self.listener));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Issue 13, A7: a client never waits for a thread that is gone, and its place is free again.
    #[test]
    fn a_connection_whose_thread_panics_hangs_up_and_gives_back_what_it_had() {
        let config = ServerConfig::new().connections(4);
        let shared = Arc::new(Shared::new(Router::new(), config));
        let pair = || FrameSocket::pair().unwrap();
        let (ours, mut theirs) = pair();
        let (admitted, socket) = admit(&shared, ours).unwrap();
        let (second, mut refused) = pair();
        assert!(admit(&shared, second).is_err(), "one process has a quarter");
        let mut sentence = Vec::new();
        refused.read_to_end(&mut sentence).unwrap();
        let sentence = String::from_utf8_lossy(&sentence);
        assert!(sentence.contains("too many connections from this process (limit 1)"), "{sentence}");
        // As a cancel token does.
        let _kept = admitted.0.base.socket();
        let serve = move || {
            let _served = (admitted, socket);
            panic!("as asked")
        };
        assert!(thread::spawn("flipcall-test", serve).unwrap().join().is_err());
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "its client sees the end");
        assert!(lock(&shared.connections).is_empty());
        assert!(admit(&shared, pair().0).is_ok());
        assert_eq!(shared.counters.broken.load(Ordering::Relaxed), 1);
    }
}
