//! Notices that a peer died.
//!
//! A dead peer never flips control back, and nothing in the shared memory tells it from one that thinks. So each endpoint may watch a
//! socket or a pidfd, and one thread per process waits for all of them; a hang-up raises the cancel words of the endpoints
//! that watch it. A forked child has a watchdog of its own, for its own endpoints.
//!
//! A socket on which nothing belongs is watched for what comes, too: bytes that lie there for a second are a violation (see `unread.rs`).
//!
//! Where epoll is refused (by a system call filter, possibly one that came later), the thread polls what is watched every 50 ms.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::unread::{Unread, Verdict};
use super::watched::{Kind, Watchable, Watched};
use crate::error::{Error, Result};
use crate::sys::cancel::{Cancel, CancelWord};
use crate::sys::fork::PerProcess;
use crate::sys::lift::lift;
use crate::sys::lock::lock;
use crate::sys::{poll, thread};

/// Hang-ups taken per system call.
const EVENTS: usize = 64;

/// How often everything that is watched is polled where there is no epoll.
const SLICE: Duration = Duration::from_millis(50);

/// How often a socket on which something came is asked whether it is still there.
const TICK: Duration = Duration::from_millis(250);

static WATCHDOG: PerProcess<Watchdog> = PerProcess::new();

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
    /// Sockets on which something came that should not stay.
    unread: BTreeMap<u64, Unread>,
    running: bool,
}

#[derive(Debug)]
struct Entry {
    cancel: Weak<CancelWord>,
    fd: Weak<dyn Watchable>,
    kind: Kind,
}

impl Table {
    fn forget(&mut self, token: u64) -> Option<Entry> {
        self.unread.remove(&token);
        self.entries.remove(&token)
    }

