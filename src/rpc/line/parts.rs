//! Payloads that do not fit the window and go through it all the same, part by part: the extension `parts`.
//!
//! ```text
//!   0        2      3       4      8        16
//! +--------+------+-------+------+--------+-----------···
//! | type   | fds  | flags | zero | number | payload
//! +--------+------+-------+------+--------+-----------···
//!   native endian; number: in the first part the payload's length, in the others where in the payload they begin
//! ```
//!
//! The receiver copies a part out and flips CONTINUE back. With the last part the pen is its own.

use std::time::Instant;

use super::WindowLine;
use super::bulk::{encoded_twice, overdue, within};
use crate::endpoint::Endpoint;
use crate::endpoint::{Halted, INLINE_BYTES};
use crate::rpc::CallViolation;
use crate::rpc::codec::Sink;
use crate::rpc::wire::{BULK, CONTINUE, FLAG_PARTS, LEAST_PART, PART_HEADER, WINDOW_HEADER};
use crate::{Deadline, Error, Result};

/// Parts are of a size that is a multiple of this, so that they begin on a cache line of the receiver's copy.
const ALIGNMENT: u64 = 64;

/// Whether a payload had better go in parts through a window of this capacity, rather than over the socket. Where both sides share a CPU
/// each part costs two switches between them, and a frame of 1 MiB hardly more.
pub(super) fn are_better(capacity: u32, length: u64) -> bool {
    let room = u64::from(capacity - PART_HEADER as u32);
    let most = match capacity {
        LARGE.. => u64::MAX,
        MEDIUM..LARGE => 8,
        _ => 3,
    };
    length.div_ceil(room) <= most
}

/// The capacity of a window of 64 KiB.
const LARGE: u32 = (64 << 10) - 16;
/// The capacity of a window of 16 KiB.
const MEDIUM: u32 = (16 << 10) - 16;

/// The most payload bytes of each part of a payload that does not fit a window of this capacity: all are about as long as the last.
fn part_size(capacity: u32, length: u64) -> u32 {
    let room = u64::from(capacity - PART_HEADER as u32);
    let size = length.div_ceil(length.div_ceil(room).max(1)).next_multiple_of(ALIGNMENT);
    // Within the window, so 32 bits.
    size.min(room) as u32
}

/// What stands in front of a part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PartHead {
    tag: u16,
    fds: u8,
    number: u64,
}

impl PartHead {
    /// The first part of a payload of `length` bytes, whose message has this type and number of descriptors.
    pub(super) fn first([a, b, fds, _]: [u8; WINDOW_HEADER], length: u64) -> Self {
        Self { tag: u16::from_ne_bytes([a, b]), fds, number: length }
    }

    /// A part that begins `offset` bytes into the payload.
    fn later(offset: u64) -> Self {
        Self { tag: BULK, fds: 0, number: offset }
    }

    fn encode(self) -> [u8; PART_HEADER] {
        let mut head = [0; PART_HEADER];
        head[..2].copy_from_slice(&self.tag.to_ne_bytes());
        (head[2], head[3]) = (self.fds, FLAG_PARTS);
        head[8..].copy_from_slice(&self.number.to_ne_bytes());
        head
    }
}

/// Cuts a payload into parts of about the same size and sends it.
pub(super) struct Parts<'a> {
    endpoint: &'a mut Endpoint,
    /// What goes in front of the part that is being filled.
    head: PartHead,
    /// Whether the first part is out.
    is_begun: bool,
    /// Where in the datagram the next byte goes, and where the part is full.
    at: u32,
    end: u32,
    /// Payload bytes, and those of them that were not taken yet.
    length: u64,
    left: u64,
    due: Instant,
    failed: Option<Halted>,
}

impl<'a> Parts<'a> {
    /// A payload of `length` bytes, to be sent by `due`.
    pub(super) fn new(endpoint: &'a mut Endpoint, head: PartHead, length: u64, due: Instant) -> Self {
        let at = PART_HEADER as u32;
        let end = at + part_size(endpoint.capacity(), length);
        Self { endpoint, head, is_begun: false, at, end, length, left: length, due, failed: None }
    }

