//! Starts a child process that inherits chosen descriptors under the numbers they have here.
#![allow(unsafe_code, reason = "a closure that runs between fork and exec")]

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::io::{Errno, FdFlags};

/// Makes every process that `command` starts inherit `fds`. They stay close-on-exec in this process, so that no other child gets
/// them by accident; the command keeps them open until it is dropped.
pub(crate) fn inherit(command: &mut Command, fds: Vec<Arc<OwnedFd>>) {
    let keep_open = move || {
        for fd in &fds {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure runs in the child between fork and exec. It makes one system call per descriptor and nothing else: no
    // allocation, no lock, no memory that another thread of the parent could have left half-written.
    unsafe { command.pre_exec(keep_open) };
}

/// Takes over a descriptor that this process was started with, and makes it close-on-exec.
///
/// That it was inherited, and that nothing else in this process uses it, is what the caller states: no check can prove it. What can be
/// checked is: not a standard stream, open, not close-on-exec (whatever opens descriptors in Rust sets that flag), never taken before.
/// Everything else is refused with EBADF.
pub(crate) fn adopt(number: RawFd) -> std::io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let mut taken = super::lock::lock(&TAKEN);
    if number <= STANDARD_ERROR || taken.contains(&number) {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the borrow ends before this function does, and a number that is not open makes the system call fail with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    if rustix::io::fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC) {
        return Err(Errno::BADF.into());
    }
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    taken.insert(number);
    // SAFETY: the descriptor is open, this function gives each number out once, and that nothing else owns it is the documented
    // statement of whoever names it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The last of the three descriptors that belong to the standard library.
const STANDARD_ERROR: RawFd = 2;
