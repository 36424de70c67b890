//! Serves the calls of a connection or channel, one after the other, alike for every transport.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::call::{self, CallLimits, Request};
use super::context::Context;
use super::here::Here;
use super::outcome::{Outcome, Ready};
use super::quota::{Exhausted, Kind, LARGE, Lease};
use super::served::{Own, Role, Sent, Served};
use super::shared::Connection;
use super::worker::Worker;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::message::number::ERROR;
use crate::rpc::message::outgoing::{Outgoing, fitting};
use crate::rpc::message::prefix::Prefix;
use crate::rpc::message::request;
use crate::rpc::nesting::Serving;
use crate::rpc::transport::{InlineMessage, Received};
use crate::rpc::{Code, Status};
use crate::stream::Attachments;
use crate::sys::peer_socket::PeerSocket;

/// A transport, what stands at its end, and their thread's state.
pub(super) struct Service<T, R> {
    transport: T,
    role: R,
    /// The transport's socket, whose hang-up cancels a call.
    socket: Arc<PeerSocket>,
    connection: Arc<Connection>,
    worker: Arc<Worker>,
    limits: CallLimits,
}

impl<T: Served, R: Role<T>> Service<T, R> {
    pub(super) fn new(transport: T, role: R, connection: &Arc<Connection>, worker: &Arc<Worker>) -> Self {
        let (connection, worker) = (Arc::clone(connection), Arc::clone(worker));
        let limits = CallLimits::new(role.agreement(), connection.shared.config.maximum, transport.most());
        Self { socket: worker.socket(), transport, role, connection, worker, limits }
    }

    /// Serves calls until the client closes.
    pub(super) fn serve(mut self) -> Result<()> {
        let _here = Here::begin(&self.worker);
        let _serving = Serving::begin();
        let ended = self.serve_calls();
        self.transport.end();
        ended
    }

    fn serve_calls(&mut self) -> Result<()> {
        let mut signal = self.transport.first()?;
        while let Some(came) = signal {
            self.worker.begin();
            if self.connection.shared.is_closing() {
                self.worker.leave();
                return Ok(());
            }
            let mut sent = self.serve_one(came)?;
            if self.connection.shared.is_closing() {
                match self.transport.leave(sent, &self.worker)? {
                    Some(left) if !self.worker.is_spared() => sent = left,
                    _ => {
                        self.worker.count();
                        return Ok(());
                    }
                }
            }
            // The closer gives every idle worker longer than the flip of this answer takes.
            self.worker.end();
            signal = self.transport.next(sent)?;
        }
        Ok(())
    }

    /// Serves a request.
    #[inline(always)]
    fn serve_one(&mut self, signal: T::Signal) -> Result<Sent> {
        let mut inline = InlineMessage::new();
        match self.transport.take_inline(signal, &mut inline) {
            Some(tag) if !request::is_forbidden(tag) => self.respond(tag, inline.payload(), None, None, None),
            _ => self.serve_plain(signal, &inline),
        }
    }

    /// Serves a request that is not inline.
    #[inline(never)]
    fn serve_plain(&mut self, signal: T::Signal, inline: &InlineMessage) -> Result<Sent> {
        let maximum = u64::from(self.connection.shared.config.maximum);
        let Some((tag, payload)) = self.transport.take_plain(signal, inline, maximum)? else {
            return self.serve_slowly(signal, maximum);
        };
        request::check(tag)?;
        let sent = self.respond(tag, &payload, None, None, None)?;
        self.transport.take_back(payload);
        Ok(sent)
    }

