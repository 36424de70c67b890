//! One call on one channel.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::session::Session;
use crate::endpoint::Halted;
use crate::rpc::codec::{DecodeError, Encode, from_bytes};
use crate::rpc::line::{Outgoing, Prefix, SocketLine, Staged, WindowLine};
use crate::rpc::wire::{self, ERROR, OK, RESPONSE};
use crate::rpc::{CallError, Status, Violation};
use crate::stream::{Attachments, MAX_ATTACHMENTS};
use crate::{Deadline, Error, ErrorKind, Result};

/// A line to the server that carries one call at a time.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) line: Line,
    /// Keeps the base connection open, with which the server ends its channels.
    pub(super) session: Arc<Session>,
    /// Whether it is the base connection itself.
    pub(super) is_base: bool,
}

#[derive(Debug)]
pub(super) enum Line {
    Window(WindowLine),
    Socket(SocketLine),
}

/// What is asked.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) tag: u16,
    pub(super) value: &'a dyn Encode,
    pub(super) fds: &'a [BorrowedFd<'a>],
}

/// Takes the fields of a response and the descriptors that came with it.
pub(super) type Read<'a> = &'a mut dyn FnMut(&[u8], Option<Attachments>) -> Result<(), DecodeError>;

/// Takes one message of an answer: its type, its payload, its descriptors.
pub(super) type Take<'a> = &'a mut dyn FnMut(u16, &[u8], Option<Attachments>) -> Result<(), Failure>;

/// Why a call brought no value, and what that means for its channel.
#[derive(Debug)]
pub(super) enum Failure {
    /// The call is over, the channel is as good as before.
    Call(CallError),
    /// The channel is gone; the server never saw the call.
    Unsent(Error),
    /// The channel is gone; whether the call ran is not known.
    Lost(Error),
    /// The deadline passed; the answer may still come.
    Late,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Call(status.into())
    }
}

impl Channel {
    /// Whether it is known that no call can succeed on it.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        match &self.line {
            Line::Window(line) => line.is_over(),
            Line::Socket(line) => !line.socket.is_usable() || line.socket.has_hung_up().unwrap_or(true),
        }
    }

    /// Makes a call and has `read` take its answer.
    #[inline]
    pub(super) fn call(&mut self, request: &Request<'_>, deadline: Deadline, read: Read<'_>) -> Result<(), Failure> {
        let take: Take<'_> = &mut |tag, payload, fds| match tag {
            RESPONSE if payload.first() == Some(&OK) => read(&payload[1..], fds).map_err(|_| malformed(tag)),
            _ => Err(no_response(tag, payload, fds.is_some())),
        };
        let message = self.message(request, &deadline)?;
        if let Line::Window(line) = &mut self.line {
            let staged = stage(line, &message, request.fds, self.session.maximum)?;
            if !staged.bulk {
                let called = match line.call(staged, deadline) {
                    Ok(datagram) => {
                        take_from_window(line, datagram, u64::from(self.session.own_maximum), deadline, take)
                    }
                    Err(Halted::Unsent(error)) => Err(Failure::Unsent(error)),
                    Err(Halted::Unanswered(error)) => Err(unanswered(error)),
                };
                return self.settled(called);
            }
            send_bulk(line, staged, deadline)?;
        } else {
            self.send(request, deadline)?;
        }
        self.receive(deadline, take)
    }

    /// Sends a request.
    pub(super) fn send(&mut self, request: &Request<'_>, deadline: Deadline) -> Result<(), Failure> {
        let message = self.message(request, &deadline)?;
        let maximum = self.session.maximum;
        match &mut self.line {
            Line::Window(line) => {
                let staged = stage(line, &message, request.fds, maximum)?;
                send_bulk(line, staged, deadline)
            }
            Line::Socket(line) => match line.send(&message, request.fds, maximum, deadline) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(too_large)) => Err(Failure::Call(Error::from(too_large).into())),
                Err(error) if line.socket.is_usable() => Err(Failure::Call(error.into())),
                Err(error) => Err(Failure::Unsent(error)),
            },
        }
    }

    /// The message that a request is.
    #[inline]
    fn message<'a>(&self, request: &Request<'a>, deadline: &Deadline) -> Result<Outgoing<'a>, Failure> {
        let Request { tag, value, fds } = *request;
        let (left, version1) = (nanos_left(deadline)?, self.session.version1);
        if !fds.is_empty() && (fds.len() > MAX_ATTACHMENTS || !version1) {
            let what = "a call carries at most 16 descriptors, and none to a server of the base protocol";
            return Err(Failure::Call(Error::invalid(what).into()));
        }
        let prefix = if version1 { Prefix::Deadline(left) } else { Prefix::None };
        Ok(Outgoing { tag, prefix, value, fds: fds.len() as u8 })
    }

    /// Receives one message of an answer. What `take` makes of it decides: an error that is the peer's fault ends the channel.
    #[inline]
    pub(super) fn receive(&mut self, deadline: Deadline, take: Take<'_>) -> Result<(), Failure> {
        let maximum = u64::from(self.session.own_maximum);
        let taken = match &mut self.line {
            Line::Window(line) => match line.wait(deadline) {
                Ok(datagram) => take_from_window(line, datagram, maximum, deadline, take),
                Err(error) => Err(unanswered(error)),
            },
            Line::Socket(line) => match line.receive(deadline) {
                Ok(Some(message)) => {
                    let fds = message.attachments;
                    take(message.tag, message.payload, (!fds.is_empty() || fds.lost()).then_some(fds))
                }
                Ok(None) => Err(Failure::Lost(Error::new(ErrorKind::PeerGone, "the server closed the connection"))),
                Err(error) => Err(unanswered(error)),
            },
        };
        self.settled(taken)
    }

    /// Ends the channel if a call left it unusable.
    #[inline]
    fn settled(&self, taken: Result<(), Failure>) -> Result<(), Failure> {
        if let Err(Failure::Lost(_)) = &taken {
            self.shut_down();
        }
        taken
    }

    /// Ends the channel.
    pub(super) fn shut_down(&self) {
        match &self.line {
            Line::Window(line) => line.shut_down(),
            Line::Socket(line) => line.shut_down(),
        }
    }
}

