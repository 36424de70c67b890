//! What came with the pen: copied out once, whole, and taken apart as a private copy.

use std::ops::Range;

use super::{Incoming, WindowLine};
use crate::endpoint::{INLINE, INLINE_BYTES, INLINE_HEAD};
use crate::rpc::CallViolation;
use crate::rpc::wire::{self, FLAG_BULK, FLAG_PARTS, LEAST_PART, PART_HEADER, WINDOW_HEADER};
use crate::stream::{Attachments, MAX_ATTACHMENTS};
use crate::{ErrorKind, Result};

/// The private copy of a message that fits the window's first cache line: on the stack of whoever takes it.
#[derive(Debug)]
#[repr(align(16))]
pub(crate) struct Short {
    bytes: [u8; INLINE_BYTES],
    /// Its header.
    head: u32,
    /// Bytes of its payload; [`ELSEWHERE`](Self::ELSEWHERE): it is not here.
    filled: usize,
}

impl Short {
    const ELSEWHERE: usize = usize::MAX;

    /// Room for a message.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { bytes: [0; INLINE_BYTES], head: 0, filled: Self::ELSEWHERE }
    }

    #[inline(always)]
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

const _: () = assert!(INLINE_HEAD == WINDOW_HEADER && LEAST_FIRST_PART > INLINE);

/// Bytes of the shortest datagram that can be the first part of a payload.
const LEAST_FIRST_PART: u32 = PART_HEADER as u32 + LEAST_PART as u32;

impl WindowLine {
    /// The message that came with the pen, if it is short and all of it is in the window: its type. Anything else is for
    /// [`take`](Self::take), with the same `short`.
    #[inline(always)]
    pub(crate) fn take_short(&mut self, datagram: u32, short: &mut Short) -> Option<u16> {
        if !(WINDOW_HEADER as u32..=INLINE).contains(&datagram) {
            return None;
        }
        let head = self.endpoint.read_inline(&mut short.bytes)?;
        (short.head, short.filled) = (u32::from_ne_bytes(head), datagram as usize - WINDOW_HEADER);
        let [a, b, fds, flags] = head;
        (u16::from_ne_bytes([fds, flags]) == 0).then_some(u16::from_ne_bytes([a, b]))
    }

    /// Takes the message that came with the pen, after [`take_short`](Self::take_short) with the same `short`. Its payload is then in
    /// [`payload`](Self::payload), unless it is announced as bulk: then [`receive_bulk`](Self::receive_bulk) or
    /// [`discard_bulk`](Self::discard_bulk) has to follow. One that is in the window whole is refused if it is over `maximum` bytes: how
    /// large the window is may have been the peer's choice.
    ///
    /// # Errors
    /// Every error but a failed system call is the peer's fault; the line must be shut down.
    pub(crate) fn take(&mut self, datagram: u32, short: &Short, maximum: u64) -> Result<Incoming> {
        self.came_as_bulk = false;
        if datagram >= LEAST_FIRST_PART {
            return self.take_long(datagram, maximum);
        }
        let copy = filled(&mut self.buffer, &mut self.filled, datagram);
        match copy.split_first_chunk_mut() {
            Some((front, rest)) if short.filled != Short::ELSEWHERE => {
                *front = short.head.to_ne_bytes();
                rest.copy_from_slice(short.payload());
            }
            _ => self.endpoint.read_at(0, copy)?,
        }
        let Some(&[a, b, fds, flags]) = copy.first_chunk() else {
            return Err(CallViolation::Datagram(datagram).into());
        };
        self.take_apart(u16::from_ne_bytes([a, b]), fds, flags)
    }

    /// A message that may be the first part of a payload, which stays where it is, to be copied to its place.
    fn take_long(&mut self, datagram: u32, maximum: u64) -> Result<Incoming> {
        let mut front = [0; PART_HEADER];
        self.endpoint.read_at(0, &mut front)?;
        let [a, b, fds, flags, zeroes @ .., _, _, _, _, _, _, _, _] = front;
        let tag = u16::from_ne_bytes([a, b]);
        if flags & FLAG_PARTS == 0 {
            let length = u64::from(datagram) - WINDOW_HEADER as u64;
            if length > maximum {
                return Err(CallViolation::TooLarge(length).into());
            }
            let copy = filled(&mut self.buffer, &mut self.filled, datagram);
            let (head, rest) = copy.split_at_mut(PART_HEADER);
            head.copy_from_slice(&front);
            self.endpoint.read_at(PART_HEADER as u32, rest)?;
            return self.take_apart(tag, fds, flags);
        }
        if flags != FLAG_PARTS || !self.takes_parts || is_plain(tag) {
            return Err(CallViolation::Flags(flags).into());
        }
        let length = front.last_chunk().map_or(0, |number| u64::from_ne_bytes(*number));
        if zeroes != [0; 4] {
            return Err(CallViolation::Fragment(0).into());
        }
        let fds = self.take_fds(fds)?;
        self.first_part = datagram - PART_HEADER as u32;
        announced(tag, fds, length)
    }

