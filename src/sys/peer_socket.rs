//! A socket with a peer at its other end.
//!
//! Descriptors that the peer sent and nobody received lie in the queue of the socket. Its last close closes them as well, on the thread
//! that closes it: a TCP socket that lingers among them blocks that thread for as long as the peer told it to. So such a socket is closed
//! by the [closer](super::foreign), unless nothing lies in its queue and nothing can come any more.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::foreign;
use super::fork::Origin;
use super::socket::forbids_rights;

/// Owns a socket whose queue the peer fills. Dropping it never blocks.
#[derive(Debug)]
pub(crate) struct PeerSocket {
    /// Taken by the drop alone.
    fd: Option<OwnedFd>,
    /// Whether dropping this ends the connection; else others may go on with a duplicate.
    ends: AtomicBool,
    /// How often something was received.
    reads: AtomicU32,
    origin: Origin,
}

impl PeerSocket {
    /// A socket of which others may hold duplicates, which they go on using.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd: Some(fd), ends: AtomicBool::new(false), reads: AtomicU32::new(0), origin: Origin::here() }
    }

    /// Says whether the connection ends when this is dropped, whoever holds a duplicate. It does not end for a forked child's drop.
    pub(crate) fn set_end_at_drop(&self, ends: bool) {
        self.ends.store(ends, Ordering::Relaxed);
    }

    /// Something was received; one thread does that at a time.
    #[inline]
    pub(crate) fn note_read(&self) {
        self.reads.store(self.reads.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How often something was received.
    pub(crate) fn reads(&self) -> u32 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Whether a descriptor may lie in the queue, or come before the socket is closed. Ends the connection if that is to be.
    fn may_hold_descriptors(&self, fd: &OwnedFd) -> bool {
        let ends = self.ends.load(Ordering::Relaxed);
        if !self.origin.is_here() {
            // The connection is the parent's: it is not shut down, and the parent most likely has the last descriptor.
        } else if ends {
            // After this nothing more can be sent to it. It fails only if the connection is over already.
            let _ = rustix::net::shutdown(fd, Shutdown::Both);
        } else if !forbids_rights(fd.as_fd()) {
            return true;
        }
        match rustix::io::ioctl_fionread(fd) {
            // No descriptor travels without a byte.
            Ok(bytes) => bytes > 0,
            // It listens: connections that nobody accepted forbid descriptors, too, since they inherit that.
            Err(Errno::INVAL) => ends,
            Err(_) => true,
        }
    }
}

impl AsFd for PeerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("it is there until the drop").as_fd()
    }
}

impl Drop for PeerSocket {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if self.may_hold_descriptors(&fd) {
            foreign::close([fd]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_of_ours_alone_with_an_empty_queue_is_closed_at_once() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let socket = PeerSocket::new(ours.into());
        socket.set_end_at_drop(true);
        drop(socket);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        assert_eq!(theirs.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_duplicate_that_somebody_else_holds_lives_on() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut duplicate = ours.try_clone().unwrap();
        drop(PeerSocket::new(ours.into()));
        theirs.write_all(b"x").unwrap();
        duplicate.read_exact(&mut [0]).unwrap();
        duplicate.write_all(b"y").unwrap();
    }

    #[test]
    fn what_lies_in_the_queue_is_closed_by_the_closer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        drop(PeerSocket::new(ours.into()));
        // Unread bytes reset the connection once it is closed.
        assert_eq!(theirs.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    }
}
