//! One call on one channel.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::{Failure, ended, expired, malformed, no_response, too_large, unanswered};
use super::session::{Loan, Session};
use crate::endpoint::Halted;
use crate::rpc::codec::{DecodeError, Encode};
use crate::rpc::line::{Outgoing, Prefix, Short, SocketLine, Staged, WindowLine};
use crate::rpc::wire::{self, OK, RESPONSE};
use crate::stream::{Attachments, MAX_ATTACHMENTS};
use crate::{Deadline, Error, ErrorKind, Result};

/// A line to the server that carries one call at a time.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) line: Line,
    /// Keeps the base connection open, with which the server ends its channels.
    pub(super) session: Arc<Session>,
    /// Of a channel that is the base connection itself.
    pub(super) loan: Option<Loan>,
}

#[derive(Debug)]
pub(super) enum Line {
    Window(WindowLine),
    Socket(SocketLine),
}

/// What is asked.
pub(super) struct Request<'a, T: ?Sized = dyn Encode + 'a> {
    pub(super) tag: u16,
    pub(super) value: &'a T,
    pub(super) fds: &'a [BorrowedFd<'a>],
}

impl<T: Encode + ?Sized> Request<'_, T> {
    /// The same for code that does not know the type.
    pub(super) fn erased(&self) -> Request<'_> {
        Request { tag: self.tag, value: &self.value, fds: self.fds }
    }
}

/// Takes the fields of a response and the descriptors that came with it.
pub(super) type Read<'a> = &'a mut dyn FnMut(&[u8], Option<Box<Attachments>>) -> Result<(), DecodeError>;

/// Takes one message of an answer: its type, its payload, its descriptors.
pub(super) type Take<'a> = &'a mut dyn FnMut(u16, &[u8], Option<Box<Attachments>>) -> Result<(), Failure>;

