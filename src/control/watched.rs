//! What can be watched: sockets, pipes and processes.

use std::fmt::Debug;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::PollFlags;

use crate::error::Result;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket::set_pass_rights;
use crate::sys::socket_kind::check_hangs_up;

/// Something to watch.
pub(super) trait Watchable: AsFd + Debug + Send + Sync {
    /// How often it was read from, as far as anybody counts.
    fn reads(&self) -> u32 {
        0
    }
}

impl Watchable for OwnedFd {}

impl Watchable for PeerSocket {
    fn reads(&self) -> u32 {
        self.reads()
    }
}

/// What shows that a peer died.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(super) fd: Arc<dyn Watchable>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A socket or pipe whose other end only the peer holds, and that nobody reads: it hangs up.
    Alone,
    /// Such a socket, which is also used for something else.
    Shared,
    /// Such a socket, whose owner reads at once whatever may come.
    ReadAtOnce,
    /// The peer's pidfd: it becomes readable.
    Process,
}

impl Watched {
    /// A socket that nobody reads.
    pub(crate) fn socket(socket: PeerSocket) -> Self {
        Self { fd: Arc::new(socket), kind: Kind::Alone }
    }

    /// A socket that is also used for something else.
    pub(crate) fn shared(socket: Arc<PeerSocket>) -> Self {
        Self { fd: socket, kind: Kind::Shared }
    }

    /// A socket that is also used for something else, on which nothing ever stays unread that belongs there.
    pub(crate) fn read_at_once(socket: Arc<PeerSocket>) -> Self {
        Self { fd: socket, kind: Kind::ReadAtOnce }
    }

    /// A pidfd.
    pub(crate) fn process(pidfd: OwnedFd) -> Self {
        Self { fd: Arc::new(pidfd), kind: Kind::Process }
    }

    /// Checks a socket that nobody reads, and lets nobody send descriptors to it.
    pub(super) fn prepare(&self) -> Result<()> {
        if self.kind == Kind::Alone {
            check_hangs_up(self.fd.as_fd())?;
            // A kernel or a pipe that knows no such thing says so.
            let _ = set_pass_rights(self.fd.as_fd(), false);
        }
        Ok(())
    }
}

impl Kind {
    /// What to wait for. Hang-ups are reported whether asked for or not.
    pub(super) fn events(self) -> PollFlags {
        match self {
            Self::Shared => PollFlags::empty(),
            Self::Alone | Self::ReadAtOnce | Self::Process => PollFlags::IN,
        }
    }
}
