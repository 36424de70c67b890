//! What a client has open, wherever it is: in a slot, under a call, in a stream, in quarantine, or only just being made.
//!
//! It counts the channels, so that those which are set aside or on their way are within the limit, too. And it can end everything at once:
//! whoever waits in a transport wakes up, however long its deadline is. Nobody holds its lock while he waits for anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::endpoint::ShutdownHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::transport::hang_up;
use crate::sys::fork::Origin;
use crate::sys::lock::lock;
use crate::sys::peer_socket::PeerSocket;

/// The open connections and channels of a client.
#[derive(Debug)]
pub(super) struct Register {
    /// The most channels.
    limit: usize,
    closed: AtomicBool,
    /// The server's process has ended.
    server_died: AtomicBool,
    entries: Mutex<Entries>,
    /// In a forked child no lock is taken, and nothing is ended.
    origin: Origin,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    channels: usize,
    open: Vec<(u64, End)>,
}

/// How something that is open is ended from outside.
#[derive(Debug, Clone)]
pub(super) enum End {
    Socket(Weak<PeerSocket>),
    Window(ShutdownHandle, Weak<PeerSocket>),
}

impl End {
    pub(super) fn of_socket(socket: &Arc<PeerSocket>) -> Self {
        Self::Socket(Arc::downgrade(socket))
    }

    pub(super) fn of_window(window: ShutdownHandle, socket: &Arc<PeerSocket>) -> Self {
        Self::Window(window, Arc::downgrade(socket))
    }

    /// The server's process has ended.
    fn peer_died(&self, origin: Origin) {
        if let Self::Window(window, _) = self {
            window.peer_died();
        }
        self.hang_up(origin);
    }

    fn shut_down(&self, origin: Origin) {
        if let Self::Window(window, _) = self {
            window.shut_down();
        }
        self.hang_up(origin);
    }

    fn hang_up(&self, origin: Origin) {
        let (Self::Socket(socket) | Self::Window(_, socket)) = self;
        if let Some(socket) = socket.upgrade() {
            hang_up(&socket, origin);
        }
    }
}

/// What is open is known to the register as long as this lives.
#[derive(Debug)]
pub(super) struct Registered {
    register: Arc<Register>,
    key: u64,
    is_channel: bool,
}

impl Register {
    /// For at most so many channels.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            closed: AtomicBool::new(false),
            server_died: AtomicBool::new(false),
            entries: Mutex::default(),
            origin: Origin::here(),
        })
    }

    /// The most channels.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A channel that is about to be opened; `None`: there are as many as there may be.
    pub(super) fn channel(self: &Arc<Self>) -> Option<Registered> {
        let mut entries = lock(&self.entries);
        (entries.channels < self.limit).then(|| self.add(&mut entries, true))
    }

    /// A connection, or a channel that takes the place of another, which goes on until this one is there.
    pub(super) fn uncounted(self: &Arc<Self>) -> Registered {
        self.add(&mut lock(&self.entries), false)
    }

    fn add(self: &Arc<Self>, entries: &mut Entries, is_channel: bool) -> Registered {
        entries.next += 1;
        entries.channels += usize::from(is_channel);
        Registered { register: Arc::clone(self), key: entries.next, is_channel }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// An error once the client is closed.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }

    /// The server's process has ended, whoever else may hold its ends: everything that is open has, too.
    pub(super) fn server_died(&self) {
        let ends = {
            let entries = lock(&self.entries);
            self.server_died.store(true, Ordering::Release);
            entries.open.clone()
        };
        ends.iter().for_each(|(_, end)| end.peer_died(self.origin));
    }

    /// Ends everything that is open. What is registered from now on is refused.
    pub(super) fn close(&self) {
        let ends = {
            let mut entries = lock(&self.entries);
            self.closed.store(true, Ordering::Release);
            std::mem::take(&mut entries.open)
        };
        ends.iter().for_each(|(_, end)| end.shut_down(self.origin));
    }
}

impl Registered {
    /// How it is ended, in place of what was said before.
    ///
    /// # Errors
    /// The client is closed: it has to end now.
    pub(super) fn ends_by(&self, end: End) -> Result<()> {
        let mut entries = lock(&self.register.entries);
        // A close that comes after this check finds the end in the list.
        self.register.check()?;
        entries.open.retain(|(key, _)| *key != self.key);
        if self.register.server_died.load(Ordering::Acquire) {
            end.peer_died(self.register.origin);
        }
        entries.open.push((self.key, end));
        Ok(())
    }

    /// Takes the place of `other` in the count of channels.
    pub(super) fn replace(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.is_channel, &mut other.is_channel);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.register.origin.is_here() {
            return;
        }
        let mut entries = lock(&self.register.entries);
        entries.open.retain(|(key, _)| *key != self.key);
        entries.channels -= usize::from(self.is_channel);
    }
}

/// What a call of a closed client brings.
#[cold]
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::LocalShutdown, "this client was closed (`Client::close`)")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn channels_are_counted_until_they_are_dropped() {
        let register = Register::new(2);
        let (first, second) = (register.channel().unwrap(), register.channel().unwrap());
        assert!(register.channel().is_none());
        let connection = register.uncounted();
        drop(first);
        let mut third = register.channel().unwrap();
        assert!(register.channel().is_none(), "a connection is no channel");
        let mut fresh = register.uncounted();
        fresh.replace(&mut third);
        drop(third);
        assert!(register.channel().is_none(), "another took its place");
        drop((fresh, second, connection));
        assert!(register.channel().is_some());
    }

    #[test]
    fn close_ends_what_is_open_and_refuses_what_comes() {
        let register = Register::new(1);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let socket = Arc::new(PeerSocket::new(ours.into()));
        let (early, late) = (register.uncounted(), register.uncounted());
        early.ends_by(End::of_socket(&socket)).unwrap();
        assert!(register.check().is_ok());
        register.close();
        assert_eq!(std::io::Read::read(&mut &theirs, &mut [0]).unwrap(), 0, "it was hung up");
        assert_eq!(late.ends_by(End::of_socket(&socket)).unwrap_err().kind(), ErrorKind::LocalShutdown);
        assert!(register.check().is_err());
    }
}
