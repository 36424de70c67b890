//! A payload that follows its announcement on the socket, in frames of 1 MiB, of which the last has the rest.

use super::head::WindowHead;
use super::number::{BULK, BULK_DATAGRAM, BULK_FRAME, FLAG_BULK, WINDOW_HEAD};
use super::outgoing::Uneven;
use crate::rpc::CallViolation;

/// The datagram that announces a payload of `length` bytes.
pub fn announcement(message: WindowHead, length: u64) -> [u8; BULK_DATAGRAM] {
    let mut datagram = [0; BULK_DATAGRAM];
    datagram[..WINDOW_HEAD].copy_from_slice(&WindowHead { flags: FLAG_BULK, ..message }.encode());
    datagram[WINDOW_HEAD..].copy_from_slice(&length.to_ne_bytes());
    datagram
}

/// Payload bytes of the frame that begins `left` bytes before the payload's end.
fn frame_size(left: u64) -> usize {
    usize::try_from(left).unwrap_or(BULK_FRAME).min(BULK_FRAME)
}

/// Cuts a payload into frames.
#[derive(Debug)]
pub struct BulkSender {
    /// Payload bytes that are still to come.
    left: u64,
    /// Those of them that belong to the frame whose header came last.
    frame: usize,
}

/// What goes to the socket next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkStep {
    /// The header of a frame of so many payload bytes.
    Header(u32),
    /// So many of the bytes that wait, at least one.
    Payload(usize),
}

impl BulkSender {
    /// A payload of `length` bytes.
    pub fn new(length: u64) -> Self {
        Self { left: length, frame: 0 }
    }

    /// What goes out next, when `waiting` bytes of the payload wait, at least one.
    ///
    /// # Errors
    /// The payload turned out longer than it was announced.
    pub fn step(&mut self, waiting: usize) -> Result<BulkStep, Uneven> {
        if self.frame == 0 {
            if self.left == 0 {
                return Err(Uneven);
            }
            self.frame = frame_size(self.left);
            return Ok(BulkStep::Header(self.frame as u32));
        }
        let now = waiting.min(self.frame);
        self.frame -= now;
        self.left -= now as u64;
        Ok(BulkStep::Payload(now))
    }

    /// Whether the whole payload was taken.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// The payload ended.
    ///
    /// # Errors
    /// It was announced longer.
    pub fn finish(&self) -> Result<(), Uneven> {
        if self.is_complete() { Ok(()) } else { Err(Uneven) }
    }
}

/// Checks the frames of a payload that was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkReceiver {
    length: usize,
    left: usize,
}

impl BulkReceiver {
    /// A payload of `length` bytes was announced, and at most `maximum` may come.
    ///
    /// # Errors
    /// It is empty, or over the maximum.
    pub fn new(length: u64, maximum: u64) -> Result<Self, CallViolation> {
        let length = within(length, maximum)?;
        Ok(Self { length, left: length })
    }

    /// Bytes of the whole payload.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Payload bytes that the next frame must have, 0 once all are here.
    pub fn expected(&self) -> usize {
        frame_size(self.left as u64)
    }

    /// Whether all of the payload is one frame.
    pub fn is_single(&self) -> bool {
        self.length <= BULK_FRAME
    }

    /// Whether all frames came.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// A frame came with `length` bytes of payload.
    ///
    /// # Errors
    /// It is not the one that is due.
    pub fn accept(&mut self, tag: u16, length: usize, has_fds: bool) -> Result<(), CallViolation> {
        if tag != BULK {
            return Err(CallViolation::Unexpected(tag));
        }
        if has_fds || length == 0 || length != self.expected() {
            return Err(CallViolation::Bulk(length as u64));
        }
        self.left -= length;
        Ok(())
    }
}

