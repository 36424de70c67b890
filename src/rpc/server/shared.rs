//! What all threads of a server know: the server itself, its connections, and what each of them has open.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::config::ServerConfig;
use super::counters::CounterCells;
use super::quota::{Exhausted, Holder, Kind, Lease, Quotas, Scope};
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::rpc::transport::Budget;
use crate::rpc::{Code, Router, Status, trace};
use crate::stream::{FrameSocket, Listener, Peer};
use crate::sys::fork::Origin;
use crate::sys::lock::lock;

/// What all threads of a server know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) config: ServerConfig,
    pub(super) quotas: Arc<Quotas>,
    pub(super) closing: AtomicBool,
    /// Calls of `close` that are under way.
    pub(super) closers: AtomicU32,
    pub(super) connections: Mutex<Vec<Arc<Connection>>>,
    /// The sockets that are accepted from.
    pub(super) listeners: Mutex<Vec<Arc<Listener>>>,
    /// Handles keep them beyond the server.
    pub(super) counters: Arc<CounterCells>,
    /// What its transports may retain of large messages.
    pub(super) budget: Arc<Budget>,
    /// In a forked child nothing is served or closed.
    pub(super) origin: Origin,
}

impl Shared {
    pub(super) fn new(router: Router, config: ServerConfig) -> Self {
        Self {
            router,
            quotas: Quotas::new(&config),
            config,
            closing: AtomicBool::new(false),
            closers: AtomicU32::new(0),
            connections: Mutex::default(),
            listeners: Mutex::default(),
            counters: Arc::default(),
            budget: Arc::default(),
            origin: Origin::here(),
        }
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// A connection has ended.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        lock(&self.connections).retain(|other| !Arc::ptr_eq(other, connection));
        self.counters.calls.fetch_add(connection.base.calls(), Ordering::Relaxed);
    }

    /// A call is answered with an error.
    #[cold]
    pub(super) fn count_error(&self, status: &Status) {
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        if status.code == Code::Unknown {
            self.counters.panics.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection or channel ends, perhaps because its thread panics.
    pub(super) fn note_panic(&self) {
        if std::thread::panicking() {
            self.counters.broken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection or channel ended; an error means that its client broke the protocol, or that the system failed.
    pub(super) fn note_end(&self, error: Option<Error>) {
        if let Some(error) = error {
            self.counters.broken.fetch_add(1, Ordering::Relaxed);
            trace::transport_ended(&error);
        }
    }
}

/// A client's connection: who it is, and what it has open.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Arc<Peer>,
    /// Whose share of the quotas it takes.
    pub(super) holder: Holder,
    /// The base connection's own worker.
    pub(super) base: Arc<Worker>,
    channels: Mutex<Vec<Arc<Worker>>>,
    /// The threads of its channels.
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lease: Lease,
}

impl Connection {
    pub(super) fn new(shared: &Arc<Shared>, socket: &FrameSocket, peer: Arc<Peer>, lease: Lease) -> Arc<Self> {
        let base = Arc::new(Worker::new(None, socket.shared(), 0));
        Arc::new(Self {
            shared: Arc::clone(shared),
            holder: Holder::new(&peer),
            peer,
            base,
            channels: Mutex::default(),
            threads: Mutex::default(),
            _lease: lease,
        })
    }

    /// Checks that one more channel with this window stays within what one connection may have. Only the base connection's thread opens
    /// channels, so the answer holds until [`add`](Self::add).
    pub(super) fn check_room(&self, window: u64) -> Result<(), Exhausted> {
        let channels = self.channels();
        let bytes: u64 = channels.iter().map(|worker| worker.window_bytes).sum();
        let config = &self.shared.config;
        let within = |kind, wanted: u64, limit: u64| {
            let exhausted = Exhausted { kind, scope: Scope::Connection, limit };
            if wanted <= limit { Ok(()) } else { Err(exhausted) }
        };
        within(Kind::Channel, channels.len() as u64 + 1, u64::from(config.channels))?;
        within(Kind::WindowBytes, bytes + window, config.window_bytes)
    }

    pub(super) fn add(&self, worker: &Arc<Worker>) {
        self.channels().push(Arc::clone(worker));
        self.shared.counters.channels_opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A channel's thread is done, and its window unmapped.
    pub(super) fn remove(&self, worker: &Arc<Worker>) {
        self.channels().retain(|other| !Arc::ptr_eq(other, worker));
        self.shared.counters.calls.fetch_add(worker.calls(), Ordering::Relaxed);
    }

    /// A channel's thread was started. Those that are done need nobody to wait for them.
    pub(super) fn started(&self, thread: JoinHandle<()>) {
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Waits until the thread of every channel has ended: what it holds is gone then, stack and all.
    pub(super) fn join_channels(&self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
    }

    /// Ends every channel.
    pub(super) fn end_channels(&self) {
        self.channels().iter().for_each(|worker| worker.kill());
    }

    /// Whether a handler of it closes the server.
    pub(super) fn is_spared(&self) -> bool {
        self.base.is_spared() || self.channels().iter().any(|worker| worker.is_spared())
    }

    /// Ends everything but the handlers that close the server themselves, and what they answer through.
    pub(super) fn end_unless_spared(&self) {
        self.channels().iter().filter(|worker| !worker.is_spared()).for_each(|worker| worker.kill());
        if !self.is_spared() {
            self.base.kill();
        }
    }

    pub(super) fn channels(&self) -> MutexGuard<'_, Vec<Arc<Worker>>> {
        lock(&self.channels)
    }

    /// Prepares a socket that this server made or accepted for the messages of a client.
    pub(super) fn prepare(&self, socket: &mut FrameSocket, attachments: bool) -> Result<()> {
        socket.set_max_frame(self.shared.config.maximum);
        socket.set_patience(self.shared.config.patience);
        socket.set_attachments(attachments)
    }
}

/// Why a connection or channel ended, if it is worth telling: a client that closes is not.
pub(super) fn worth_telling(error: Error) -> Option<Error> {
    use crate::error::ErrorKind::{LocalShutdown, PeerGone, PeerShutdown};
    (!matches!(error.kind(), LocalShutdown | PeerGone | PeerShutdown)).then_some(error)
}
