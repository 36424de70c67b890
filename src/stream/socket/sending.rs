//! How a [`FrameSocket`] sends messages.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use super::frame_socket::FrameSocket;
use super::outbox::{WriteError, send_all};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::attach::attach_frame;
use crate::stream::frame::header::Header;

/// Slices of a message that fit on the stack: header and what RPC puts before a payload.
const SLICES_ON_STACK: usize = 6;

/// A payload of at most this many bytes is copied behind its header: sending one slice costs less than sending two.
const COPIED: usize = 512;

impl FrameSocket {
    /// Sends a message.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the deadline passed: if nothing of the message was sent, the socket is as it was, else it is poisoned
    /// (see [`is_usable`](Self::is_usable)). [`ErrorKind::PeerGone`] if the connection is over, [`ErrorKind::Violation`] if the peer
    /// stopped taking what is sent, [`ErrorKind::InvalidInput`] for a payload of 4 GiB or more, or after [`finish`](Self::finish).
    pub fn send(&mut self, tag: u16, payload: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        self.send_vectored(tag, &[payload], deadline)
    }

    /// Sends a message whose payload is the concatenation of `slices`, without copying them together.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_vectored(&mut self, tag: u16, slices: &[&[u8]], deadline: impl Into<Deadline>) -> Result<()> {
        self.send_message(tag, slices, &[], &[], deadline.into())
    }

    /// Sends a message with descriptors: an ATTACH frame and the message, in one system call if the socket has room.
    ///
    /// # Errors
    /// As [`send`](Self::send). [`ErrorKind::InvalidInput`] for none or over [`MAX_ATTACHMENTS`](crate::stream::MAX_ATTACHMENTS) descriptors. [`ErrorKind::System`] if
    /// the kernel refuses the descriptors (`EPERM`: the peer does not take any; `ETOOMANYREFS`: too many are under way): nothing was
    /// sent then.
    #[doc(alias = "SCM_RIGHTS")]
    pub fn send_with_fds(
        &mut self,
        tag: u16,
        slices: &[&[u8]],
        fds: &[BorrowedFd<'_>],
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        let attach = attach_frame(fds.len())?;
        self.send_message(tag, slices, &attach, fds, deadline.into())
    }

    fn send_message(
        &mut self,
        tag: u16,
        slices: &[&[u8]],
        attach: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<()> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let header = Header::of_payload(tag, length)?.encode();
        let heads = [attach, &header];
        if fds.is_empty() && length <= COPIED {
            let mut frame = [0; Header::SIZE + COPIED];
            let mut end = 0;
            for slice in heads.iter().chain(slices) {
                frame[end..end + slice.len()].copy_from_slice(slice);
                end += slice.len();
            }
            return self.write(&mut [IoSlice::new(&frame[..end])], &[], deadline);
        }
        let all = heads.iter().chain(slices);
        if slices.len() + heads.len() <= SLICES_ON_STACK {
            let mut gathered = [IoSlice::new(&[]); SLICES_ON_STACK];
            let count = all.zip(&mut gathered).map(|(slice, place)| *place = IoSlice::new(slice)).count();
            return self.write(&mut gathered[..count], fds, deadline);
        }
        let mut gathered: Vec<_> = all.map(|slice| IoSlice::new(slice)).collect();
        self.write(&mut gathered, fds, deadline)
    }

    pub(super) fn write(
        &mut self,
        slices: &mut [IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
        mut deadline: Deadline,
    ) -> Result<()> {
        self.check()?;
        if self.finished {
            // Refused here: the kernel's EPIPE would be taken for an end of the peer, and end its direction as well.
            return Err(Error::invalid("nothing can be sent after finish() ended this direction"));
        }
        let (patience, linger) = (self.patience, self.linger);
        match send_all(self.socket.as_fd(), slices, fds, &mut deadline, patience, self.unshared, linger) {
            Ok(()) => Ok(()),
            // The kernel refused the descriptors, or time ran out before the first byte: the stream is whole.
            Err(WriteError { error, untouched: true })
                if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::System) =>
            {
                Err(error)
            }
            Err(WriteError { error, .. }) => Err(self.cut(error)),
        }
    }

    /// Sends the header of a frame whose payload the caller sends.
    pub(super) fn send_header(&mut self, header: Header, deadline: Deadline) -> Result<()> {
        self.write(&mut [IoSlice::new(&header.encode())], &[], deadline)
    }
}