    /// Tells the endpoint, once.
    fn end(&mut self, token: u64, cause: Cancel) {
        if let Some(cancel) = self.forget(token).and_then(|entry| entry.cancel.upgrade()) {
            cancel.raise(cause);
        }
    }
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
        let entry = Entry { cancel, fd: Arc::downgrade(&watched.fd), kind: watched.kind };
        table.entries.insert(token, entry);
        if let Some(epoll) = &self.epoll {
            let added = epoll::add(epoll, watched.fd.as_fd(), EventData::new_u64(token), once(watched.kind.events()));
            if let Err(errno) = added {
                table.entries.remove(&token);
                return Err(Error::system("cannot watch the peer: epoll_ctl failed", errno));
            }
        }
        Ok(token)
    }

    fn remove(&self, token: u64, watched: &Watched) {
        self.lock().forget(token);
        if let Some(epoll) = &self.epoll {
            // A file that was closed elsewhere is out of the set already.
            let _ = epoll::delete(epoll, watched.fd.as_fd());
        }
    }

    fn run(&self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut due = None;
        loop {
            events.clear();
            let timeout = due.map(|due: Instant| due.saturating_duration_since(Instant::now()));
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            let waited = match &self.epoll {
                Some(epoll) => epoll::wait(epoll, spare_capacity(&mut events), timeout.as_ref()),
                None => Err(Errno::NOSYS),
            };
            let ends = EventFlags::HUP | EventFlags::ERR;
            match waited {
                Ok(_) => events.iter().for_each(|event| self.found(event.data.u64(), { event.flags }.intersects(ends))),
                Err(Errno::INTR) => {}
                // The set lives as long as the process: it is the call that is refused.
                Err(_) => self.poll_all(),
            }
            due = self.tick_at(due);
        }
    }

    /// Something happened to what is watched: its end, unless it is a socket to which something came.
    fn found(&self, token: u64, end: bool) {
        let mut table = self.lock();
        let Some(entry) = table.entries.get(&token) else { return };
        if end || entry.kind == Kind::Process {
            table.end(token, Cancel::PeerGone);
            return;
        }
        // Until it is empty only its end is of interest.
        self.arm(token, entry, PollFlags::empty());
        table.unread.entry(token).or_default();
    }

    /// Changes what is waited for.
    fn arm(&self, token: u64, entry: &Entry, events: PollFlags) {
        if let (Some(epoll), Some(fd)) = (&self.epoll, entry.fd.upgrade()) {
            // Where it fails, what it would have shown shows as a deadline.
            let _ = epoll::modify(epoll, fd.as_fd(), EventData::new_u64(token), once(events));
        }
    }

    /// Ticks if it is time, and says when the next one is. After a stop of the process there is one, however long that was.
    fn tick_at(&self, due: Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        if due.is_some_and(|due| due <= now) {
            self.tick();
        }
        let idle = self.lock().unread.is_empty();
        (!idle).then(|| due.filter(|due| *due > now).unwrap_or(now + TICK))
    }

    /// Asks for what is still unread.
    fn tick(&self) {
        let mut table = self.lock();
        let table = &mut *table;
        let mut violations = Vec::new();
        table.unread.retain(|token, unread| {
            let Some(entry) = table.entries.get(token) else { return false };
            let Some(fd) = entry.fd.upgrade() else { return false };
            match unread.tick(rustix::io::ioctl_fionread(fd.as_fd()).unwrap_or(0), fd.reads()) {
                Verdict::Waits => true,
                Verdict::Violation => {
                    violations.push((*token, fd, entry.kind));
                    false
                }
                Verdict::Empty => {
                    // Behind the end of what the peer sends nothing can come.
                    let over = poll::now(fd.as_fd(), PollFlags::RDHUP).is_ok_and(|found| !found.is_empty());
                    self.arm(*token, entry, if over { PollFlags::empty() } else { entry.kind.events() });
                    false
                }
            }
        });
        for (token, fd, kind) in violations {
            table.end(token, Cancel::Unread);
            if kind == Kind::ReadAtOnce {
                // Whoever waits for its hang-up learns of it. It fails only if the connection is over already.
                let _ = rustix::net::shutdown(fd.as_fd(), Shutdown::Both);
            }
        }
    }

    /// Does without epoll: waits a moment, then asks for everything that is watched.
    #[cold]
    fn poll_all(&self) {
        std::thread::sleep(SLICE);
        let watched: Vec<_> = {
            let table = self.lock();
            let held = |(token, entry): (&u64, &Entry)| Some((*token, entry.fd.upgrade()?, entry.kind));
            table.entries.iter().filter_map(held).collect()
        };
        for (token, fd, kind) in watched {
            // Where even that is refused, deadlines are all that is left.
            let Ok(found) = poll::now(fd.as_fd(), kind.events()) else { continue };
            if !found.is_empty() {
                self.found(token, found != PollFlags::IN);
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
    use crate::sys::peer_socket::PeerSocket;

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

    /// Issue 13, B8.
    #[test]
    fn what_lies_unread_where_nothing_belongs_is_a_violation() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let ours = ours.try_clone().map(|again| (ours, again)).unwrap();
        let cancel = Arc::new(CancelWord::new());
        let socket = Arc::new(PeerSocket::new(ours.0.into()));
        let _watch = Watch::new(Watched::read_at_once(Arc::clone(&socket)), &cancel).unwrap();
        let began = Instant::now();
        // Somebody reads it: for twice the time that it may lie there.
        while began.elapsed() < 10 * TICK {
            std::io::Write::write_all(&mut &theirs, b"xx").unwrap();
            std::thread::sleep(TICK / 4);
            std::io::Read::read_exact(&mut &ours.1, &mut [0; 2]).unwrap();
            socket.count_read();
        }
        std::thread::sleep(2 * TICK);
        assert!(!cancel.is_raised());
        std::io::Write::write_all(&mut &theirs, b"x").unwrap();
        let began = Instant::now();
        while !cancel.has(Cancel::Unread) {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(began.elapsed() >= 3 * TICK, "{:?}", began.elapsed());
        assert!(poll::now(&theirs, PollFlags::empty()).unwrap().contains(PollFlags::HUP), "it was shut down");
    }
}
