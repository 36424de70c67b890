//! A base connection: what was agreed on it, and the channels it opens.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::PollFlags;

use super::ClientConfig;
use super::channel::{Channel, Line, Request};
use super::failure::Failure;
use crate::endpoint;
use crate::endpoint::Options;
use crate::rpc::codec::from_bytes;
use crate::rpc::line::{Budget, SocketLine, WindowLine, hang_up};
use crate::rpc::wire::{self, Hello, Open, Opened, VERSION};
use crate::rpc::{CallError, CallViolation, Code};
use crate::stream::{Attachments, FrameSocket};
use crate::sys::poll;
use crate::window::Window;
use crate::{Deadline, Error, ErrorKind, Result};

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Session {
    /// The line of the base connection, gone while a call or an OPEN is under way on it, and for good once it is retired.
    base: Mutex<Option<SocketLine>>,
    socket: Arc<OwnedFd>,
    /// Whether the server speaks version 1.
    pub(super) version1: bool,
    /// Whether payloads that do not fit a window go through it in parts.
    parts: bool,
    /// The largest request that the server accepts, in bytes.
    pub(super) maximum: u64,
    /// The largest answer that we accept, in bytes.
    pub(super) own_maximum: u32,
    /// What its lines may keep of large messages.
    kept: Arc<Budget>,
}

impl Session {
    /// Agrees on a version with the server at the other end of a socket.
    pub(super) fn begin(mut socket: FrameSocket, config: &ClientConfig, deadline: Deadline) -> Result<Arc<Self>> {
        socket.set_max_frame(config.maximum);
        socket.set_attachments(false)?;
        let shared = socket.shared();
        let kept = Arc::default();
        let mut line = SocketLine::new(socket, &kept);
        let (mut version1, mut parts, mut maximum) = (false, false, u64::from(u32::MAX));
        if !config.base_only
            && let Some(hello) = greet(&mut line, config, deadline)?
        {
            line.socket.set_attachments(true)?;
            (version1, parts, maximum) = (true, hello.has(wire::PARTS), hello.maximum);
        }
        crate::rpc::trace::connected(u32::from(version1));
        let (base, own_maximum) = (Mutex::new(Some(line)), config.maximum);
        Ok(Arc::new(Self { base, socket: shared, version1, parts, maximum, own_maximum, kept }))
    }

    /// Whether the server still holds its end. Eats no byte.
    pub(super) fn is_alive(&self) -> bool {
        // Not a look at the next byte: what was sent before the end would hide it, ours as well.
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll::now(&self.socket, PollFlags::RDHUP).is_ok_and(|state| !state.intersects(ended))
    }

    /// Ends the connection, and with it its channels.
    pub(super) fn end(&self) {
        hang_up(&self.socket);
    }

    /// The base connection as a channel; `None` while somebody else has it.
    pub(super) fn take_base(self: &Arc<Self>) -> Option<Box<Channel>> {
        let line = self.base.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Box::new(Channel {
            line: Line::Socket(line),
            session: Arc::clone(self),
            loan: Some(Loan(Some(Arc::clone(self)))),
        }))
    }
}

/// The line of a base connection is away. If it never comes back (a failure, a panic in a value's own code), the connection ends: nobody
/// could use it any more, and everybody would wait for it.
#[derive(Debug)]
pub(super) struct Loan(Option<Arc<Session>>);

impl Loan {
    /// Gives the line back.
    pub(super) fn give_back(mut self, line: SocketLine) {
        if let Some(session) = self.0.take() {
            *session.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.end();
        }
    }
}

