//! Writing frames under a deadline: header, payload and descriptors in one system call, and a peer that does not take them cut off.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::progress::{PROGRESS_BYTES, Progress};
use super::readiness::{self, WaitEnd};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::stream::frame::attach::MAX_ATTACHMENTS;
use crate::stream::frame::violation::FrameViolation;

/// What one write may wait for in the kernel: a frame of 1 MiB, 22 buffers of 48 KiB, each of which may take a slice of 100 ms if the
/// peer wants it so. That is why a deadline is far only from 3 s on.
const PATIENT_BYTES: usize = 1024 * 1024 + 64;

/// How a write ended that did not finish.
pub(in crate::stream) struct WriteError {
    /// What to tell the caller.
    pub(in crate::stream) error: Error,
    /// Whether nothing at all was sent, so that the stream is as it was.
    pub(in crate::stream) untouched: bool,
}

/// Sends what it can of `bytes` without waiting.
pub(in crate::stream) fn try_send(socket: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match rustix::net::send(socket.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Sends what it can of `slices` without waiting.
pub(in crate::stream) fn try_send_slices(socket: impl AsFd, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
    try_send_with_fds(socket.as_fd(), slices, &[], SendFlags::DONTWAIT)
}

/// Sends what it can, without waiting if `waiting` says so; `fds` ride on the first byte. A signal that ended a wait is reported: its time
/// counts, or signals in a row would put a deadline off.
fn try_send_with_fds(
    socket: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    waiting: SendFlags,
) -> Result<usize, Errno> {
    let (flags, waits) = (waiting | SendFlags::NOSIGNAL, !waiting.contains(SendFlags::DONTWAIT));
    loop {
        if let ([only], []) = (slices, fds) {
            match rustix::net::send(socket, only, flags) {
                Err(Errno::INTR) if !waits => continue,
                result => return result,
            }
        }
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_ATTACHMENTS))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOMANYREFS);
        }
        match sendmsg(socket, slices, &mut control, flags) {
            Err(Errno::INTR) if !waits => {}
            result => return result,
        }
    }
}

/// Sends all of `slices`, waiting where the socket is full: until `deadline`, and for each 64 KiB at most `patience`.
pub(in crate::stream) fn send_all(
    socket: BorrowedFd<'_>,
    mut slices: &mut [IoSlice<'_>],
    mut fds: &[BorrowedFd<'_>],
    deadline: &mut Deadline,
    patience: Duration,
    unshared: bool,
    linger: Duration,
) -> Result<(), WriteError> {
    let mut left: usize = slices.iter().map(|slice| slice.len()).sum();
    let (mut sent, mut idle, mut progress) = (0, None, Progress::default());
    // On a socket of ours alone the first attempt may wait in the kernel: not for so many buffers that a deadline could be missed.
    let far = patience >= readiness::FAR && deadline.is_beyond(readiness::FAR);
    let patient = unshared && far && linger.is_zero() && left <= PATIENT_BYTES;
    if patient && left > PROGRESS_BYTES {
        // It may wait for several buffers, and all of that counts.
        deadline.resolve();
    }
    let mut waiting = if patient { SendFlags::empty() } else { SendFlags::DONTWAIT };
    loop {
        let attempt = try_send_with_fds(socket, slices, fds, waiting);
        waiting = SendFlags::DONTWAIT;
        let full = match attempt {
            Ok(count) => {
                (sent, left) = (sent + count, left - count);
                progress.advance(count);
                (fds, idle) = (&[], None);
                if left == 0 {
                    return Ok(());
                }
                IoSlice::advance_slices(&mut slices, count);
                // It took less than all because it is full: another attempt now would be for nothing.
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(readiness::transfer_error("cannot send to the socket", errno)),
        };
        if full.is_ok() && readiness::lingers(linger, &mut idle) {
            continue;
        }
        let room = full.and_then(|()| wait_for_room(socket, &mut progress, deadline, patience));
        if let Err(error) = room {
            return Err(WriteError { error, untouched: sent == 0 });
        }
    }
}

/// Waits until the socket takes bytes again.
fn wait_for_room(
    socket: BorrowedFd<'_>,
    progress: &mut Progress,
    deadline: &mut Deadline,
    patience: Duration,
) -> Result<()> {
    progress.stall();
    let end = WaitEnd::earliest(deadline, [progress.due(patience)]);
    match readiness::wait(socket, PollFlags::OUT, end.at())? {
        true => Ok(()),
        false if end.is_deadline() => {
            Err(readiness::timeout("the deadline passed before the peer took all of a frame"))
        }
        false => Err(FrameViolation::WriteTooSlow.into()),
    }
}
