//! The client as programs hold it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::calls::unanswered;
use super::request::Request;
use super::shared::{ClientCounters, Shared};
use super::stream::Stream;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::CallError;
use crate::rpc::codec::{DecodeError, DecodeOwned, Encode, Raw, from_bytes};
use crate::rpc::message::number::SERVICE_TYPES;
use crate::stream::{Attachments, Peer};

/// Calls the methods of a server. Clones share one connection, cloning is cheap, and any number of threads may call at the same time.
///
/// Each running call has a channel of its own, so a call that blocks holds up no other. See [`rpc`](crate::rpc) for an example.
#[derive(Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

impl Client {
    /// Calls a method by its number, from `0x0001` to `0xFEFF`: sends `request` and returns the answer.
    ///
    /// # Errors
    /// [`CallError::Status`] if the method answered with an error, or the server did in its place. Such an error of the server's own is
    /// [`NoResource`](crate::rpc::Code::NoResource), if this process has too many large requests in flight
    /// ([`ServerConfig::large_request_bytes_total`](crate::rpc::ServerConfig::large_request_bytes_total)).
    ///
    /// [`CallError::Failed`] if there is no answer. Its [kind](crate::ErrorKind) is
    /// - [`Timeout`](crate::ErrorKind::Timeout) if the deadline passed; a deadline without any time left fails at once;
    /// - [`NoResource`](crate::ErrorKind::NoResource) if there was no channel for the call until the deadline, or for 30 s with a call that
    ///   has none. A call from inside a handler waits for 1 s in which no channel gets free: calls that nest need a channel for each level;
    /// - [`PeerGone`](crate::ErrorKind::PeerGone) or [`PeerShutdown`](crate::ErrorKind::PeerShutdown) if the server is gone, or its end of
    ///   the channel;
    /// - [`LocalShutdown`](crate::ErrorKind::LocalShutdown) if this client was [closed](Self::close);
    /// - [`Violation`](crate::ErrorKind::Violation) if the server broke the protocol, or its answer is no `R`;
    /// - [`InvalidInput`](crate::ErrorKind::InvalidInput) if the request is larger than the server takes, or no method can have this number.
    #[inline]
    pub fn call<Q: Encode + ?Sized, R: DecodeOwned>(
        &self,
        tag: u16,
        request: &Q,
        deadline: impl Into<Deadline>,
    ) -> Result<R, CallError> {
        self.call_with(tag, request, deadline, |fields| from_bytes::<R>(fields))
    }

    /// As [`call`](Self::call), with `read` to make the value from the answer's bytes, which it borrows.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    #[inline]
    pub fn call_with<Q: Encode + ?Sized, R>(
        &self,
        tag: u16,
        request: &Q,
        deadline: impl Into<Deadline>,
        read: impl FnOnce(&[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, CallError> {
        let (mut read, mut answer) = (Some(read), None);
        check_tag(tag)?;
        let request = Request { tag, value: request, fds: &[] };
        self.shared.exchange(&request, deadline.into(), &mut |fields: &[u8], _| {
            answer = match read.take() {
                Some(read) => Some(read(fields)?),
                None => None,
            };
            Ok(())
        })?;
        answer.ok_or_else(unanswered)
    }

    /// As [`call`](Self::call), with descriptors: up to 16 go along with the request, and those of the answer are returned. They are
    /// foreign: check what they are before any other use.
    ///
    /// # Errors
    /// As [`call`](Self::call). [`InvalidInput`](crate::ErrorKind::InvalidInput) also for more than 16 descriptors, or for any to a
    /// server of the base protocol; [`System`](crate::ErrorKind::System) also if this process had no descriptor left for those of the
    /// answer: the method ran, and the connection is as good as before.
    pub fn call_with_fds<Q: Encode + ?Sized, R: DecodeOwned>(
        &self,
        tag: u16,
        request: &Q,
        fds: &[BorrowedFd<'_>],
        deadline: impl Into<Deadline>,
    ) -> Result<(R, Vec<OwnedFd>), CallError> {
        let mut answer = None;
        check_tag(tag)?;
        let request = Request { tag, value: request, fds };
        self.shared.exchange(&request, deadline.into(), &mut |fields: &[u8], fds: Option<Box<Attachments>>| {
            answer = Some((from_bytes(fields)?, fds));
            Ok(())
        })?;
        match answer.ok_or_else(unanswered)? {
            (_, Some(fds)) if fds.lost() => Err(lost_descriptors().into()),
            (value, fds) => Ok((value, fds.map(|mut fds| fds.take_all()).unwrap_or_default())),
        }
    }

    /// Calls a method with the bytes of a request and returns the bytes of its answer, for a program that does not know the types.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_raw(&self, tag: u16, request: &[u8], deadline: impl Into<Deadline>) -> Result<Vec<u8>, CallError> {
        self.call_with(tag, &Raw(request), deadline, |answer| Ok(answer.to_vec()))
    }

    /// Calls a method that answers in chunks. The deadline is that of the whole stream.
    ///
    /// # Errors
    /// As [`call`](Self::call) for what keeps the request from being sent. The iterator brings every later error.
    pub fn stream<Q: Encode + ?Sized>(
        &self,
        tag: u16,
        request: &Q,
        deadline: impl Into<Deadline>,
    ) -> Result<Stream, CallError> {
        let mut deadline = deadline.into();
        let _ = deadline.resolve();
        check_tag(tag)?;
        let request = Request { tag, value: request, fds: &[] };
        let channel = self.shared.begin_stream(&request.erased(), deadline)?;
        Ok(Stream::new(&self.shared, channel, deadline))
    }

    /// Whether the server still holds its end of the connection. Reads no byte and waits for nothing, also while a call connects anew.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shared.origin.is_here() && !self.shared.is_closed() && self.shared.current().is_alive()
    }

    /// Ends the connection and all its channels, for all clones of this client: running calls fail with
    /// [`LocalShutdown`](crate::ErrorKind::LocalShutdown) at once, whatever they wait for, and so does every later call. Waits for nothing.
    pub fn close(&self) {
        if self.shared.origin.is_here() {
            self.shared.close();
        }
    }

    /// The process at the other end of the connection, which answers the calls, as the kernel recorded it when the connection was made. Of
    /// a socket pair it is the process that made the pair.
    ///
    /// # Errors
    /// [`System`](crate::ErrorKind::System) if the kernel does not say, or this process has no descriptors left for a handle on the other.
    pub fn peer(&self) -> Result<Peer> {
        self.shared.origin.check()?;
        self.shared.current().peer()
    }

    /// What the client did so far.
    #[must_use]
    pub fn counters(&self) -> ClientCounters {
        self.shared.counters()
    }
}

/// An error if no method can have this number: the server would take it for a message of the protocol.
#[inline]
fn check_tag(tag: u16) -> Result<(), CallError> {
    if SERVICE_TYPES.contains(&tag) { Ok(()) } else { Err(no_method(tag)) }
}

#[cold]
fn no_method(tag: u16) -> CallError {
    Error::invalid(format!("no method can have the number {tag:#06x}: methods go from 0x0001 to 0xfeff")).into()
}

#[cold]
fn lost_descriptors() -> Error {
    Error::new(ErrorKind::System, "this process has no descriptors left for those of the answer")
}
