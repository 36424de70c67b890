//! The client: calls from many threads over a pool of channels.

mod channel;
mod config;
mod connect;
mod debug;
mod failure;
mod late;
mod place;
mod pool;
mod session;
mod stream;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use channel::{Channel, Read, Request};
use failure::Failure;
use place::Place;
use pool::{Pool, Slot};
use session::Session;

pub use config::ClientConfig;
pub use connect::inherited_socket;
pub use stream::Stream;

use super::codec::{DecodeError, DecodeOwned, Encode, Raw, from_bytes};
use super::{CallError, trace, wire};
use crate::stream::{Attachments, FrameSocket};
use crate::{Deadline, Error, ErrorKind, Result};

/// How often a call that never left this process looks for another channel before it fails.
const ATTEMPTS: u32 = 4;

/// Calls the methods of a server. Clones share one connection, cloning is cheap, and any number of threads may call at the same time.
///
/// Each running call has a channel of its own, so a call that blocks holds up no other. See [`rpc`](super) for an example.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    session: Mutex<Arc<Session>>,
    /// Where to connect anew.
    path: Option<PathBuf>,
    config: ClientConfig,
    /// Bytes of window to ask for: 0 once windows turned out not to work here.
    window: AtomicU32,
    /// The server had no more channels, and is not asked again before this.
    full_until: Mutex<Option<Instant>>,
    closed: AtomicBool,
    counters: CounterCells,
}

#[derive(Debug, Default)]
struct CounterCells {
    channels_opened: AtomicU64,
    fallbacks: AtomicU64,
    timeouts: AtomicU64,
    lost: AtomicU64,
    reconnects: AtomicU64,
}

/// What a client did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientCounters {
    /// Calls begun, streams not among them.
    pub calls: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Times that windows were given up for sockets.
    pub fallbacks: u64,
    /// Calls that missed their deadline after they were sent.
    pub timeouts: u64,
    /// Calls whose channel ended under them.
    pub lost: u64,
    /// Connections made anew.
    pub reconnects: u64,
}

