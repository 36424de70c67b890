//! Answers on their way out: encoded where they leave from.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::context::{Context, timed_out};
use super::outcome::{Outcome, Ready};
use crate::deadline::Deadline;
use crate::endpoint::Halted;
use crate::error::{Error, ErrorKind, Result as IoResult};
use crate::rpc::codec::Encode;
use crate::rpc::message::number::{CHUNK, END, RESPONSE};
use crate::rpc::message::outgoing::{Outgoing, TooLarge, Uneven};
use crate::rpc::message::prefix::Prefix;
use crate::rpc::message::stream::{ChunkSender, continue_due};
use crate::rpc::transport::{Long, SocketTransport, Staged, Unstaged, WindowTransport};
use crate::rpc::{Code, Status};

/// The transport that an answer takes.
#[derive(Debug)]
pub(super) enum Way<'a> {
    Window(&'a mut WindowTransport),
    Socket(&'a mut SocketTransport),
}

/// Where a method's answer goes. It is encoded straight into the window, or into a buffer that is sent on the socket when the method has
/// returned.
pub struct Reply<'a> {
    pub(super) way: Way<'a>,
    /// Bytes that the answer may have.
    pub(super) maximum: u64,
    pub(super) outcome: &'a mut Outcome,
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
        self.answer(context, value, hold)
    }

    /// Answers the call, without a copy of an answer that does not fit the window: such an answer is sent at once. It is encoded into the
    /// window in fragments, or into the socket, while the caller reads it, which may take 30 s. So the method must not hold anything that
    /// others wait for, and what it does afterwards does not change the answer.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_now<T: Encode + ?Sized>(self, context: &Context<'_>, value: &T) -> Result<Answered, Status> {
        self.answer(context, value, send_at_once)
    }

    #[inline(always)]
    fn answer<T: Encode + ?Sized>(self, context: &Context<'_>, value: &T, long: SendLong) -> Result<Answered, Status> {
        let fds = context.answer_fds.len() as u8;
        let answer = Outgoing { tag: RESPONSE, prefix: Prefix::Ok, value, fds };
        *self.outcome = match self.way {
            Way::Window(transport) => match transport.stage(&answer, self.maximum) {
                Ok(staged) => Outcome::Ready(Ready::Staged(staged), fds),
                Err(Unstaged::Long(what)) => {
                    return long(transport, what, &answer.erased(), &context.answer_fds, self.outcome);
                }
                Err(Unstaged::TooLarge(TooLarge)) => return Err(too_large("answer", self.maximum)),
            },
            Way::Socket(transport) => match transport.encode(&answer, self.maximum) {
                Ok(()) => Outcome::Ready(Ready::Encoded, fds),
                Err(TooLarge) => return Err(too_large("answer", self.maximum)),
            },
        };
        Ok(Answered(()))
    }
}

/// What happens to an answer that does not fit the window.
type SendLong = fn(&mut WindowTransport, Long, &Outgoing<'_>, &[OwnedFd], &mut Outcome) -> Result<Answered, Status>;

/// Keeps it until its method has returned.
#[cold]
fn hold(
    transport: &mut WindowTransport,
    long: Long,
    answer: &Outgoing<'_>,
    fds: &[OwnedFd],
    outcome: &mut Outcome,
) -> Result<Answered, Status> {
    let held = transport.hold(long, answer).map_err(|Uneven| {
        let what = "the answer was encoded twice and did not write as many bytes the second time";
        Status::new(Code::Unknown, what)
    })?;
    *outcome = Outcome::Ready(Ready::Held(held), fds.len() as u8);
    Ok(Answered(()))
}

/// Sends it while the method still holds it. To the method it is sent, whatever comes of it.
#[cold]
fn send_at_once(
    transport: &mut WindowTransport,
    long: Long,
    answer: &Outgoing<'_>,
    fds: &[OwnedFd],
    outcome: &mut Outcome,
) -> Result<Answered, Status> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    match transport.attach(&fds) {
        Err(error) if transport.is_socket_usable() => return Err(Status::new(Code::NoResource, format!("{error:#}"))),
        // A socket that is gone shows at once when the payload is sent.
        _ => *outcome = Outcome::Sending,
    }
    *outcome = match transport.send_long(long, answer, Deadline::NEVER) {
        Ok(()) => Outcome::Sent,
        Err(halted) => Outcome::Failed(Box::new(Halted::into_error(halted))),
    };
    Ok(Answered(()))
}

