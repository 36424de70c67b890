//! Notices that a peer died.
//!
//! A dead peer never flips control back, and nothing in the shared memory tells it from one that thinks. So each endpoint may watch a
//! socket or a pidfd, and one thread per process waits for all of them; a hang-up raises the cancel words of the endpoints
//! that watch it. A forked child starts a thread of its own when one of its endpoints next waits.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::error::Result;
use crate::sys::cancel::{Cancel, CancelWord};
use crate::sys::fork::PerProcess;
use crate::sys::lock::lock;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket::set_pass_rights;
use crate::sys::socket_kind::check_hangs_up;
use crate::sys::thread;

/// Hang-ups taken per system call.
const EVENTS: usize = 64;

static WATCHDOG: PerProcess<Watchdog> = PerProcess::new();

/// What shows that a peer died.
#[derive(Debug)]
pub(crate) enum Watched {
    /// A socket or pipe whose other end only the peer holds: it hangs up.
    Socket(PeerSocket),
    /// Such a socket, which is also used for something else.
    Shared(Arc<PeerSocket>),
    /// The peer's pidfd: it becomes readable.
    Process(OwnedFd),
}

impl Watched {
    /// An error if this cannot show the end of a peer.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Socket(socket) => check_hangs_up(socket.as_fd()),
            Self::Shared(_) | Self::Process(_) => Ok(()),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(socket) => socket.as_fd(),
            Self::Shared(socket) => socket.as_fd(),
            Self::Process(pidfd) => pidfd.as_fd(),
        }
    }

    /// Reported once. Hang-ups are reported whether asked for or not.
    fn events(&self) -> EventFlags {
        match self {
            Self::Socket(_) | Self::Shared(_) => EventFlags::ONESHOT,
            Self::Process(_) => EventFlags::ONESHOT | EventFlags::IN,
        }
    }
}

/// Raises a cancel word when what is watched dies, until dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    watched: Watched,
    cancel: Weak<CancelWord>,
    token: u64,
    watchdog: &'static Watchdog,
}

impl Watch {
    pub(crate) fn new(watched: Watched, cancel: &Arc<CancelWord>) -> Result<Self, Errno> {
        if let Watched::Socket(socket) = &watched {
            // Nobody reads it, so nobody may send descriptors to it. A kernel or a pipe that knows no such thing says so.
            let _ = set_pass_rights(socket.as_fd(), false);
        }
        let watchdog = Watchdog::of_this_process()?;
        let cancel = Arc::downgrade(cancel);
        let token = watchdog.add(&watched, cancel.clone())?;
        Ok(Self { watched, cancel, token, watchdog })
    }

    /// Has the watchdog of this process watch, if the process forked since.
    pub(crate) fn renew(&mut self) -> Result<(), Errno> {
        if !self.is_current() {
            let watchdog = Watchdog::of_this_process()?;
            self.token = watchdog.add(&self.watched, self.cancel.clone())?;
            self.watchdog = watchdog;
        }
        Ok(())
    }

    fn is_current(&self) -> bool {
        WATCHDOG.get().is_some_and(|current| std::ptr::eq(current, self.watchdog))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // In a forked child the parent's epoll instance is still the parent's.
        if self.is_current() {
            self.watchdog.remove(self.token, &self.watched);
        }
    }
}

#[derive(Debug)]
struct Watchdog {
    epoll: OwnedFd,
    next: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    cancels: HashMap<u64, Weak<CancelWord>>,
    running: bool,
}

impl Watchdog {
    fn of_this_process() -> Result<&'static Self, Errno> {
        let watchdog = WATCHDOG.get_or_try_init(|| {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            Ok(Self { epoll, next: AtomicU64::new(0), table: Mutex::default() })
        });
        watchdog.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
    }

    fn add(&'static self, watched: &Watched, cancel: Weak<CancelWord>) -> Result<u64, Errno> {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let mut table = self.lock();
        if !table.running {
            thread::spawn("flipcall-watch", || self.run())
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
            table.running = true;
        }
        table.cancels.insert(token, cancel);
        let added = epoll::add(&self.epoll, watched.fd(), EventData::new_u64(token), watched.events());
        if let Err(errno) = added {
            table.cancels.remove(&token);
            return Err(errno);
        }
        Ok(token)
    }

    fn remove(&self, token: u64, watched: &Watched) {
        self.lock().cancels.remove(&token);
        // A file that was closed elsewhere is out of the set already.
        let _ = epoll::delete(&self.epoll, watched.fd());
    }

    fn run(&self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                // It cannot be: the set lives as long as the process.
                Err(errno) => unreachable!("epoll_wait: {errno}"),
            }
            for event in &events {
                let cancel = self.lock().cancels.remove(&event.data.u64());
                if let Some(cancel) = cancel.and_then(|cancel| cancel.upgrade()) {
                    cancel.raise(Cancel::PeerGone);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the thread that watches still knows of a cancel word.
    fn is_known(cancel: &Arc<CancelWord>) -> bool {
        let watchdog = Watchdog::of_this_process().unwrap();
        watchdog.lock().cancels.values().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(cancel)))
    }

    #[test]
    fn a_watch_that_is_dropped_leaves_nothing() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let shared = Arc::new(PeerSocket::new(ours.into()));
        let cancel = Arc::new(CancelWord::new());
        // The same socket again: it is out of the set, or it could not be added.
        for _ in 0..3 {
            let watch = Watch::new(Watched::Shared(Arc::clone(&shared)), &cancel).unwrap();
            assert!(is_known(&cancel));
            drop(watch);
            assert!(!is_known(&cancel));
        }
    }

    #[test]
    fn what_cannot_be_watched_leaves_nothing() {
        let cancel = Arc::new(CancelWord::new());
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(Watch::new(Watched::Process(file.into()), &cancel).unwrap_err(), Errno::PERM);
        assert!(!is_known(&cancel));
    }
}
