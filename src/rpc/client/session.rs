//! A base connection: what was agreed on it, and its transport, for one call or OPEN at a time.

use std::sync::{Arc, Mutex};

use rustix::event::PollFlags;

use super::config::ClientConfig;
use super::register::{End, Register, Registered};
use super::windows::Windows;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::message::answer::NoValue;
use crate::rpc::message::hello::{Agreement, Hello};
use crate::rpc::message::number::{MOST_HELLO, PREFIX};
use crate::rpc::trace;
use crate::rpc::transport::{Budget, SocketTransport, hang_up};
use crate::stream::{FrameSocket, Peer};
use crate::sys::fork::Origin;
use crate::sys::lock::lock;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::poll;

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Session {
    /// The transport of the base connection, gone while a call or an OPEN is under way on it, and for good once it is retired.
    base: Mutex<Option<SocketTransport>>,
    socket: Arc<PeerSocket>,
    origin: Origin,
    pub(super) agreement: Agreement,
    /// The largest request that the server accepts, in bytes.
    pub(super) maximum: u64,
    /// The largest answer that we accept, in bytes.
    pub(super) own_maximum: u32,
    /// What its transports may retain of large messages.
    pub(super) budget: Arc<Budget>,
    /// Whether its channels can have windows.
    pub(super) windows: Windows,
    _registered: Registered,
}

impl Session {
    /// Agrees on a version with the server at the other end of a socket.
    pub(super) fn begin(
        mut socket: FrameSocket,
        config: &ClientConfig,
        register: &Arc<Register>,
        mut deadline: Deadline,
    ) -> Result<Arc<Self>> {
        // It covers two waits.
        deadline.resolve();
        // The answer to a HELLO is short; a server that says more has not been agreed with on anything.
        let first = if config.base_only { config.maximum } else { MOST_HELLO + PREFIX as u32 };
        socket.set_max_frame(first);
        socket.set_attachments(false)?;
        let shared = socket.shared();
        let registered = register.uncounted();
        registered.ends_by(End::of_socket(&shared))?;
        let budget = Arc::default();
        let mut transport = SocketTransport::new(socket, &budget);
        let agreement = match config.base_only {
            true => Agreement::Base,
            false => greet(&mut transport, config, deadline)?,
        };
        transport.socket.set_max_frame(config.maximum);
        if agreement.is_version1() {
            transport.socket.set_attachments(true)?;
        }
        trace::connected(u32::from(agreement.is_version1()));
        Ok(Arc::new(Self {
            base: Mutex::new(Some(transport)),
            socket: shared,
            origin: Origin::here(),
            agreement,
            maximum: agreement.maximum().unwrap_or(u64::from(u32::MAX)),
            own_maximum: config.maximum,
            budget,
            windows: Windows::default(),
            _registered: registered,
        }))
    }

    /// Whether the server still holds its end. Reads no byte.
    pub(super) fn is_alive(&self) -> bool {
        // Not a poll for the next byte: what was sent before the end would hide it, ours as well.
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        // Where a filter refuses to say, the next call will.
        poll::now(&self.socket, PollFlags::RDHUP).map_or(true, |state| !state.intersects(ended))
    }

    /// The process at the other end.
    pub(super) fn peer(&self) -> Result<Peer> {
        Peer::of(&self.socket)
    }

    /// Ends the connection, and with it its channels.
    pub(super) fn end(&self) {
        hang_up(&self.socket, self.origin);
    }

    /// The transport of the base connection; `None` while somebody else has it.
    pub(super) fn take_base(self: &Arc<Self>) -> Option<(SocketTransport, BaseGuard)> {
        let transport = lock(&self.base).take()?;
        Some((transport, BaseGuard(Some(Arc::clone(self)))))
    }
}

/// The transport of a base connection is away. If it never comes back (a failure, a panic in a value's own code), the connection ends:
/// nobody could use it any more, and everybody would wait for it.
#[derive(Debug)]
pub(super) struct BaseGuard(Option<Arc<Session>>);

impl BaseGuard {
    /// Gives the transport back.
    pub(super) fn give_back(mut self, transport: SocketTransport) {
        if let Some(session) = self.0.take() {
            *lock(&session.base) = Some(transport);
        }
    }
}

impl Drop for BaseGuard {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.end();
        }
    }
}

/// Says HELLO.
fn greet(transport: &mut SocketTransport, config: &ClientConfig, deadline: Deadline) -> Result<Agreement> {
    let hello = Hello::new(config.maximum, config.extensions);
    let message = hello.message();
    transport.encode(&message, u64::MAX)?;
    let answer = match transport.send_encoded(message.tag, &[], deadline) {
        Ok(()) => transport.receive(deadline)?,
        // A server that refuses a connection says why and closes it, before it has read anything.
        Err(error) if error.kind() == ErrorKind::PeerGone => transport.last_words(),
        Err(error) => return Err(error),
    };
    let Some(answer) = answer else {
        let what = "the server closed the connection before the handshake: it is no flipcall server, or it ended";
        return Err(Error::new(ErrorKind::PeerGone, what));
    };
    let agreed = hello.answered(answer.tag, answer.fds.is_some(), &answer.payload);
    transport.restore(answer.payload);
    agreed.map_err(|failed| match failed {
        NoValue::Status(status) => Error::caused(ErrorKind::Refused, "the server refused the connection", status),
        NoValue::Violation(violation) => violation.into(),
    })
}
