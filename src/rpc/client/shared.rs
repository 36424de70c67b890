//! What all clones of a client share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::channel::{Channel, Transport};
use super::config::ClientConfig;
use super::lack::Lacks;
use super::pool::Pool;
use super::register::{Register, Registered, closed};
use super::session::Session;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::{CallError, trace};
use crate::stream::FrameSocket;
use crate::sys::fork::Origin;
use crate::sys::lock::lock;
use crate::sys::try_lock::TryLock;

/// What all clones of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pool: Pool,
    /// The connection. Its lock is held for no wait: see [`session`](Self::session).
    current: Mutex<Arc<Session>>,
    /// Held by whoever connects anew.
    pub(super) reconnecting: TryLock<()>,
    /// What is open, wherever it is.
    pub(super) register: Arc<Register>,
    /// Where to connect anew.
    pub(super) path: Option<PathBuf>,
    pub(super) config: ClientConfig,
    /// Why there was no further channel, and until when nobody asks again.
    pub(super) lacks: Lacks,
    pub(super) counters: CounterCells,
    /// In a forked child no call is made, and no lock is taken: one that another thread held stays locked there.
    pub(super) origin: Origin,
}

/// The counters themselves. The pool counts calls.
#[derive(Debug, Default)]
pub(super) struct CounterCells {
    pub(super) channels_opened: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) reconnects: AtomicU64,
}

/// What a client did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientCounters {
    /// Calls begun, streams not among them.
    pub calls: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels opened without a window, and connections to servers that know none, though the configuration wants windows.
    pub fallbacks: u64,
    /// Calls that missed their deadline after they were sent.
    pub timeouts: u64,
    /// Calls whose channel ended under them.
    pub lost: u64,
    /// Connections made anew.
    pub reconnects: u64,
}

impl Shared {
    /// Agrees on a version with the server at the other end of a socket.
    pub(super) fn begin(
        socket: FrameSocket,
        path: Option<PathBuf>,
        config: ClientConfig,
        deadline: Deadline,
    ) -> Result<Arc<Self>> {
        Self::begin_with(Register::new(config.channels), socket, path, config, deadline)
    }

    /// As [`begin`](Self::begin), with a register that somebody else knows.
    pub(super) fn begin_with(
        register: Arc<Register>,
        socket: FrameSocket,
        path: Option<PathBuf>,
        config: ClientConfig,
        deadline: Deadline,
    ) -> Result<Arc<Self>> {
        let session = Session::begin(socket, &config, &register, deadline)?;
        let shared = Arc::new(Self {
            pool: Pool::new(config.channels, config.window > 0),
            current: Mutex::new(session),
            reconnecting: TryLock::default(),
            register,
            path,
            lacks: Lacks::default(),
            counters: CounterCells::default(),
            origin: Origin::here(),
            config,
        });
        shared.note_protocol();
        Ok(shared)
    }

    /// The connection that is there now, alive or not.
    pub(super) fn current(&self) -> Arc<Session> {
        Arc::clone(&lock(&self.current))
    }

    /// Goes on with another connection.
    pub(super) fn replace_session(&self, session: Arc<Session>) {
        let old = std::mem::replace(&mut *lock(&self.current), session);
        // Not under the lock: it may be closed by that.
        drop(old);
        self.note_protocol();
    }

    /// Counts a connection whose calls go over a socket though windows are wanted.
    fn note_protocol(&self) {
        let is_wanted = self.config.window > 0 && !self.config.base_only;
        if is_wanted && !self.current().agreement.is_version1() {
            let what = "the server speaks the base protocol, which has no windows";
            trace::fell_back(&Error::new(ErrorKind::Unsupported, what));
            self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.register.is_closed()
    }

    /// Ends everything of this client, at once.
    pub(super) fn close(&self) {
        self.register.close();
        self.pool.wake_all();
        self.pool.clear();
    }

    /// What a failed call brings: once the client is closed, that and not what it looks like from a transport.
    #[cold]
    pub(super) fn explained(&self, error: CallError) -> CallError {
        match error {
            CallError::Failed(error) if self.is_closed() && is_end(error.kind()) => closed().into(),
            error => error,
        }
    }

    /// A channel was opened: counts it.
    pub(super) fn opened(&self, mut channel: Box<Channel>, registered: Registered) -> Box<Channel> {
        channel.registered = Some(registered);
        self.counters.channels_opened.fetch_add(1, Ordering::Relaxed);
        if self.config.window > 0 && !channel.has_window() {
            self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        channel
    }

    /// Takes a channel back that was away and is in order.
    pub(super) fn give_back(&self, mut channel: Box<Channel>) {
        let Some(guard) = channel.base_guard.take() else { return self.pool.put(channel) };
        let carries_calls = !channel.session.agreement.is_version1();
        match channel.transport {
            Transport::Socket(socket) if !socket.is_spoilt() => guard.give_back(socket),
            // The base connection is gone: dropping the guard ends it.
            _ => drop(guard),
        }
        if carries_calls {
            self.pool.released();
        } else {
            // That it is free again is not yet a channel.
            self.pool.wake_all();
        }
    }

    /// What the client did so far.
    pub(super) fn counters(&self) -> ClientCounters {
        let counters = &self.counters;
        ClientCounters {
            calls: self.pool.calls(),
            channels_opened: counters.channels_opened.load(Ordering::Relaxed),
            fallbacks: counters.fallbacks.load(Ordering::Relaxed),
            timeouts: counters.timeouts.load(Ordering::Relaxed),
            lost: counters.lost.load(Ordering::Relaxed),
            reconnects: counters.reconnects.load(Ordering::Relaxed),
        }
    }
}

/// Whether a call that ends so may have ended by a close of this side.
fn is_end(kind: ErrorKind) -> bool {
    use ErrorKind::{LocalShutdown, NoResource, PeerGone, PeerShutdown, System};
    matches!(kind, LocalShutdown | NoResource | PeerGone | PeerShutdown | System)
}
