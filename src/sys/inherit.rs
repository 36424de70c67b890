//! Descriptors that a process inherits under chosen numbers: how a parent passes them on, and how the child comes to own them.
#![allow(unsafe_code, reason = "a number becomes a descriptor, and a closure runs between fork and exec")]

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::io::FdFlags;

use super::lock::lock;
use crate::error::{Error, Result};

/// The last of the three descriptors that belong to the standard library.
const STANDARD_ERROR: RawFd = 2;

/// The right to own descriptors that this process was started with, which are known by their numbers alone.
///
/// A number proves nothing: whatever a command line or the environment says, something else in the process may own that descriptor,
/// and two owners close it twice. So a program states once, with [`claim`](Self::claim), that nobody owns the inheritable ones, and
/// everything that takes them over after that is safe, whatever number it is told.
///
/// ```no_run
/// use flipcall::process::InheritedFds;
///
/// // SAFETY: this is the start of `main`: nothing in this process owns an inheritable descriptor above 2.
/// let inherited = unsafe { InheritedFds::claim() };
/// let socket = inherited.take(3)?;
/// # Ok::<(), flipcall::Error>(())
/// ```
#[derive(Debug)]
pub struct InheritedFds(());

impl InheritedFds {
    /// Claims the inheritable descriptors of this process, for as long as the value lives. Claim them at the start of `main`, take what
    /// is needed, and drop the value.
    ///
    /// # Safety
    /// From this call until the value is dropped, nothing else in the process owns or uses a descriptor above 2 that is inheritable,
    /// which means not close-on-exec.
    ///
    /// That is so at the start of `main`: the inheritable ones are what the parent left, and what opens descriptors in Rust makes them
    /// close-on-exec. It is no longer so once some code has cleared that flag, or has taken descriptors over in another way (socket
    /// activation, a job server) and left them inheritable.
    #[must_use]
    pub unsafe fn claim() -> Self {
        Self(())
    }

    /// Takes a descriptor over, such as one that is named on the command line. It becomes close-on-exec.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `number` is a standard stream, not open, taken before, or close-on-exec: then
    /// something in this process owns it.
    pub fn take(&self, number: RawFd) -> Result<OwnedFd> {
        self.take_if(number, |_| true)
    }

    /// As [`take`](Self::take), if the descriptor is the right one. One that is not stays as it is.
    pub(crate) fn take_if(&self, number: RawFd, is_right: impl FnOnce(BorrowedFd<'_>) -> bool) -> Result<OwnedFd> {
        static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
        let mut taken = lock(&TAKEN);
        if number <= STANDARD_ERROR || taken.contains(&number) {
            return Err(not_inherited(number));
        }
        // SAFETY: the borrow ends before this function does. If the number is not open, or something owns it, the flag below says so, and
        // the one system call that is made until then changes nothing.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = rustix::io::fcntl_getfd(fd);
        if !flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) || !is_right(fd) {
            return Err(not_inherited(number));
        }
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)
            .map_err(|errno| Error::system("cannot set close-on-exec", errno))?;
        taken.insert(number);
        // SAFETY:
        // - the descriptor is open and was inheritable a moment ago, so by the promise made to `claim` nothing else owns or uses it;
        // - every other call that could make an owner of it is in this function, which held the lock all the time, and finds the number
        //   taken from now on.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

fn not_inherited(number: RawFd) -> Error {
    let may = "it must be open, above 2, inheritable, and not taken before";
    Error::invalid(format!("descriptor {number} was not left to this process by its parent: {may}"))
}

/// Makes every process that `command` starts inherit `fds`, under the numbers they have here. They stay close-on-exec in this process, so
/// that no other child gets them by accident; the command keeps them open until it is dropped.
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
