//! Channels of `std::sync::mpsc` tied to channels of a mux, so that code which speaks `mpsc` need not know of the socket.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::channel::{ChannelReceiver, ChannelSender};
use super::protocol::control::Reason;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::sys::thread;

/// How often a bridge whose program sends nothing checks whether its channel still lives.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// The thread of a bridge. Dropped, it goes on until its channel has ended.
#[derive(Debug)]
pub struct Bridge(JoinHandle<Result<()>>);

impl Bridge {
    /// Waits for the thread, and tells how its channel ended.
    ///
    /// # Errors
    /// The error of a channel that failed.
    ///
    /// # Panics
    /// If the thread panicked.
    pub fn join(self) -> Result<()> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Whether the thread has ended, so that [`join`](Self::join) would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl ChannelSender {
    /// Sends what `messages` yields, from a thread of its own, until its senders are gone; then ends this direction. If the channel
    /// fails, `messages` is dropped, so that its senders notice within 50 ms, and joining the thread returns the error.
    ///
    /// # Errors
    /// [`ErrorKind::System`](crate::ErrorKind::System) if no thread can be had.
    pub fn bridge(mut self, messages: Receiver<Vec<u8>>) -> Result<Bridge> {
        let run = move || loop {
            match messages.recv_timeout(CHECK_EVERY) {
                Ok(message) => self.send(&message, Deadline::NEVER)?,
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        };
        spawn("flipcall-send", run)
    }
}

impl ChannelReceiver {
    /// Delivers what comes to a channel that holds up to `bound` messages, from a thread of its own; its end is the end of the
    /// direction. A bounded one, so that a program which does not read is felt by the peer as missing credit. If the program drops
    /// its end, the mux channel is reset. Joining the thread returns the error of a channel that failed.
    ///
    /// # Errors
    /// [`ErrorKind::System`](crate::ErrorKind::System) if no thread can be had.
    pub fn bridge(mut self, bound: usize) -> Result<(Receiver<Vec<u8>>, Bridge)> {
        let (deliver, messages): (SyncSender<Vec<u8>>, _) = sync_channel(bound);
        let run = move || {
            while let Some(message) = self.receive(Deadline::NEVER)? {
                if deliver.send(message).is_err() {
                    self.reset(Reason::CANCELLED);
                    break;
                }
            }
            Ok(())
        };
        Ok((messages, spawn("flipcall-receive", run)?))
    }
}

fn spawn(name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Bridge> {
    let started = thread::spawn(name, run);
    started.map(Bridge).map_err(|error| Error::system("cannot start the thread of a bridge", error))
}
