//! Keeps descriptors of ours away from the numbers of the standard streams.
//!
//! A program that was started without one of them, or closed it, has its number free, and the next descriptor gets it. Whatever then
//! writes to the standard error, as a panic does, would write to a peer.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::foreign;

/// The first number that is no standard stream.
const FIRST: i32 = 3;

/// The descriptor, above the numbers of the standard streams.
#[inline]
pub(crate) fn lift(fd: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let fd = fd.into();
    // The standard library duplicates to numbers above those.
    if is_above(&fd) { Ok(fd) } else { fd.try_clone() }
}

/// As [`lift`], for a descriptor that a peer sent. Without a free number it stays where it is.
pub(crate) fn lift_foreign(fd: OwnedFd) -> OwnedFd {
    if is_above(&fd) {
        return fd;
    }
    let Ok(lifted) = fd.try_clone() else { return fd };
    foreign::close([fd]);
    lifted
}

fn is_above(fd: &OwnedFd) -> bool {
    fd.as_raw_fd() >= FIRST
}
