//! A payload that does not fit the window and goes through it fragment by fragment. The extension is called `parts` on the
//! wire.
//!
//! ```text
//!   0        2      3       4      8        16
//! +--------+------+-------+------+--------+-----------···
//! | type   | fds  | flags | zero | number | payload
//! +--------+------+-------+------+--------+-----------···
//!   native endian; number: in the first fragment the payload's length, in the others where in the payload they begin
//! ```
//!
//! The receiver copies a fragment out and flips CONTINUE back. With the last fragment control is the receiver's.

use std::ops::Range;

use super::bulk::within;
use super::head::WindowHead;
use super::number::{BULK, FLAG_FRAGMENT, FRAGMENT_HEAD, LEAST_FRAGMENT, WINDOW_HEAD};
use super::outgoing::Uneven;
use crate::rpc::CallViolation;

/// Fragments are of a size that is a multiple of this, so that they begin on a cache line of the receiver's copy.
const ALIGNMENT: u64 = 64;
/// Bytes of the shortest datagram that can be the first fragment of a payload.
pub const LEAST_FRAGMENT_DATAGRAM: u32 = FRAGMENT_HEAD as u32 + LEAST_FRAGMENT;
/// The capacity of a window of 64 KiB.
const LARGE: u32 = (64 << 10) - 16;
/// The capacity of a window of 16 KiB.
const MEDIUM: u32 = (16 << 10) - 16;

/// Whether a payload had better go in fragments through a window of this capacity, rather than over the socket. Where both sides share a
/// CPU each fragment costs two switches between them, and a frame of 1 MiB hardly more.
pub fn are_better(capacity: u32, length: u64) -> bool {
    let most = match capacity {
        LARGE.. => u64::MAX,
        MEDIUM..LARGE => 8,
        _ => 3,
    };
    length.div_ceil(room(capacity)) <= most
}

/// Payload bytes that fit a window of this capacity behind the head of a fragment.
fn room(capacity: u32) -> u64 {
    u64::from(capacity) - FRAGMENT_HEAD as u64
}

/// The most payload bytes of each fragment of a payload that does not fit a window of this capacity: all are about as long as the last.
pub(super) fn fragment_size(capacity: u32, length: u64) -> u32 {
    let room = room(capacity);
    let size = length.div_ceil(length.div_ceil(room).max(1)).next_multiple_of(ALIGNMENT);
    // Within the window, so 32 bits.
    size.min(room) as u32
}

/// What stands in front of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FragmentHead {
    head: WindowHead,
    number: u64,
}

impl FragmentHead {
    /// The first fragment of a message with a payload of `length` bytes.
    fn first(message: WindowHead, length: u64) -> Self {
        Self { head: WindowHead { flags: FLAG_FRAGMENT, ..message }, number: length }
    }

    /// A fragment that begins `offset` bytes into the payload.
    fn later(offset: u64) -> Self {
        Self { head: WindowHead { tag: BULK, fds: 0, flags: FLAG_FRAGMENT }, number: offset }
    }

    fn encode(self) -> [u8; FRAGMENT_HEAD] {
        let mut bytes = [0; FRAGMENT_HEAD];
        bytes[..WINDOW_HEAD].copy_from_slice(&self.head.encode());
        bytes[8..].copy_from_slice(&self.number.to_ne_bytes());
        bytes
    }
}

