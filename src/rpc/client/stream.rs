//! Streamed answers.

use std::sync::Arc;

use super::channel::Channel;
use super::failure::Failure;
use super::shared::Shared;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::rpc::codec::{DecodeOwned, from_bytes};
use crate::rpc::message::answer::{Chunk, ChunkReceiver};
use crate::rpc::message::number::{CHUNK, END};
use crate::rpc::{CallError, CallViolation};

/// The answer to a streaming call: an iterator of the chunks' payloads, after which [`end`](Self::end) has the last value.
///
/// Dropping it before the end cancels the call, which costs the call's channel. In a window the server sends the next chunk when the
/// iterator asks for it, and waits for that with its patience, 30 s unless configured; over a socket it waits as long for room. A reader that was
/// slower gets an error that says so.
pub struct Stream {
    shared: Arc<Shared>,
    /// Gone once the stream has ended.
    channel: Option<Box<Channel>>,
    deadline: Deadline,
    /// How far the stream has come.
    chunks: ChunkReceiver,
    /// What it ended with, unless it failed.
    end: Option<Vec<u8>>,
}

/// A message of the stream, as its owner gets it.
enum Item {
    Chunk(Vec<u8>),
    End(Vec<u8>),
}

impl Stream {
    pub(super) fn new(shared: &Arc<Shared>, channel: Box<Channel>, deadline: Deadline) -> Self {
        let chunks = ChunkReceiver::Begun;
        Self { shared: Arc::clone(shared), channel: Some(channel), deadline, chunks, end: None }
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

    /// The next message.
    fn item(channel: &mut Channel, chunks: &mut ChunkReceiver, deadline: Deadline) -> Result<Item, Failure> {
        if chunks.asks() {
            channel.ask_for_chunk()?;
        }
        let mut item = None;
        channel.receive(deadline, &mut |tag, payload, fds| {
            item = Some(match chunks.take(tag, fds.is_some(), payload)? {
                Chunk::Chunk(payload) => Item::Chunk(payload.to_vec()),
                Chunk::End(payload) => Item::End(payload.to_vec()),
            });
            Ok(())
        })?;
        item.ok_or_else(|| Failure::Lost(CallViolation::Malformed(CHUNK).into()))
    }

    /// The stream is over, and its channel is in order.
    fn finish(&mut self) {
        if let Some(mut channel) = self.channel.take() {
            channel.end_call();
            self.shared.give_back(channel);
        }
    }

    /// What ended the stream under its reader: what the server said, if it did.
    #[cold]
    fn why_lost(&mut self, error: Error) -> CallError {
        let kind = error.kind();
        if !matches!(kind, ErrorKind::PeerGone | ErrorKind::PeerShutdown) {
            return error.into();
        }
        match self.channel.as_mut().and_then(|channel| channel.last_words()) {
            Some(status) => status.into(),
            None => {
                let what = "the server ended the stream before its end, as it does if a chunk is not taken within its patience \
                            (30 s unless configured)";
                Error::caused(kind, what, error).into()
            }
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
        let channel = self.channel.as_mut()?;
        if let Err(error) = self.shared.origin.check() {
            self.channel = None;
            return Some(Err(error.into()));
        }
        let item = Self::item(channel, &mut self.chunks, self.deadline);
        match item {
            Ok(Item::Chunk(chunk)) => Some(Ok(chunk)),
            Ok(Item::End(end)) => {
                self.end = Some(end);
                self.finish();
                None
            }
            Err(Failure::Call(error)) => {
                self.finish();
                Some(Err(self.shared.explained(error)))
            }
            Err(Failure::Unsent(error) | Failure::Lost(error)) => {
                let why = self.why_lost(error);
                self.cancel();
                Some(Err(self.shared.explained(why)))
            }
            Err(Failure::TimedOut) => {
                self.cancel();
                Some(Err(
                    Error::new(ErrorKind::Timeout, "the next chunk of the stream did not come by the deadline").into()
                ))
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cancel();
    }
}
