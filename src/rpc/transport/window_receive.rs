//! What came with control of a window: copied out once, whole, and taken apart as a private copy.

use std::ops::Range;

use super::bulk::receive_frame;
use super::fragments::{self, Keep};
use super::inline::InlineMessage;
use super::payload::{Buffer, Payload, Received};
use super::retention::{FREE, RETAINED};
use super::window::WindowTransport;
use crate::error::{ErrorKind, Result};
use crate::rpc::CallViolation;
use crate::rpc::message::arrival::{Arrival, Whereabouts};
use crate::rpc::message::bulk::BulkReceiver;
use crate::rpc::message::fragment::LEAST_FRAGMENT_DATAGRAM;
use crate::rpc::message::head::WindowHead;
use crate::rpc::message::number::WINDOW_HEAD;
use crate::rpc::message::transfer::TransferDue;
use crate::stream::Attachments;

impl WindowTransport {
    /// Takes the message that came with control, after [`take_inline`](Self::take_inline) with the same `inline`, if nothing but a payload
    /// belongs to it and all of that is in the window: its type and payload. `None`: [`arrive`](Self::arrive) has to follow.
    ///
    /// # Errors
    /// The peer broke the protocol, and the transport must be shut down.
    #[inline(always)]
    pub(crate) fn take_plain(
        &mut self,
        datagram: u32,
        inline: &InlineMessage,
        maximum: u64,
    ) -> Result<Option<(u16, Payload)>> {
        let copy = if datagram < LEAST_FRAGMENT_DATAGRAM {
            let copy = copy_of(&mut self.message, datagram);
            if !inline.copy_to(copy) {
                self.endpoint.read_at(0, copy)?;
            }
            copy
        } else {
            self.copy_long(datagram, maximum)?
        };
        match copy.first_chunk().map(|head| WindowHead::parse(*head)) {
            Some(head) if head.is_plain() => Ok(Some((head.tag, self.take_message(datagram - WINDOW_HEAD as u32)))),
            _ => Ok(None),
        }
    }

    /// Copies a message that may be the first fragment of a payload. Such a one stays where it is but for its front, to be copied to its
    /// place.
    fn copy_long(&mut self, datagram: u32, maximum: u64) -> Result<&[u8]> {
        let mut front = [0; Arrival::FRONT];
        self.endpoint.read_at(0, &mut front)?;
        let length = match Arrival::may_be_fragment(&front) {
            true => Arrival::FRONT as u32,
            false => Arrival::whole(datagram, maximum).map(|_| datagram)?,
        };
        let copy = copy_of(&mut self.message, length);
        let (head, rest) = copy.split_at_mut(front.len());
        head.copy_from_slice(&front);
        self.endpoint.read_at(front.len() as u32, rest)?;
        Ok(copy)
    }

    /// Validates a message that is more than a payload in the window, after [`take_plain`](Self::take_plain). Then
    /// [`receive`](Self::receive) or [`discard`](Self::discard) has to follow.
    ///
    /// # Errors
    /// As [`take_plain`](Self::take_plain).
    pub(crate) fn arrive(&mut self, datagram: u32, maximum: u64) -> Result<Arrival> {
        let front = &self.message[..Arrival::FRONT.min(datagram as usize)];
        Ok(Arrival::parse(front, datagram, maximum, self.fragments)?)
    }

    /// The type of a message that is here whole, which is thrown away; `None`: it is not, or breaks the protocol. Waits for nothing.
    pub(crate) fn take_whole(&mut self, datagram: u32, inline: &InlineMessage, maximum: u64) -> Option<u16> {
        if let Some((tag, payload)) = self.take_plain(datagram, inline, maximum).ok()? {
            self.restore(payload);
            return Some(tag);
        }
        let arrival = self.arrive(datagram, maximum).ok()?;
        if !matches!(arrival.payload, Whereabouts::Here(_)) {
            return None;
        }
        drop(self.take_fds(arrival.fds).ok()?);
        Some(arrival.tag)
    }

