//! The one receive of sockets at which a peer sits.
//!
//! It always has room for descriptors. Without, the kernel drops those that come, on the thread that receives: the last close of a TCP
//! socket that lingers then blocks it for as long as the peer told it to.

use std::io::{self, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::foreign;
use super::socket::{Received, peek, receive_with_fds};

/// How a receive ended that brought nothing.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// Descriptors are next, and the [closer](foreign) can take no more: they stay in the queue.
    Exhausted,
    /// The receive failed.
    System(io::Error),
}

/// Receives once, without waiting unless `patient`. Descriptors are appended to `fds`; whoever does not want them hands them to the
/// closer. While that is exhausted, only bytes come that no descriptor came with.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    fds: &mut Vec<OwnedFd>,
    patient: bool,
) -> Result<Received, ReceiveError> {
    if foreign::is_exhausted() {
        return receive_bytes(socket, buffers, fds, patient);
    }
    receive_with_fds(socket, buffers, fds, patient).map_err(ReceiveError::System)
}

#[cold]
fn receive_bytes(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    fds: &mut Vec<OwnedFd>,
    patient: bool,
) -> Result<Received, ReceiveError> {
    let next = peek(socket, buffers, patient).map_err(ReceiveError::System)?;
    if next.truncated {
        return Err(ReceiveError::Exhausted);
    }
    // Behind these bytes there may be others, with descriptors.
    let mut left = next.bytes;
    let mut within: Vec<IoSliceMut<'_>> = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let room = buffer.len().min(left);
        left -= room;
        within.push(IoSliceMut::new(&mut buffer[..room]));
    }
    receive_with_fds(socket, &mut within, fds, false).map_err(ReceiveError::System)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    /// Issue 13, B10.
    #[test]
    fn while_the_closer_is_exhausted_bytes_come_and_descriptors_stay() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"plain").unwrap();
        let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = [null.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&theirs, &[io::IoSlice::new(b"with")], &mut control, SendFlags::empty()).unwrap();
        let (mut first, mut second, mut fds) = ([0; 2], [0; 64], Vec::new());
        let mut receive = |fds: &mut Vec<OwnedFd>| {
            receive_bytes(ours.as_fd(), &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)], fds, false)
        };
        // A receive that may bring descriptors brings the bytes in front of them, too: none of it comes.
        assert!(matches!(receive(&mut fds), Err(ReceiveError::Exhausted)));
        assert!(fds.is_empty());
        let received = receive_with_fds(ours.as_fd(), &mut [IoSliceMut::new(&mut [0; 5])], &mut fds, false).unwrap();
        assert_eq!((received.bytes, fds.len()), (5, 0));
        assert!(matches!(receive(&mut fds), Err(ReceiveError::Exhausted)));
        let mut whole = [0; 64];
        receive_with_fds(ours.as_fd(), &mut [IoSliceMut::new(&mut whole)], &mut fds, false).unwrap();
        assert_eq!(fds.len(), 1);
        theirs.write_all(b"more").unwrap();
        assert!(matches!(receive(&mut fds), Ok(Received { bytes: 4, truncated: false })));
        assert_eq!((&first, &second[..2], fds.len()), (b"mo", &b"re"[..], 1));
    }
}
