//! Closing descriptors that a peer sent, away from the thread that must answer.
//!
//! A received descriptor is foreign: if it is a file of a FUSE file system that the peer serves, closing it can block for as long as
//! the peer likes, and cannot be killed. So what nobody took is closed on a thread that belongs to its connection. A close that takes
//! over a second ends that connection, and while 32 are stuck in the process no connection takes descriptors any more: a hostile peer
//! can cost us 32 sleeping threads, not all of them.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long closing one descriptor may take before its connection ends.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How many stuck closers a process tolerates before it takes no more descriptors.
const STUCK_MAX: usize = 32;

/// How many closes are going on in this process: while it is low, nobody has to look who is stuck.
static CLOSING: AtomicUsize = AtomicUsize::new(0);

/// When each closer began its current close.
static CLOSERS: Mutex<Vec<Weak<AtomicU64>>> = Mutex::new(Vec::new());

/// The closer of one connection. Its thread starts with the first descriptor and ends with the connection and the last close.
#[derive(Debug, Default)]
pub(super) struct Closer {
    started: OnceLock<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    queue: mpsc::Sender<Vec<OwnedFd>>,
    /// Milliseconds on the process's clock when the current close began; 0: none is going on.
    since: Arc<AtomicU64>,
    /// Descriptors that are queued or being closed.
    left: Arc<AtomicUsize>,
}

impl Closer {
    /// Closes `fds` soon, on the closer thread.
    pub(super) fn close(&self, fds: Vec<OwnedFd>) {
        if fds.is_empty() {
            return;
        }
        match self.started.get_or_init(start) {
            Some(running) => {
                running.left.fetch_add(fds.len(), Ordering::Relaxed);
                drop(running.queue.send(fds));
            }
            // No thread can be had. A close that might block is the smaller evil than a leak that does not end.
            None => drop(fds),
        }
    }

    /// Whether a close of this connection has taken over a second.
    pub(super) fn is_stuck(&self) -> bool {
        let Some(Some(running)) = self.started.get() else { return false };
        CLOSING.load(Ordering::Relaxed) > 0 && is_stuck(running.since.load(Ordering::Relaxed))
    }

    /// Whether a close of this connection is going on or about to, so that it is worth looking again soon.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.started.get(), Some(Some(running)) if running.left.load(Ordering::Relaxed) != 0)
    }
}

/// Whether so many closers of this process are stuck that no more descriptors may be taken.
pub(super) fn too_many_stuck() -> bool {
    if CLOSING.load(Ordering::Relaxed) < STUCK_MAX {
        return false;
    }
    let closers = CLOSERS.lock().unwrap_or_else(PoisonError::into_inner);
    let stuck =
        |closer: &Weak<AtomicU64>| closer.upgrade().is_some_and(|since| is_stuck(since.load(Ordering::Relaxed)));
    closers.iter().filter(|closer| stuck(closer)).count() >= STUCK_MAX
}

fn is_stuck(since: u64) -> bool {
    since != 0 && now().saturating_sub(since) > STUCK_AFTER.as_millis() as u64
}

/// Milliseconds since this process first asked, and never 0.
fn now() -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    BASE.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

fn start() -> Option<Running> {
    let (queue, fds) = mpsc::channel::<Vec<OwnedFd>>();
    let since = Arc::new(AtomicU64::new(0));
    let left = Arc::new(AtomicUsize::new(0));
    let (mine, done) = (Arc::clone(&since), Arc::clone(&left));
    let run = move || {
        for fd in fds.into_iter().flatten() {
            CLOSING.fetch_add(1, Ordering::Relaxed);
            mine.store(now(), Ordering::Relaxed);
            drop(fd);
            mine.store(0, Ordering::Relaxed);
            CLOSING.fetch_sub(1, Ordering::Relaxed);
            done.fetch_sub(1, Ordering::Relaxed);
        }
    };
    thread::Builder::new().name("flipcall-closer".into()).stack_size(64 * 1024).spawn(run).ok()?;
    let mut closers = CLOSERS.lock().unwrap_or_else(PoisonError::into_inner);
    closers.retain(|closer| closer.strong_count() > 0);
    closers.push(Arc::downgrade(&since));
    Some(Running { queue, since, left })
}

/// Descriptors that came with a message. What is not taken is closed on the connection's closer thread.
#[derive(Debug)]
pub struct Attachments {
    fds: Vec<OwnedFd>,
    lost: bool,
    closer: Arc<Closer>,
}

impl Attachments {
    pub(super) fn new(fds: Vec<OwnedFd>, lost: bool, closer: &Arc<Closer>) -> Self {
        Self { fds, lost, closer: Arc::clone(closer) }
    }

    /// How many descriptors are there.
    pub fn len(&self) -> usize {
        self.fds.len()
    }

    /// Whether no descriptor is there.
    pub fn is_empty(&self) -> bool {
        self.fds.is_empty()
    }

    /// Whether the message had attachments that this process could not receive because its descriptor limit was reached. Then none is
    /// there, the message cannot be served, and the connection is as good as before.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// The next descriptor, in the order in which the peer listed them. It is foreign: check what it is before any other use.
    pub fn take_first(&mut self) -> Option<OwnedFd> {
        (!self.fds.is_empty()).then(|| self.fds.remove(0))
    }

    /// All descriptors that are left, in the order in which the peer listed them.
    pub fn take_all(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }
}

impl Drop for Attachments {
    fn drop(&mut self) {
        self.closer.close(std::mem::take(&mut self.fds));
    }
}