impl Channel {
    /// Whether it is known that no call can succeed on it.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        match &self.line {
            Line::Window(line) => line.is_over(),
            Line::Socket(line) => is_spoilt(line) || line.socket.has_hung_up().unwrap_or(true),
        }
    }

    /// The same as far as it costs no system call: a socket that has hung up refuses the request.
    #[inline(always)]
    pub(super) fn is_known_over(&self) -> bool {
        match &self.line {
            Line::Window(line) => line.is_over(),
            Line::Socket(line) => is_spoilt(line),
        }
    }

    /// Makes a call and has `read` take its answer. Failures are boxed: a call that succeeds moves none of their bytes.
    #[inline(always)]
    pub(super) fn call<T, F>(
        &mut self,
        request: &Request<'_, T>,
        deadline: Deadline,
        read: &mut F,
    ) -> Result<(), Box<Failure>>
    where
        T: Encode + ?Sized,
        F: FnMut(&[u8], Option<Box<Attachments>>) -> Result<(), DecodeError>,
    {
        let Line::Window(_) = &self.line else {
            return self.call_in_steps(&request.erased(), deadline, read);
        };
        let message = self.message(request, &deadline)?;
        let Line::Window(line) = &mut self.line else { unreachable!("it was just looked at") };
        let staged = line.stage(&message, self.session.maximum, true).map_err(too_large)?;
        if staged.bulk || !request.fds.is_empty() {
            return self.call_staged(staged, message.prefix, &request.erased(), deadline, read);
        }
        let mut deadline = deadline;
        let datagram = match line.call(staged, &mut deadline) {
            Ok(datagram) => datagram,
            Err(halted) => return Err(self.halted(halted)),
        };
        let mut short = Short::new();
        if line.take_short(datagram, &mut short) == Some(RESPONSE)
            && let [OK, fields @ ..] = short.payload()
        {
            let taken = read(fields, None).map_err(|_| Box::new(malformed(RESPONSE)));
            if line.is_untrimmed() {
                line.trim();
            }
            return taken;
        }
        self.take_slowly(datagram, &short, deadline, read)
    }

    /// A call on a socket.
    #[inline(never)]
    fn call_in_steps(&mut self, request: &Request<'_>, deadline: Deadline, read: Read<'_>) -> Result<(), Box<Failure>> {
        self.send(request, deadline)?;
        let taken = self.receive(deadline, &mut response(read));
        self.trim();
        Ok(taken?)
    }

    /// The rest of a call whose request lies in the window, with parts that go over the socket.
    #[cold]
    fn call_staged(
        &mut self,
        staged: Staged,
        prefix: Prefix,
        request: &Request<'_>,
        deadline: Deadline,
        read: Read<'_>,
    ) -> Result<(), Box<Failure>> {
        let Line::Window(line) = &mut self.line else { unreachable!("only a window stages") };
        let Request { tag, value, fds } = *request;
        let message = Outgoing { tag, prefix, value, fds: fds.len() as u8 };
        let mut deadline = deadline;
        deadline.resolve();
        let sent = attach(line, fds).and_then(|()| send_staged(line, staged, &message, deadline));
        let taken = sent.and_then(|()| self.receive(deadline, &mut response(read)));
        self.trim();
        Ok(taken?)
    }

    /// A call is over that was not short.
    pub(super) fn trim(&mut self) {
        match &mut self.line {
            Line::Window(line) => line.trim(),
            Line::Socket(line) => line.trim(),
        };
    }

    /// Takes an answer that is not a short response.
    #[inline(never)]
    fn take_slowly(
        &mut self,
        datagram: u32,
        short: &Short,
        deadline: Deadline,
        read: Read<'_>,
    ) -> Result<(), Box<Failure>> {
        let Line::Window(line) = &mut self.line else { unreachable!("only a window has datagrams") };
        let maximum = u64::from(self.session.own_maximum);
        let taken = take_from_window(line, datagram, short, maximum, deadline, &mut response(read));
        if line.is_untrimmed() {
            line.trim();
        }
        Ok(self.settled(taken)?)
    }

    #[cold]
    fn halted(&self, halted: Halted) -> Box<Failure> {
        let failure = match halted {
            Halted::Unsent(error) => Failure::Unsent(error),
            Halted::Unanswered(error) => unanswered(error),
        };
        self.end_if_lost(&failure);
        Box::new(failure)
    }

    /// Sends a request.
    pub(super) fn send<T: Encode + ?Sized>(
        &mut self,
        request: &Request<'_, T>,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let message = self.message(request, &deadline)?;
        let maximum = self.session.maximum;
        match &mut self.line {
            Line::Window(line) => {
                let staged = line.stage(&message, maximum, true).map_err(too_large)?;
                attach(line, request.fds)?;
                send_staged(line, staged, &message.erased(), deadline)
            }
            Line::Socket(line) => match line.send(&message, request.fds, maximum, deadline) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(too_large(error)),
                Err(error) if line.socket.is_usable() => Err(Failure::Call(error.into())),
                Err(error) => Err(Failure::Unsent(error)),
            },
        }
    }

    /// The message that a request is.
    #[inline]
    fn message<'a, T: ?Sized>(
        &self,
        request: &Request<'a, T>,
        deadline: &Deadline,
    ) -> Result<Outgoing<'a, T>, Failure> {
        let Request { tag, value, fds } = *request;
        let (left, version1) = (nanos_left(deadline)?, self.session.version1);
        if !fds.is_empty() && (fds.len() > MAX_ATTACHMENTS || !version1) {
            let what = "a call carries at most 16 descriptors, and none to a server of the base protocol";
            return Err(Failure::Call(Error::invalid(what).into()));
        }
        let prefix = if version1 { Prefix::Left(left) } else { Prefix::None };
        Ok(Outgoing { tag, prefix, value, fds: fds.len() as u8 })
    }

    /// Receives one message of an answer. What `take` makes of it decides: an error that is the peer's fault ends the channel.
    #[inline]
    pub(super) fn receive(&mut self, deadline: Deadline, take: Take<'_>) -> Result<(), Failure> {
        let maximum = u64::from(self.session.own_maximum);
        let mut deadline = deadline;
        deadline.resolve();
        let taken = match &mut self.line {
            Line::Window(line) => match line.wait(deadline) {
                Ok(datagram) => {
                    let mut short = Short::new();
                    match line.take_short(datagram, &mut short) {
                        Some(tag) => take(tag, short.payload(), None),
                        None => take_from_window(line, datagram, &short, maximum, deadline, take),
                    }
                }
                Err(error) => Err(unanswered(error)),
            },
            Line::Socket(line) => match line.receive(deadline) {
                Ok(Some(message)) => {
                    let fds = message.attachments;
                    take(message.tag, message.payload, (!fds.is_empty() || fds.lost()).then(|| Box::new(fds)))
                }
                Ok(None) => Err(Failure::Lost(Error::new(ErrorKind::PeerGone, "the server closed the connection"))),
                Err(error) => Err(unanswered(error)),
            },
        };
        self.settled(taken)
    }

    /// Ends the channel if a call left it unusable.
    fn settled(&self, taken: Result<(), Failure>) -> Result<(), Failure> {
        if let Err(failure) = &taken {
            self.end_if_lost(failure);
        }
        taken
    }

    fn end_if_lost(&self, failure: &Failure) {
        if let Failure::Lost(_) = failure {
            self.shut_down();
        }
    }

    /// Ends the channel.
    pub(super) fn shut_down(&self) {
        match &self.line {
            Line::Window(line) => line.shut_down(),
            Line::Socket(line) => line.shut_down(),
        }
    }
}