/// The length of a payload as this machine counts.
///
/// # Errors
/// It is empty, or over the maximum.
pub(super) fn within(length: u64, maximum: u64) -> Result<usize, CallViolation> {
    if length == 0 {
        return Err(CallViolation::Bulk(0));
    }
    let fits = usize::try_from(length).ok().filter(|_| length <= maximum);
    fits.ok_or(CallViolation::TooLarge(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::message::number::{CHUNK, RESPONSE};

    /// The frames that a sender makes when the payload comes in pieces of `piece` bytes.
    fn frames(length: usize, piece: usize) -> Result<Vec<usize>, Uneven> {
        let (mut sender, mut frames, mut left) = (BulkSender::new(length as u64), Vec::new(), length);
        while left > 0 {
            let mut waiting = piece.min(left);
            left -= waiting;
            while waiting > 0 {
                match sender.step(waiting)? {
                    BulkStep::Header(length) => frames.push(length as usize),
                    BulkStep::Payload(count) => waiting -= count,
                }
            }
        }
        sender.finish().map(|()| frames)
    }

    #[test]
    fn what_a_sender_cuts_a_receiver_takes() {
        let mib = BULK_FRAME;
        for length in [1, 2, mib - 1, mib, mib + 1, 2 * mib, 3 * mib + 5] {
            for piece in [1000, 32 << 10, mib, mib + 1, usize::MAX] {
                let cut = frames(length, piece).unwrap();
                let mut receiver = BulkReceiver::new(length as u64, u64::MAX).unwrap();
                assert_eq!(receiver.is_single(), cut.len() == 1);
                for &frame in &cut {
                    assert!(!receiver.is_complete());
                    assert_eq!(receiver.accept(BULK, frame, false), Ok(()));
                }
                assert!(receiver.is_complete());
                assert_eq!(cut.iter().sum::<usize>(), length);
                assert!(cut[..cut.len() - 1].iter().all(|&frame| frame == mib));
            }
        }
    }

    #[test]
    fn a_payload_of_another_length_than_announced_is_noticed() {
        let mut sender = BulkSender::new(3);
        assert_eq!(sender.step(5), Ok(BulkStep::Header(3)));
        assert_eq!(sender.step(2), Ok(BulkStep::Payload(2)));
        assert_eq!(sender.finish(), Err(Uneven));
        assert_eq!(sender.step(2), Ok(BulkStep::Payload(1)));
        assert_eq!(sender.finish(), Ok(()));
        assert_eq!(sender.step(1), Err(Uneven));
    }

    #[test]
    fn a_frame_that_is_not_due_is_refused() {
        let receiver = BulkReceiver::new(BULK_FRAME as u64 + 7, u64::MAX).unwrap();
        for length in [0, 1, 7, BULK_FRAME - 1, BULK_FRAME + 1, BULK_FRAME + 7] {
            assert_eq!(receiver.clone().accept(BULK, length, false), Err(CallViolation::Bulk(length as u64)));
        }
        assert_eq!(receiver.clone().accept(BULK, BULK_FRAME, true), Err(CallViolation::Bulk(BULK_FRAME as u64)));
        for tag in [RESPONSE, CHUNK, 1] {
            assert_eq!(receiver.clone().accept(tag, BULK_FRAME, false), Err(CallViolation::Unexpected(tag)));
        }
        let mut receiver = receiver;
        receiver.accept(BULK, BULK_FRAME, false).unwrap();
        assert_eq!(receiver.expected(), 7);
        receiver.accept(BULK, 7, false).unwrap();
        assert_eq!((receiver.expected(), receiver.is_complete()), (0, true));
        assert_eq!(receiver.accept(BULK, 0, false), Err(CallViolation::Bulk(0)));
    }

    #[test]
    fn lengths_are_within_the_maximum() {
        assert_eq!(BulkReceiver::new(0, 10), Err(CallViolation::Bulk(0)));
        assert_eq!(BulkReceiver::new(11, 10), Err(CallViolation::TooLarge(11)));
        assert_eq!(BulkReceiver::new(u64::MAX, u64::MAX - 1), Err(CallViolation::TooLarge(u64::MAX)));
        assert_eq!(BulkReceiver::new(10, 10).unwrap().length(), 10);
    }
}
