//! Whose turn it is in a streamed answer. In a window each chunk is one flip, and the client asks with CONTINUE for the next; on a socket
//! chunks flow by themselves.

use std::time::{Duration, Instant};

use super::head::expect_continue;
use super::number::CONTINUE_GRACE;
use crate::rpc::CallViolation;

/// The server's side of a streamed answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkSender {
    /// The next chunk, or the end, may go out.
    Ready,
    /// A chunk is out, and in a window the client has to ask for the next.
    Asked,
    /// Nothing goes out any more.
    Over,
}

impl ChunkSender {
    /// A chunk went out; `asks`: the client asks for the next one.
    pub fn chunk(&mut self, asks: bool) {
        if asks && *self == Self::Ready {
            *self = Self::Asked;
        }
    }

    /// A datagram came. `front` are its first bytes, four of them if it has as many.
    ///
    /// # Errors
    /// It does not ask for a chunk, or nothing was to be asked for. The stream is over.
    pub fn came(&mut self, datagram: u32, front: &[u8]) -> Result<(), CallViolation> {
        let asked = expect_continue(datagram, front);
        *self = if *self == Self::Asked && asked.is_ok() { Self::Ready } else { Self::Over };
        asked
    }

    /// The end went out, or the transport failed.
    pub fn end(&mut self) {
        *self = Self::Over;
    }

    /// Whether a chunk or the end may go out.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

/// How long a server with this patience waits for a CONTINUE from `now` on, and at most 1 s past the deadline of the call.
pub fn continue_due(patience: Duration, now: Instant, deadline: Option<Instant>) -> Instant {
    let patience = now + patience;
    deadline.map_or(patience, |due| (due + CONTINUE_GRACE).min(patience))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::message::head::WindowHead;

    #[test]
    fn a_chunk_waits_to_be_asked_for_the_next() {
        let asks = WindowHead::CONTINUE.encode();
        let mut sender = ChunkSender::Ready;
        for _ in 0..3 {
            sender.chunk(true);
            assert!(!sender.is_ready());
            assert_eq!(sender.came(4, &asks), Ok(()));
            assert!(sender.is_ready());
        }
        sender.chunk(false);
        assert!(sender.is_ready(), "on a socket nobody asks");
        sender.end();
        sender.chunk(true);
        assert_eq!(sender, ChunkSender::Over);
    }

    #[test]
    fn what_does_not_ask_ends_the_stream() {
        let other = WindowHead { tag: 1, ..WindowHead::CONTINUE }.encode();
        let mut sender = ChunkSender::Ready;
        sender.chunk(true);
        assert_eq!(sender.came(4, &other), Err(CallViolation::Unexpected(1)));
        assert_eq!(sender, ChunkSender::Over);
        let mut sender = ChunkSender::Ready;
        sender.chunk(true);
        assert_eq!(sender.came(3, &[]), Err(CallViolation::Datagram(3)));
        assert_eq!(sender, ChunkSender::Over);
    }

    #[test]
    fn a_client_has_the_patience_of_its_server_and_a_second_past_the_deadline() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(continue_due(30 * second, now, None), now + 30 * second);
        assert_eq!(continue_due(30 * second, now, Some(now + second)), now + 2 * second);
        assert_eq!(continue_due(30 * second, now, Some(now + 40 * second)), now + 30 * second);
    }
}
