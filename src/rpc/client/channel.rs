//! A channel, and one call on it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use super::failure::{Failure, ended, malformed, too_large, unanswered};
use super::register::Registered;
use super::request::{Request, nanos_left, too_many_descriptors};
use super::session::{BaseGuard, Session};
use crate::deadline::Deadline;
use crate::endpoint::Halted;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::Status;
use crate::rpc::codec::{DecodeError, Encode};
use crate::rpc::message::answer;
use crate::rpc::message::number::{CONTINUE, MOST_DESCRIPTORS};
use crate::rpc::message::outgoing::{Outgoing, TooLarge};
use crate::rpc::message::prefix::Prefix;
use crate::rpc::message::transfer::TransferDue;
use crate::rpc::transport::{InlineMessage, Received, SocketTransport, Staged, Unstaged, WindowTransport};
use crate::stream::Attachments;

/// A way to the server that carries one call at a time.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) transport: Transport,
    /// Keeps the base connection open, with which the server ends its channels.
    pub(super) session: Arc<Session>,
    /// Of a channel that is the base connection itself.
    pub(super) base_guard: Option<BaseGuard>,
    /// When a channel that has no window by bad luck should be replaced.
    pub(super) stopgap_until: Option<Instant>,
    /// Of a channel that is not the base connection.
    pub(super) registered: Option<Registered>,
}

#[derive(Debug)]
pub(super) enum Transport {
    Window(WindowTransport),
    Socket(SocketTransport),
}

/// Takes the fields of a response and the descriptors that came with it.
pub(super) type Read<'a> = &'a mut dyn FnMut(&[u8], Option<Box<Attachments>>) -> Result<(), DecodeError>;

/// Takes one message of an answer: its type, its payload, its descriptors.
pub(super) type Take<'a> = &'a mut dyn FnMut(u16, &[u8], Option<Box<Attachments>>) -> Result<(), Failure>;

impl Channel {
    pub(super) fn new(transport: Transport, session: Arc<Session>) -> Self {
        Self { transport, session, base_guard: None, stopgap_until: None, registered: None }
    }

    /// The base connection as a channel; `None` while somebody else has it.
    pub(super) fn of_base(session: &Arc<Session>) -> Option<Box<Self>> {
        let (transport, guard) = session.take_base()?;
        let channel = Self::new(Transport::Socket(transport), Arc::clone(session));
        Some(Box::new(Self { base_guard: Some(guard), ..channel }))
    }

    pub(super) fn has_window(&self) -> bool {
        matches!(self.transport, Transport::Window(_))
    }

    /// Whether it has no window by bad luck, and it is time to try again.
    pub(super) fn is_stopgap_over(&self) -> bool {
        self.stopgap_until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether it is known that no call can succeed on it.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        match &self.transport {
            Transport::Window(window) => window.is_over(),
            Transport::Socket(socket) => socket.is_spoilt() || socket.socket.has_hung_up().unwrap_or(true),
        }
    }

    /// Whether a call should look for another channel first, as far as that is known without a system call: a socket that has hung up refuses
    /// the request.
    #[inline(always)]
    pub(super) fn is_to_be_left(&self) -> bool {
        match &self.transport {
            Transport::Window(window) => window.is_over(),
            Transport::Socket(socket) => socket.is_spoilt() || self.is_stopgap_over(),
        }
    }

    /// Makes a call and has `read` take its answer. Failures are boxed: a call that succeeds moves none of their bytes. If the call had to wait,
    /// the deadline is absolute after it.
    #[inline(always)]
    pub(super) fn call<T, F>(
        &mut self,
        request: &Request<'_, T>,
        deadline: &mut Deadline,
        read: &mut F,
    ) -> Result<(), Box<Failure>>
    where
        T: Encode + ?Sized,
        F: FnMut(&[u8], Option<Box<Attachments>>) -> Result<(), DecodeError>,
    {
        let Transport::Window(_) = &self.transport else {
            return self.call_in_steps(&request.erased(), deadline, read);
        };
        let message = self.message(request, deadline)?;
        let Transport::Window(window) = &mut self.transport else { unreachable!("it was just seen") };
        let staged = match window.stage(&message, self.session.maximum) {
            Ok(staged) if request.fds.is_empty() => staged,
            staged => return self.call_staged(staged, &message.erased(), request.fds, deadline, read),
        };
        let datagram = match window.call(staged, deadline) {
            Ok(datagram) => datagram,
            Err(halted) => return Err(self.halted(halted)),
        };
        let mut inline = InlineMessage::new();
        if let Some(tag) = window.take_inline(datagram, &mut inline)
            && let Some(fields) = answer::fields(tag, inline.payload())
        {
            let taken = read(fields, None).map_err(|_| Box::new(malformed(tag)));
            if window.is_retention_due() {
                window.end_call();
            }
            return taken;
        }
        self.take_slowly(datagram, &inline, *deadline, read)
    }