#[cold]
fn too_large(what: &str, maximum: u64) -> Status {
    let text = format!("the {what} is too large for the client or this server (limit {maximum} bytes)");
    Status::new(Code::TooLarge, text)
}

/// Where the answer of a streaming method goes, chunk by chunk.
pub struct Chunks<'a> {
    way: Way<'a>,
    pub(super) max_chunk: u32,
    due: Option<Instant>,
    turn: ChunkSender,
    outcome: &'a mut Outcome,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(way: Way<'a>, context: &Context<'_>, outcome: &'a mut Outcome) -> Self {
        Self { way, max_chunk: context.max_chunk, due: context.due, turn: ChunkSender::Ready, outcome }
    }

    /// Whether nothing can be sent any more.
    pub(super) fn has_failed(&self) -> bool {
        !self.turn.is_ready()
    }

    /// Sends a chunk. In a window this then waits until the caller asks for the next one.
    ///
    /// # Errors
    /// [`Code::TooLarge`] for a chunk over [`max_chunk`](Context::max_chunk), [`Code::Timeout`] if the call's deadline has passed,
    /// [`Code::Cancelled`] if the caller is gone. The method returns the error, which ends the stream.
    pub fn send(&mut self, chunk: &dyn Encode) -> Result<(), Status> {
        if self.due.is_some_and(|due| Instant::now() >= due) {
            return Err(timed_out());
        }
        if let Some(staged) = self.put(CHUNK, chunk)?
            && let Err(error) = self.hand_over(staged)
        {
            return Err(self.fail(error));
        }
        Ok(())
    }

    /// Ends the stream with a value, of at most [`max_chunk`](Context::max_chunk) bytes.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn end(mut self, value: &dyn Encode) -> Result<Answered, Status> {
        *self.outcome = Outcome::Ended(self.put(END, value)?);
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
        if !self.turn.is_ready() {
            return Err(gone());
        }
        let message = Outgoing { tag, prefix: Prefix::None, value, fds: 0 };
        let maximum = u64::from(self.max_chunk);
        match &mut self.way {
            Way::Window(transport) => {
                transport.stage(&message, maximum).map(Some).map_err(|_| too_large("chunk", maximum))
            }
            Way::Socket(transport) => {
                transport.encode(&message, maximum).map_err(|TooLarge| too_large("chunk", maximum))?;
                match transport.send_encoded(tag, &[], Deadline::NEVER) {
                    Ok(()) => Ok(None),
                    Err(error) => Err(self.fail(error)),
                }
            }
        }
    }

    /// Flips a chunk and waits for the caller to ask for the next one.
    fn hand_over(&mut self, staged: Staged) -> IoResult<()> {
        let Way::Window(transport) = &mut self.way else { unreachable!("only a window stages") };
        transport.flip(staged)?;
        self.turn.chunk(true);
        let (patience, now) = (transport.patience(), Instant::now());
        let due = continue_due(patience, now, self.due);
        let datagram = transport.wait(Deadline::at(due)).map_err(|error| match error.kind() {
            ErrorKind::Timeout => not_asked(transport, due - now),
            _ => error,
        })?;
        transport.take_continue(datagram, &mut self.turn)
    }

    /// The transport is gone.
    fn fail(&mut self, error: Error) -> Status {
        use ErrorKind::{LocalShutdown, PeerGone, PeerShutdown};
        let status = match error.kind() {
            LocalShutdown | PeerGone | PeerShutdown => gone(),
            _ => Status::new(Code::Cancelled, format!("the stream cannot go on: {error:#}")),
        };
        self.turn.end();
        *self.outcome = Outcome::Failed(Box::new(error));
        status
    }
}

/// The caller did not ask for the next chunk in time. It is told so over the socket, since control of the window is its own.
#[cold]
fn not_asked(transport: &mut WindowTransport, waited: Duration) -> Error {
    let what = format!("the caller did not ask for the next chunk of the stream within {waited:.1?}");
    transport.say(&Status::new(Code::Cancelled, what.clone()).op("stream"));
    Error::new(ErrorKind::Timeout, what)
}

#[cold]
fn gone() -> Status {
    Status::new(Code::Cancelled, "the caller is gone")
}
