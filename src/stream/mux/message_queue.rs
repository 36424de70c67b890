//! What came for a channel and nobody took, in about the memory that its credit counts: 16 bytes and its length for each message.
//!
//! A buffer for each short message, and its place in a queue, would take three times that. So short ones lie behind each other in chunks,
//! two bytes of length in front of each. A long one keeps the buffer that it came in; what lies in the chunks for it is only its turn.

use std::collections::VecDeque;

use super::payload::Payload;

/// A message of at least this many bytes has a buffer of its own: its place in the queue is little beside it, and a second copy is not.
const LONG: usize = 4096;

/// The length that stands for a message in a buffer of its own.
const ELSEWHERE: u16 = u16::MAX;

/// Bytes of a chunk. A message, or its length, may begin in one and end in the next, so all but the last are full.
const CHUNK: usize = 4096;

/// An empty queue keeps a chunk of at most this many bytes for the next message.
const RETAINED: usize = 256;

/// A length in front of a message.
const PREFIX: usize = size_of::<u16>();

/// Messages, the oldest first.
#[derive(Debug, Default)]
pub(super) struct MessageQueue {
    chunks: VecDeque<Vec<u8>>,
    /// Where the first message begins in the first chunk.
    at: usize,
    long: VecDeque<Vec<u8>>,
    messages: usize,
}