/// The number in the head of a fragment: its last eight bytes. `None`: the four bytes in front of it are not zero.
pub(super) fn number(head: &[u8; FRAGMENT_HEAD]) -> Option<u64> {
    let [_, _, _, _, zeroes @ .., a, b, c, d, e, f, g, h] = *head;
    (zeroes == [0; 4]).then(|| u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
}

/// Cuts a payload into fragments of about the same size.
#[derive(Debug)]
pub struct FragmentSender {
    /// What goes in front of the fragment that is being filled.
    head: FragmentHead,
    is_begun: bool,
    /// The most payload bytes of a fragment, and those of the one that is being filled.
    size: u32,
    filled: u32,
    /// Payload bytes in all, and those that were not taken yet.
    length: u64,
    left: u64,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FragmentStep {
    /// Copy `count` of the bytes that wait to byte `at` of the datagram, and call [`filled`](FragmentSender::filled).
    Fill {
        /// Where in the datagram.
        at: u32,
        /// How many, at least one.
        count: usize,
    },
    /// The fragment is full: hand it over, wait for CONTINUE, and call [`handed_over`](FragmentSender::handed_over).
    HandOver(Fragment),
}

/// A fragment that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// What goes to the datagram's start.
    pub head: [u8; FRAGMENT_HEAD],
    /// Bytes of the datagram.
    pub datagram: u32,
}

impl FragmentSender {
    /// A message whose payload of `length` bytes does not fit a window of this capacity, which is a page less 16 bytes at least.
    pub fn new(message: WindowHead, length: u64, capacity: u32) -> Self {
        let size = fragment_size(capacity, length);
        Self { head: FragmentHead::first(message, length), is_begun: false, size, filled: 0, length, left: length }
    }

    /// What is to be done next, when `waiting` bytes of the payload wait, at least one.
    ///
    /// # Errors
    /// The payload turned out longer than it was announced. What follows its last byte never leaves with it.
    pub fn step(&self, waiting: usize) -> Result<FragmentStep, Uneven> {
        if waiting as u64 > self.left {
            return Err(Uneven);
        }
        if self.filled == self.size {
            return Ok(FragmentStep::HandOver(self.fragment()));
        }
        let count = waiting.min((self.size - self.filled) as usize);
        Ok(FragmentStep::Fill { at: FRAGMENT_HEAD as u32 + self.filled, count })
    }

    /// So many bytes were copied into the datagram, at most as many as [`step`](Self::step) asked for.
    pub fn filled(&mut self, count: usize) {
        self.filled += count as u32;
        self.left -= count as u64;
    }

    /// The peer took a full fragment and asked for the next.
    pub fn handed_over(&mut self) {
        (self.head, self.is_begun, self.filled) = (FragmentHead::later(self.length - self.left), true, 0);
    }

    /// Whether the peer has seen something of the payload.
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// The payload ended: the last fragment, which is handed over for good.
    ///
    /// # Errors
    /// It was announced longer.
    pub fn finish(&self) -> Result<Fragment, Uneven> {
        if self.left > 0 { Err(Uneven) } else { Ok(self.fragment()) }
    }

    fn fragment(&self) -> Fragment {
        Fragment { head: self.head.encode(), datagram: FRAGMENT_HEAD as u32 + self.filled }
    }
}

/// Checks the fragments of a payload, and says where in it they belong. The bytes of each begin behind its head of
/// [`FRAGMENT_HEAD`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentReceiver {
    length: usize,
    /// Where in the payload the fragment belongs that is in the window.
    current: Range<usize>,
}

impl FragmentReceiver {
    /// The first fragment of a payload came, in a datagram of so many bytes; the payload has `length` bytes, and may have `maximum`.
    ///
    /// # Errors
    /// The payload is empty or over the maximum, or the fragment too short or too long.
    pub fn begin(length: u64, maximum: u64, datagram: u32) -> Result<Self, CallViolation> {
        if datagram < LEAST_FRAGMENT_DATAGRAM {
            return Err(CallViolation::Fragment(0));
        }
        let mut receiver = Self { length: within(length, maximum)?, current: 0..0 };
        receiver.accept(datagram as usize - FRAGMENT_HEAD)?;
        Ok(receiver)
    }

    /// The next datagram came. `front` are its first bytes, 16 of them if it has as many.
    ///
    /// # Errors
    /// It is not the fragment that is due.
    pub fn next(&mut self, datagram: u32, front: &[u8]) -> Result<(), CallViolation> {
        let Some(head) = front.first_chunk().filter(|_| datagram as usize >= FRAGMENT_HEAD) else {
            return Err(CallViolation::Datagram(datagram));
        };
        if *head != FragmentHead::later(self.current.end as u64).encode() {
            return Err(refused(head));
        }
        self.accept(datagram as usize - FRAGMENT_HEAD)
    }

    fn accept(&mut self, bytes: usize) -> Result<(), CallViolation> {
        let (at, left) = (self.current.end, self.length - self.current.end);
        let is_too_short = bytes == 0 || (bytes < left && bytes < LEAST_FRAGMENT as usize);
        if bytes > left || is_too_short {
            return Err(CallViolation::Fragment(at as u64));
        }
        self.current = at..at + bytes;
        Ok(())
    }

    /// Bytes of the whole payload.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Where in the payload the fragment belongs that is in the window.
    pub fn current(&self) -> Range<usize> {
        self.current.clone()
    }

    /// Whether it is the last. If not, CONTINUE asks for the next.
    pub fn is_complete(&self) -> bool {
        self.current.end == self.length
    }
}

/// What is wrong with the head of a fragment that is not the one that is due.
#[cold]
fn refused(head: &[u8; FRAGMENT_HEAD]) -> CallViolation {
    let [a, b, c, d, ..] = *head;
    match WindowHead::parse([a, b, c, d]) {
        WindowHead { tag: BULK, flags: FLAG_FRAGMENT, fds: 0 } => {
            CallViolation::Fragment(head.last_chunk().map_or(0, |number| u64::from_ne_bytes(*number)))
        }
        WindowHead { tag: BULK, flags: FLAG_FRAGMENT, fds } => CallViolation::Descriptors(fds),
        WindowHead { tag: BULK, flags, .. } => CallViolation::Flags(flags),
        WindowHead { tag, .. } => CallViolation::Unexpected(tag),
    }
}