/// Whether a socket cannot carry another call: an error ended it, or more came than the last answer and would pass for the next one.
#[inline]
fn is_spoilt(line: &SocketLine) -> bool {
    !line.socket.is_usable() || line.socket.has_begun_message()
}

/// Takes a response to a call; every other message is a failure of it.
fn response(read: Read<'_>) -> impl FnMut(u16, &[u8], Option<Box<Attachments>>) -> Result<(), Failure> {
    |tag, payload, fds| match payload {
        [OK, fields @ ..] if tag == RESPONSE => read(fields, fds).map_err(|_| malformed(tag)),
        _ => Err(no_response(tag, payload, fds.is_some())),
    }
}

/// Sends the descriptors of a staged request.
fn attach(line: &mut WindowLine, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    line.attach(fds).map_err(|error| match line.socket.is_usable() {
        true => Failure::Call(error.into()),
        false => Failure::Unsent(error),
    })
}

/// Sends a staged request, with the payload that did not fit.
fn send_staged(
    line: &mut WindowLine,
    staged: Staged,
    message: &Outgoing<'_>,
    deadline: Deadline,
) -> Result<(), Failure> {
    line.send_staged(staged, message, deadline).map_err(|halted| match halted {
        Halted::Unsent(error) if error.kind() != ErrorKind::InvalidInput => Failure::Unsent(error),
        // Not the channel's fault: the value's. But descriptors are out, and would be those of the next call.
        Halted::Unsent(error) if message.fds == 0 => Failure::Call(error.into()),
        Halted::Unsent(error) | Halted::Unanswered(error) => {
            line.shut_down();
            Failure::Lost(ended(error, deadline))
        }
    })
}

/// Takes a message that is not short, or not all in the window.
fn take_from_window(
    line: &mut WindowLine,
    datagram: u32,
    short: &Short,
    maximum: u64,
    deadline: Deadline,
    take: Take<'_>,
) -> Result<(), Failure> {
    let incoming = line.take(datagram, short, maximum).map_err(Failure::Lost)?;
    if incoming.bulk > 0 {
        receive_bulk(line, incoming.bulk, maximum, deadline)?;
    }
    take(incoming.tag, line.payload(), incoming.fds)
}

#[cold]
fn receive_bulk(line: &mut WindowLine, length: u64, maximum: u64, mut deadline: Deadline) -> Result<(), Failure> {
    let patience = Instant::now() + wire::TRANSFER;
    let due = deadline.resolve().map_or(patience, |due| due.min(patience));
    line.receive_bulk(length, maximum, Some(due), None).map_err(Failure::Lost)
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
