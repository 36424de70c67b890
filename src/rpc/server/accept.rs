//! The server: it accepts connections, and serves each on a thread of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ServerConfig;
use super::base::Base;
use super::closing::ServerHandle;
use super::limits;
use super::quota::Kind;
use super::serve::Service;
use super::shared::{Connection, Shared, worth_telling};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::Router;
use crate::rpc::transport::SocketTransport;
use crate::stream::{FrameSocket, Listener, Peer};
use crate::sys::foreign::Foreign;
use crate::sys::lock::lock;
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
        Listener::bind(path, self.shared.config.access)
    }

    /// Accepts and serves connections until the server is [closed](ServerHandle::close). Each connection is served on a thread of its own.
    ///
    /// # Errors
    /// [`System`](crate::ErrorKind::System) if accepting fails for good. A process without descriptors left is no such failure: it accepts
    /// again when one is free.
    pub fn serve(&self, listener: Listener) -> Result<()> {
        let listener = Arc::new(listener);
        lock(&self.shared.listeners).push(Arc::clone(&listener));
        let ended = loop {
            if self.shared.is_closing() {
                break Ok(());
            }
            match listener.accept_frames(Deadline::NEVER) {
                Ok(_) | Err(_) if self.shared.is_closing() => break Ok(()),
                Ok(socket) => accepted(&self.shared, socket),
                Err(error) => break Err(error),
            }
        };
        lock(&self.shared.listeners).retain(|other| !Arc::ptr_eq(other, &listener));
        ended
    }

    /// Serves one connected socket on this thread, until the client closes it or the server is closed. Its channels get threads of their
    /// own, and all of them have ended when this returns: it waits for a handler that still runs, which finds its caller gone.
    ///
    /// # Errors
    /// What the client did wrong, or [`Refused`](crate::ErrorKind::Refused) if a limit of connections is reached. The client's end is no
    /// error. [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is no unix stream socket; for the base protocol
    /// ([`ServerConfig::base_protocol`]) any stream socket will do, TCP included.
    pub fn serve_one(&self, socket: impl Into<OwnedFd>) -> Result<()> {
        let socket = Foreign::new(socket.into());
        match self.shared.config.version1 {
            true => check_unix_stream(socket.as_fd())?,
            false => check_stream(socket.as_fd())?,
        }
        let (connection, socket) = admit(&self.shared, FrameSocket::new(socket.take()).end_at_drop())?;
        serve_connection(&connection, socket)
    }
}

/// A connection came: serves it on a thread of its own. One over the quota is closed.
fn accepted(shared: &Arc<Shared>, socket: FrameSocket) {
    let Ok((connection, socket)) = admit(shared, socket) else {
        shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let of_thread = Arc::clone(&connection);
    let serve = move || of_thread.shared.note_end(serve_connection(&of_thread, socket).err());
    if thread::spawn("flipcall-base", serve).is_err() {
        shared.forget(&connection);
    }
}

/// Finds out who connected and whether they may.
fn admit(shared: &Arc<Shared>, mut socket: FrameSocket) -> Result<(Arc<Connection>, FrameSocket)> {
    let peer = Peer::of(socket.as_fd())?;
    let lease = shared.quotas.lease(peer.pid, &[(Kind::Connection, 1)]);
    let lease = lease.map_err(|exhausted| Error::new(ErrorKind::Refused, exhausted.to_string()))?;
    let connection = Connection::new(shared, &socket, peer, lease);
    connection.prepare(&mut socket, false)?;
    lock(&shared.connections).push(Arc::clone(&connection));
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    Ok((connection, socket))
}

fn serve_connection(connection: &Arc<Connection>, socket: FrameSocket) -> Result<()> {
    let transport = SocketTransport::new(socket, &connection.shared.budget);
    let ended = Service::new(transport, Base::new(), connection, &connection.base).serve();
    connection.end_channels();
    connection.join_channels();
    connection.shared.forget(connection);
    ended.err().and_then(worth_telling).map_or(Ok(()), Err)
}