    /// Serves a request that is more than a payload in a window.
    #[inline(never)]
    fn serve_slowly(&mut self, signal: T::Signal, maximum: u64) -> Result<Sent> {
        let arrival = self.transport.arrived(signal, maximum)?;
        request::check(arrival.tag)?;
        // The clock is only worth reading where the rest of the request may take long.
        let to_come = self.transport.to_come(&arrival);
        let began = (to_come > 0).then(Instant::now);
        if let Some(status) = self.role.unworthy(&arrival) {
            self.role.missed();
            self.transport.discard_request(arrival, began)?;
            return self.refuse(status);
        }
        let lease = match self.lease(to_come) {
            Ok(lease) => lease,
            Err(exhausted) => {
                self.role.missed();
                self.transport.discard_request(arrival, began)?;
                return self.refuse(exhausted.into());
            }
        };
        let request = self.transport.receive_request(arrival, began)?;
        let own = self.role.serve(&mut self.transport, &request, &self.connection)?;
        let Received { tag, fds, payload } = request;
        let sent = match own {
            Own::No => self.respond(tag, &payload, fds, began, lease)?,
            Own::Answered(sent) => {
                self.limits.agreement = self.role.agreement();
                sent
            }
            Own::Refused(status) => self.refuse(status)?,
        };
        self.transport.take_back(payload);
        Ok(sent)
    }

    /// What a large request needs while it is received and served.
    fn lease(&self, bytes: u64) -> Result<Option<Lease>, Exhausted> {
        if bytes <= LARGE {
            return Ok(None);
        }
        let connection = &self.connection;
        connection.shared.quotas.lease(connection.holder, &[(Kind::LargeBytes, bytes)]).map(Some)
    }

    /// Runs the method of a request and has its answer staged, or sends what cannot wait for the next flip.
    #[inline(always)]
    fn respond(
        &mut self,
        tag: u16,
        request: &[u8],
        received: Option<Box<Attachments>>,
        began: Option<Instant>,
        lease: Option<Lease>,
    ) -> Result<Sent> {
        let Self { transport, connection, socket, limits, .. } = self;
        let mut context = Context {
            caller: &connection.peer,
            socket,
            due: None,
            received,
            answer_fds: Vec::new(),
            may_attach: limits.agreement.is_version1(),
            max_chunk: limits.max_chunk(),
        };
        let mut outcome = Outcome::default();
        let request = Request { tag, payload: request, began };
        call::answer(&connection.shared.router, *limits, request, &mut context, transport.way(), &mut outcome);
        drop(lease);
        if let Outcome::Ready(Ready::Staged(staged), 0) = outcome {
            return Ok(Sent::Staged(staged));
        }
        let fds = context.answer_fds;
        self.conclude(outcome, fds)
    }

    /// Sends what a method left behind that is not a staged answer and nothing else.
    #[inline(never)]
    fn conclude(&mut self, outcome: Outcome, fds: Vec<OwnedFd>) -> Result<Sent> {
        match outcome {
            Outcome::Ready(ready, count) => self.send(ready, &fds[..usize::from(count)]),
            Outcome::Ended(Some(end)) => Ok(Sent::Staged(end)),
            Outcome::Ended(None) => Ok(Sent::Out),
            Outcome::Sent => Ok(Sent::out(fds.len())),
            Outcome::Sending => {
                Err(Error::new(ErrorKind::LocalShutdown, "encoding an answer panicked inside a transfer"))
            }
            Outcome::Failed(error) => Err(*error),
            Outcome::Refused(status) => self.refuse(*status),
            // A method cannot prove that it answered without an answer.
            Outcome::Nothing => self.refuse(Status::new(Code::Unknown, "the method returned without an answer")),
        }
    }

    /// Sends an answer that is encoded, with its descriptors.
    fn send(&mut self, ready: Ready, fds: &[OwnedFd]) -> Result<Sent> {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match self.transport.send_ready(ready, &borrowed)? {
            Ok(()) => Ok(Sent::out(fds.len())),
            Err(error) => self.refuse(Status::new(Code::NoResource, format!("{error:#}"))),
        }
    }

    /// Answers with an error.
    #[cold]
    fn refuse(&mut self, status: Status) -> Result<Sent> {
        self.connection.shared.count_error(&status);
        let maximum = u64::from(self.limits.max_chunk());
        let status = fitting(status, maximum);
        let message = Outgoing { tag: ERROR, prefix: Prefix::None, value: &status, fds: 0 };
        self.transport.send_short(&message.erased(), maximum)?;
        Ok(Sent::Out)
    }
}
