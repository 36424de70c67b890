//! The server: a worker per channel, quotas for everything a client can make it keep, and a graceful end.

mod call;
mod closing;
mod config;
mod connection;
mod context;
mod counters;
mod debug;
mod limits;
mod open;
mod quota;
mod reply;
mod socket;
mod window;
mod worker;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connection::{Connection, ending};
use counters::CounterCells;
use quota::{Kind, Lease, Quotas};
use socket::SocketServer;

pub use closing::ServerHandle;
pub use config::ServerConfig;
pub use context::{CancelToken, Context};
pub use counters::ServerCounters;
pub use limits::raise_descriptor_limit;
pub use reply::{Answered, Chunks, Reply};

use super::line::{Budget, SocketLine};
use super::{Code, Router, Status};
use crate::stream::{FrameSocket, Listener, Peer};
use crate::{Deadline, Error, Result};

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

/// What all threads of a server know.
#[derive(Debug)]
struct Shared {
    router: Router,
    config: ServerConfig,
    quotas: Arc<Quotas>,
    closing: AtomicBool,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// The sockets that are accepted from.
    listeners: Mutex<Vec<Arc<Listener>>>,
    counters: CounterCells,
    /// What its window lines may keep of large messages.
    kept: Arc<Budget>,
}

impl Server {
    /// A server that does not listen yet. The limits of connections and channels are lowered, in proportion, to what fits the descriptors
    /// that this process may have open; [`raise_descriptor_limit`] makes room for more, and [`config`](Self::config) says what is left.
    #[must_use]
    pub fn new(router: Router, mut config: ServerConfig) -> Self {
        limits::fit(&mut config);
        let shared = Shared {
            router,
            quotas: Quotas::new(&config),
            config,
            closing: AtomicBool::new(false),
            connections: Mutex::default(),
            listeners: Mutex::default(),
            counters: CounterCells::default(),
            kept: Arc::default(),
        };
        Self { shared: Arc::new(shared) }
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
        locked(&self.shared.listeners).push(Arc::clone(&listener));
        let ended = loop {
            if self.shared.is_closing() {
                break Ok(());
            }
            match listener.accept_frames(Deadline::NEVER) {
                Ok(_) | Err(_) if self.shared.is_closing() => break Ok(()),
                Ok(socket) => self.shared.accepted(socket),
                Err(error) => break Err(error),
            }
        };
        locked(&self.shared.listeners).retain(|other| !Arc::ptr_eq(other, &listener));
        ended
    }

    /// Serves one connected socket on this thread, until the client closes it or the server is closed. Its channels get threads of their
    /// own, and all of them have ended when this returns: it waits for a handler that still runs, which finds its caller gone.
    ///
    /// # Errors
    /// What the client did wrong, or [`Refused`](crate::ErrorKind::Refused) if a limit of connections is reached. The client's end is no
    /// error.
    pub fn serve_one(&self, socket: impl Into<OwnedFd>) -> Result<()> {
        let (connection, socket) = self.shared.admit(FrameSocket::new(socket))?;
        self.shared.serve_connection(&connection, socket)
    }
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// A connection came: serves it on a thread of its own. One over the quota is closed.
    fn accepted(self: &Arc<Self>, socket: FrameSocket) {
        let Ok((connection, socket)) = self.admit(socket) else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let shared = Arc::clone(self);
        let serve = {
            let connection = Arc::clone(&connection);
            move || shared.note_end(shared.serve_connection(&connection, socket).err())
        };
        if std::thread::Builder::new().name("flipcall-base".into()).spawn(serve).is_err() {
            self.forget(&connection);
        }
    }

    /// Finds out who connected and whether they may.
    fn admit(self: &Arc<Self>, mut socket: FrameSocket) -> Result<(Arc<Connection>, FrameSocket)> {
        let peer = Peer::of(socket.as_fd())?;
        let lease = self.lease_connection(peer.pid)?;
        let connection = Connection::new(self, &socket, peer, lease);
        connection.prepare(&mut socket, false)?;
        locked(&self.connections).push(Arc::clone(&connection));
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        Ok((connection, socket))
    }

    fn lease_connection(&self, process: u32) -> Result<Lease> {
        let lease = self.quotas.lease(process, &[(Kind::Connection, 1)]);
        lease.map_err(|exhausted| Error::new(crate::error::ErrorKind::Refused, exhausted.to_string()))
    }

    fn serve_connection(&self, connection: &Arc<Connection>, socket: FrameSocket) -> Result<()> {
        let mut server = SocketServer {
            line: SocketLine::new(socket, &self.kept),
            connection: Arc::clone(connection),
            worker: Arc::clone(&connection.base),
            is_base: true,
            is_first: true,
        };
        let ended = server.serve();
        connection.end_channels();
        connection.join_channels();
        self.forget(connection);
        ended.err().and_then(ending).map_or(Ok(()), Err)
    }

    fn forget(&self, connection: &Arc<Connection>) {
        locked(&self.connections).retain(|other| !Arc::ptr_eq(other, connection));
        self.counters.calls.fetch_add(connection.base.calls(), Ordering::Relaxed);
    }

    #[cold]
    fn count_error(&self, status: &Status) {
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        if status.code == Code::Unknown {
            self.counters.panics.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A line ended; an error means that its client broke the protocol, or that the system failed.
    fn note_end(&self, error: Option<Error>) {
        if let Some(error) = error {
            self.counters.broken.fetch_add(1, Ordering::Relaxed);
            super::trace::transport_ended(&error);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
