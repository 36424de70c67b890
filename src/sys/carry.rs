//! Carries the pipes of a new child from the descriptor table of the thread that spawned it to the program's.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::lift::lift;

/// The two ends of the carrier. Each message is one byte: which pipes it carries.
pub(super) fn pair() -> io::Result<[OwnedFd; 2]> {
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok([lift(near)?, lift(far)?])
}

/// Sends the child's pipes, which are closed here and gone from the child. `false`: it has none, and nothing was sent.
pub(super) fn send_streams(carrier: BorrowedFd<'_>, child: &mut Child) -> io::Result<bool> {
    let streams: [Option<OwnedFd>; 3] =
        [child.stdin.take().map(Into::into), child.stdout.take().map(Into::into), child.stderr.take().map(Into::into)];
    let which = streams.iter().enumerate().fold(0, |bits, (n, stream)| bits | (u8::from(stream.is_some()) << n));
    let fds: Vec<_> = streams.iter().flatten().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if fds.is_empty() {
        return Ok(false);
    }
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(carrier, &[IoSlice::new(&[which])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(true)
}

/// Receives the pipes into the child. They were sent before.
pub(super) fn receive_streams(carrier: BorrowedFd<'_>, child: &mut Child) -> io::Result<()> {
    let mut which = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(carrier, &mut [IoSliceMut::new(&mut which)], &mut ancillary, flags)?;
    let rights = |message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    };
    let mut fds = ancillary.drain().filter_map(rights).flatten().map(lift);
    let mut next = |bit: u8| match which[0] & (1 << bit) {
        0 => Ok(None),
        // The kernel drops what our table has no room for.
        _ => fds.next().transpose()?.map(Some).ok_or(io::Error::from(rustix::io::Errno::MFILE)),
    };
    let (stdin, stdout, stderr) = (next(0)?, next(1)?, next(2)?);
    (child.stdin, child.stdout, child.stderr) = (stdin.map(Into::into), stdout.map(Into::into), stderr.map(Into::into));
    Ok(())
}
