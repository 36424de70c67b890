//! Descriptors that came with a message.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::sys::foreign::{self, Account};

/// Descriptors that came with a message. What is not taken is closed soon, on a thread of its own, because
/// closing a peer's file may block.
#[derive(Debug)]
#[doc(alias = "SCM_RIGHTS")]
pub struct Attachments {
    fds: Vec<OwnedFd>,
    lost: bool,
    account: Arc<Account>,
}

impl Attachments {
    pub(super) fn new(fds: Vec<OwnedFd>, lost: bool, account: &Arc<Account>) -> Self {
        Self { fds, lost, account: Arc::clone(account) }
    }

    /// How many descriptors are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fds.len()
    }

    /// Whether no descriptor is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fds.is_empty()
    }

    /// Whether the message had attachments that this process could not receive because its descriptor limit was reached. Then none is
    /// there, the message cannot be served, and the connection is as good as before.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// The next descriptor, in the order in which the peer listed them. It is foreign: check what it is before any other use.
    pub fn take_first(&mut self) -> Option<OwnedFd> {
        (!self.fds.is_empty()).then(|| self.fds.remove(0))
    }

    /// All descriptors that are left, in the order in which the peer listed them.
    pub fn take_all(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }
}

impl Drop for Attachments {
    fn drop(&mut self) {
        self.account.close(std::mem::take(&mut self.fds));
    }
}

/// Descriptors that peers sent and nobody took, and sockets with such in their queue, that this process has yet to close. They are closed
/// away from every thread that has a deadline, by 32 threads at most. Past 1,024 no more descriptors are received.
///
/// A figure that stays up tells of a peer whose files take long to close.
#[must_use]
pub fn unclosed_descriptors() -> usize {
    foreign::unclosed()
}

/// The error while the closer of this process can take no more descriptors.
#[cold]
pub(in crate::stream) fn exhausted() -> Error {
    let what = "no descriptor is taken while so many received ones wait for their close in this process";
    Error::new(ErrorKind::Refused, what)
}

/// The error of a connection on which a descriptor came whose close hangs.
#[cold]
pub(in crate::stream) fn close_hangs() -> Error {
    Error::new(ErrorKind::Refused, "closing a descriptor that the peer sent takes over a second")
}
