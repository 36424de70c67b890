//! What the threads of a mux share: the state table, the queues of the channels, and the write queue.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::net::Shutdown;

use super::frame_receiver::FrameReceiver;
use super::message_queue::MessageQueue;
use super::protocol::control::{Control, Reason};
use super::protocol::leadership::Leadership;
use super::protocol::state::{Key, StateTable};
use super::signal::Signal;
use super::write_queue::WriteQueue;
use crate::error::{Error, Result};
use crate::stream::socket::outbox;
use crate::sys::fork::Origin;
use crate::sys::lock::lock;
use crate::sys::peer_socket::PeerSocket;

/// Buffers of consumed messages kept for the next ones.
const SPARE_BUFFERS: usize = 16;

/// What the handles of a channel share with the reader thread.
#[derive(Default)]
pub(super) struct Slot {
    /// Messages that came and nobody took.
    pub(super) queue: MessageQueue,
    /// Our OPEN was answered by ACCEPT.
    pub(super) accepted: bool,
    /// The peer's END came.
    pub(super) peer_ended: bool,
    /// The channel failed.
    pub(super) failure: Option<Error>,
    /// Nobody wants what comes.
    pub(super) receiver_gone: bool,
    pub(super) sender_gone: bool,
    /// Somebody may read, or knows that there is nothing more.
    pub(super) readable: Arc<Signal>,
    /// Somebody may write: credit came, it is its turn to write, the channel was accepted or failed.
    pub(super) writable: Arc<Signal>,
}

pub(super) struct Inner {
    pub(super) table: StateTable,
    pub(super) slots: BTreeMap<Key, Slot>,
    pub(super) offers: VecDeque<(Key, String)>,
    pub(super) write_queue: WriteQueue,
    /// Which thread reads the socket.
    pub(super) leadership: Leadership<FrameReceiver>,
    /// Why the mux ended.
    pub(super) error: Option<Error>,
    /// Somebody asked for an orderly end, with this reason: what is due goes out first.
    pub(super) closing: Option<Reason>,
    /// Whether the GOODBYE of `closing` is among what is written.
    pub(super) said_goodbye: bool,
    pub(super) spare: Vec<Vec<u8>>,
    /// The signals to notify when the lock is given back.
    pub(super) due_wakes: Vec<Arc<Signal>>,
}

impl Inner {
    /// The error of the channel, or of the whole mux.
    pub(super) fn check(&self, key: Key) -> Result<()> {
        let failure = self.slots.get(&key).and_then(|slot| slot.failure.as_ref());
        failure.or(self.error.as_ref()).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Fails one channel. What its handles had not read is thrown away, unless it is complete: then only sending fails.
    pub(super) fn fail_channel(&mut self, key: Key, error: Error) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.failure = Some(error);
        let thrown = if slot.peer_ended { MessageQueue::default() } else { std::mem::take(&mut slot.queue) };
        slot.readable.notify();
        slot.writable.notify();
        self.throw_away(key, thrown);
    }

    /// Counts messages as consumed that nobody received.
    pub(super) fn throw_away(&mut self, key: Key, mut unread: MessageQueue) {
        let mut message = Vec::new();
        while unread.pop(&mut message).is_some() {
            self.table.consume(key, message.len());
        }
    }

    /// Keeps a buffer for a later message.
    pub(super) fn recycle(&mut self, buffer: Option<Vec<u8>>) {
        let buffer = buffer.filter(|buffer| buffer.capacity() > 0 && self.spare.len() < SPARE_BUFFERS);
        self.spare.extend(buffer);
    }
}

pub(super) struct Shared {
    pub(super) socket: PeerSocket,
    /// Makes the reader thread check the write queue and `closing`.
    pub(super) wake: OwnedFd,
    /// Makes a program that sleeps at the socket check what it waits for.
    pub(super) nudge: OwnedFd,
    pub(super) patience: Duration,
    /// The mux has ended: a write that finds no room gives up.
    pub(super) failing: AtomicBool,
    pub(super) offered: Signal,
    /// The peer's HELLO came, or the mux ended.
    pub(super) greeted: Signal,
    /// The reader thread has ended the mux in order.
    pub(super) ended: Signal,
    inner: Mutex<Inner>,
    /// In a forked child nothing is sent or received, and no lock is taken: one that another thread held stays locked there.
    origin: Origin,
}

impl Shared {
    pub(super) fn new(
        socket: PeerSocket,
        [wake, nudge]: [OwnedFd; 2],
        patience: Duration,
        table: StateTable,
        receiver: FrameReceiver,
    ) -> Self {
        let inner = Inner {
            table,
            slots: BTreeMap::new(),
            offers: VecDeque::new(),
            write_queue: WriteQueue::default(),
            leadership: Leadership::new(receiver),
            error: None,
            closing: None,
            said_goodbye: false,
            spare: Vec::new(),
            due_wakes: Vec::new(),
        };
        let (offered, greeted, ended) = (Signal::default(), Signal::default(), Signal::default());
        let failing = AtomicBool::new(false);
        Self {
            socket,
            wake,
            nudge,
            patience,
            failing,
            offered,
            greeted,
            ended,
            inner: Mutex::new(inner),
            origin: Origin::here(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// As [`lock`](Self::lock), in the process that made the mux.
    pub(super) fn enter(&self) -> Result<MutexGuard<'_, Inner>> {
        self.origin.check()?;
        Ok(self.lock())
    }

    /// Wakes the reader thread.
    pub(super) fn wake_reader(&self) {
        // Only fails when the counter is full: then it is readable as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// One write that does not wait. The peer may be gone, or not be reading: then it has been told as well as can be.
    pub(super) fn say_goodbye(&self, words: &[u8]) {
        if !words.is_empty() {
            let _ = outbox::try_send(&self.socket, words);
        }
    }

    pub(super) fn hang_up(&self) {
        // The only failure is that the connection is over already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    /// Ends the mux: every handle gets `error`; the peer is told why, if a write can be had at once.
    #[cold]
    pub(super) fn fail(&self, inner: &mut Inner, error: Error, goodbye: Option<(Reason, &str)>) {
        if inner.error.is_some() {
            return;
        }
        let mut words = Vec::new();
        if let Some((reason, text)) = goodbye {
            Control::Goodbye { reason, text }.encode(&mut words);
        }
        inner.error = Some(error);
        self.failing.store(true, Ordering::Relaxed);
        if inner.write_queue.is_writing() {
            // The thread that writes a frame at this moment says goodbye behind it. If it waits for room, this makes it give up.
            inner.write_queue.last_words = words;
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Read);
        } else {
            if inner.write_queue.is_between_frames() {
                self.say_goodbye(&words);
            }
            self.hang_up();
        }
        for slot in inner.slots.values() {
            slot.readable.notify();
            slot.writable.notify();
        }
        inner.write_queue.notify_all();
        for signal in [&self.offered, &self.greeted, &self.ended] {
            signal.notify();
        }
        self.wake_reader();
    }
}