impl Client {
    fn begin(socket: FrameSocket, path: Option<PathBuf>, config: ClientConfig, deadline: Deadline) -> Result<Self> {
        let session = Session::begin(socket, &config, deadline)?;
        let shared = Shared {
            pool: Pool::new(config.channels, config.window > 0),
            session: Mutex::new(session),
            path,
            window: AtomicU32::new(config.window),
            full_until: Mutex::default(),
            closed: AtomicBool::new(false),
            counters: CounterCells::default(),
            config,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Calls a method by its number, from `0x0001` to `0xFEFF`: sends `request` and returns the answer.
    ///
    /// # Errors
    /// [`CallError::Status`] if the method answered with an error, or the server did in its place. Such an error of the server's own is
    /// [`NoResource`](super::Code::NoResource), if this process has too many large requests in flight
    /// ([`ServerConfig::large_request_bytes_total`](super::ServerConfig::large_request_bytes_total)).
    ///
    /// [`CallError::Failed`] if there is no answer. Its kind is [`Timeout`](ErrorKind::Timeout) if the deadline passed (a deadline without
    /// any time left fails at once), [`PeerGone`](ErrorKind::PeerGone) or [`PeerShutdown`](ErrorKind::PeerShutdown) if the server or its end
    /// of the channel is gone, [`Violation`](ErrorKind::Violation) if the server broke the protocol,
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the request is larger than the server takes or no method can have this number.
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
        self.exchange(&request, deadline.into(), &mut |fields: &[u8], _| {
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
    /// As [`call`](Self::call). [`InvalidInput`](ErrorKind::InvalidInput) also for more than 16 descriptors, or for any to a server of the
    /// base protocol.
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
        self.exchange(&request, deadline.into(), &mut |fields: &[u8], fds: Option<Box<Attachments>>| {
            answer = Some((from_bytes(fields)?, fds.map(|mut fds| fds.take_all()).unwrap_or_default()));
            Ok(())
        })?;
        answer.ok_or_else(unanswered)
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
        let mut attempt = 1;
        loop {
            let mut channel = match self.shared.acquire(deadline)? {
                Place::Own(channel) => channel,
                Place::Slot(mut slot) => slot.take().ok_or_else(unanswered)?,
            };
            match channel.send(&request, deadline) {
                Ok(()) => return Ok(Stream::new(self, channel, deadline)),
                Err(Failure::Unsent(error)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    self.shared.discard(Place::Own(channel), &error);
                }
                Err(failure) => return Err(self.shared.settle(Place::Own(channel), tag, failure)),
            }
        }
    }

    /// Whether the server still holds its end of the connection. Reads no byte and waits for nothing.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.shared.is_closed() && locked(&self.shared.session).is_alive()
    }

    /// Ends the connection and all its channels, for all clones of this client: running calls fail, and every later call does.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        locked(&self.shared.session).end();
        self.shared.pool.clear();
    }

    /// What the client did so far.
    #[must_use]
    pub fn counters(&self) -> ClientCounters {
        let counters = &self.shared.counters;
        ClientCounters {
            calls: self.shared.pool.calls(),
            channels_opened: counters.channels_opened.load(Ordering::Relaxed),
            fallbacks: counters.fallbacks.load(Ordering::Relaxed),
            timeouts: counters.timeouts.load(Ordering::Relaxed),
            lost: counters.lost.load(Ordering::Relaxed),
            reconnects: counters.reconnects.load(Ordering::Relaxed),
        }
    }

    /// One call: on the thread's own channel if that is idle.
    #[inline]
    fn exchange<T, F>(&self, request: &Request<'_, T>, deadline: Deadline, read: &mut F) -> Result<(), CallError>
    where
        T: Encode + ?Sized,
        F: FnMut(&[u8], Option<Box<Attachments>>) -> Result<(), DecodeError>,
    {
        let Some(mut slot) = self.shared.pool.home() else {
            self.shared.pool.count();
            return self.shared.exchange_slowly(&request.erased(), deadline, read);
        };
        let Some(channel) = slot.as_mut() else { unreachable!("a home slot holds a channel") };
        match channel.call(request, deadline, read) {
            Ok(()) => {
                drop(slot);
                self.shared.pool.released();
                Ok(())
            }
            Err(failure) => self.failed(slot, *failure, &request.erased(), deadline, read),
        }
    }

    /// What becomes of a call that failed on the thread's own channel.
    #[cold]
    fn failed(
        &self,
        mut slot: Slot<'_>,
        failure: Failure,
        request: &Request<'_>,
        deadline: Deadline,
        read: Read<'_>,
    ) -> Result<(), CallError> {
        let Failure::Unsent(error) = failure else {
            return Err(self.shared.settle(Place::Slot(slot), request.tag, failure));
        };
        trace::poisoned(&error);
        *slot = None;
        drop(slot);
        self.shared.exchange_slowly(request, deadline, read)
    }
}

/// An error if no method can have this number: the server would take it for a message of the protocol.
#[inline]
fn check_tag(tag: u16) -> Result<(), CallError> {
    if wire::SERVICE_TYPES.contains(&tag) { Ok(()) } else { Err(no_method(tag)) }
}

#[cold]
fn no_method(tag: u16) -> CallError {
    Error::invalid(format!("no method can have the number {tag:#06x}: methods go from 0x0001 to 0xfeff")).into()
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    #[cold]
    fn exchange_slowly(
        self: &Arc<Self>,
        request: &Request<'_>,
        deadline: Deadline,
        read: Read<'_>,
    ) -> Result<(), CallError> {
        let mut attempt = 1;
        loop {
            let mut place = self.acquire(deadline)?;
            let channel = match &mut place {
                Place::Own(channel) => Some(channel),
                Place::Slot(slot) => slot.as_mut(),
            };
            let Some(channel) = channel else { return Err(unanswered()) };
            let called = channel.call(request, deadline, &mut |fields: &[u8], fds| read(fields, fds));
            match called.map_err(|failure| *failure) {
                Ok(()) => {
                    self.leave(place);
                    return Ok(());
                }
                Err(Failure::Unsent(error)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    self.discard(place, &error);
                }
                Err(failure) => return Err(self.settle(place, request.tag, failure)),
            }
        }
    }

    /// Leaves a place whose channel is in order.
    fn leave(&self, place: Place<'_>) {
        match place {
            Place::Own(channel) => self.give_back(channel),
            Place::Slot(slot) => {
                drop(slot);
                self.pool.released();
            }
        }
    }

    /// Drops a channel that is over.
    fn discard(&self, place: Place<'_>, error: &Error) {
        trace::poisoned(error);
        if let Some(channel) = take(place) {
            channel.shut_down();
        }
        self.pool.released();
    }

    /// What a failed call means for its channel and its caller.
    #[cold]
    fn settle(self: &Arc<Self>, place: Place<'_>, tag: u16, failure: Failure) -> CallError {
        match failure {
            Failure::Call(error) => {
                self.leave(place);
                error
            }
            Failure::Unsent(error) | Failure::Lost(error) => {
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
                self.discard(place, &error);
                error.into()
            }
            Failure::Late => {
                self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
                if let Some(channel) = take(place) {
                    late::set_aside(self, channel, tag, wire::LATE);
                }
                Error::new(ErrorKind::Timeout, format!("method {tag:#06x} did not answer by its deadline")).into()
            }
        }
    }
}

/// Takes the channel out of its place.
fn take(place: Place<'_>) -> Option<Box<Channel>> {
    match place {
        Place::Own(channel) => Some(channel),
        Place::Slot(mut slot) => slot.take(),
    }
}

/// An exchange that succeeds has read an answer.
#[cold]
fn unanswered() -> CallError {
    Error::new(ErrorKind::Violation, "a call ended without an answer").into()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