    /// Receives the rest of a message that arrived: its descriptors, and the payload that does not fit the window. Memory grows with
    /// what came.
    ///
    /// # Errors
    /// The transport must be shut down.
    pub(crate) fn receive(&mut self, arrival: Arrival, due: impl FnOnce() -> TransferDue) -> Result<Received> {
        let fds = self.take_fds(arrival.fds)?;
        let payload = match arrival.payload {
            Whereabouts::Here(length) => self.take_message(length),
            Whereabouts::Fragments(fragments) => {
                let length = fragments.length();
                let keep = Keep::In(&mut self.long, &mut self.retention);
                fragments::receive(&mut self.endpoint, fragments, due(), keep)?;
                self.take_long(0..length)
            }
            Whereabouts::Bulk(frames) => {
                let range = self.receive_bulk(frames, due())?;
                self.take_long(range)
            }
        };
        Ok(Received { tag: arrival.tag, fds, payload })
    }

    /// Reads the rest of a message and throws it away as it comes.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(crate) fn discard(&mut self, arrival: Arrival, due: TransferDue) -> Result<()> {
        drop(self.take_fds(arrival.fds)?);
        match arrival.payload {
            Whereabouts::Here(_) => Ok(()),
            Whereabouts::Fragments(fragments) => fragments::receive(&mut self.endpoint, fragments, due, Keep::Nothing),
            Whereabouts::Bulk(mut frames) => {
                while !frames.is_complete() {
                    receive_frame(&mut self.socket, &self.endpoint, &mut frames, &due, &mut |_| {})?;
                }
                Ok(())
            }
        }
    }

    /// Takes the memory of a payload back.
    #[inline(always)]
    pub(crate) fn restore(&mut self, payload: Payload) {
        match payload.from {
            Buffer::Message => self.message = payload.bytes,
            Buffer::Long => self.long = payload.bytes,
        }
    }

    /// The payload of a message in the window, whose copy is in its buffer.
    #[inline(always)]
    fn take_message(&mut self, length: u32) -> Payload {
        let range = WINDOW_HEAD..WINDOW_HEAD + length as usize;
        if range.end > FREE {
            self.retention.record(range.end);
        }
        Payload { bytes: std::mem::take(&mut self.message), range, from: Buffer::Message }
    }

    fn take_long(&mut self, range: Range<usize>) -> Payload {
        Payload { bytes: std::mem::take(&mut self.long), range, from: Buffer::Long }
    }

    /// The descriptors that a message announced.
    fn take_fds(&mut self, count: u8) -> Result<Option<Box<Attachments>>> {
        if count == 0 {
            return Ok(None);
        }
        let came = self.socket.take_attach().map_err(|error| match error.kind() {
            // What was announced is always there when control comes.
            ErrorKind::Timeout => CallViolation::Descriptors(count).into(),
            _ => error,
        })?;
        if came.len() != usize::from(count) && !came.lost() {
            return Err(CallViolation::Descriptors(count).into());
        }
        Ok(Some(Box::new(came)))
    }

    /// Receives the frames of a payload: where in the buffer of long payloads it lies.
    fn receive_bulk(&mut self, mut frames: BulkReceiver, mut due: TransferDue) -> Result<Range<usize>> {
        let Self { socket, endpoint, long, retention, .. } = self;
        if frames.is_single() {
            // It stays in the buffer that the socket brought it in.
            let length = frames.length();
            if long.len() <= RETAINED {
                // The buffer of the payload before this one, which is still in the cache.
                socket.swap_buffer(0, long);
            }
            receive_frame(socket, endpoint, &mut frames, &due, &mut |_| {})?;
            retention.record(length);
            return Ok(socket.swap_buffer(length, long));
        }
        long.clear();
        while !frames.is_complete() {
            receive_frame(socket, endpoint, &mut frames, &due, &mut |frame| long.extend_from_slice(frame))?;
            retention.record(long.len());
            due.learn(long);
        }
        Ok(0..long.len())
    }
}

/// Room in a buffer for the copy of a datagram. The buffer only grows.
#[inline(always)]
fn copy_of(buffer: &mut Vec<u8>, datagram: u32) -> &mut [u8] {
    let length = datagram as usize;
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}
