//! Notices that a peer died.
//!
//! A dead peer never flips control back, and nothing in the shared memory tells it from one that thinks. So each endpoint may watch a
//! socket or a pidfd, and one thread per process waits for all of them; a hang-up raises the cancel words of the endpoints
//! that watch it. A forked child has a watchdog of its own, for its own endpoints.
//!
//! Where epoll is refused (by a system call filter, possibly one that came later), the thread polls what is watched every 50 ms.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::sys::cancel::{Cancel, CancelWord};
use crate::sys::fork::PerProcess;
use crate::sys::lift::lift;
use crate::sys::lock::lock;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket::set_pass_rights;
use crate::sys::socket_kind::check_hangs_up;
use crate::sys::{poll, thread};

/// Hang-ups taken per system call.
const EVENTS: usize = 64;

/// How often everything that is watched is polled where there is no epoll.
const SLICE: Duration = Duration::from_millis(50);

static WATCHDOG: PerProcess<Watchdog> = PerProcess::new();

/// What shows that a peer died.
#[derive(Clone)]
pub(crate) struct Watched {
    fd: Arc<dyn AsFd + Send + Sync>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A socket or pipe whose other end only the peer holds, and that nobody reads: it hangs up.
    Alone,
    /// Such a socket, which is also used for something else.
    Shared,
    /// The peer's pidfd: it becomes readable.
    Process,
}

impl Watched {
    /// A socket that nobody reads.
    pub(crate) fn socket(socket: PeerSocket) -> Self {
        Self { fd: Arc::new(socket), kind: Kind::Alone }
    }

    /// A socket that is also used for something else.
    pub(crate) fn shared(socket: Arc<PeerSocket>) -> Self {
        Self { fd: socket, kind: Kind::Shared }
    }

    /// A pidfd.
    pub(crate) fn process(pidfd: OwnedFd) -> Self {
        Self { fd: Arc::new(pidfd), kind: Kind::Process }
    }

    /// Checks a socket that nobody reads, and lets nobody send descriptors to it.
    fn prepare(&self) -> Result<()> {
        if self.kind == Kind::Alone {
            check_hangs_up(self.fd.as_fd())?;
            // A kernel or a pipe that knows no such thing says so.
            let _ = set_pass_rights(self.fd.as_fd(), false);
        }
        Ok(())
    }

    /// What to wait for. Hang-ups are reported whether asked for or not.
    fn events(&self) -> PollFlags {
        match self.kind {
            Kind::Alone | Kind::Shared => PollFlags::empty(),
            Kind::Process => PollFlags::IN,
        }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("fd", &self.fd.as_fd()).field("kind", &self.kind).finish()
    }
}

/// Raises a cancel word when what is watched dies, until dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    watched: Watched,
    token: u64,
    watchdog: &'static Watchdog,
}

impl Watch {
    pub(crate) fn new(watched: Watched, cancel: &Arc<CancelWord>) -> Result<Self> {
        watched.prepare()?;
        let watchdog = Watchdog::of_this_process()?;
        let token = watchdog.add(&watched, Arc::downgrade(cancel))?;
        Ok(Self { watched, token, watchdog })
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
    /// `None`: it is refused here.
    epoll: Option<OwnedFd>,
    next: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// In order of their tokens. No hash, whose keys the kernel could refuse to make up.
    entries: BTreeMap<u64, Entry>,
    running: bool,
}

#[derive(Debug)]
struct Entry {
    cancel: Weak<CancelWord>,
    fd: Weak<dyn AsFd + Send + Sync>,
    events: PollFlags,
}

impl Watchdog {
    fn of_this_process() -> Result<&'static Self> {
        let watchdog = WATCHDOG.get_or_try_init(|| {
            let epoll = match epoll::create(CreateFlags::CLOEXEC) {
                Err(errno) if is_refused(errno) => None,
                made => Some(lift(made?)?),
            };
            Ok(Self { epoll, next: AtomicU64::new(0), table: Mutex::default() })
        });
        watchdog.map_err(|error| Error::system("cannot watch the peer: epoll_create failed", error))
    }