    /// A call on a socket.
    #[inline(never)]
    fn call_in_steps(
        &mut self,
        request: &Request<'_>,
        deadline: &mut Deadline,
        read: Read<'_>,
    ) -> Result<(), Box<Failure>> {
        // Sending and receiving share it.
        deadline.resolve();
        self.send(request, *deadline)?;
        let taken = self.receive(*deadline, &mut response(read));
        self.end_call();
        Ok(taken?)
    }

    /// The rest of a call whose request does not lie in the window, or has descriptors.
    #[cold]
    fn call_staged(
        &mut self,
        staged: Result<Staged, Unstaged>,
        message: &Outgoing<'_>,
        fds: &[BorrowedFd<'_>],
        deadline: &mut Deadline,
        read: Read<'_>,
    ) -> Result<(), Box<Failure>> {
        let Transport::Window(window) = &mut self.transport else { unreachable!("only a window stages") };
        deadline.resolve();
        let sent = send_staged(window, staged, message, self.session.maximum, fds, *deadline);
        let taken = sent.and_then(|()| self.receive(*deadline, &mut response(read)));
        self.end_call();
        Ok(taken?)
    }

    /// A call is over that was not inline.
    pub(super) fn end_call(&mut self) {
        match &mut self.transport {
            Transport::Window(window) => window.end_call(),
            Transport::Socket(socket) => socket.end_call(),
        };
    }

    /// Takes an answer that is not an inline response.
    #[inline(never)]
    fn take_slowly(
        &mut self,
        datagram: u32,
        inline: &InlineMessage,
        deadline: Deadline,
        read: Read<'_>,
    ) -> Result<(), Box<Failure>> {
        let Transport::Window(window) = &mut self.transport else { unreachable!("only a window has datagrams") };
        let maximum = u64::from(self.session.own_maximum);
        let taken = take_from_window(window, datagram, inline, maximum, deadline, &mut response(read));
        if window.is_retention_due() {
            window.end_call();
        }
        Ok(self.concluded(taken)?)
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
    pub(super) fn send(&mut self, request: &Request<'_>, deadline: Deadline) -> Result<(), Failure> {
        let message = self.message(request, &deadline)?;
        let maximum = self.session.maximum;
        match &mut self.transport {
            Transport::Window(window) => {
                let staged = window.stage(&message, maximum);
                send_staged(window, staged, &message, maximum, request.fds, deadline)
            }
            Transport::Socket(socket) => {
                socket.encode(&message, maximum).map_err(|TooLarge| too_large(maximum))?;
                socket.send_encoded(message.tag, request.fds, deadline).map_err(|error| {
                    match socket.socket.is_usable() {
                        true => Failure::Call(error.into()),
                        false => Failure::Unsent(error),
                    }
                })
            }
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
        let (left, version1) = (nanos_left(deadline)?, self.session.agreement.is_version1());
        if !fds.is_empty() && (fds.len() > usize::from(MOST_DESCRIPTORS) || !version1) {
            return Err(too_many_descriptors(fds.len()));
        }
        let prefix = if version1 { Prefix::Left(left) } else { Prefix::None };
        Ok(Outgoing { tag, prefix, value, fds: fds.len() as u8 })
    }

    /// Receives one message of an answer. What `take` makes of it decides: an error that is the peer's fault ends the channel.
    #[inline]
    pub(super) fn receive(&mut self, mut deadline: Deadline, take: Take<'_>) -> Result<(), Failure> {
        let maximum = u64::from(self.session.own_maximum);
        deadline.resolve();
        let taken = match &mut self.transport {
            Transport::Window(window) => match window.wait(deadline) {
                Ok(datagram) => {
                    let mut inline = InlineMessage::new();
                    match window.take_inline(datagram, &mut inline) {
                        Some(tag) => take(tag, inline.payload(), None),
                        None => take_from_window(window, datagram, &inline, maximum, deadline, take),
                    }
                }
                Err(error) => Err(unanswered(error)),
            },
            Transport::Socket(socket) => match socket.receive(deadline) {
                Ok(Some(Received { tag, fds, payload })) => {
                    let taken = take(tag, &payload, fds);
                    socket.restore(payload);
                    taken
                }
                Ok(None) => Err(Failure::Lost(Error::new(ErrorKind::PeerGone, "the server closed the connection"))),
                Err(error) => Err(unanswered(error)),
            },
        };
        self.concluded(taken)
    }

    /// Asks for the next chunk of a stream, where that has to be asked for.
    pub(super) fn ask_for_chunk(&mut self) -> Result<(), Failure> {
        let Transport::Window(window) = &mut self.transport else { return Ok(()) };
        let message = Outgoing { tag: CONTINUE, prefix: Prefix::None, value: &(), fds: 0 };
        let staged = window.stage(&message, 0).map_err(|_| Failure::Lost(TooLarge.into()))?;
        window.flip(staged).map_err(Failure::Lost)
    }

    /// What the server said when it ended the channel.
    #[cold]
    pub(super) fn last_words(&mut self) -> Option<Status> {
        match &mut self.transport {
            Transport::Window(window) => window.last_words(),
            Transport::Socket(_) => None,
        }
    }

    /// Ends the channel if a call left it unusable.
    fn concluded(&self, taken: Result<(), Failure>) -> Result<(), Failure> {
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
        match &self.transport {
            Transport::Window(window) => window.shut_down(),
            Transport::Socket(socket) => socket.shut_down(),
        }
    }
}

/// Takes a response to a call; every other message is a failure of it.
fn response(read: Read<'_>) -> impl FnMut(u16, &[u8], Option<Box<Attachments>>) -> Result<(), Failure> {
    |tag, payload, fds| {
        let fields = answer::response(tag, fds.is_some(), payload)?;
        read(fields, fds).map_err(|_| malformed(tag))
    }
}

/// Sends a request that was staged, or does not fit the window, with its descriptors, to a server that takes `maximum` bytes.
fn send_staged(
    window: &mut WindowTransport,
    staged: Result<Staged, Unstaged>,
    message: &Outgoing<'_>,
    maximum: u64,
    fds: &[BorrowedFd<'_>],
    deadline: Deadline,
) -> Result<(), Failure> {
    if let Err(Unstaged::TooLarge(TooLarge)) = staged {
        return Err(too_large(maximum));
    }
    window.attach(fds).map_err(|error| match window.is_socket_usable() {
        true => Failure::Call(error.into()),
        false => Failure::Unsent(error),
    })?;
    let sent = match staged {
        Err(Unstaged::Long(long)) => window.send_long(long, message, deadline),
        Err(Unstaged::TooLarge(TooLarge)) => return Err(too_large(maximum)),
        Ok(staged) => window.flip(staged).map_err(Halted::Unsent),
    };
    sent.map_err(|halted| match halted {
        Halted::Unsent(error) if error.kind() != ErrorKind::InvalidInput => Failure::Unsent(error),
        // Not the channel's fault: the value's. But descriptors are out, and would be those of the next call.
        Halted::Unsent(error) if message.fds == 0 => Failure::Call(error.into()),
        Halted::Unsent(error) | Halted::Unanswered(error) => {
            window.shut_down();
            Failure::Lost(ended(error, deadline))
        }
    })
}

/// Takes a message that is not inline, or to which more than a payload belongs.
fn take_from_window(
    window: &mut WindowTransport,
    datagram: u32,
    inline: &InlineMessage,
    maximum: u64,
    deadline: Deadline,
    take: Take<'_>,
) -> Result<(), Failure> {
    if let Some((tag, payload)) = window.take_plain(datagram, inline, maximum).map_err(Failure::Lost)? {
        let taken = take(tag, &payload, None);
        window.restore(payload);
        return taken;
    }
    receive_from_window(window, datagram, maximum, deadline, take)
}

/// Takes a message that is more than a payload in the window.
#[cold]
fn receive_from_window(
    window: &mut WindowTransport,
    datagram: u32,
    maximum: u64,
    mut deadline: Deadline,
    take: Take<'_>,
) -> Result<(), Failure> {
    let arrival = window.arrive(datagram, maximum).map_err(Failure::Lost)?;
    let received = window.receive(arrival, || TransferDue::of_call(Instant::now(), deadline.resolve()));
    let Received { tag, fds, payload } = received.map_err(Failure::Lost)?;
    let taken = take(tag, &payload, fds);
    window.restore(payload);
    taken
}
