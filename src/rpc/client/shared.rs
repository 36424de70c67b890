//! What all clones of a client share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::channel::{Channel, Transport};
use super::config::ClientConfig;
use super::pool::Pool;
use super::session::Session;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::stream::FrameSocket;
use crate::sys::fork::Origin;

/// What all clones of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pool: Pool,
    pub(super) session: Mutex<Arc<Session>>,
    /// Where to connect anew.
    pub(super) path: Option<PathBuf>,
    pub(super) config: ClientConfig,
    /// Bytes of window to ask for: 0 once windows turned out not to work here.
    pub(super) window: AtomicU32,
    /// The server had no more channels, and is not asked again before this.
    pub(super) full_until: Mutex<Option<Instant>>,
    pub(super) closed: AtomicBool,
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
    /// Times that windows were given up for sockets.
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
        let session = Session::begin(socket, &config, deadline)?;
        Ok(Arc::new(Self {
            pool: Pool::new(config.channels, config.window > 0),
            session: Mutex::new(session),
            path,
            window: AtomicU32::new(config.window),
            full_until: Mutex::default(),
            closed: AtomicBool::new(false),
            counters: CounterCells::default(),
            origin: Origin::here(),
            config,
        }))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Takes a channel back that was away and is in order.
    pub(super) fn give_back(&self, mut channel: Box<Channel>) {
        let Some(guard) = channel.base_guard.take() else { return self.pool.put(channel) };
        match channel.transport {
            Transport::Socket(socket) if !socket.is_spoilt() => guard.give_back(socket),
            // The base connection is gone: dropping the guard ends it.
            _ => drop(guard),
        }
        self.pool.released();
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
