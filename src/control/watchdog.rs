//! Notices that a peer died.
//!
//! A dead peer never flips control back, and nothing in the shared memory tells it from one that thinks. So each endpoint may watch a
//! socket or a pidfd, and one thread per process waits for all of them; a hang-up raises the cancel words of the endpoints
//! that watch it. A forked child has a watchdog of its own, for its own endpoints.
//!
//! What lies unread on a watched socket for a second is a violation, see [`unread`](super::unread).
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
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::Shutdown;

use super::unread::{TICK, Unread};
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

/// A hang-up is reported, whether asked for or not, once.
const ONCE: EventFlags = EventFlags::ONESHOT;

static WATCHDOG: PerProcess<Watchdog> = PerProcess::new();

/// What shows that a peer died.
#[derive(Clone)]
pub(crate) struct Watched {
    fd: Arc<dyn Watchable>,
    kind: Kind,
}

/// A descriptor that can be watched.
pub(crate) trait Watchable: AsFd + Send + Sync {
    /// How often something was received from it, as far as that is known.
    fn reads(&self) -> u32 {
        0
    }
}

impl Watchable for OwnedFd {}

impl Watchable for PeerSocket {
    fn reads(&self) -> u32 {
        Self::reads(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A socket or pipe whose other end only the peer holds, and that nobody reads: it hangs up.
    Alone,
    /// Such a socket, which is also used for something else, and may be read late: by a program that takes its time over a stream.
    Shared,
    /// Such a socket, whose owner reads at once whatever belongs there.
    ReadAtOnce,
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

    /// A socket that is also used for something else, on which nothing stays unread that belongs there.
    pub(crate) fn read_at_once(socket: Arc<PeerSocket>) -> Self {
        Self { fd: socket, kind: Kind::ReadAtOnce }
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
}

impl Kind {
    /// What to wait for.
    fn events(self) -> EventFlags {
        match self {
            Self::Shared => ONCE,
            Self::Alone | Self::ReadAtOnce | Self::Process => ONCE | EventFlags::IN,
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
    fd: Weak<dyn Watchable>,
    kind: Kind,
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
            let added = epoll::add(epoll, watched.fd.as_fd(), EventData::new_u64(token), watched.kind.events());
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
        let (mut unread, mut next_tick) = (Unread::default(), Instant::now());
        loop {
            events.clear();
            let left = (!unread.is_empty()).then(|| next_tick.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let waited = match &self.epoll {
                Some(epoll) => epoll::wait(epoll, spare_capacity(&mut events), timeout.as_ref()),
                None => Err(Errno::NOSYS),
            };
            if unread.is_empty() {
                next_tick = Instant::now() + TICK;
            }
            match waited {
                Ok(_) => events.iter().for_each(|event| self.came(event.data.u64(), event.flags, &mut unread)),
                Err(Errno::INTR) => {}
                // The set lives as long as the process: it is the call that is refused.
                Err(_) => self.poll_all(&mut unread),
            }
            if !unread.is_empty() && Instant::now() >= next_tick {
                unread.tokens().into_iter().for_each(|token| self.poll_unread(token, &mut unread));
                next_tick = Instant::now() + TICK;
            }
        }
    }

    /// What is watched hung up, or has something to read.
    fn came(&self, token: u64, flags: EventFlags, unread: &mut Unread) {
        let Some((fd, kind)) = self.watched(token) else { return };
        if kind == Kind::Process || flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return self.end(token, Cancel::PeerGone);
        }
        unread.found(token, fd.reads());
        // Only a hang-up is worth a wake now.
        self.rearm(&*fd, token, ONCE);
    }

    /// Polls a socket on which something lay unread.
    fn poll_unread(&self, token: u64, unread: &mut Unread) {
        let Some((fd, kind)) = self.watched(token) else { return unread.forget(token) };
        let state = poll::now(fd.as_fd(), PollFlags::RDHUP).unwrap_or(PollFlags::empty());
        let is_unread = ioctl_fionread(fd.as_fd()).is_ok_and(|bytes| bytes > 0);
        if state.intersects(PollFlags::HUP | PollFlags::ERR) {
            unread.forget(token);
            return self.end(token, Cancel::PeerGone);
        }
        if is_unread && unread.found_again(token, fd.reads()) {
            unread.forget(token);
            self.end(token, Cancel::Unread);
            if kind == Kind::ReadAtOnce {
                // Whoever waits for its hang-up learns of it. It fails only if the connection is over already.
                let _ = rustix::net::shutdown(fd.as_fd(), Shutdown::Both);
            }
            return;
        }
        if !is_unread {
            unread.forget(token);
            // A peer that ended its direction sends no more, and an end of file would wake for ever.
            let nothing_comes = state.contains(PollFlags::RDHUP);
            self.rearm(&*fd, token, if nothing_comes { ONCE } else { kind.events() });
        }
    }

    fn rearm(&self, fd: &dyn Watchable, token: u64, events: EventFlags) {
        if let Some(epoll) = &self.epoll {
            // It fails for what is not watched any more.
            let _ = epoll::modify(epoll, fd.as_fd(), EventData::new_u64(token), events);
        }
    }

    fn watched(&self, token: u64) -> Option<(Arc<dyn Watchable>, Kind)> {
        let table = self.lock();
        let entry = table.entries.get(&token)?;
        Some((entry.fd.upgrade()?, entry.kind))
    }

    /// Tells the endpoint, once.
    fn end(&self, token: u64, cause: Cancel) {
        let entry = self.lock().entries.remove(&token);
        if let Some(cancel) = entry.and_then(|entry| entry.cancel.upgrade()) {
            cancel.raise(cause);
        }
    }

    /// Does without epoll: waits a moment, then asks for everything that is watched.
    #[cold]
    fn poll_all(&self, unread: &mut Unread) {
        std::thread::sleep(SLICE);
        let tokens: Vec<u64> = self.lock().entries.keys().copied().collect();
        for token in tokens {
            let Some((fd, kind)) = self.watched(token) else { continue };
            // Where even that is refused, deadlines are all that is left.
            let Ok(found) = poll::now(fd.as_fd(), PollFlags::IN) else { continue };
            if found.intersects(PollFlags::HUP | PollFlags::ERR) || (kind == Kind::Process && !found.is_empty()) {
                self.end(token, Cancel::PeerGone);
            } else if !found.is_empty() && kind != Kind::Shared {
                unread.found(token, fd.reads());
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

    /// Issue 13, B8.
    #[test]
    fn what_lies_unread_for_a_second_is_a_violation_and_what_is_read_is_not() {
        let pair = || std::os::unix::net::UnixStream::pair().unwrap();
        let (ours, mut theirs) = pair();
        let (read, mut theirs_read) = pair();
        let sockets = [ours, read].map(|socket| Arc::new(PeerSocket::new(socket.into())));
        let cancels = [(); 2].map(|()| Arc::new(CancelWord::new()));
        let watch = |at: usize| Watch::new(Watched::read_at_once(Arc::clone(&sockets[at])), &cancels[at]).unwrap();
        let _watches = [watch(0), watch(1)];
        let begun = Instant::now();
        std::io::Write::write_all(&mut theirs, b"x").unwrap();
        std::io::Write::write_all(&mut theirs_read, b"x").unwrap();
        while !cancels[0].has(Cancel::Unread) {
            assert!(begun.elapsed() < Duration::from_secs(20), "nobody noticed");
            sockets[1].note_read();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(begun.elapsed() >= 3 * TICK, "{:?}", begun.elapsed());
        assert!(!cancels[1].is_raised());
        drop(theirs_read);
        while !cancels[1].has(Cancel::PeerGone) {
            assert!(begun.elapsed() < Duration::from_secs(40), "a hang-up is noticed, too");
            sockets[1].note_read();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