/// Encodes a request into the window and sends its descriptors.
#[inline]
fn stage(
    line: &mut WindowLine,
    message: &Outgoing<'_>,
    fds: &[BorrowedFd<'_>],
    maximum: u64,
) -> Result<Staged, Failure> {
    let staged =
        line.stage(message, maximum, true).map_err(|too_large| Failure::Call(Error::from(too_large).into()))?;
    if let Err(error) = line.attach(fds) {
        return Err(if line.socket.is_usable() { Failure::Call(error.into()) } else { Failure::Unsent(error) });
    }
    Ok(staged)
}

/// Flips a staged request, and sends the payload that did not fit.
fn send_bulk(line: &mut WindowLine, staged: Staged, mut deadline: Deadline) -> Result<(), Failure> {
    line.flip(staged).map_err(Failure::Unsent)?;
    line.send_rest_by(staged, &mut deadline).map_err(|error| {
        line.shut_down();
        Failure::Lost(error)
    })
}

/// What it means that no answer came for a request that was sent.
#[cold]
fn unanswered(error: Error) -> Failure {
    if error.kind() == ErrorKind::Timeout { Failure::Late } else { Failure::Lost(error) }
}

#[inline]
fn take_from_window(
    line: &mut WindowLine,
    datagram: u32,
    maximum: u64,
    mut deadline: Deadline,
    take: Take<'_>,
) -> Result<(), Failure> {
    let incoming = line.take(datagram).map_err(Failure::Lost)?;
    if incoming.bulk > 0 {
        let patience = Instant::now() + wire::TRANSFER;
        let due = deadline.resolve().map_or(patience, |due| due.min(patience));
        line.receive_bulk(incoming.bulk, maximum, Some(due), None).map_err(Failure::Lost)?;
    }
    let taken = take(incoming.tag, line.payload(), incoming.fds);
    line.trim();
    taken
}

/// The nanoseconds that go in front of a request. An expired call is not sent.
#[inline]
fn nanos_left(deadline: &Deadline) -> Result<u64, Failure> {
    match deadline.left() {
        None => Ok(0),
        Some(Duration::ZERO) => Err(expired()),
        Some(left) => Ok(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)),
    }
}

#[cold]
pub(super) fn expired() -> Failure {
    Failure::Call(Error::new(ErrorKind::Timeout, "the deadline passed before the call was sent").into())
}

/// What a message that is no response means for a call.
#[cold]
pub(super) fn no_response(tag: u16, payload: &[u8], has_fds: bool) -> Failure {
    match tag {
        _ if has_fds => Failure::Lost(Violation::Descriptors(0).into()),
        ERROR => match from_bytes::<Status>(payload) {
            Ok(status) => Failure::Call(status.into()),
            Err(_) => Failure::Lost(Violation::Malformed(tag).into()),
        },
        RESPONSE => Failure::Lost(Violation::Malformed(tag).into()),
        _ => Failure::Lost(Violation::Unexpected(tag).into()),
    }
}

/// A response whose fields do not decode: that call fails, the channel is in order.
#[cold]
pub(super) fn malformed(tag: u16) -> Failure {
    Failure::Call(Error::from(Violation::Malformed(tag)).into())
}