impl MessageQueue {
    pub(super) fn len(&self) -> usize {
        self.messages
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Appends a message. `spare` lends a buffer, if a long one has none.
    pub(super) fn push(&mut self, payload: Payload<'_>, spare: impl FnOnce() -> Option<Vec<u8>>) {
        self.messages += 1;
        let bytes = payload.bytes();
        if bytes.len() < LONG {
            // Below `LONG`, so it fits and is not `ELSEWHERE`.
            self.append(&(bytes.len() as u16).to_ne_bytes());
            self.append(bytes);
            return;
        }
        let mut buffer = payload.into_owned(spare);
        // A lent buffer may be much larger than what it holds, and only that is counted.
        if buffer.capacity() - buffer.len() > buffer.len() / 64 {
            buffer.shrink_to_fit();
        }
        self.append(&ELSEWHERE.to_ne_bytes());
        self.long.push_back(buffer);
    }

    /// Moves the first message to `message`; the buffer that was there, if another one took its place. `None`: there is no message.
    pub(super) fn pop(&mut self, message: &mut Vec<u8>) -> Option<Option<Vec<u8>>> {
        self.messages = self.messages.checked_sub(1)?;
        let (mut prefix, mut at) = ([0; PREFIX], 0);
        self.take(PREFIX, |bytes| {
            prefix[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        });
        let old = match u16::from_ne_bytes(prefix) {
            ELSEWHERE => self.long.pop_front().map(|buffer| std::mem::replace(message, buffer)),
            length => {
                message.clear();
                message.reserve_exact(length.into());
                self.take(length.into(), |bytes| message.extend_from_slice(bytes));
                None
            }
        };
        if self.messages == 0 {
            self.forget();
        }
        Some(old)
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let is_first = self.chunks.len() <= 1;
            match self.chunks.back_mut() {
                Some(chunk) if room > 0 => {
                    let (now, later) = bytes.split_at(room.min(bytes.len()));
                    let needed = chunk.len() + now.len();
                    if needed > chunk.capacity() && is_first {
                        // The first one grows, because most queues are short.
                        let capacity = needed.max(2 * chunk.capacity()).min(CHUNK);
                        chunk.reserve_exact(capacity - chunk.len());
                    }
                    chunk.extend_from_slice(now);
                    bytes = later;
                }
                Some(_) => self.chunks.push_back(Vec::with_capacity(CHUNK)),
                None => self.chunks.push_back(Vec::new()),
            }
        }
    }

    /// Bytes that the last chunk still takes.
    fn room(&self) -> usize {
        self.chunks.back().map_or(0, |chunk| CHUNK - chunk.len())
    }

    /// Hands out the next `left` bytes of the chunks, and gives those back that are done.
    fn take(&mut self, mut left: usize, mut sink: impl FnMut(&[u8])) {
        while let Some(chunk) = self.chunks.front().filter(|_| left > 0) {
            let rest = &chunk[self.at..];
            let count = left.min(rest.len());
            sink(&rest[..count]);
            (self.at, left) = (self.at + count, left - count);
            if self.at == CHUNK {
                self.chunks.pop_front();
                self.at = 0;
            }
        }
    }

    /// Nothing is left: the memory of a long queue is given back.
    fn forget(&mut self) {
        self.at = 0;
        self.chunks.truncate(1);
        match self.chunks.front_mut() {
            Some(chunk) if chunk.capacity() <= RETAINED => chunk.clear(),
            _ => self.chunks = VecDeque::new(),
        }
        if self.long.capacity() * size_of::<Vec<u8>>() > RETAINED {
            self.long = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(length: usize, byte: u8) -> Vec<u8> {
        (0..length).map(|at| byte.wrapping_add(at as u8)).collect()
    }

    /// Pushes a long message as one that came in a buffer of its own, a shorter one as one that is copied.
    fn push(queue: &mut MessageQueue, bytes: &[u8], spare: usize) {
        let owned = bytes.len() >= 8192;
        let lent = || {
            let mut buffer = Vec::with_capacity(spare);
            buffer.extend_from_slice(bytes);
            buffer
        };
        let payload = if owned { Payload::Owned(lent()) } else { Payload::Borrowed(bytes) };
        queue.push(payload, || Some(Vec::with_capacity(spare)));
    }

    /// What the queue has allocated, the allocator's own word a piece included.
    fn memory(queue: &MessageQueue) -> usize {
        let places = (queue.chunks.capacity() + queue.long.capacity()) * size_of::<Vec<u8>>();
        queue.chunks.iter().chain(&queue.long).map(|piece| piece.capacity() + 8).sum::<usize>() + places
    }

    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![4 => 0usize..20, 2 => 0usize..LONG, 1 => LONG - 2..LONG + 3, 1 => LONG..20_000]
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(
            // How many to push, of which length, and how many to pop then.
            steps in prop::collection::vec((1usize..300, lengths(), 0usize..400), 1..30),
        ) {
            let (mut queue, mut model, mut message) = (MessageQueue::default(), VecDeque::new(), Vec::new());
            for (index, (pushes, length, pops)) in steps.into_iter().enumerate() {
                for _ in 0..if length < LONG { pushes } else { pushes / 30 } {
                    let bytes = payload(length, index as u8);
                    push(&mut queue, &bytes, 70_000);
                    model.push_back(bytes);
                }
                for _ in 0..pops {
                    prop_assert_eq!(queue.len(), model.len());
                    let Some(expected) = model.pop_front() else {
                        prop_assert!(queue.pop(&mut message).is_none());
                        break;
                    };
                    prop_assert!(queue.pop(&mut message).is_some());
                    prop_assert_eq!(&message, &expected);
                }
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
        }

        #[test]
        fn it_takes_little_more_than_its_credit_counts(lengths in prop::collection::vec(lengths(), 1..8)) {
            let (mut queue, mut counted) = (MessageQueue::default(), 0);
            for length in lengths.iter().cycle() {
                push(&mut queue, &payload(*length, 1), 70_000);
                counted += length + 16;
                prop_assert!(memory(&queue) <= counted + counted / 16 + CHUNK, "{} for {}", memory(&queue), counted);
                if counted > 300_000 {
                    break;
                }
            }
        }
    }

    #[test]
    fn an_empty_queue_keeps_next_to_nothing() {
        let (mut queue, mut message) = (MessageQueue::default(), Vec::new());
        for length in [0, 1, 15, 100, LONG - 1, LONG, 60_000] {
            (0..1000).for_each(|_| push(&mut queue, &payload(length, 3), length));
            while queue.pop(&mut message).is_some() {}
            assert!(memory(&queue) <= 2 * RETAINED + 200, "{} bytes after messages of {length}", memory(&queue));
        }
    }
}
