//! Opens channels over a base connection.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::channel::{Channel, Transport};
use super::config::ClientConfig;
use super::failure::Failure;
use super::register::{End, Registered};
use super::request::Request;
use super::session::Session;
use crate::deadline::Deadline;
use crate::endpoint::{Connector, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::codec::DecodeError;
use crate::rpc::message::number::{HANDSHAKE, MOST_WINDOW, OPEN};
use crate::rpc::message::open::{Open, Opened, Unusable};
use crate::rpc::transport::{SocketTransport, WindowTransport};
use crate::rpc::{CallViolation, Code, Status, trace};
use crate::stream::{Attachments, FrameSocket};
use crate::sys::foreign::Foreign;
use crate::sys::socket_kind::check_received;
use crate::window::Window;

/// Opens a channel over `base`, which from its first bytes on ends with what is `registered`.
///
/// # Errors
/// A [`Failure`] of the OPEN; what is wrong with the channel itself is a [`Failure::Call`].
pub(super) fn open(
    base: &mut Channel,
    window: u32,
    config: &ClientConfig,
    registered: &Registered,
    mut deadline: Deadline,
) -> Result<Box<Channel>, Failure> {
    // It covers the answer, and the handshake in the window.
    deadline.resolve();
    let request = Request { tag: OPEN, value: &Open { window }, fds: &[] };
    let mut answer = None;
    let called = base.call(&request, &mut deadline, &mut |fields: &[u8], fds| {
        answer = Some((Opened::parse(fields).map_err(|_| DecodeError::Invalid)?, fds));
        Ok(())
    });
    called.map_err(|failure| *failure)?;
    let session = Arc::clone(&base.session);
    let (opened, fds) = answer.ok_or_else(|| Failure::Lost(CallViolation::Malformed(OPEN).into()))?;
    let transport = build(opened, fds, config, &session, registered, deadline);
    let transport = transport.map_err(|error| Failure::Call(error.into()))?;
    trace::channel_opened(opened.length);
    Ok(Box::new(Channel::new(transport, session)))
}

/// Makes a transport of what an OPEN brought.
fn build(
    opened: Opened,
    fds: Option<Box<Attachments>>,
    config: &ClientConfig,
    session: &Session,
    registered: &Registered,
    deadline: Deadline,
) -> Result<Transport> {
    if fds.as_ref().is_some_and(|fds| fds.lost()) {
        return Err(Error::new(ErrorKind::System, "this process has no descriptors left for a channel"));
    }
    opened.check(fds.as_ref().map(|fds| fds.len())).map_err(unusable)?;
    let mut take = {
        let mut fds = fds;
        move || {
            let fd = fds.as_mut().and_then(|fds| fds.take_first());
            fd.ok_or_else(|| unusable(Unusable::NoDescriptors))
        }
    };
    let file = if opened.has_window() { Some(Foreign::new(take()?)) } else { None };
    let mut socket = channel_socket(take)?;
    socket.set_max_frame(config.maximum);
    socket.set_attachments(true)?;
    registered.ends_by(End::of_socket(&socket.shared()))?;
    let Some(file) = file else { return Ok(Transport::Socket(SocketTransport::new(socket, &session.budget))) };
    let window = Window::receive_and_seal(file.take(), opened.offset, opened.length)?;
    let options = Options::new().policy(config.policy).watch_shared(socket.shared());
    let connector = Connector::new(window, options)?;
    registered.ends_by(End::of_window(connector.shutdown_handle(), &socket.shared()))?;
    let endpoint = connector.connect(deadline.capped(HANDSHAKE))?;
    let fragments = session.agreement.fragments();
    Ok(Transport::Window(WindowTransport::new(endpoint, socket, fragments, &session.budget)))
}

/// The socket of a channel. A socket of another kind would not show the end of the server, and whatever else it is, waiting at it is up to
/// the server.
fn channel_socket(take: impl FnOnce() -> Result<OwnedFd>) -> Result<FrameSocket> {
    let fd = Foreign::new(take()?);
    check_received(fd.as_fd())?;
    Ok(FrameSocket::new(fd.take()).end_at_drop())
}

/// What it means that a channel cannot be used.
#[cold]
fn unusable(unusable: Unusable) -> Error {
    match unusable {
        Unusable::NoDescriptors => Error::new(ErrorKind::Refused, "the channel came without its descriptors"),
        Unusable::Window(length) => {
            let what = format!("the server gave a window of {length} bytes, which is over the limit of {MOST_WINDOW}");
            Error::new(ErrorKind::Refused, what)
        }
        Unusable::Violation(violation) => violation.into(),
    }
}

/// Whether an OPEN was refused because something is used up, for now at least.
pub(super) fn is_full(status: &Status) -> bool {
    status.code == Code::NoResource
}
