//! Serves a window channel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::call::{self, Outcome};
use super::config::LAST_ANSWER;
use super::connection::Connection;
use super::context::Context;
use super::quota::{Kind, LARGE};
use super::reply::{Way, wait_until_taken};
use super::worker::Worker;
use crate::endpoint::Halted;
use crate::rpc::line::{Incoming, Outgoing, Prefix, QUIET, Short, Staged, TooLarge, WindowLine};
use crate::rpc::router::Route;
use crate::rpc::wire::{self, ERROR, TRANSFER};
use crate::rpc::{CallViolation, Code, Status};
use crate::stream::Attachments;
use crate::{Deadline, Error, ErrorKind, Result};

/// A channel and its thread's state.
pub(super) struct WindowServer {
    line: WindowLine,
    /// The line's socket, whose hang-up cancels a call.
    socket: Arc<OwnedFd>,
    connection: Arc<Connection>,
    worker: Arc<Worker>,
}

/// How far an answer has got.
enum Sent {
    /// It lies in the window, to be flipped.
    Staged(Staged),
    /// It went out.
    Out,
    /// It went out with descriptors.
    WithFds,
}

impl WindowServer {
    pub(super) fn new(line: WindowLine, connection: Arc<Connection>, worker: Arc<Worker>) -> Self {
        Self { socket: line.socket.shared(), line, connection, worker }
    }

    /// Serves calls until the channel ends, which is always an error.
    pub(super) fn serve(&mut self) -> Error {
        let ended = self.serve_calls();
        self.line.shut_down();
        ended.err().unwrap_or_else(|| Error::new(ErrorKind::LocalShutdown, "the server is closing"))
    }

    fn serve_calls(&mut self) -> Result<()> {
        let mut never = Deadline::NEVER;
        let mut datagram = self.line.wait(never)?;
        loop {
            self.worker.begin();
            if self.connection.shared.is_closing() {
                self.worker.leave();
                return Ok(());
            }
            let sent = self.serve_one(datagram)?;
            if self.connection.shared.is_closing() {
                if let Sent::Staged(staged) = sent {
                    self.line.flip(staged)?;
                }
                return self.leave();
            }
            // The closer gives every idle worker longer than the flip of this answer takes.
            self.worker.end();
            datagram = match sent {
                Sent::Staged(staged) if !self.line.is_untrimmed() => {
                    self.line.call(staged, &mut never).map_err(Halted::into_error)?
                }
                Sent::Staged(staged) => {
                    self.line.flip(staged)?;
                    self.wait()?
                }
                Sent::Out => self.wait()?,
                Sent::WithFds => {
                    let socket = &self.line.socket;
                    wait_until_taken(socket, || socket.is_drained())?;
                    self.wait()?
                }
            };
        }
    }

    /// Waits for the next call, after one that was more than a datagram each way. Memory of large messages is kept for a client that
    /// goes on with them at once.
    fn wait(&mut self) -> Result<u32> {
        if self.line.is_untrimmed() && self.line.trim() {
            match self.line.wait(Deadline::after(QUIET)) {
                Err(error) if error.kind() == ErrorKind::Timeout => self.line.give_back(),
                waited => return waited,
            }
        }
        self.line.wait(Deadline::NEVER)
    }

    /// Leaves the last answer in the window until the client has had time to take it.
    #[cold]
    fn leave(&mut self) -> Result<()> {
        self.worker.leave();
        let _ = self.line.wait(Deadline::after(LAST_ANSWER));
        Ok(())
    }

    /// Serves the request that lies in the window.
    #[inline(always)]
    fn serve_one(&mut self, datagram: u32) -> Result<Sent> {
        let mut short = Short::new();
        match self.line.take_short(datagram, &mut short) {
            Some(tag) if !wire::is_forbidden_request(tag) => self.respond(tag, short.payload(), None, None),
            _ => self.serve_slowly(datagram, &short),
        }
    }

    /// Serves a request that is not short, or not all in the window.
    #[inline(never)]
    fn serve_slowly(&mut self, datagram: u32, short: &Short) -> Result<Sent> {
        let maximum = u64::from(self.connection.shared.config.maximum);
        let mut incoming = self.line.take(datagram, short, maximum)?;
        if wire::is_forbidden_request(incoming.tag) {
            return Err(CallViolation::Unexpected(incoming.tag).into());
        }
        let mut begun = None;
        let mut lease = None;
        if incoming.bulk > 0 {
            begun = Some(Instant::now());
            if let Err(status) = self.receive_bulk(&incoming, begun, &mut lease)? {
                return self.refuse(status).map(|()| Sent::Out);
            }
        }
        let request = self.line.lend();
        let sent = self.respond(incoming.tag, &request, incoming.fds.take(), begun)?;
        self.line.restore(request);
        Ok(sent)
    }

