//! Streamed answers.

use std::sync::Arc;

use super::channel::{Channel, Line};
use super::failure::{Failure, no_response};
use super::{Client, Shared};
use crate::rpc::codec::{DecodeOwned, from_bytes};
use crate::rpc::line::{Outgoing, Prefix};
use crate::rpc::wire::{CHUNK, CONTINUE, END, RESPONSE};
use crate::rpc::{CallError, CallViolation};
use crate::{Deadline, Error, ErrorKind};

/// The answer to a streaming call: an iterator of the chunks' payloads, after which [`end`](Self::end) has the last value.
///
/// Dropping it before the end cancels the call, which costs the call's channel. In a window the server sends the next chunk when the
/// iterator asks for it, and waits at most 30 s for that.
pub struct Stream {
    shared: Arc<Shared>,
    /// Gone once the stream has ended.
    channel: Option<Box<Channel>>,
    deadline: Deadline,
    /// Whether a chunk came, so that in a window the next has to be asked for.
    asks: bool,
    /// What it ended with, unless it failed.
    end: Option<Vec<u8>>,
}

/// What came.
enum Piece {
    Chunk(Vec<u8>),
    End(Vec<u8>),
}

impl Stream {
    pub(super) fn new(client: &Client, channel: Box<Channel>, deadline: Deadline) -> Self {
        Self { shared: Arc::clone(&client.shared), channel: Some(channel), deadline, asks: false, end: None }
    }

    /// The value that the stream ended with, once the iterator has returned `None`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the stream has not ended yet, or failed. [`Violation`](ErrorKind::Violation) if the value
    /// does not decode.
    pub fn end<T: DecodeOwned>(&self) -> Result<T, CallError> {
        let Some(end) = &self.end else {
            return Err(Error::invalid("the stream has not ended").into());
        };
        from_bytes(end).map_err(|_| Error::from(CallViolation::Malformed(END)).into())
    }

    pub(super) fn has_ended(&self) -> bool {
        self.channel.is_none()
    }

    fn piece(channel: &mut Channel, asks: bool, deadline: Deadline) -> Result<Piece, Failure> {
        if let (true, Line::Window(line)) = (asks, &mut channel.line) {
            let message = Outgoing { tag: CONTINUE, prefix: Prefix::None, value: &(), fds: 0 };
            let staged = line.stage(&message, 0, false).map_err(|error| Failure::Lost(error.into()))?;
            line.flip(staged).map_err(Failure::Lost)?;
        }
        let mut piece = None;
        channel.receive(deadline, &mut |tag, payload, fds| {
            piece = Some(match tag {
                CHUNK if fds.is_none() => Piece::Chunk(payload.to_vec()),
                END if fds.is_none() => Piece::End(payload.to_vec()),
                RESPONSE => return Err(Failure::Lost(CallViolation::Unexpected(tag).into())),
                _ => return Err(no_response(tag, payload, fds.is_some())),
            });
            Ok(())
        })?;
        piece.ok_or_else(|| Failure::Lost(CallViolation::Malformed(CHUNK).into()))
    }

    /// The stream is over, and its channel is in order.
    fn finish(&mut self) {
        if let Some(mut channel) = self.channel.take() {
            channel.trim();
            self.shared.give_back(channel);
        }
    }

    /// Ends a stream whose rest nobody will read.
    fn cancel(&mut self) {
        if let Some(channel) = self.channel.take() {
            channel.shut_down();
        }
    }
}

impl Iterator for Stream {
    type Item = Result<Vec<u8>, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = Self::piece(self.channel.as_mut()?, self.asks, self.deadline);
        self.asks = true;
        match piece {
            Ok(Piece::Chunk(chunk)) => Some(Ok(chunk)),
            Ok(Piece::End(end)) => {
                self.end = Some(end);
                self.finish();
                None
            }
            Err(Failure::Call(error)) => {
                self.finish();
                Some(Err(error))
            }
            Err(Failure::Unsent(error) | Failure::Lost(error)) => {
                self.cancel();
                Some(Err(error.into()))
            }
            Err(Failure::Late) => {
                self.cancel();
                Some(Err(Error::new(ErrorKind::Timeout, "the stream did not go on by the deadline").into()))
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cancel();
    }
}
