//! What the server knows about a thread that serves a transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::endpoint::ShutdownHandle;
use crate::rpc::transport::hang_up;
use crate::sys::fork::Origin;
use crate::sys::peer_socket::PeerSocket;

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const LAST_ANSWER: u8 = 2;

/// A transport that is served, as others see it.
#[derive(Debug)]
pub(super) struct Worker {
    state: CachePadded<AtomicU8>,
    /// Calls served; only the worker's thread writes it.
    calls: AtomicU64,
    /// Its handler closes the server: its transport ends by itself, after the answer.
    spared: AtomicBool,
    window: Option<ShutdownHandle>,
    socket: Arc<PeerSocket>,
    origin: Origin,
    /// Bytes of the window.
    pub(super) window_bytes: u64,
}

impl Worker {
    pub(super) fn new(window: Option<ShutdownHandle>, socket: Arc<PeerSocket>, window_bytes: u64) -> Self {
        let (state, calls) = (CachePadded::new(AtomicU8::new(IDLE)), AtomicU64::new(0));
        Self { state, calls, spared: AtomicBool::new(false), window, socket, origin: Origin::here(), window_bytes }
    }

    /// The transport's socket.
    pub(super) fn socket(&self) -> Arc<PeerSocket> {
        Arc::clone(&self.socket)
    }

    /// A call begins; the worker then reads the server's mark that it is closing. No fence stands between the two: the closer
    /// waits 100 ms between its mark and its poll of the workers, in which every store becomes visible. A fence would cost each call
    /// as much as encoding its answer.
    #[inline]
    pub(super) fn begin(&self) {
        self.state.store(BUSY, Ordering::Release);
    }

    /// The call's answer went out.
    #[inline]
    pub(super) fn end(&self) {
        self.count();
        self.state.store(IDLE, Ordering::Release);
    }

    /// A call was answered.
    #[inline]
    pub(super) fn count(&self) {
        self.calls.store(self.calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The last answer went out, and is left for the client to take.
    pub(super) fn leave(&self) {
        self.state.store(LAST_ANSWER, Ordering::Release);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.load(Ordering::Acquire) == IDLE
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// A closer leaves it to itself.
    pub(super) fn spare(&self) {
        self.spared.store(true, Ordering::Release);
    }

    pub(super) fn is_spared(&self) -> bool {
        self.spared.load(Ordering::Acquire)
    }

    /// Ends the transport from outside.
    pub(super) fn kill(&self) {
        if let Some(window) = &self.window {
            window.shut_down();
        }
        hang_up(&self.socket, self.origin);
    }
}