    /// Runs the method of a request and has its answer staged, or sends what cannot wait for the next flip.
    #[inline(always)]
    fn respond(
        &mut self,
        tag: u16,
        request: &[u8],
        received: Option<Box<Attachments>>,
        begun: Option<Instant>,
    ) -> Result<Sent> {
        let Self { line, connection, socket, .. } = self;
        let mut context = Context {
            caller: &connection.peer,
            socket,
            due: None,
            received,
            answer_fds: Vec::new(),
            may_attach: true,
            max_chunk: connection.max_chunk(line.room()),
        };
        let mut outcome = Outcome::default();
        answer(line, connection, tag, begun, request, &mut context, &mut outcome);
        if let Some(staged) = outcome.staged
            && outcome.is_plain()
            && context.answer_fds.is_empty()
            && !staged.bulk
        {
            return Ok(Sent::Staged(staged));
        }
        let fds = context.answer_fds;
        self.conclude(outcome, fds)
    }

    /// Sends what a method left behind that is not a staged answer and nothing else.
    #[cold]
    fn conclude(&mut self, outcome: Outcome, fds: Vec<OwnedFd>) -> Result<Sent> {
        if let Some(error) = outcome.stream.failed {
            return Err(*error);
        }
        if outcome.staged.is_some_and(|staged| staged.bulk && !self.line.is_held()) {
            // It is out already, whatever the method did after it.
            self.line.answered()?;
            return Ok(if fds.is_empty() { Sent::Out } else { Sent::WithFds });
        }
        if let Some(status) = outcome.refused {
            return self.refuse(*status).map(|()| Sent::Out);
        }
        match outcome.staged.or(outcome.stream.end) {
            Some(staged) if fds.is_empty() && !staged.bulk => Ok(Sent::Staged(staged)),
            Some(staged) => self.send_with_more(staged, &fds),
            // A method cannot prove that it answered without having staged its answer.
            None => self.refuse(Status::new(Code::Unknown, "the method did not answer")).map(|()| Sent::Out),
        }
    }

    /// Receives a payload that did not fit the window, or says why it is thrown away.
    #[cold]
    fn receive_bulk(
        &mut self,
        incoming: &Incoming,
        begun: Option<Instant>,
        lease: &mut Option<super::quota::Lease>,
    ) -> Result<Result<(), Status>> {
        let maximum = u64::from(self.connection.shared.config.maximum);
        let due = begun.map(|begun| begun + TRANSFER);
        if incoming.bulk > LARGE && incoming.bulk <= maximum {
            let process = self.connection.peer.pid;
            match self.connection.shared.quotas.lease(process, &[(Kind::LargeBytes, incoming.bulk)]) {
                Ok(leased) => *lease = Some(leased),
                Err(exhausted) => {
                    self.line.discard_bulk(incoming.bulk, maximum, due)?;
                    return Ok(Err(exhausted.into()));
                }
            }
        }
        self.line.receive_bulk(incoming.bulk, maximum, due, begun).map(Ok)
    }

    /// Sends a staged answer and what does not fit the window: its descriptors, its payload.
    #[cold]
    fn send_with_more(&mut self, staged: Staged, fds: &[OwnedFd]) -> Result<Sent> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        if let Err(error) = self.line.attach(&fds) {
            if !self.line.socket.is_usable() {
                return Err(error);
            }
            return self.refuse(Status::new(Code::NoResource, format!("{error:#}"))).map(|()| Sent::Out);
        }
        if staged.bulk {
            self.line.send_held(staged)?;
        } else {
            self.line.flip(staged)?;
        }
        Ok(if fds.is_empty() { Sent::Out } else { Sent::WithFds })
    }

    /// Answers with an error.
    #[cold]
    fn refuse(&mut self, status: Status) -> Result<()> {
        self.connection.shared.count_error(&status);
        let room = u64::from(self.line.room()).min(self.connection.maximum());
        let status = call::fitting(status, room);
        let message = Outgoing { tag: ERROR, prefix: Prefix::None, value: &status, fds: 0 };
        let staged = self.line.stage(&message, room, false).map_err(|TooLarge| CallViolation::TooLarge(0))?;
        self.line.flip(staged)
    }
}

/// Finds the method and runs it; its answer is then staged in the window, or the outcome says why not.
#[inline(always)]
fn answer(
    line: &mut WindowLine,
    connection: &Connection,
    tag: u16,
    begun: Option<Instant>,
    payload: &[u8],
    context: &mut Context<'_>,
    outcome: &mut Outcome,
) {
    let prepared = prepare(connection, tag, begun, payload, context);
    let ran = prepared.and_then(|(route, request)| {
        call::run(route, context, request, Way::Window(line), connection.maximum(), outcome)
    });
    if let Err(status) = ran {
        outcome.refused = Some(status);
    }
}

/// The method of a request, and what of its payload is for the method.
#[inline(always)]
fn prepare<'a>(
    connection: &'a Connection,
    tag: u16,
    begun: Option<Instant>,
    payload: &'a [u8],
    context: &mut Context<'_>,
) -> Result<(&'a Route, &'a [u8]), Box<Status>> {
    let has_fds = context.received.is_some();
    if context.received.as_ref().is_some_and(|fds| fds.lost()) {
        return Err(Status::new(Code::NoResource, "the server has no descriptors left").into());
    }
    let route = call::find(&connection.shared.router, tag, has_fds)?;
    let (due, request) = call::split_prefix(payload, begun)?;
    context.due = due;
    Ok((route, request))
}
