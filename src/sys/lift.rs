//! Keeps descriptors of ours away from the numbers of the standard streams.
//!
//! A program that was started without one of them, or closed it, has its number free, and the next descriptor gets it. Whatever then
//! writes to the standard error, as a panic does, would write to a peer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The first number that is no standard stream.
const FIRST: i32 = 3;

/// The descriptor, above the numbers of the standard streams.
#[inline]
pub(crate) fn lift(fd: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let fd = fd.into();
    if fd.as_raw_fd() >= FIRST { Ok(fd) } else { copy(&fd) }
}

/// A copy of a descriptor, above those numbers and close-on-exec.
pub(crate) fn copy(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST)?)
}
