//! The few socket calls that have no safe face elsewhere: a receive that takes every file descriptor the kernel installs, and three
//! options that are newer than the libraries.
//!
//! Why not a library's ancillary parser: a process that holds a duplicate of our end of a socket can turn `SO_PASSPIDFD` on, and then every
//! receive with a control buffer installs a descriptor in a control message that such parsers skip, which leaks it. Here all messages
//! that carry descriptors are known, and what is not asked for is closed.

#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::lift::{lift, lift_foreign};

/// The most descriptors that one `sendmsg` can carry (the kernel's `SCM_MAX_FD`).
pub(crate) const MAX_FDS_A_MESSAGE: usize = 253;

/// Room for control messages, in 8-byte words: 253 descriptors need 1,032 bytes; the rest is for credentials, a pidfd and a security
/// label that a peer may have turned on, so that only our own descriptor limit is left as a reason for truncation.
const CONTROL_WORDS: usize = 512;

/// `SO_PASSRIGHTS` (Linux 6.16): whether descriptors may be sent to this socket.
const SO_PASSRIGHTS: libc::c_int = 83;

/// `SO_PEERPIDFD` (Linux 6.5): a pidfd of the process that connected.
const SO_PEERPIDFD: libc::c_int = 77;

/// `SCM_PIDFD` (Linux 6.5): a control message with one descriptor.
const SCM_PIDFD: libc::c_int = 4;

/// What one receive brought besides the bytes and descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes written to the front of the buffers; 0 is the end of the stream.
    pub(crate) bytes: usize,
    /// The kernel had more control data than it could hand over: with a control buffer of this size, our descriptor limit; without one,
    /// anything at all.
    pub(crate) truncated: bool,
}

/// How a receive waits, and whether what it finds stays in the queue.
fn flags(patient: bool) -> libc::c_int {
    libc::MSG_CMSG_CLOEXEC | if patient { 0 } else { libc::MSG_DONTWAIT }
}

/// Receives, without waiting unless `patient`. Descriptors come close-on-exec and are appended to `fds`.
pub(crate) fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    fds: &mut Vec<OwnedFd>,
    patient: bool,
) -> io::Result<Received> {
    // Most receives bring no control data: zeroing the buffer would cost more than they do.
    let mut control = [const { MaybeUninit::<u64>::uninit() }; CONTROL_WORDS];
    let (message, received) = receive_message(socket, buffers, &mut control, flags(patient))?;
    if message.msg_controllen > 0 {
        fds.reserve(MAX_FDS_A_MESSAGE + 1);
        // SAFETY: the kernel has just filled `message` and `control`, which have not been touched since.
        unsafe { take_fds(&message, fds) };
    }
    Ok(received)
}

/// Fills the buffers with what the next receive would bring, and leaves it in the queue. Descriptors that would come with it show in
/// `truncated`, and stay.
pub(crate) fn peek(socket: BorrowedFd<'_>, buffers: &mut [IoSliceMut<'_>], patient: bool) -> io::Result<Received> {
    Ok(receive_message(socket, buffers, &mut [], flags(patient) | libc::MSG_PEEK)?.1)
}

/// One `recvmsg`, and the header that it left, whose control data lies in `control`.
fn receive_message(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    control: &mut [MaybeUninit<u64>],
    flags: libc::c_int,
) -> io::Result<(libc::msghdr, Received)> {
    // SAFETY: `msghdr` is a plain C struct for which all-zero bytes are a valid value (null pointers, zero lengths).
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // `IoSliceMut` has the layout of `iovec`, as its documentation guarantees.
    message.msg_iov = buffers.as_mut_ptr().cast();
    message.msg_iovlen = buffers.len() as _;
    if !control.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(control) as _;
    }
    // SAFETY:
    // - `message` points at `buffers`, exclusively borrowed slices that are exclusively borrowed themselves, with the layout of iovec;
    // - its control pointer and length describe exactly `control`, aligned to 8 as `cmsghdr` needs, or are null and 0;
    // - all of them outlive the call, and the kernel writes within the lengths it is given.
    let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    let truncated = message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok((message, Received { bytes, truncated }))
}

