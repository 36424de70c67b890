//! Which bytes carried which file descriptors.
//!
//! A receive says that descriptors came with it, not with which of its bytes. So descriptors are announced: a frame ATTACH (tag
//! [`ATTACH`], payload one byte n, 1 to 16) begins a `sendmsg` of its own, which carries exactly n of them, and they belong to the
//! message that follows. [`AttachRule`] holds the received bytes against that rule as soon as the bytes that decide it are there:
//!
//! - a read that brought k > 0 descriptors contains the first header byte of exactly one ATTACH, and its n is k;
//! - the first byte of an ATTACH came in a read that brought its descriptors;
//! - a message has at most one ATTACH.
//!
//! The kernel ends a read behind the bytes of a `sendmsg` that carried descriptors, so an honest peer passes however its bytes are cut.
//! If our own descriptor limit kept some from coming, the kernel says so: then the message has lost its attachments, and nothing else.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::decoder::FrameDecoder;
use super::header::Header;
use super::violation::FrameViolation;
use crate::error::{Error, Result};

/// The tag of the frame that announces file descriptors.
pub const ATTACH: u16 = 0xFFF2;

/// The most file descriptors that one message can carry: enough for a process's standard streams and its channels, few enough that a
/// hundred connections cannot fill a descriptor table of 1,024 with one message each.
pub const MAX_ATTACHMENTS: usize = 16;

/// Bytes of an ATTACH frame.
pub(in crate::stream) const ATTACH_SIZE: usize = Header::SIZE + 1;

/// The ATTACH frame that announces `count` descriptors.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for none or over [`MAX_ATTACHMENTS`] descriptors.
pub(in crate::stream) fn attach_frame(count: usize) -> Result<[u8; ATTACH_SIZE]> {
    if count == 0 || count > MAX_ATTACHMENTS {
        return Err(Error::invalid(format!("a message carries 1 to {MAX_ATTACHMENTS} file descriptors, not {count}")));
    }
    let [a, b, c, d, e, f] = Header { tag: ATTACH, length: 1 }.encode();
    Ok([a, b, c, d, e, f, count as u8])
}

/// Descriptors of one read, until every header that could account for them has been seen.
struct Batch {
    start: u64,
    end: u64,
    fds: Vec<OwnedFd>,
    truncated: bool,
    matched: bool,
}

/// What an ATTACH announced: its descriptors, or `None` if our own limit kept some from coming.
pub(in crate::stream) type Announced = Option<Vec<OwnedFd>>;

/// The rule, applied to a stream as its bytes come. No input or output.
#[derive(Default)]
pub(in crate::stream) struct AttachRule {
    /// Where in the stream the next header begins that has not been validated.
    next: u64,
    /// Whether the frame before `next` was an ATTACH.
    after_attach: bool,
    batches: VecDeque<Batch>,
    announced: VecDeque<Announced>,
    /// Descriptors of messages that lost others to our own limit.
    useless: Vec<OwnedFd>,
}

impl AttachRule {
    /// The read of stream bytes `start..end` brought `fds`.
    pub(in crate::stream) fn read_brought(&mut self, start: u64, end: u64, fds: Vec<OwnedFd>, truncated: bool) {
        if !fds.is_empty() || truncated {
            self.batches.push_back(Batch { start, end, fds, truncated, matched: false });
        }
    }

    /// A rule for a stream from `position` on, where a frame begins.
    pub(in crate::stream) fn from_position(position: u64) -> Self {
        Self { next: position, ..Self::default() }
    }

    /// Validates all headers that `decoder` holds now. Descriptors that nobody will want are moved to `refused`: on an error all.
    pub(in crate::stream) fn validate(
        &mut self,
        decoder: &FrameDecoder,
        refused: &mut Vec<OwnedFd>,
    ) -> Result<(), FrameViolation> {
        let verdict = self.walk(decoder);
        refused.append(&mut self.useless);
        if verdict.is_err() {
            self.surrender(refused);
        }
        verdict
    }

