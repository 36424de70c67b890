//! A client's connection: who it is, what it agreed to, what it has open.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::quota::{Exhausted, Kind, Lease, Scope};
use super::worker::Worker;
use super::{Shared, locked};
use crate::rpc::wire;
use crate::stream::{FrameSocket, Peer};
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Peer,
    /// The base connection's own worker.
    pub(super) base: Arc<Worker>,
    version1: AtomicBool,
    parts: AtomicBool,
    /// The largest message that the client accepts.
    client_maximum: AtomicU64,
    channels: Mutex<Vec<Arc<Worker>>>,
    /// The threads of its channels.
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lease: Lease,
}

impl Connection {
    pub(super) fn new(shared: &Arc<Shared>, socket: &FrameSocket, peer: Peer, lease: Lease) -> Arc<Self> {
        let base = Arc::new(Worker::new(None, socket.shared(), 0));
        Arc::new(Self {
            shared: Arc::clone(shared),
            peer,
            base,
            version1: AtomicBool::new(false),
            parts: AtomicBool::new(false),
            client_maximum: AtomicU64::new(u64::MAX),
            channels: Mutex::default(),
            threads: Mutex::default(),
            _lease: lease,
        })
    }

    /// Whether HELLO was agreed on.
    #[inline]
    pub(super) fn is_version1(&self) -> bool {
        self.version1.load(Ordering::Relaxed)
    }

    /// Whether payloads that do not fit a window go through it in parts.
    pub(super) fn takes_parts(&self) -> bool {
        self.parts.load(Ordering::Relaxed)
    }

    pub(super) fn agree(&self, client_maximum: u64, parts: bool) {
        self.parts.store(parts, Ordering::Relaxed);
        self.client_maximum.store(client_maximum, Ordering::Relaxed);
        self.version1.store(true, Ordering::Relaxed);
    }

    /// Bytes that an answer may have.
    #[inline]
    pub(super) fn maximum(&self) -> u64 {
        self.client_maximum.load(Ordering::Relaxed).min(u64::from(self.shared.config.maximum))
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
        let mut threads = locked(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Waits until the thread of every channel has ended: what it holds is gone then, stack and all.
    pub(super) fn join_channels(&self) {
        let threads = std::mem::take(&mut *locked(&self.threads));
        for thread in threads {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
    }

    /// Ends every channel.
    pub(super) fn end_channels(&self) {
        self.channels().iter().for_each(|worker| worker.kill());
    }

    pub(super) fn channels(&self) -> MutexGuard<'_, Vec<Arc<Worker>>> {
        locked(&self.channels)
    }

    /// The most payload bytes of a chunk where the transport has `room`.
    #[inline]
    pub(super) fn max_chunk(&self, room: u32) -> u32 {
        u32::try_from(self.maximum()).map_or(room, |maximum| maximum.min(room))
    }

    /// Prepares a socket that this server made or accepted for the messages of a client.
    pub(super) fn prepare(&self, socket: &mut FrameSocket, attachments: bool) -> Result<()> {
        socket.set_max_frame(self.shared.config.maximum);
        socket.set_attachments(attachments)
    }
}

/// Why a client's HELLO is refused, if it is.
pub(super) fn check_hello(hello: &wire::Hello) -> Result<(), &'static str> {
    if hello.version == 0 {
        return Err("there is no version 0");
    }
    if hello.extensions.len() > wire::MOST_EXTENSIONS {
        return Err("too many extensions");
    }
    if hello.maximum < wire::LEAST_MAXIMUM {
        return Err("the maximum message is too small");
    }
    Ok(())
}

/// Why a line ended, if it is worth telling: a client that closes is not.
pub(super) fn ending(error: Error) -> Option<Error> {
    use crate::ErrorKind::{LocalShutdown, PeerGone, PeerShutdown};
    (!matches!(error.kind(), LocalShutdown | PeerGone | PeerShutdown)).then_some(error)
}
