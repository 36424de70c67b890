//! Answers on their way out: encoded where they leave from.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Context;
use super::context::timed_out;
use crate::rpc::codec::Encode;
use crate::rpc::line::{Outgoing, Prefix, SocketLine, Staged, TooLarge, WindowLine};
use crate::rpc::wire::{CHUNK, CONTINUE_GRACE, END, RESPONSE, TRANSFER};
use crate::rpc::{Code, Status};
use crate::{Deadline, Error, ErrorKind};

/// The transport that an answer takes.
#[derive(Debug)]
pub(super) enum Way<'a> {
    Window(&'a mut WindowLine),
    /// The payload of a response collects here; nothing else is sent by it.
    Buffer(&'a mut Vec<u8>),
    Socket(&'a mut SocketLine),
}

/// Where a method's answer goes. It is encoded straight into the window, or into a buffer that is sent on the socket when the method has
/// returned.
pub struct Reply<'a> {
    pub(super) way: Way<'a>,
    /// Bytes that the answer may have.
    pub(super) maximum: u64,
    pub(super) staged: &'a mut Option<Staged>,
}

/// Proof that a method answered; the method returns it.
#[derive(Debug)]
#[must_use = "a method returns this, or its call is answered with an error"]
pub struct Answered(());

impl Reply<'_> {
    /// Answers the call. The answer is sent when the method has returned, so the method may hold a lock here.
    ///
    /// # Errors
    /// [`Code::TooLarge`] if the answer is larger than the maximum message of the client or of this server. The method may return the
    /// error, or answer with something else.
    #[inline]
    pub fn send<T: Encode + ?Sized>(self, context: &Context<'_>, value: &T) -> Result<Answered, Status> {
        self.answer(context, value, hold_bulk)
    }

    /// Answers the call, without a copy of an answer that does not fit the window: such an answer is sent at once. It is encoded into the
    /// window in fragments, or into the socket, while the caller reads it, which may take 30 s. So the method must not hold anything that
    /// others wait for, and what it does afterwards does not change the answer.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_now<T: Encode + ?Sized>(self, context: &Context<'_>, value: &T) -> Result<Answered, Status> {
        self.answer(context, value, send_bulk)
    }

    #[inline(always)]
    fn answer<T: Encode + ?Sized>(self, context: &Context<'_>, value: &T, bulk: Bulk) -> Result<Answered, Status> {
        let fds = context.answer_fds.len() as u8;
        let answer = Outgoing { tag: RESPONSE, prefix: Prefix::Ok, value, fds };
        match self.way {
            Way::Window(line) => {
                let staged = line.stage(&answer, self.maximum, true).map_err(too_large)?;
                if staged.bulk {
                    return bulk(line, staged, &value, &context.answer_fds, self.staged);
                }
                *self.staged = Some(staged);
            }
            Way::Buffer(out) => {
                out.clear();
                let length = answer.encode_to(out);
                length.filter(|&length| length <= self.maximum).ok_or(TooLarge).map_err(too_large)?;
            }
            Way::Socket(_) => unreachable!("a method's answer is never sent while its request is borrowed"),
        }
        Ok(Answered(()))
    }
}

/// What happens to an answer that does not fit the window.
type Bulk = fn(&mut WindowLine, Staged, &dyn Encode, &[OwnedFd], &mut Option<Staged>) -> Result<Answered, Status>;

/// Keeps it until its method has returned.
#[cold]
fn hold_bulk(
    line: &mut WindowLine,
    staged: Staged,
    value: &dyn Encode,
    _fds: &[OwnedFd],
    out: &mut Option<Staged>,
) -> Result<Answered, Status> {
    if !line.hold(value) {
        let what = "the answer was encoded twice and did not write as many bytes the second time";
        return Err(Status::new(Code::Unknown, what));
    }
    *out = Some(staged);
    Ok(Answered(()))
}

/// Sends it while the method still holds it. To the method it is sent, whatever comes of it.
#[cold]
fn send_bulk(
    line: &mut WindowLine,
    staged: Staged,
    value: &dyn Encode,
    fds: &[OwnedFd],
    out: &mut Option<Staged>,
) -> Result<Answered, Status> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    match line.attach(&fds) {
        Err(error) if line.socket.is_usable() => return Err(Status::new(Code::NoResource, format!("{error:#}"))),
        // A socket that is gone shows at once when the payload is sent.
        _ => *out = Some(staged),
    }
    line.send_answer(staged, value, fds.len() as u8);
    Ok(Answered(()))
}