    /// The announcement that the ATTACH frame now taken from the decoder made.
    pub(in crate::stream) fn take(&mut self) -> Announced {
        self.announced.pop_front().flatten()
    }

    /// The ATTACH before the next frame belongs to a message that travels another way, so the next frame may be an ATTACH again.
    pub(in crate::stream) fn stands_alone(&mut self) {
        self.after_attach = false;
    }

    /// Moves every descriptor that nobody took to `refused`.
    pub(in crate::stream) fn surrender(&mut self, refused: &mut Vec<OwnedFd>) {
        refused.extend(self.batches.drain(..).flat_map(|batch| batch.fds));
        refused.extend(self.announced.drain(..).flatten().flatten());
    }

    /// Goes from header to header as far as the bytes reach.
    fn walk(&mut self, decoder: &FrameDecoder) -> Result<(), FrameViolation> {
        let end = decoder.position() + decoder.buffered().len() as u64;
        loop {
            let at = self.next;
            let bytes = match usize::try_from(at - decoder.position()) {
                Ok(offset) if at < end => &decoder.buffered()[offset..],
                _ => return self.rule_out(at, at),
            };
            let Some(tag) = bytes.first_chunk().map(|tag| u16::from_be_bytes(*tag)) else {
                return self.rule_out(at, at + Header::SIZE as u64);
            };
            if tag == ATTACH && !self.validate_attach(at, bytes)? {
                return self.rule_out(at, at + ATTACH_SIZE as u64);
            }
            let Some(header) = Header::at_front(bytes) else {
                return self.rule_out(at + Header::SIZE as u64, at + Header::SIZE as u64);
            };
            if header.length > decoder.maximum() {
                return Ok(()); // The decoder refuses this frame, and with it the stream.
            }
            self.after_attach = tag == ATTACH;
            self.next = at + header.frame_size();
            self.rule_out(self.next, self.next)?;
        }
    }

    /// Validates the ATTACH whose first byte is at `at`. `false`: too few bytes to decide.
    fn validate_attach(&mut self, at: u64, bytes: &[u8]) -> Result<bool, FrameViolation> {
        let Some(batch) = self.batches.iter_mut().find(|batch| (batch.start..batch.end).contains(&at)) else {
            return Err(FrameViolation::AttachWithoutFds);
        };
        if batch.matched || self.after_attach {
            return Err(FrameViolation::SecondAttach);
        }
        if Header::at_front(bytes).is_some_and(|header| header.length != 1) {
            return Err(FrameViolation::MalformedAttach);
        }
        let Some(&announced) = bytes.get(Header::SIZE) else { return Ok(false) };
        let came = batch.fds.len();
        match usize::from(announced) {
            0 => return Err(FrameViolation::MalformedAttach),
            n if n > MAX_ATTACHMENTS => return Err(FrameViolation::MalformedAttach),
            n if came > n || (came < n && !batch.truncated) => {
                return Err(FrameViolation::WrongFdCount { announced, came });
            }
            n if came < n => {
                // Our own limit. What did come is of no use without the rest.
                self.useless.append(&mut batch.fds);
                self.announced.push_back(None);
            }
            _ => self.announced.push_back(Some(std::mem::take(&mut batch.fds))),
        }
        batch.matched = true;
        Ok(true)
    }

    /// The first byte of the next ATTACH can only be at `possible`, or at `later` and beyond. A batch for which no place is left is
    /// misplaced; a matched one is forgotten once a second ATTACH in its read is ruled out too.
    fn rule_out(&mut self, possible: u64, later: u64) -> Result<(), FrameViolation> {
        let can_match = |batch: &Batch| batch.end > later || (batch.start..batch.end).contains(&possible);
        if self.batches.iter().any(|batch| !batch.matched && !can_match(batch)) {
            return Err(FrameViolation::MisplacedFds);
        }
        self.batches.retain(can_match);
        Ok(())
    }
}
