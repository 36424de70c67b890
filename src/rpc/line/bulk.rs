//! Payloads that do not fit the window: [parts](super::parts) of it, or frames of 1 MiB on the socket, after the flip.

use std::time::{Duration, Instant};

use super::parts::Parts;
use super::pieces::Pieces;
use super::window::Leaving;
use super::{Outgoing, Prefix, RETAINED, Staged, WindowLine};
use crate::endpoint::Endpoint;
use crate::endpoint::Halted;
use crate::rpc::CallViolation;
use crate::rpc::codec::{Encode, Raw};
use crate::rpc::wire::{self, BULK, BULK_FRAME};
use crate::{Deadline, Error, ErrorKind, Result};

/// How long one transfer waits before the window is looked at: a peer that shut it down without its socket is noticed.
pub(super) const SLICE: Duration = Duration::from_millis(100);

impl WindowLine {
    /// Hands over the pen with a staged message, and sends the payload that did not fit, until the deadline at the latest. If the peer has
    /// seen something of it and not got all, the line has to be shut down.
    ///
    /// # Errors
    /// [`Halted::Unsent`]: the peer never saw it.
    pub(crate) fn send_staged(
        &mut self,
        staged: Staged,
        message: &Outgoing<'_>,
        mut deadline: Deadline,
    ) -> Result<(), Halted> {
        if !staged.bulk {
            return self.flip(staged).map_err(Halted::Unsent);
        }
        let patience = Instant::now() + wire::TRANSFER;
        let due = deadline.resolve().map_or(patience, |due| due.min(patience));
        if let Some(head) = self.leaving.part.take() {
            let mut parts = Parts::new(&mut self.endpoint, head, self.leaving.bytes, due);
            let _ = message.encode_to(&mut parts);
            return parts.finish();
        }
        self.flip(staged).map_err(Halted::Unsent)?;
        let leaving = &mut *self.leaving;
        let mut pieces = Pieces::new(&mut self.socket, &self.endpoint, &mut leaving.piece, leaving.bytes, due);
        let _ = message.encode_to(&mut pieces);
        pieces.finish().map_err(Halted::Unanswered)
    }

    /// Sends a staged answer with its payload; [`answered`](Self::answered) tells what came of it.
    #[cold]
    pub(crate) fn send_answer(&mut self, staged: Staged, value: &dyn Encode, fds: u8) {
        let message = Outgoing { tag: wire::RESPONSE, prefix: Prefix::Ok, value, fds };
        self.leaving.answered = None;
        let sent = self.send_staged(staged, &message, Deadline::NEVER);
        self.leaving.answered = Some(sent.map_err(Halted::into_error));
    }

    /// Keeps the payload of a staged answer until its method has returned, when [`send_held`](Self::send_held) sends it. `false`: the value
    /// did not write as many bytes as when it was staged.
    #[cold]
    #[must_use]
    pub(crate) fn hold(&mut self, value: &dyn Encode) -> bool {
        let Leaving { bytes, held, is_held, .. } = &mut *self.leaving;
        held.clear();
        // What is longer than memory does not get this far: the server's maximum is 32 bits.
        let length = *bytes as usize;
        self.kept.needed(length);
        held.reserve_exact(length);
        let message = Outgoing { tag: wire::RESPONSE, prefix: Prefix::Ok, value, fds: 0 };
        *is_held = message.encode_to(held) == Some(*bytes);
        *is_held
    }

    /// Whether the staged answer is held.
    pub(crate) fn is_held(&self) -> bool {
        self.leaving.is_held
    }

    /// Sends a held answer. An error means that the line has to be shut down.
    #[cold]
    pub(crate) fn send_held(&mut self, staged: Staged) -> Result<()> {
        let held = std::mem::take(&mut self.leaving.held);
        let value: &dyn Encode = &Raw(&held);
        let message = Outgoing { tag: wire::RESPONSE, prefix: Prefix::None, value, fds: 0 };
        let sent = self.send_staged(staged, &message, Deadline::NEVER);
        (self.leaving.held, self.leaving.is_held) = (held, false);
        sent.map_err(Halted::into_error)
    }

    /// What came of the last bulk answer.
    ///
    /// # Errors
    /// The line has to be shut down.
    pub(crate) fn answered(&mut self) -> Result<()> {
        let panicked = || Err(Error::new(ErrorKind::LocalShutdown, "encoding an answer panicked inside a transfer"));
        self.leaving.answered.take().unwrap_or_else(panicked)
    }

