//! Shutting an endpoint down from anywhere.

use std::sync::{Arc, Weak};

use crossbeam_utils::CachePadded;

use crate::control::{CounterCells, Counters, shut_down};
use crate::sys::cancel::{Cancel, CancelWord};
use crate::sys::fork::Origin;
use crate::window::Window;

/// What an endpoint shares with its handles.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) window: Arc<Window>,
    pub(super) cancel: Arc<CancelWord>,
    pub(super) counters: Arc<CachePadded<CounterCells>>,
    /// In a forked child nothing of it is used.
    pub(super) origin: Origin,
}

impl Shared {
    pub(super) fn new(window: Window) -> Self {
        let origin = window.origin();
        Self { window: Arc::new(window), cancel: Arc::new(CancelWord::new()), counters: Arc::default(), origin }
    }

    pub(super) fn shut_down(&self) {
        if self.origin.is_here() {
            shut_down(self.window.mapping().header(), &self.cancel, &self.counters);
        }
    }

    pub(super) fn handle(&self) -> ShutdownHandle {
        ShutdownHandle {
            window: Arc::downgrade(&self.window),
            cancel: Arc::clone(&self.cancel),
            counters: Arc::clone(&self.counters),
            origin: self.origin,
        }
    }
}

/// Shuts an endpoint down, and reads its counters, from any thread at any time.
///
/// It does not keep the window mapped: once the endpoint is dropped, a shutdown has nothing left to do.
#[derive(Debug, Clone)]
pub struct ShutdownHandle {
    window: Weak<Window>,
    cancel: Arc<CancelWord>,
    counters: Arc<CachePadded<CounterCells>>,
    origin: Origin,
}

impl ShutdownHandle {
    /// Ends every call of both sides, the running ones and those to come: here with
    /// [`LocalShutdown`](crate::ErrorKind::LocalShutdown), at the peer with [`PeerShutdown`](crate::ErrorKind::PeerShutdown). A datagram
    /// that the peer has not taken yet is lost.
    ///
    /// Returns at once, whatever the peer does, and does not wait for the calls to return. Again is no error.
    /// In a child that was forked since it does nothing: the connection is the parent's.
    #[doc(alias = "Shutdown")]
    pub fn shut_down(&self) {
        if let Some(window) = self.window.upgrade().filter(|_| self.origin.is_here()) {
            shut_down(window.mapping().header(), &self.cancel, &self.counters);
        }
    }

    /// The peer is known to be dead: the running call ends, unless its answer is here, and so does every later one.
    pub(crate) fn peer_died(&self) {
        if self.origin.is_here() {
            self.cancel.raise(Cancel::PeerGone);
        }
    }

    /// Whether this side shut down, by whatever handle, or by dropping the endpoint.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.cancel.has(Cancel::Shutdown)
    }

    /// What the endpoint did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.snapshot()
    }
}
