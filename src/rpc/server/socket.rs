//! Serves calls on a socket: a base connection or a socket channel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::call::{self, Outcome};
use super::connection::Connection;
use super::context::Context;
use super::open;
use super::quota::{Exhausted, Kind, LARGE, Lease};
use super::reply::{Way, wait_until_taken};
use super::worker::Worker;
use crate::rpc::line::{Outgoing, Prefix, QUIET, SocketLine, TooLarge};
use crate::rpc::router::Method;
use crate::rpc::wire::{self, ERROR, HELLO, OPEN, RESPONSE};
use crate::rpc::{CallViolation, Code, Status};
use crate::stream::{Attachments, Header};
use crate::{Deadline, ErrorKind, Result};

/// A socket and its thread's state.
pub(super) struct SocketServer {
    pub(super) line: SocketLine,
    pub(super) connection: Arc<Connection>,
    pub(super) worker: Arc<Worker>,
    /// Whether HELLO and OPEN are served here.
    pub(super) is_base: bool,
    /// Whether the first request is yet to come.
    pub(super) is_first: bool,
}

/// An answer that is ready: its payload lies in the line's buffer.
type Ready = Result<Vec<OwnedFd>, Box<Status>>;

impl SocketServer {
    /// Serves calls until the client closes.
    pub(super) fn serve(&mut self) -> Result<()> {
        let ended = self.serve_calls();
        self.line.shut_down();
        ended
    }

    fn serve_calls(&mut self) -> Result<()> {
        loop {
            let Some(header) = self.next_header()? else { return Ok(()) };
            self.line.expect(header.length as usize);
            self.worker.begin();
            if self.connection.shared.is_closing() {
                self.worker.leave();
                return Ok(());
            }
            if wire::is_forbidden_request(header.tag) {
                return Err(CallViolation::Unexpected(header.tag).into());
            }
            // The clock is only worth reading where the rest of the frame may take long.
            let is_large = u64::from(header.length) > LARGE;
            let begun = is_large.then(Instant::now);
            let sent_fds = self.serve_one(header.tag, u64::from(header.length), begun)?;
            self.is_first = false;
            self.worker.end();
            if sent_fds {
                wait_until_taken(&self.line.socket, || self.line.socket.is_drained())?;
            }
        }
    }

    /// Waits for the next request. Memory of large messages is kept for a client that goes on with them at once.
    #[inline]
    fn next_header(&mut self) -> Result<Option<Header>> {
        if self.line.trim() {
            match self.line.socket.peek(Deadline::after(QUIET)) {
                Err(error) if error.kind() == ErrorKind::Timeout => self.line.give_back(),
                peeked => return peeked,
            };
        }
        self.line.socket.peek(Deadline::NEVER)
    }

    /// Serves one request; whether descriptors went out with the answer.
    fn serve_one(&mut self, tag: u16, length: u64, begun: Option<Instant>) -> Result<bool> {
        let lease = match self.lease(length) {
            Ok(lease) => lease,
            Err(exhausted) => {
                self.line.socket.discard(Deadline::NEVER)?;
                return self.refuse(exhausted.into()).map(|()| false);
            }
        };
        let agreed = self.connection.is_version1();
        if self.is_base && tag == HELLO {
            return open::hello(self).map(|()| false);
        }
        if self.is_base && agreed && tag == OPEN {
            return open::open(self);
        }
        let is_stream = matches!(self.connection.shared.router.find(tag), Some(route) if matches!(route.method, Method::Streaming(_)));
        let answered = if is_stream { self.stream(tag, begun)? } else { self.answer(tag, begun)? };
        drop(lease);
        match answered {
            None => Ok(false),
            Some(Ok(fds)) => self.send(&fds),
            Some(Err(status)) => self.refuse(*status).map(|()| false),
        }
    }

    fn lease(&self, length: u64) -> Result<Option<Lease>, Exhausted> {
        if length <= LARGE {
            return Ok(None);
        }
        let lease = self.connection.shared.quotas.lease(self.connection.peer.pid, &[(Kind::LargeBytes, length)]);
        lease.map(Some)
    }

