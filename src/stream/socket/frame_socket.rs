//! A socket that carries frames, with a deadline on every wait.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//! use flipcall::Deadline;
//! use flipcall::stream::FrameSocket;
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (mut ours, mut theirs) = (FrameSocket::new(ours), FrameSocket::new(theirs));
//! let deadline = Deadline::after(Duration::from_secs(5));
//!
//! ours.send(0x0201, b"hello", deadline)?;
//! let message = theirs.receive(deadline)?.expect("the peer has not closed");
//! assert_eq!((message.tag, message.payload), (0x0201, &b"hello"[..]));
//!
//! drop(ours);
//! assert!(theirs.receive(deadline)?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::Shutdown;

use super::inbox::Inbox;
use super::peer::Peer;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::fork::Origin;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket_kind::check_stream;

/// The largest payload that a [`FrameSocket`] accepts unless told otherwise, in bytes: the default for RPC messages.
pub const DEFAULT_MAX_FRAME: u32 = 64 * 1024 * 1024;

/// How long a frame that has begun may take to come in, and 64 KiB of a write to go out, unless told otherwise. A peer that sends or
/// takes a byte now and then is cut off by this; an honest one on a loaded machine is not.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// A blocking stream socket that carries frames.
///
/// It works whatever flags and options the socket has, or is given by others meanwhile. After a violation, a broken connection
/// or a frame that was cut short the socket is poisoned: it is shut down both ways, and every later call returns that error.
pub struct FrameSocket {
    pub(super) socket: Arc<PeerSocket>,
    pub(super) inbox: Inbox,
    pub(super) patience: Duration,
    poison: Option<Error>,
    /// The process that made it: in a forked child it is used for nothing.
    pub(super) origin: Origin,
    /// Our direction was ended.
    pub(super) finished: bool,
    /// Nobody else holds our open file description.
    pub(super) unshared: bool,
    /// How long a transfer is tried again before it sleeps.
    pub(super) linger: Duration,
    /// The process whose end is the end of the connection.
    pub(super) peer: Option<Arc<Peer>>,
}

impl FrameSocket {
    /// Frames on a connected stream socket (unix, vsock, TCP), with the default limits and without attachments. Others may hold
    /// duplicates of it: see [`assume_unshared`](Self::assume_unshared).
    ///
    /// Every call fails with [`ErrorKind::InvalidInput`] if it is not a stream socket.
    #[must_use]
    pub fn new(socket: impl Into<OwnedFd>) -> Self {
        let socket = socket.into();
        let poison = check_stream(socket.as_fd()).err();
        let (socket, inbox) = (PeerSocket::new(socket), Inbox::new(DEFAULT_MAX_FRAME, DEFAULT_PATIENCE));
        Self {
            socket: Arc::new(socket),
            inbox,
            patience: DEFAULT_PATIENCE,
            poison,
            origin: Origin::here(),
            finished: false,
            unshared: false,
            linger: Duration::ZERO,
            peer: None,
        }
    }

    /// Changes the largest payload accepted, in bytes, from the next frame on.
    #[must_use]
    pub fn with_max_frame(mut self, bytes: u32) -> Self {
        self.set_max_frame(bytes);
        self
    }

    /// The largest payload accepted, in bytes.
    #[must_use]
    pub fn max_frame(&self) -> u32 {
        self.inbox.max_frame()
    }

    /// [`with_max_frame`](Self::with_max_frame) in place.
    pub(crate) fn set_max_frame(&mut self, bytes: u32) {
        self.inbox.decoder().set_maximum(bytes);
    }

    /// Changes how long a frame that has begun may take to come in, and 64 KiB of a write to go out.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.set_patience(patience);
        self
    }

    /// [`with_patience`](Self::with_patience) in place.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
        self.inbox.set_patience(patience);
    }

    /// How long a frame that has begun may take to come in, and 64 KiB of a write to go out.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Ends waits for messages with [`ErrorKind::PeerGone`] once the process of `peer` has ended, even if the socket does not hang up:
    /// somebody else may hold its other end, or that may lie in a queue that nobody reads.
    pub(crate) fn end_with(&mut self, peer: &Arc<Peer>) {
        self.peer = peer.process().is_some().then(|| Arc::clone(peer));
    }

    /// Sets how long a transfer that has to wait is tried again before it sleeps: where the peer is known to be at the other half of it, a
    /// wake costs more than the wait.
    pub(crate) fn set_linger(&mut self, time: Duration) {
        self.linger = time;
    }

    /// Allows the peer to attach descriptors to its messages, or takes that back. At first they are not taken: what comes is closed,
    /// away from this thread, and the frame that announces it is a message of tag [`ATTACH`](crate::stream::ATTACH) like any other. Where the kernel can
    /// (`SO_PASSRIGHTS`, Linux 6.16), the peer's `sendmsg` fails with `EPERM` instead once this was called with `false`, and from the
    /// beginning on a socket of a [`Listener`](crate::stream::Listener). So allow them first, and then let the peer know that it may.
    ///
    /// # Errors
    /// [`ErrorKind::System`] if the socket refuses the option, or the error that poisoned it.
    pub fn set_attachments(&mut self, allowed: bool) -> Result<()> {
        self.origin.check()?;
        self.check()?;
        self.inbox.set_attachments(self.socket.as_fd(), allowed)
    }

    /// Says that the connection ends when this is dropped, even if somebody holds a duplicate of the socket.
    pub(crate) fn end_at_drop(self) -> Self {
        self.socket.set_end_at_drop(true);
        self
    }

    /// Whether the socket can still be used: `false` once an error has poisoned it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.poison.is_none() && self.origin.is_here()
    }

    pub(super) fn check(&self) -> Result<()> {
        self.origin.check()?;
        self.poison.clone().map_or(Ok(()), Err)
    }

    /// Ends the socket for `error`, which every later call returns.
    #[cold]
    pub(super) fn poison(&mut self, error: Error) -> Error {
        if self.poison.is_none() && self.origin.is_here() {
            self.poison = Some(error.clone());
            // The only failure is that the connection is over already.
            let _ = rustix::net::shutdown(&*self.socket, Shutdown::Both);
        }
        error
    }

    /// Ends the socket inside a frame. A deadline is reported as one, and later as our own shutdown.
    #[cold]
    pub(super) fn cut(&mut self, error: Error) -> Error {
        let lasting = match error.kind() {
            ErrorKind::Timeout => {
                Error::caused(ErrorKind::LocalShutdown, "a deadline cut a frame short", error.clone())
            }
            _ => error.clone(),
        };
        self.poison(lasting);
        error
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for FrameSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameSocket")
            .field("socket", &self.socket)
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}
