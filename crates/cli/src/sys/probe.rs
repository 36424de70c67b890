//! Tries of system calls that no safe wrapper makes, or makes without saying how they ended.
#![allow(unsafe_code, reason = "system calls with numbers and pointers to local variables")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

/// Linux 6.5 and 6.16; the C library has no names for them yet.
const SO_PEERPIDFD: libc::c_int = 77;
const SO_PASSRIGHTS: libc::c_int = 83;

fn result(returned: libc::c_int) -> Result<libc::c_int, Errno> {
    match returned {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        value => Ok(value),
    }
}

pub(crate) fn sched_yield() -> Result<(), Errno> {
    // SAFETY: it takes nothing and changes nothing.
    result(unsafe { libc::sched_yield() }).map(drop)
}

pub(crate) fn signal_mask() -> Result<(), Errno> {
    // SAFETY: two null pointers ask for nothing and set nothing.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), ptr::null_mut()) } {
        0 => Ok(()),
        number => Err(Errno::from_raw_os_error(number)),
    }
}

pub(crate) fn close_range() -> Result<(), Errno> {
    // SAFETY: no descriptor has so large a number, so nothing is closed.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, libc::c_uint::MAX, libc::c_uint::MAX, 0) };
    result(if closed == 0 { 0 } else { -1 }).map(drop)
}

/// How many descriptors this process may have.
pub(crate) fn descriptor_limit() -> Result<u64, Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live variable of the right type.
    result(unsafe { libc::getrlimit64(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(limit.rlim_cur)
}

pub(crate) fn wipe_on_fork() -> Result<(), Errno> {
    let page = memmap2::MmapMut::map_anon(rustix::param::page_size());
    let mut page = page.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
    // SAFETY: the range is a whole mapping of our own, and the advice only changes what a child sees of it.
    result(unsafe { libc::madvise(page.as_mut_ptr().cast(), page.len(), libc::MADV_WIPEONFORK) }).map(drop)
}

pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of_val(&credentials) as libc::socklen_t;
    let to = ptr::from_mut(&mut credentials).cast();
    // SAFETY: the pointers describe `credentials` and `length`, which outlive the call.
    result(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &mut length) })
        .map(drop)
}

pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut pidfd: libc::c_int = -1;
    let mut length = size_of_val(&pidfd) as libc::socklen_t;
    let to = ptr::from_mut(&mut pidfd).cast();
    // SAFETY: the pointers describe `pidfd` and `length`, which outlive the call.
    result(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, to, &mut length) })?;
    // SAFETY: the call succeeded, so the kernel has just installed this descriptor for us alone.
    drop(unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok(())
}

pub(crate) fn pass_rights(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let no: libc::c_int = 0;
    let (from, length) = (ptr::from_ref(&no).cast(), size_of_val(&no) as libc::socklen_t);
    // SAFETY: the pointer and the length describe `no`, which outlives the call.
    result(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, from, length) }).map(drop)
}

pub(crate) fn unread(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: this request writes one int through the pointer, which is valid for the call.
    result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, ptr::from_mut(&mut bytes)) }).map(drop)
}

/// Takes this thread out of what it shares with the others: working directory, root directory, umask.
pub(crate) fn own_umask() -> Result<(), Errno> {
    // SAFETY: CLONE_FS concerns no memory and no descriptor.
    result(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}