    /// Runs a method that answers once.
    fn answer(&mut self, tag: u16, begun: Option<Instant>) -> Result<Option<Ready>> {
        let Self { line, connection, .. } = self;
        let SocketLine { socket, out, .. } = line;
        let shared = socket.shared();
        let Some(message) = socket.receive(Deadline::NEVER)? else { return Ok(None) };
        let mut context = context(connection, &shared, message.attachments);
        let maximum = connection.maximum();
        let mut outcome = Outcome::default();
        let ran = prepare(connection, tag, message.payload, begun, &mut context).and_then(|(route, request)| {
            call::run(route, &mut context, request, Way::Buffer(out), maximum, &mut outcome)
        });
        Ok(Some(ran.map(|()| context.answer_fds)))
    }

    /// Runs a method that answers in chunks, which go out at once: so its request is copied. `None`: it ended well.
    fn stream(&mut self, tag: u16, begun: Option<Instant>) -> Result<Option<Ready>> {
        let Self { line, connection, .. } = self;
        let shared = line.shared();
        let Some(message) = line.receive(Deadline::NEVER)? else { return Ok(None) };
        let (payload, attachments) = (message.payload.to_vec(), message.attachments);
        let mut context = context(connection, &shared, attachments);
        let mut outcome = Outcome::default();
        let ran = prepare(connection, tag, &payload, begun, &mut context).and_then(|(route, request)| {
            call::run(route, &mut context, request, Way::Socket(line), connection.maximum(), &mut outcome)
        });
        match outcome.stream.failed {
            Some(error) => Err(*error),
            None => Ok(ran.err().map(Err)),
        }
    }

    /// Sends the response in the line's buffer.
    fn send(&mut self, fds: &[OwnedFd]) -> Result<bool> {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match self.line.send_encoded(RESPONSE, &borrowed, Deadline::NEVER) {
            Ok(()) => Ok(!fds.is_empty()),
            Err(error) if !fds.is_empty() && self.line.socket.is_usable() => {
                self.refuse(Status::new(Code::NoResource, format!("{error:#}"))).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// Answers with an error.
    pub(super) fn refuse(&mut self, status: Status) -> Result<()> {
        self.connection.shared.count_error(&status);
        let maximum = self.connection.maximum();
        let status = call::fitting(status, maximum);
        let message = Outgoing { tag: ERROR, prefix: Prefix::None, value: &status, fds: 0 };
        let sent = self.line.send(&message, &[], maximum, Deadline::NEVER)?;
        sent.map_err(|TooLarge| CallViolation::TooLarge(0).into())
    }
}

/// The context of a call that came on a socket.
fn context<'a>(connection: &'a Connection, socket: &'a Arc<OwnedFd>, received: Attachments) -> Context<'a> {
    Context {
        caller: &connection.peer,
        socket,
        due: None,
        received: (!received.is_empty() || received.lost()).then(|| Box::new(received)),
        answer_fds: Vec::new(),
        may_attach: connection.is_version1(),
        max_chunk: connection.max_chunk(u32::MAX),
    }
}

/// Finds the method of a request, and what of its payload is for the method.
fn prepare<'a>(
    connection: &'a Connection,
    tag: u16,
    payload: &'a [u8],
    begun: Option<Instant>,
    context: &mut Context<'_>,
) -> Result<(&'a crate::rpc::router::Route, &'a [u8]), Box<Status>> {
    if context.received.as_ref().is_some_and(|fds| fds.lost()) {
        return Err(Status::new(Code::NoResource, "the server has no descriptors left").into());
    }
    let route = call::find(&connection.shared.router, tag, context.received.is_some())?;
    if !connection.is_version1() {
        return Ok((route, payload));
    }
    let (due, request) = call::split_prefix(payload, begun)?;
    context.due = due;
    Ok((route, request))
}