/// Says HELLO. `None`: a server of the base protocol.
fn greet(line: &mut SocketLine, config: &ClientConfig, deadline: Deadline) -> Result<Option<Hello>> {
    let extensions = if config.extensions { wire::extensions() } else { Vec::new() };
    let hello = Hello { version: VERSION, maximum: u64::from(config.maximum), extensions };
    let message =
        crate::rpc::line::Outgoing { tag: wire::HELLO, prefix: crate::rpc::line::Prefix::None, value: &hello, fds: 0 };
    line.send(&message, &[], u64::MAX, deadline)?.map_err(Error::from)?;
    let Some(answer) = line.receive(deadline)? else {
        let what = "the server closed the connection before the handshake: it is none, or takes no more connections";
        return Err(Error::new(ErrorKind::PeerGone, what));
    };
    match (answer.tag, answer.payload) {
        (wire::RESPONSE, [wire::OK, fields @ ..]) => match from_bytes::<Hello>(fields) {
            Ok(answer) if answer.agrees_with(&hello) => Ok(Some(answer)),
            _ => Err(CallViolation::Malformed(wire::HELLO).into()),
        },
        (wire::ERROR, payload) => match from_bytes::<crate::rpc::Status>(payload) {
            Ok(status) if status.code == Code::InvalidArgument => Ok(None),
            Ok(status) => Err(Error::caused(ErrorKind::Refused, "the server refused the connection", status)),
            Err(_) => Err(CallViolation::Malformed(wire::ERROR).into()),
        },
        (tag, _) => Err(CallViolation::Unexpected(tag).into()),
    }
}

/// Opens a channel over `base`.
///
/// # Errors
/// A [`Failure`] of the OPEN; what is wrong with the channel itself is a [`Failure::Call`].
pub(super) fn open(
    base: &mut Channel,
    window: u32,
    config: &ClientConfig,
    deadline: Deadline,
) -> Result<Box<Channel>, Failure> {
    let request = Request { tag: wire::OPEN, value: &Open { window }, fds: &[] };
    let mut opened = None;
    let called = base.call(&request, deadline, &mut |fields: &[u8], fds| {
        opened = Some((from_bytes::<Opened>(fields)?, fds));
        Ok(())
    });
    called.map_err(|failure| *failure)?;
    let session = Arc::clone(&base.session);
    let (opened, fds) = opened.ok_or_else(|| Failure::Lost(CallViolation::Malformed(wire::OPEN).into()))?;
    let line = build(opened, fds, config, &session, deadline).map_err(|error| Failure::Call(error.into()))?;
    crate::rpc::trace::channel_opened(opened.length);
    Ok(Box::new(Channel { line, session, loan: None }))
}

/// Makes a line of what an OPEN brought.
fn build(
    opened: Opened,
    fds: Option<Box<Attachments>>,
    config: &ClientConfig,
    session: &Session,
    deadline: Deadline,
) -> Result<Line> {
    let mut fds = fds.ok_or_else(|| Error::new(ErrorKind::Refused, "the channel came without its descriptors"))?;
    if fds.lost() {
        return Err(Error::new(ErrorKind::System, "this process has no descriptors left for a channel"));
    }
    if opened.length > wire::MOST_WINDOW {
        let what =
            format!("the server gives a window of {} bytes, over the most of {}", opened.length, wire::MOST_WINDOW);
        return Err(Error::new(ErrorKind::Refused, what));
    }
    let expected = if opened.length == 0 { 1 } else { 2 };
    if fds.len() != expected {
        return Err(CallViolation::Descriptors(fds.len() as u8).into());
    }
    let file = if expected == 2 { fds.take_first() } else { None };
    let Some(socket) = fds.take_first() else { return Err(CallViolation::Descriptors(0).into()) };
    let mut socket = FrameSocket::new(socket);
    socket.set_max_frame(config.maximum);
    socket.set_attachments(true)?;
    let Some(file) = file else { return Ok(Line::Socket(SocketLine::new(socket, &session.kept))) };
    let window = Window::receive_and_seal(file, opened.offset, opened.length)?;
    let options = Options::new().policy(config.policy).watch_shared(socket.shared());
    let client = endpoint::Connector::new(window, options)?;
    let endpoint = client.connect(deadline.capped(wire::HANDSHAKE))?;
    Ok(Line::Window(WindowLine::new(endpoint, socket, session.parts, &session.kept)))
}

/// Whether an OPEN was refused because something is used up, for now at least.
pub(super) fn is_full(error: &CallError) -> bool {
    error.status().is_some_and(|status| status.code == Code::NoResource)
}

/// How long a client pauses before it asks again for a channel that was refused.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// How often it asks again.
pub(super) const RETRIES: u32 = 2;