#[cold]
fn too_large(_: TooLarge) -> Status {
    Status::new(Code::TooLarge, "the answer is larger than the client or this server takes (`max_message` of either)")
}

/// Where the answer of a streaming method goes, chunk by chunk.
pub struct Chunks<'a> {
    pub(super) way: Way<'a>,
    pub(super) max_chunk: u32,
    pub(super) due: Option<Instant>,
    pub(super) state: &'a mut StreamState,
}

/// What is left of a stream when its method returned.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    /// Why the line is gone, if it is.
    pub(super) failed: Option<Box<Error>>,
    /// The end, ready to be flipped.
    pub(super) end: Option<Staged>,
}

impl Chunks<'_> {
    /// Sends a chunk. In a window this then waits until the caller asks for the next one.
    ///
    /// # Errors
    /// [`Code::TooLarge`] for a chunk over [`max_chunk`](Context::max_chunk), [`Code::Timeout`] if the call's deadline has passed,
    /// [`Code::Cancelled`] if the caller is gone. The method returns the error, which ends the stream.
    pub fn send(&mut self, chunk: &dyn Encode) -> Result<(), Status> {
        if self.due.is_some_and(|due| Instant::now() >= due) {
            return Err(timed_out());
        }
        if let Some(staged) = self.put(CHUNK, chunk)? {
            let Way::Window(line) = &mut self.way else { unreachable!("only a window stages") };
            if let Err(error) = next_chunk(line, staged, self.due) {
                return Err(self.fail(error));
            }
        }
        Ok(())
    }

    /// Ends the stream with a value, of at most [`max_chunk`](Context::max_chunk) bytes.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn end(mut self, value: &dyn Encode) -> Result<Answered, Status> {
        self.state.end = self.put(END, value)?;
        Ok(Answered(()))
    }

    /// Ends the stream with nothing.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn finish(self) -> Result<Answered, Status> {
        self.end(&())
    }

    /// Stages a message in the window, or sends it on the socket.
    fn put(&mut self, tag: u16, value: &dyn Encode) -> Result<Option<Staged>, Status> {
        if self.state.failed.is_some() {
            return Err(gone());
        }
        let message = Outgoing { tag, prefix: Prefix::None, value, fds: 0 };
        let maximum = u64::from(self.max_chunk);
        match &mut self.way {
            Way::Window(line) => line.stage(&message, maximum, false).map(Some).map_err(too_large),
            Way::Socket(line) => match line.send(&message, &[], maximum, Deadline::NEVER) {
                Ok(sent) => sent.map(|()| None).map_err(too_large),
                Err(error) => Err(self.fail(error)),
            },
            Way::Buffer(_) => unreachable!("a stream is never buffered"),
        }
    }

    fn fail(&mut self, error: Error) -> Status {
        self.state.failed = Some(Box::new(error));
        gone()
    }
}

#[cold]
fn gone() -> Status {
    Status::new(Code::Cancelled, "the caller is gone")
}

/// Flips a chunk and waits for the caller to ask for the next one.
fn next_chunk(line: &mut WindowLine, staged: Staged, due: Option<Instant>) -> Result<(), Error> {
    line.flip(staged)?;
    let patience = Instant::now() + TRANSFER;
    let until = due.map_or(patience, |due| (due + CONTINUE_GRACE).min(patience));
    let datagram = line.wait(Deadline::at(until))?;
    line.expect_continue(datagram)
}

/// Waits until the peer has received everything that was sent on a socket: descriptors that lie unread there are charged to us, and
/// a hundred of them starve the whole process.
pub(super) fn wait_until_taken(socket: &impl AsFd, is_taken: impl Fn() -> crate::Result<bool>) -> crate::Result<()> {
    let mut pause = Duration::from_micros(10);
    while !is_taken()? {
        let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
        let timeout = Timespec { tv_sec: 0, tv_nsec: pause.as_nanos() as _ };
        if poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0) {
            return Err(Error::new(ErrorKind::PeerGone, "the peer closed the socket"));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// The longest pause between two looks at whether a peer took what was sent.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);