    /// A message whose copy is in the buffer.
    #[inline]
    fn take_apart(&mut self, tag: u16, fds: u8, flags: u8) -> Result<Incoming> {
        if fds == 0 && flags == 0 {
            return Ok(Incoming { tag, fds: None, bulk: 0 });
        }
        self.take_more(tag, fds, flags)
    }

    /// The parts of a message that travel on the socket.
    #[cold]
    fn take_more(&mut self, tag: u16, fds: u8, flags: u8) -> Result<Incoming> {
        if flags == FLAG_PARTS && self.takes_parts && !is_plain(tag) {
            return Err(CallViolation::Fragment(0).into());
        }
        if flags & !FLAG_BULK != 0 || (is_plain(tag) && flags != 0) {
            return Err(CallViolation::Flags(flags).into());
        }
        if is_plain(tag) {
            return Err(CallViolation::Descriptors(fds).into());
        }
        let fds = self.take_fds(fds)?;
        if flags == 0 {
            return Ok(Incoming { tag, fds, bulk: 0 });
        }
        let Ok(length) = <[u8; 8]>::try_from(self.payload()) else {
            return Err(CallViolation::Datagram(self.filled as u32).into());
        };
        self.first_part = 0;
        announced(tag, fds, u64::from_ne_bytes(length))
    }

    /// The descriptors that a message announced.
    fn take_fds(&mut self, count: u8) -> Result<Option<Box<Attachments>>> {
        if count == 0 {
            return Ok(None);
        }
        if usize::from(count) > MAX_ATTACHMENTS {
            return Err(CallViolation::Descriptors(count).into());
        }
        let came = self.socket.take_attach().map_err(|error| match error.kind() {
            // What was announced is always there when the pen comes.
            ErrorKind::Timeout => CallViolation::Descriptors(count).into(),
            _ => error,
        })?;
        if came.len() != usize::from(count) && !came.lost() {
            return Err(CallViolation::Descriptors(count).into());
        }
        Ok(Some(Box::new(came)))
    }

    /// The payload of the last message that was [taken](Self::take).
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        if self.came_as_bulk { &self.bulk[self.payload.clone()] } else { &self.buffer[WINDOW_HEADER..self.filled] }
    }

    /// Lends that payload out, so that the line can be written to meanwhile; give it back with [`restore`](Self::restore).
    pub(crate) fn lend(&mut self) -> Lent {
        if self.came_as_bulk {
            Lent { bytes: std::mem::take(&mut self.bulk), range: self.payload.clone(), is_bulk: true }
        } else {
            Lent { bytes: std::mem::take(&mut self.buffer), range: WINDOW_HEADER..self.filled, is_bulk: false }
        }
    }

    /// Takes back what was lent.
    pub(crate) fn restore(&mut self, lent: Lent) {
        if lent.is_bulk {
            self.bulk = lent.bytes;
        } else {
            self.buffer = lent.bytes;
        }
    }
}

/// Room in a buffer for the copy of a datagram. The buffer only grows.
fn filled<'a>(buffer: &'a mut Vec<u8>, filled: &mut usize, datagram: u32) -> &'a mut [u8] {
    *filled = datagram as usize;
    if buffer.len() < *filled {
        buffer.resize(*filled, 0);
    }
    &mut buffer[..*filled]
}

/// Whether messages of this type are all in the window, without descriptors.
fn is_plain(tag: u16) -> bool {
    matches!(tag, wire::ERROR | wire::CHUNK | wire::END | wire::CONTINUE)
}

/// A message whose payload is yet to be received.
fn announced(tag: u16, fds: Option<Box<Attachments>>, length: u64) -> Result<Incoming> {
    if length == 0 {
        return Err(CallViolation::Bulk(0).into());
    }
    Ok(Incoming { tag, fds, bulk: length })
}

/// A payload out of its line.
#[derive(Debug)]
pub(crate) struct Lent {
    bytes: Vec<u8>,
    range: Range<usize>,
    is_bulk: bool,
}

impl std::ops::Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}
