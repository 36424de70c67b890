//! A channel as a byte stream.

use std::io::{self, Read, Write};

use super::channel::{ChannelReceiver, ChannelSender};
use crate::deadline::Deadline;

/// Writes bytes to a channel, cut into messages of the peer's maximum. Dropped, it ends the direction.
#[derive(Debug)]
pub struct ByteWriter {
    sender: ChannelSender,
    deadline: Deadline,
}

/// Reads bytes from a channel, whatever messages they came in.
pub struct ByteReader {
    receiver: ChannelReceiver,
    deadline: Deadline,
    message: Vec<u8>,
    at: usize,
}

impl std::fmt::Debug for ByteReader {
    /// Without the bytes of the message that is being read.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteReader")
            .field("receiver", &self.receiver)
            .field("deadline", &self.deadline)
            .field("unread", &(self.message.len() - self.at))
            .finish()
    }
}

impl ChannelSender {
    /// This half as a byte stream; `deadline` holds for each write anew.
    #[must_use]
    pub fn into_writer(self, deadline: impl Into<Deadline>) -> ByteWriter {
        ByteWriter { sender: self, deadline: deadline.into() }
    }
}

impl ChannelReceiver {
    /// This half as a byte stream; `deadline` holds for each read anew. Empty messages are passed over.
    #[must_use]
    pub fn into_reader(self, deadline: impl Into<Deadline>) -> ByteReader {
        ByteReader { receiver: self, deadline: deadline.into(), message: Vec::new(), at: 0 }
    }
}

impl Write for ByteWriter {
    /// Sends one message of at most the peer's maximum.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let count = bytes.len().min(self.sender.max_message());
        self.sender.send(&bytes[..count], self.deadline)?;
        Ok(count)
    }

    /// Nothing is held back, so there is nothing to do.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for ByteReader {
    /// Reads from one message. 0 is the peer's end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.message.len() && !buffer.is_empty() {
            self.at = 0;
            if !self.receiver.receive_into(&mut self.message, self.deadline)? {
                self.message.clear();
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.message.len() - self.at);
        buffer[..count].copy_from_slice(&self.message[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