    /// Flips the last part.
    ///
    /// # Errors
    /// Why not all of it was sent. Unless nothing was, the line has to be shut down.
    pub(super) fn finish(self) -> Result<(), Halted> {
        if let Some(halted) = self.failed {
            return Err(halted);
        }
        if self.left > 0 {
            return Err(self.halted(encoded_twice()));
        }
        self.endpoint
            .write_at(0, &self.head.encode())
            .and_then(|()| self.endpoint.flip(self.at))
            .map_err(|error| self.halted(error))
    }

    fn take_all(&mut self, mut bytes: &[u8]) -> Result<(), Halted> {
        // What follows the last byte was not there when the value was encoded first. So the last part never leaves with it.
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| self.halted(encoded_twice()))?;
        while !bytes.is_empty() {
            if self.at == self.end {
                self.hand_over(self.length - self.left - bytes.len() as u64)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min((self.end - self.at) as usize));
            self.endpoint.write_at(self.at, now).map_err(|error| self.halted(error))?;
            self.at += now.len() as u32;
            bytes = later;
        }
        Ok(())
    }

    /// Sends a full part and waits for the pen, to go on `offset` bytes into the payload.
    fn hand_over(&mut self, offset: u64) -> Result<(), Halted> {
        // The first part goes out in any case: what is late is answered so.
        let in_time = if self.is_begun { check(Some(self.due)) } else { Ok(()) };
        let ready = in_time.and_then(|()| self.endpoint.write_at(0, &self.head.encode()));
        ready.map_err(|error| self.halted(error))?;
        let datagram = self.endpoint.call_busy(self.at, Deadline::at(self.due)).map_err(|halted| match halted {
            Halted::Unsent(error) => self.halted(error),
            unanswered => unanswered,
        })?;
        (self.head, self.is_begun, self.at) = (PartHead::later(offset), true, PART_HEADER as u32);
        expect_continue(self.endpoint, datagram).map_err(Halted::Unanswered)
    }

    /// What an error between two flips means.
    fn halted(&self, error: Error) -> Halted {
        if self.is_begun { Halted::Unanswered(error) } else { Halted::Unsent(error) }
    }
}

impl Sink for Parts<'_> {
    fn take(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.take_all(bytes).err();
        }
    }
}

/// An error unless the datagram that came with the pen is CONTINUE.
fn expect_continue(endpoint: &Endpoint, datagram: u32) -> Result<()> {
    let violation = match endpoint.read_inline(&mut [0; INLINE_BYTES]) {
        Some(_) if (datagram as usize) < WINDOW_HEADER => CallViolation::Datagram(datagram),
        Some([a, b, 0, 0]) if datagram as usize == WINDOW_HEADER && u16::from_ne_bytes([a, b]) == CONTINUE => {
            return Ok(());
        }
        Some([a, b, ..]) => CallViolation::Unexpected(u16::from_ne_bytes([a, b])),
        None => CallViolation::Datagram(datagram),
    };
    Err(violation.into())
}

fn check(due: Option<Instant>) -> Result<()> {
    if due.is_some_and(|due| Instant::now() >= due) { Err(overdue()) } else { Ok(()) }
}

impl WindowLine {
    /// An error unless the datagram that came with the pen asks for what comes next.
    pub(crate) fn expect_continue(&self, datagram: u32) -> Result<()> {
        expect_continue(&self.endpoint, datagram)
    }

    /// Receives a payload in parts, of which the first is in the window; `keep` is `None` if it is to be thrown away, else what
    /// [`receive_bulk`](Self::receive_bulk) takes as `begun`.
    pub(super) fn receive_parts(
        &mut self,
        length: u64,
        maximum: u64,
        mut due: Option<Instant>,
        keep: Option<Option<Instant>>,
    ) -> Result<()> {
        let total = within(length, maximum)?;
        let (mut at, mut part) = (0, self.first_part as usize);
        loop {
            let left = total - at;
            if part > left || (part < left && (part as u64) < LEAST_PART) {
                return Err(CallViolation::Fragment(at as u64).into());
            }
            if keep.is_some() {
                self.keep_part(at, part, total)?;
            }
            at += part;
            if at == total {
                return Ok(());
            }
            due = self.due_of_call(due, keep.flatten());
            part = self.next_part(at as u64, due)?;
        }
    }

