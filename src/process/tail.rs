//! What a child says on its standard error: it goes to ours, and the end of it is kept for the error that tells of the child's end.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys::lock::{lock, wait_timeout};
use crate::sys::{lift, thread};

/// Bytes that are kept: some dozen lines, of which the last ones matter.
const TAIL: usize = 4096;

/// How long the end of what a dead child said may take to come: another process may still hold its standard error.
const PATIENCE: Duration = Duration::from_millis(100);

/// The end of what a child said.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    ended: bool,
}

/// A pipe for a child: the reading end and the writing end.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let lifted = || {
        let (reader, writer) = std::io::pipe()?;
        Ok((lift::lift(reader)?, lift::lift(writer)?))
    };
    lifted().map_err(|error: std::io::Error| Error::system("cannot make a pipe for a child", error))
}

impl Tail {
    /// Listens at a pipe, whose writing end a child is to have as its standard error. The thread that does ends when the last process
    /// is gone that has it.
    pub(super) fn listen() -> Result<(Self, Arc<OwnedFd>)> {
        let (reader, writer) = pipe()?;
        let tail = Self::default();
        let to = tail.clone();
        thread::spawn("flipcall-stderr", move || to.follow(std::fs::File::from(reader)))
            .map_err(|error| Error::system("cannot start a thread for a child", error))?;
        Ok((tail, Arc::new(writer)))
    }

    fn follow(&self, mut from: impl Read) {
        let mut buffer = [0; TAIL];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    // If ours is closed there is nobody to tell.
                    let _ = std::io::stderr().write_all(&buffer[..count]);
                    lock(&self.0.state).keep(&buffer[..count]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        drop(from);
        lock(&self.0.state).ended = true;
        self.0.ended.notify_all();
    }

    /// Waits until all is heard that a child said that has ended.
    pub(super) fn wait_for_end(&self) {
        let state = lock(&self.0.state);
        if !state.ended {
            drop(wait_timeout(&self.0.ended, state, PATIENCE));
        }
    }

    /// The end of what a child said, on one line and without a byte that a terminal would obey. Empty: nothing.
    pub(super) fn last_words(&self) -> String {
        let mut state = lock(&self.0.state);
        let text = String::from_utf8_lossy(state.bytes.make_contiguous());
        text.trim().escape_debug().to_string()
    }
}

impl State {
    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(TAIL);
        self.bytes.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept() {
        let mut state = State::default();
        state.keep(b"first");
        state.keep(&[b'x'; TAIL - 1]);
        assert_eq!(state.bytes.len(), TAIL);
        assert_eq!(state.bytes[0], b't');
        state.keep(b"\x1b[2J \n");
        let tail = Tail(Arc::new(Shared { state: Mutex::new(State { ended: true, ..state }), ended: Condvar::new() }));
        assert!(tail.last_words().ends_with("xx\\u{1b}[2J"), "{}", tail.last_words());
    }
}
