//! What a client makes of the messages that come as an answer.

use super::number::{CHUNK, END, ERROR, OK, RESPONSE};
use crate::rpc::codec::from_bytes;
use crate::rpc::{CallViolation, Status};

/// Why a message brings no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoValue {
    /// The server answered with an error. The channel is as good as before.
    Status(Status),
    /// The server broke the protocol. The channel has to end.
    Violation(CallViolation),
}

impl From<CallViolation> for NoValue {
    #[cold]
    fn from(violation: CallViolation) -> Self {
        Self::Violation(violation)
    }
}

/// The fields of a response that is in order.
#[inline(always)]
pub fn fields(tag: u16, payload: &[u8]) -> Option<&[u8]> {
    match payload {
        [OK, fields @ ..] if tag == RESPONSE => Some(fields),
        _ => None,
    }
}

/// The answer to a call that is answered once: the fields of a response.
///
/// # Errors
/// Every other message.
#[inline]
pub fn response(tag: u16, has_fds: bool, payload: &[u8]) -> Result<&[u8], NoValue> {
    fields(tag, payload).ok_or_else(|| no_response(tag, has_fds, payload))
}

/// What a message that is no response means for a call.
#[cold]
fn no_response(tag: u16, has_fds: bool, payload: &[u8]) -> NoValue {
    let violation = match tag {
        _ if has_fds => CallViolation::Descriptors(0),
        ERROR => match from_bytes(payload) {
            Ok(status) => return NoValue::Status(status),
            Err(_) => CallViolation::Malformed(tag),
        },
        RESPONSE => CallViolation::Malformed(tag),
        _ => CallViolation::Unexpected(tag),
    };
    violation.into()
}

/// Whether a message that nobody waits for any more can be the answer to a call that is answered once.
///
/// # Errors
/// It cannot.
pub fn overdue(tag: u16) -> Result<(), CallViolation> {
    match tag {
        RESPONSE | ERROR => Ok(()),
        _ => Err(CallViolation::Unexpected(tag)),
    }
}

/// A client's side of a streamed answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkReceiver {
    /// The request is out, and nothing came.
    Begun,
    /// A chunk came: in a window the next has to be asked for with CONTINUE.
    Going,
    /// It ended, or failed.
    Over,
}

/// A message of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// One of many.
    Chunk(&'a [u8]),
    /// The last.
    End(&'a [u8]),
}

impl ChunkReceiver {
    /// Whether CONTINUE is due before the next chunk can come, in a window.
    pub fn asks(self) -> bool {
        self == Self::Going
    }

    /// A message came.
    ///
    /// # Errors
    /// The stream failed: it is over.
    pub fn take<'a>(&mut self, tag: u16, has_fds: bool, payload: &'a [u8]) -> Result<Chunk<'a>, NoValue> {
        let was = std::mem::replace(self, Self::Over);
        match tag {
            _ if was == Self::Over => Err(CallViolation::Unexpected(tag).into()),
            CHUNK if !has_fds => {
                *self = Self::Going;
                Ok(Chunk::Chunk(payload))
            }
            END if !has_fds => Ok(Chunk::End(payload)),
            // Its service means a method that answers once.
            RESPONSE => Err(CallViolation::Unexpected(tag).into()),
            _ => Err(no_response(tag, has_fds, payload)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Code;
    use crate::rpc::codec::to_bytes;
    use crate::rpc::message::number::{BULK, CONTINUE};

    fn status() -> Status {
        Status::new(Code::Io, "no")
    }

    /// Every kind of message that can come: type, whether descriptors came with it, payload.
    fn messages() -> Vec<(u16, bool, Vec<u8>)> {
        let payloads = [vec![], vec![0], vec![0, 7], vec![1, 7], to_bytes(&status())];
        let tags = [RESPONSE, ERROR, CHUNK, END, BULK, CONTINUE, 0, 1, 0xFEFF, 0xFFF0, 0xFFFF];
        let all = tags.into_iter().flat_map(|tag| [false, true].map(|has_fds| (tag, has_fds)));
        all.flat_map(|(tag, has_fds)| payloads.clone().map(|payload| (tag, has_fds, payload))).collect()
    }

    #[test]
    fn a_call_takes_a_response_or_an_error_and_nothing_else() {
        for (tag, has_fds, payload) in messages() {
            let expected = match (tag, &payload[..]) {
                (RESPONSE, [0, fields @ ..]) => Ok(fields),
                _ if has_fds => Err(CallViolation::Descriptors(0).into()),
                (ERROR, payload) if payload.len() > 2 => Err(NoValue::Status(status())),
                (RESPONSE | ERROR, _) => Err(CallViolation::Malformed(tag).into()),
                _ => Err(CallViolation::Unexpected(tag).into()),
            };
            assert_eq!(response(tag, has_fds, &payload), expected, "{tag:#x} {has_fds} {payload:?}");
            assert_eq!(overdue(tag).is_ok(), tag == RESPONSE || tag == ERROR);
        }
    }

    #[test]
    fn every_sequence_of_three_messages_is_a_stream_or_ends_one() {
        let all = messages();
        for first in &all {
            for second in &all {
                let mut stream = ChunkReceiver::Begun;
                let mut is_over = false;
                for (tag, has_fds, payload) in [first, second, first] {
                    assert_eq!(stream.asks(), !is_over && stream != ChunkReceiver::Begun);
                    let taken = stream.take(*tag, *has_fds, payload);
                    let expected = match (*tag, has_fds) {
                        _ if is_over => Err(CallViolation::Unexpected(*tag).into()),
                        (CHUNK, false) => Ok(Chunk::Chunk(payload)),
                        (END, false) => Ok(Chunk::End(payload)),
                        (RESPONSE, _) => Err(CallViolation::Unexpected(RESPONSE).into()),
                        _ => Err(response(*tag, *has_fds, payload).unwrap_err()),
                    };
                    assert_eq!(taken, expected);
                    is_over |= !matches!(taken, Ok(Chunk::Chunk(_)));
                    assert_eq!(stream == ChunkReceiver::Over, is_over);
                }
            }
        }
    }
}