    fn add(&'static self, watched: &Watched, cancel: Weak<CancelWord>) -> Result<u64> {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let mut table = self.lock();
        if !table.running {
            thread::spawn("flipcall-watch", || self.run())
                .map_err(|error| Error::system("cannot watch the peer: its thread cannot be started", error))?;
            table.running = true;
        }
        let entry = Entry { cancel, fd: Arc::downgrade(&watched.fd), events: watched.events() };
        table.entries.insert(token, entry);
        if let Some(epoll) = &self.epoll {
            let added = epoll::add(epoll, watched.fd.as_fd(), EventData::new_u64(token), once(watched.events()));
            if let Err(errno) = added {
                table.entries.remove(&token);
                return Err(Error::system("cannot watch the peer: epoll_ctl failed", errno));
            }
        }
        Ok(token)
    }

    fn remove(&self, token: u64, watched: &Watched) {
        self.lock().entries.remove(&token);
        if let Some(epoll) = &self.epoll {
            // A file that was closed elsewhere is out of the set already.
            let _ = epoll::delete(epoll, watched.fd.as_fd());
        }
    }

    fn run(&self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let waited = match &self.epoll {
                Some(epoll) => epoll::wait(epoll, spare_capacity(&mut events), None),
                None => Err(Errno::NOSYS),
            };
            match waited {
                Ok(_) => events.iter().for_each(|event| self.hung_up(event.data.u64())),
                Err(Errno::INTR) => {}
                // The set lives as long as the process: it is the call that is refused.
                Err(_) => self.poll_all(),
            }
        }
    }

    fn hung_up(&self, token: u64) {
        let entry = self.lock().entries.remove(&token);
        if let Some(cancel) = entry.and_then(|entry| entry.cancel.upgrade()) {
            cancel.raise(Cancel::PeerGone);
        }
    }

    /// Does without epoll: waits a moment, then asks for everything that is watched.
    #[cold]
    fn poll_all(&self) {
        std::thread::sleep(SLICE);
        let watched: Vec<_> = {
            let table = self.lock();
            let held = |(token, entry): (&u64, &Entry)| Some((*token, entry.fd.upgrade()?, entry.events));
            table.entries.iter().filter_map(held).collect()
        };
        for (token, fd, events) in watched {
            // Where even that is refused, deadlines are all that is left.
            if poll::now(fd.as_fd(), events).is_ok_and(|found| !found.is_empty()) {
                self.hung_up(token);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// Whether a kernel or a filter has no such call, rather than nothing left to do it with.
fn is_refused(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::ACCESS)
}

/// As events of epoll, reported once.
fn once(events: PollFlags) -> EventFlags {
    if events.contains(PollFlags::IN) { EventFlags::ONESHOT | EventFlags::IN } else { EventFlags::ONESHOT }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the thread that watches still knows of a cancel word.
    fn is_known(cancel: &Arc<CancelWord>) -> bool {
        let watchdog = Watchdog::of_this_process().unwrap();
        watchdog.lock().entries.values().any(|entry| std::ptr::eq(entry.cancel.as_ptr(), Arc::as_ptr(cancel)))
    }

    #[test]
    fn a_watch_that_is_dropped_leaves_nothing() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let shared = Arc::new(PeerSocket::new(ours.into()));
        let cancel = Arc::new(CancelWord::new());
        // That socket again: it is out of the set, or it could not be added.
        for _ in 0..3 {
            let watch = Watch::new(Watched::shared(Arc::clone(&shared)), &cancel).unwrap();
            assert!(is_known(&cancel));
            drop(watch);
            assert!(!is_known(&cancel));
        }
    }

    #[test]
    fn what_cannot_be_watched_leaves_nothing() {
        let cancel = Arc::new(CancelWord::new());
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(Watch::new(Watched::process(file.into()), &cancel).unwrap_err().kind(), crate::ErrorKind::System);
        assert!(!is_known(&cancel));
    }
}
