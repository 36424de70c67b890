//! How an endpoint is set up.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::control::{WaitPolicy, Watched};
use crate::sys::peer_socket::PeerSocket;

/// What an endpoint is told when it is made, as a builder: each method takes the options and returns them changed.
///
/// ```
/// use flipcall::endpoint::{Options, WaitPolicy};
/// let options = Options::new().policy(WaitPolicy::Spin).base_protocol();
/// assert_eq!(options.get_policy(), WaitPolicy::Spin);
/// assert!(options.is_base_protocol() && !options.keeps_stale_bytes() && !options.is_watching());
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Options {
    pub(super) policy: WaitPolicy,
    pub(super) base_only: bool,
    pub(super) keep_stale_bytes: bool,
    pub(super) watched: Option<Watched>,
}

impl Options {
    /// Adaptive waits, every extension on offer, stale bytes zeroed, nobody watched.
    pub fn new() -> Self {
        Self::default()
    }

    /// How to wait for the peer.
    pub fn policy(mut self, policy: WaitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How the endpoint waits for the peer.
    #[must_use]
    pub fn get_policy(&self) -> WaitPolicy {
        self.policy
    }

    /// Offers and accepts no extension: the protocol is gVisor's, and every flip wakes the peer with a system call. Not needed for a
    /// peer that knows no extensions; the handshake finds that out.
    pub fn base_protocol(mut self) -> Self {
        self.base_only = true;
        self
    }

    /// Whether the endpoint speaks the base protocol and nothing else.
    #[must_use]
    pub fn is_base_protocol(&self) -> bool {
        self.base_only
    }

    /// Leaves the bytes of our own earlier, longer datagrams in the window. By default they are zeroed, so that the peer finds in
    /// the window what this datagram says and nothing older; what was written beyond the length of this one is zeroed in any case.
    pub fn keep_stale_bytes(mut self) -> Self {
        self.keep_stale_bytes = true;
        self
    }

    /// Whether the endpoint leaves bytes of its own earlier datagrams in the window.
    #[must_use]
    pub fn keeps_stale_bytes(&self) -> bool {
        self.keep_stale_bytes
    }

    /// Watches a unix stream socket or a pipe whose other end only the peer holds: when that end is closed, however the peer ended,
    /// waits return [`PeerGone`](crate::ErrorKind::PeerGone) within 100 ms. No byte of it is read, and what lies there unread for a second
    /// is a [`Violation`](crate::ErrorKind::Violation): it may be the other end itself, which then never hangs up. So nobody may send to it, unless you read what
    /// comes through a duplicate, at once. Without anything watched a dead peer shows as a deadline.
    pub fn watch_socket(mut self, socket: OwnedFd) -> Self {
        self.watched = Some(Watched::socket(PeerSocket::new(socket)));
        self
    }

    /// [`watch_socket`](Self::watch_socket) for a socket that is used elsewhere as well.
    pub(crate) fn watch_shared(mut self, socket: Arc<PeerSocket>) -> Self {
        self.watched = Some(Watched::shared(socket));
        self
    }

    /// [`watch_shared`](Self::watch_shared) for a socket whose owner reads at once whatever belongs there: anything else that lies there for
    /// a second is a violation.
    pub(crate) fn watch_read_at_once(mut self, socket: Arc<PeerSocket>) -> Self {
        self.watched = Some(Watched::read_at_once(socket));
        self
    }

    /// Watches the process behind a pidfd, as [`watch_socket`](Self::watch_socket) does to a socket.
    pub fn watch_process(mut self, pidfd: OwnedFd) -> Self {
        self.watched = Some(Watched::process(pidfd));
        self
    }

    /// Whether a socket or a process is watched, so that the peer's death is noticed.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.watched.is_some()
    }
}
