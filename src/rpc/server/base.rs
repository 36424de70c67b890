//! What a base connection serves besides calls: HELLO, and OPEN.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::open::{self, Channel};
use super::served::{Own, Role, Sent};
use super::shared::Connection;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::rpc::codec::Encode;
use crate::rpc::message::arrival::Arrival;
use crate::rpc::message::hello::{self, Agreement, Greeting, Terms};
use crate::rpc::message::number::RESPONSE;
use crate::rpc::message::open::Open;
use crate::rpc::message::outgoing::Outgoing;
use crate::rpc::message::prefix::Prefix;
use crate::rpc::message::request::Addressee;
use crate::rpc::transport::{Received, SocketTransport};
use crate::rpc::{Code, Status};

/// A base connection.
pub(super) struct Base {
    greeting: Greeting,
}

impl Base {
    pub(super) fn new() -> Self {
        Self { greeting: Greeting::Expected }
    }

    fn hello(&mut self, transport: &mut SocketTransport, payload: &[u8], connection: &Connection) -> Result<Own> {
        let config = &connection.shared.config;
        let terms = Terms { version1: config.version1, extensions: config.extensions, maximum: config.maximum };
        match self.greeting.hello(terms, payload) {
            Err(status) => Ok(Own::Refused(status)),
            Ok(answer) => {
                transport.socket.set_attachments(true)?;
                respond(transport, &answer, &[]).map(|()| Own::Answered(Sent::Out))
            }
        }
    }

    fn open(
        &mut self,
        transport: &mut SocketTransport,
        request: &Received,
        connection: &Arc<Connection>,
    ) -> Result<Own> {
        self.greeting.other();
        let opened = Open::parse(&request.payload, request.fds.is_some())
            .and_then(|open| open::channel(connection, self.greeting.agreement(), open));
        let Channel { opened, fds, worker } = match opened {
            Ok(channel) => channel,
            Err(status) => return Ok(Own::Refused(status.op("open"))),
        };
        match respond(transport, &opened, &fds) {
            Ok(()) => Ok(Own::Answered(Sent::WithFds)),
            Err(error) => {
                worker.kill();
                match transport.socket.is_usable() {
                    true => Ok(Own::Refused(Status::new(Code::NoResource, format!("{error:#}")).op("open"))),
                    false => Err(error),
                }
            }
        }
    }
}

impl Role<SocketTransport> for Base {
    fn agreement(&self) -> Agreement {
        self.greeting.agreement()
    }

    fn serve(
        &mut self,
        transport: &mut SocketTransport,
        request: &Received,
        connection: &Arc<Connection>,
    ) -> Result<Own> {
        match Addressee::of(request.tag, true, self.agreement().is_version1()) {
            Addressee::Hello => self.hello(transport, &request.payload, connection),
            Addressee::Open => self.open(transport, request, connection),
            Addressee::Method => {
                self.greeting.other();
                Ok(Own::No)
            }
        }
    }

    fn unworthy(&self, arrival: &Arrival) -> Option<Status> {
        hello::unworthy(arrival.tag, arrival.payload.length())
    }

    fn missed(&mut self) {
        self.greeting.other();
    }
}

/// Sends a response of the connection's own.
fn respond(transport: &mut SocketTransport, value: &dyn Encode, fds: &[OwnedFd]) -> Result<()> {
    let message = Outgoing { tag: RESPONSE, prefix: Prefix::Ok, value, fds: 0 };
    transport.encode(&message, u64::MAX)?;
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    transport.send_encoded(RESPONSE, &fds, Deadline::NEVER)
}
