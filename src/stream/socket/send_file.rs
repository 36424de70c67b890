//! Files and pipes into a frame without a copy through this process.
//!
//! `sendfile` and `splice` know no `MSG_DONTWAIT`: whether they wait is decided by the flags and timeouts of the socket's open file
//! description, which a peer that holds a duplicate of our end can change at any moment. So they are used only on a socket that is
//! ours alone (see `unshared.rs`). Everywhere else, and where the kernel cannot, bytes are read and sent.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::sendfile;
use rustix::io::{Errno, ioctl_fionbio, pread};
use rustix::pipe::{SpliceFlags, splice};

use super::frame_socket::FrameSocket;
use super::outbox::{WriteError, send_all};
use super::progress::Progress;
use super::readiness::{self, WaitEnd};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::header::Header;
use crate::stream::frame::violation::FrameViolation;
use crate::sys::sigpipe::without_sigpipe;

/// What is read at once where the kernel cannot move bytes itself.
const COPY_BYTES: usize = 64 * 1024;

/// What the kernel moves in one call: each of its buffers may wait a slice, and between calls the deadline is checked.
const MOVED_BYTES: usize = 256 * 1024;

/// Where the bytes of a frame come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    File(BorrowedFd<'a>, u64),
    Pipe(BorrowedFd<'a>),
}

impl FrameSocket {
    /// Sends a frame whose payload is `length` bytes of `file` from `offset` on. The peer may see changes that are made to the file
    /// before it has received them.
    ///
    /// # Errors
    /// As [`send`](Self::send). A file that ends early poisons the socket, because the frame cannot be finished:
    /// [`ErrorKind::System`].
    pub fn send_file(
        &mut self,
        tag: u16,
        file: BorrowedFd<'_>,
        offset: u64,
        length: u32,
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        self.send_source(tag, Source::File(file, offset), length, deadline.into())
    }

    /// Sends a frame whose payload is the next `length` bytes of a pipe. The deadline does not cover a pipe whose writer is slow
    /// unless the pipe is non-blocking; have the bytes there before.
    ///
    /// # Errors
    /// As [`send_file`](Self::send_file).
    pub fn send_pipe_bytes(
        &mut self,
        tag: u16,
        pipe: BorrowedFd<'_>,
        length: u32,
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        self.send_source(tag, Source::Pipe(pipe), length, deadline.into())
    }

    fn send_source(&mut self, tag: u16, source: Source<'_>, length: u32, mut deadline: Deadline) -> Result<()> {
        // It covers the header and the bytes.
        deadline.resolve();
        self.send_header(Header { tag, length }, deadline)?;
        let moved = self.move_source(source, length, &mut deadline);
        moved.map_err(|error| self.cut(error))
    }

    fn move_source(&mut self, mut source: Source<'_>, length: u32, deadline: &mut Deadline) -> Result<()> {
        let mut left = length as usize;
        let mut in_kernel = self.unshared;
        let (mut prompt, mut progress) = (false, Progress::default());
        while left > 0 {
            if !in_kernel {
                let count = self.copy_some(&mut source, left, deadline)?;
                left -= count;
                continue;
            }
            if !prompt && !deadline.is_beyond(readiness::FAR) {
                // One move may wait for some slices: too long for a deadline that is near.
                self.set_nonblocking(true)?;
                prompt = true;
            }
            match move_some(self.as_fd(), &mut source, left) {
                Ok(0) => return Err(ended_early(left)),
                Ok(count) => {
                    left -= count;
                    progress.advance(count);
                    if left > 0 && deadline.resolve().is_some_and(|until| Instant::now() >= until) {
                        return Err(readiness::timeout("the deadline passed before all of a file or pipe was sent"));
                    }
                }
                Err(Errno::AGAIN) => {
                    progress.stall();
                    self.wait_writable(source, &progress, deadline)?;
                }
                Err(Errno::INTR) => {}
                // This kind of file or socket: read and send from here on.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => in_kernel = false,
                Err(errno) => return Err(readiness::transfer_error("cannot move bytes to the socket", errno)),
            }
        }
        // After an error the socket is done with.
        if prompt { self.set_nonblocking(false) } else { Ok(()) }
    }

    fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        let set = ioctl_fionbio(self.as_fd(), nonblocking);
        set.map_err(|error| Error::system("cannot make the socket non-blocking or blocking", error))
    }

    /// Waits for room in the socket, and for bytes in a pipe that would not wait itself.
    fn wait_writable(&self, source: Source<'_>, progress: &Progress, deadline: &mut Deadline) -> Result<()> {
        let end = WaitEnd::earliest(deadline, [progress.due(self.patience())]);
        let mut ready = readiness::wait(self.as_fd(), PollFlags::OUT, end.at())?;
        if let Source::Pipe(pipe) = source {
            ready = ready && readiness::wait(pipe, PollFlags::IN, end.at())?;
        }
        match ready {
            true => Ok(()),
            false if end.is_deadline() => {
                Err(readiness::timeout("the deadline passed before all of a file or pipe was sent"))
            }
            false => Err(FrameViolation::WriteTooSlow.into()),
        }
    }

    /// Reads some bytes and sends them.
    fn copy_some(&mut self, source: &mut Source<'_>, left: usize, deadline: &mut Deadline) -> Result<usize> {
        let mut buffer = vec![0; left.min(COPY_BYTES)];
        let count = loop {
            let read = match source {
                Source::File(file, offset) => pread(*file, &mut buffer, *offset),
                Source::Pipe(pipe) => rustix::io::read(*pipe, &mut buffer),
            };
            match read {
                Ok(0) => return Err(ended_early(left)),
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut progress = Progress::default();
                    progress.stall();
                    self.wait_writable(*source, &progress, deadline)?;
                }
                Err(errno) => return Err(Error::system("cannot read the file or pipe to send", errno)),
            }
        };
        if let Source::File(_, offset) = source {
            *offset += count as u64;
        }
        let mut slices = [IoSlice::new(&buffer[..count])];
        send_all(self.as_fd(), &mut slices, &[], deadline, self.patience(), false, Duration::ZERO)
            .map_err(|WriteError { error, .. }| error)?;
        Ok(count)
    }
}

/// One move in the kernel.
fn move_some(socket: BorrowedFd<'_>, source: &mut Source<'_>, left: usize) -> Result<usize, Errno> {
    without_sigpipe(|| match source {
        Source::File(file, offset) => sendfile(socket, *file, Some(offset), left.min(MOVED_BYTES)),
        Source::Pipe(pipe) => splice(*pipe, None, socket, None, left.min(MOVED_BYTES), SpliceFlags::NONBLOCK),
    })
}

#[cold]
fn ended_early(missing: usize) -> Error {
    let what = format!("a file or pipe ended {missing} bytes before the length that its frame announced");
    Error::new(ErrorKind::System, what)
}