    /// Receives a payload of `length` bytes, at most `maximum`, until `due`. Memory grows with the frames that came. If `begun` is
    /// known, the payload begins with what its call had left then, which counts once it is here.
    pub(crate) fn receive_bulk(
        &mut self,
        length: u64,
        maximum: u64,
        due: Option<Instant>,
        begun: Option<Instant>,
    ) -> Result<()> {
        self.came_as_bulk = true;
        if self.first_part > 0 {
            self.payload = 0..0;
            self.receive_parts(length, maximum, due, Some(begun))?;
            // It fits memory, or it had not been received.
            self.payload = 0..length as usize;
            return Ok(());
        }
        if length <= (BULK_FRAME as u64).min(maximum) {
            return self.receive_only_frame(length as usize, due);
        }
        self.bulk.clear();
        self.receive_frames(length, maximum, due, Some(begun))?;
        self.payload = 0..self.bulk.len();
        Ok(())
    }

    /// Reads such a payload and throws it away as it comes.
    pub(crate) fn discard_bulk(&mut self, length: u64, maximum: u64, due: Option<Instant>) -> Result<()> {
        if self.first_part > 0 {
            return self.receive_parts(length, maximum, due, None);
        }
        self.receive_frames(length, maximum, due, None)
    }

    /// Receives a payload that is a single frame: it stays in the buffer that the socket brought it in.
    fn receive_only_frame(&mut self, length: usize, due: Option<Instant>) -> Result<()> {
        if self.bulk.len() <= RETAINED {
            // The buffer of the payload before this one, which is still in the cache.
            self.socket.swap_buffer(0, &mut self.bulk);
        }
        self.receive_frame(length, due, false)?;
        self.payload = self.socket.swap_buffer(length, &mut self.bulk);
        Ok(())
    }

    /// Receives frames; `keep` is `None` for those to be thrown away.
    fn receive_frames(
        &mut self,
        length: u64,
        maximum: u64,
        mut due: Option<Instant>,
        keep: Option<Option<Instant>>,
    ) -> Result<()> {
        let mut left = within(length, maximum)?;
        while left > 0 {
            let expected = left.min(BULK_FRAME);
            self.receive_frame(expected, due, keep.is_some())?;
            left -= expected;
            self.kept.needed(self.bulk.len());
            due = self.due_of_call(due, keep.flatten());
        }
        Ok(())
    }

    /// When a transfer is due whose first bytes are here: the payload begins with what its call had left at `begun`, if that is known.
    pub(super) fn due_of_call(&self, due: Option<Instant>, begun: Option<Instant>) -> Option<Instant> {
        let (Some(begun), Some(prefix)) = (begun, self.bulk.first_chunk()) else { return due };
        let call = wire::deadline_from(u64::from_be_bytes(*prefix), begun);
        [due, call].into_iter().flatten().min()
    }

    fn receive_frame(&mut self, expected: usize, due: Option<Instant>, keep: bool) -> Result<()> {
        loop {
            let slice = Instant::now() + SLICE;
            let until = due.map_or(slice, |due| due.min(slice));
            match self.socket.receive(Deadline::at(until)) {
                Ok(Some(frame))
                    if frame.tag == BULK && frame.payload.len() == expected && frame.attachments.is_empty() =>
                {
                    if keep {
                        self.bulk.extend_from_slice(frame.payload);
                    }
                    return Ok(());
                }
                Ok(Some(frame)) if frame.tag == BULK => {
                    return Err(CallViolation::Bulk(frame.payload.len() as u64).into());
                }
                Ok(Some(frame)) => return Err(CallViolation::Unexpected(frame.tag).into()),
                Ok(None) => return Err(Error::new(ErrorKind::PeerGone, "the peer closed the socket inside a payload")),
                Err(error) if error.kind() == ErrorKind::Timeout && due.is_none_or(|due| Instant::now() < due) => {
                    look(&self.endpoint)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The length of a payload as this machine counts, unless it is over the maximum.
pub(super) fn within(length: u64, maximum: u64) -> Result<usize> {
    let fits = usize::try_from(length).ok().filter(|_| length <= maximum);
    fits.ok_or_else(|| CallViolation::TooLarge(length).into())
}

/// An error once either side shut the window down.
pub(super) fn look(endpoint: &Endpoint) -> Result<()> {
    if endpoint.is_shut_down() {
        return Err(Error::new(ErrorKind::PeerShutdown, "the window was shut down inside a transfer"));
    }
    Ok(())
}

#[cold]
pub(super) fn overdue() -> Error {
    Error::new(ErrorKind::Timeout, "the deadline passed before the peer took all of a payload")
}

#[cold]
pub(super) fn encoded_twice() -> Error {
    Error::invalid("a value was encoded twice and did not write as many bytes the second time")
}