/// Takes ownership of every descriptor in the control data of `message`.
///
/// # Safety
/// `message` and its control buffer are as a successful `recvmsg` left them, and this is called once for them.
unsafe fn take_fds(message: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: for the whole walk:
    // - the control buffer is live and was written by the kernel, so `CMSG_FIRSTHDR` and `CMSG_NXTHDR` stay inside it and return
    //   headers whose `cmsg_len` bytes lie inside it;
    // - the payload of SCM_RIGHTS and SCM_PIDFD is an array of ints, `cmsg_len` minus the header long; it is read unaligned;
    // - each of these ints is a descriptor that the kernel installed for this call and nobody else knows: owning it is sound, and
    //   the contract says that it happens once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let kind = (*header).cmsg_type;
            if (*header).cmsg_level == libc::SOL_SOCKET && (kind == libc::SCM_RIGHTS || kind == SCM_PIDFD) {
                let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
                let count = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize) / 4;
                for index in 0..count {
                    let fd = OwnedFd::from_raw_fd(ptr::read_unaligned(data.add(index)));
                    if kind == libc::SCM_RIGHTS {
                        fds.push(lift_foreign(fd));
                    }
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

/// Allows or forbids descriptors on this socket, on sockets that it accepts too. `false`: this kernel has no such option.
pub(crate) fn set_pass_rights(socket: BorrowedFd<'_>, allowed: bool) -> io::Result<bool> {
    let value = libc::c_int::from(allowed);
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            ptr::from_ref(&value).cast(),
            size_of_val(&value) as _,
        )
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // No such option, or no such option for this family: a TCP or vsock stream carries no descriptors anyway.
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => Ok(false),
        // A filter refuses the call. What comes is received and closed, as before Linux 6.16.
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL) => Ok(false),
        _ => Err(error),
    }
}

/// Whether the kernel refuses descriptors that are sent to this socket.
pub(crate) fn forbids_rights(socket: BorrowedFd<'_>) -> bool {
    let mut allowed: libc::c_int = 1;
    let mut length = size_of_val(&allowed) as libc::socklen_t;
    // SAFETY: the pointers describe `allowed` and `length`, which outlive the call; the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            ptr::from_mut(&mut allowed).cast(),
            &mut length,
        )
    };
    result == 0 && allowed == 0
}

/// A pidfd of the process at the other end, `None` where the kernel cannot say.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut raw: libc::c_int = -1;
    let mut length = size_of_val(&raw) as libc::socklen_t;
    // SAFETY: the pointers describe `raw` and `length`, which outlive the call; the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            ptr::from_mut(&mut raw).cast(),
            &mut length,
        )
    };
    if result == 0 {
        // SAFETY: the call succeeded, so `raw` is a descriptor that the kernel has just installed for us alone.
        return lift(unsafe { OwnedFd::from_raw_fd(raw) }).map(Some);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::ENODATA | libc::ESRCH | libc::EINVAL) => Ok(None),
        // A filter refuses the call.
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Ok(None),
        _ => Err(error),
    }
}

/// Process, user and group id of the process at the other end of a unix socket. The process id is 0 where it is not visible from our
/// pid namespace, which is why this is not a library's typed call: its process ids cannot be 0.
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut credentials = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let mut length = size_of_val(&credentials) as libc::socklen_t;
    // SAFETY: the pointers describe `credentials` and `length`, which outlive the call; the kernel writes at most `length` bytes, and
    // any bytes are a valid `ucred`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut credentials).cast(),
            &mut length,
        )
    };
    if result == 0 { Ok(credentials) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that were sent on this socket and that the peer has not received yet (on unix sockets: the memory they occupy, which is 0
/// exactly when nothing is left).
pub(crate) fn unreceived(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int through the pointer, which is valid for the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, ptr::from_mut(&mut bytes)) };
    if result == 0 { Ok(bytes.max(0) as usize) } else { Err(io::Error::last_os_error()) }
}
