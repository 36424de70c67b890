//! What a child does between fork and exec so that it ends with its parent and its last words are heard.
//!
//! **The end of the parent.** The obvious means, a parent-death signal (`PR_SET_PDEATHSIG`), comes when the *thread* ends that forked, and a
//! child cannot be let go of again. A thread of the library's own that forks for all others would give every child its own CPUs,
//! priority, namespaces and system call filter, in place of those of the thread that asked. So the child inherits the reading end of a
//! pipe whose only writing end the parent holds, and has the kernel send SIGKILL when that is closed: the pipe's owner is the child
//! (`F_SETOWN`), its signal SIGKILL (`F_SETSIG`), and `O_ASYNC` asks for it. All three belong to the open file, so they outlive exec,
//! and the parent can take them back.
#![allow(unsafe_code, reason = "closures that run between fork and exec")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::io::FdFlags;

/// Has the children that `command` starts be killed when the last writing end of the pipe is closed of which `lifeline` is the reading
/// end.
pub(crate) fn kill_at_hang_up(command: &mut Command, lifeline: Arc<OwnedFd>) {
    let arm = move || {
        rustix::io::fcntl_setfd(&lifeline, FdFlags::empty())?;
        // SAFETY: the descriptor is open as long as the closure that holds it, and the arguments are numbers; `getpid` takes none.
        let set = unsafe {
            let fd = lifeline.as_raw_fd();
            [
                libc::fcntl(fd, libc::F_SETOWN, libc::getpid()),
                libc::fcntl(fd, F_SETSIG, libc::SIGKILL),
                libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC),
            ]
        };
        // A parent that is dead already needs no check: its writing end is closed for good when exec closes our copy of it.
        if set.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls and nothing else: no allocation, no lock, no
    // memory that another thread of the parent could have left half-written.
    unsafe { command.pre_exec(arm) };
}

/// The child that holds `lifeline` outlives this process.
pub(crate) fn let_live(lifeline: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the arguments are numbers.
    let set = unsafe { libc::fcntl(lifeline.as_raw_fd(), libc::F_SETFL, 0) };
    if set == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends the standard error of the children that `command` starts to `pipe`, unless the command gave them one of their own: then it is
/// another file than ours.
pub(crate) fn divert_stderr(command: &mut Command, pipe: OwnedFd) {
    let Ok(ours) = rustix::fs::fstat(io::stderr()) else { return };
    let divert = move || {
        // SAFETY: the standard streams are open in a child, and nothing in it owns them.
        let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
        let theirs = rustix::fs::fstat(stderr)?;
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino) {
            return Ok(());
        }
        // SAFETY: both numbers are those of open descriptors; that the second one is replaced is what the call is for.
        let set = unsafe { libc::dup2(pipe.as_raw_fd(), libc::STDERR_FILENO) };
        if set == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: as in `kill_at_hang_up`.
    unsafe { command.pre_exec(divert) };
}

/// Chooses the signal that `O_ASYNC` sends; the `libc` crate has no name for it.
const F_SETSIG: libc::c_int = 10;