    /// Copies a part out of the window to its place in the payload of `total` bytes. Memory grows with the parts that came: to twice of
    /// what is there, and not beyond the whole.
    fn keep_part(&mut self, at: usize, part: usize, total: usize) -> Result<()> {
        let end = at + part;
        if self.bulk.len() < end {
            let enough = total.min(end.max(2 * self.bulk.len()));
            self.bulk.reserve_exact(enough - self.bulk.len());
            self.bulk.resize(end, 0);
        }
        self.kept.needed(end);
        self.endpoint.read_at(PART_HEADER as u32, &mut self.bulk[at..end])
    }

    /// Asks for the part that begins `offset` bytes into the payload; how many bytes of it came.
    fn next_part(&mut self, offset: u64, due: Option<Instant>) -> Result<usize> {
        check(due)?;
        let [a, b] = CONTINUE.to_ne_bytes();
        self.endpoint.write_at(0, &[a, b, 0, 0])?;
        let deadline = due.map_or(Deadline::NEVER, Deadline::at);
        let datagram = self.endpoint.call_busy(WINDOW_HEADER as u32, deadline).map_err(Halted::into_error)?;
        let Some(part) = (datagram as usize).checked_sub(PART_HEADER) else {
            return Err(CallViolation::Datagram(datagram).into());
        };
        let mut head = [0; PART_HEADER];
        self.endpoint.read_at(0, &mut head)?;
        if head == PartHead::later(offset).encode() { Ok(part) } else { Err(refused(head)) }
    }
}

/// What is wrong with the head of a part that is not the one that is due.
#[cold]
fn refused(head: [u8; PART_HEADER]) -> Error {
    let [a, b, fds, flags, ..] = head;
    let tag = u16::from_ne_bytes([a, b]);
    let violation = match (tag, flags, fds) {
        (BULK, FLAG_PARTS, 0) => {
            CallViolation::Fragment(head.last_chunk().map_or(0, |number| u64::from_ne_bytes(*number)))
        }
        (BULK, FLAG_PARTS, fds) => CallViolation::Descriptors(fds),
        (BULK, flags, _) => CallViolation::Flags(flags),
        (tag, ..) => CallViolation::Unexpected(tag),
    };
    violation.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::wire::MOST_WINDOW;

    #[test]
    fn a_payload_that_does_not_fit_goes_in_parts_of_one_size_that_do() {
        for pages in [1, 2, 3, 15, 16, 17, 64, 4096] {
            let capacity = pages * 4096 - 16;
            let first = u64::from(capacity) - WINDOW_HEADER as u64 + 1;
            let many = (0..300).map(|step| first * 2 + step * 77_777);
            for length in (first..first + 5000).chain(many) {
                let size = part_size(capacity, length);
                assert!(size + PART_HEADER as u32 <= capacity && u64::from(size) >= LEAST_PART, "{capacity} {length}");
                assert!(u64::from(size) < length, "{capacity} {length}: one part is a message");
                let fewest = length.div_ceil(u64::from(capacity) - PART_HEADER as u64);
                assert_eq!(length.div_ceil(u64::from(size)), fewest, "{capacity} {length}");
            }
        }
    }

    #[test]
    fn small_windows_carry_few_parts_and_large_ones_any_number() {
        for (kib, most) in [(4, 3), (12, 3), (16, 8), (60, 8)] {
            let capacity = (kib << 10) - 16;
            let length = most * u64::from(capacity - PART_HEADER as u32);
            assert!(are_better(capacity, length) && !are_better(capacity, length + 1), "{kib} KiB");
        }
        assert!(are_better((64 << 10) - 16, u64::MAX) && are_better(MOST_WINDOW - 16, u64::MAX));
    }
}
