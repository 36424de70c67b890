//! Closes descriptors that a peer sent, away from the thread that must answer.
//!
//! Such a descriptor is foreign: it can be a file of a FUSE server that the peer runs, and closing it can then block for as long as the
//! peer likes, and cannot be killed. So disposable threads do it, and a caller never waits. The rules:
//!
//! - Each connection has an [`Account`], and one thread at most is at work for an account: a peer that sends many descriptors whose
//!   close hangs costs one thread, and other accounts go on.
//! - A close that takes over [`STUCK_AFTER`] makes its account stuck, which ends the connection.
//! - There are at most [`MOST_THREADS`] threads, those in a close counted. While all of them are stuck, or [`MOST_WAITING`] descriptors
//!   wait behind them, [`is_exhausted`] tells the receivers of descriptors to leave them where they are.
//! - Nothing is ever closed by the thread that hands it over, not even when no thread can be had: then it waits, and is counted, until
//!   somebody adds to the queue or asks after it again.
//!
//! A socket of ours that may hold such descriptors in its queue is closed here as well: see `peer_socket.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::fork::PerProcess;
use super::lock::{lock, wait_timeout};
use super::thread;

/// How long closing one descriptor may take before its account counts as stuck.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Threads that may be stuck in a close at a time, in the whole process.
const MOST_THREADS: usize = 32;

/// Descriptors that may wait for those threads. A receiver that asks before each receive goes past it by one message at most. Our own
/// sockets go past it, too, since there is nowhere else to close them; what bounds them is that nobody accepts more meanwhile.
const MOST_WAITING: usize = 1024;

/// How long a thread without work waits for more: a message in a burst then costs no start of a thread.
const LINGER: Duration = Duration::from_millis(100);

/// A forked child has none of its parent's threads, so it begins with a closer of its own.
static CLOSER: PerProcess<Closer> = PerProcess::new();

/// Descriptors that stay open until the process ends, because not even a page of memory was left for a closer.
static LEFT_OPEN: AtomicUsize = AtomicUsize::new(0);

/// The closes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Its number in the closer; 0: it never had anything closed.
    number: AtomicU64,
}

impl Account {
    /// Closes `fds` soon, without blocking the caller.
    pub(crate) fn close(&self, fds: impl IntoIterator<Item = OwnedFd>) {
        let fds: VecDeque<OwnedFd> = fds.into_iter().collect();
        if fds.is_empty() {
            return;
        }
        match CLOSER.get_or_try_init(|| Ok(Closer::default())) {
            Ok(closer) => closer.add(self.number(), fds),
            // Not even a page of memory can be had. Descriptors that stay open are a smaller evil than a caller that hangs.
            Err(_) => {
                LEFT_OPEN.fetch_add(fds.len(), Ordering::Relaxed);
                fds.into_iter().for_each(std::mem::forget);
            }
        }
    }

    /// Whether a close of this account has taken over [`STUCK_AFTER`].
    pub(crate) fn is_stuck(&self) -> bool {
        self.look_up(Ledger::is_stuck)
    }

    /// Whether a close of this account is going on or about to, so that it is worth asking again soon.
    pub(crate) fn is_closing(&self) -> bool {
        self.look_up(|_| true)
    }

    fn look_up(&self, question: impl FnOnce(&Ledger) -> bool) -> bool {
        match self.number.load(Ordering::Relaxed) {
            0 => false,
            number => busy_closer(1).is_some_and(|closer| closer.look_up().ledgers.get(&number).is_some_and(question)),
        }
    }

    fn number(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        match self.number.load(Ordering::Relaxed) {
            0 => {
                let fresh = NEXT.fetch_add(1, Ordering::Relaxed);
                let set = self.number.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
                set.map_or_else(|other| other, |_| fresh)
            }
            number => number,
        }
    }
}

/// Closes `fds` soon, without blocking the caller, for a connection that is not there or that ends anyway.
pub(crate) fn close(fds: impl IntoIterator<Item = OwnedFd>) {
    Account::default().close(fds);
}

/// A descriptor from a peer while it is checked: dropped, it is left to the closer.
#[derive(Debug)]
pub(crate) struct Foreign(Option<OwnedFd>);

impl Foreign {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }

    /// The descriptor, which has turned out to be what it should be, or whose new owner sees to its close.
    pub(crate) fn take(mut self) -> OwnedFd {
        self.0.take().expect("it is there until it is taken")
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("it is there until it is taken").as_fd()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        close(self.0.take());
    }
}

/// Whether so many closes of this process are stuck, or so many descriptors wait for one, that no more may be taken.
pub(crate) fn is_exhausted() -> bool {
    busy_closer(MOST_THREADS).is_some_and(|closer| {
        let state = closer.look_up();
        is_full() || state.ledgers.values().filter(|ledger| ledger.is_stuck()).count() >= MOST_THREADS
    })
}

/// Whether so many descriptors wait to be closed that nobody should make more.
pub(crate) fn is_full() -> bool {
    busy_closer(MOST_WAITING).is_some()
}

/// Descriptors of this process that wait for their close, are in it, or stay open for want of memory.
pub(crate) fn unclosed() -> usize {
    let left = busy_closer(1).map_or(0, |closer| {
        drop(closer.look_up());
        closer.left.load(Ordering::Relaxed)
    });
    left + LEFT_OPEN.load(Ordering::Relaxed)
}

/// The closer of this process, if at least `least` descriptors are left to it: else nobody has to take its lock.
fn busy_closer(least: usize) -> Option<&'static Closer> {
    CLOSER.get().filter(|closer| closer.left.load(Ordering::Relaxed) >= least)
}

#[derive(Debug, Default)]
struct Closer {
    state: Mutex<State>,
    /// There is something in the queue.
    work: Condvar,
    /// Descriptors that wait or are being closed.
    left: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// What is left of each account, by its number.
    ledgers: BTreeMap<u64, Ledger>,
    /// Accounts at which no thread is at work, in the order in which they are served.
    queue: VecDeque<u64>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
}

#[derive(Debug)]
struct Ledger {
    waiting: VecDeque<OwnedFd>,
    /// When the close that is going on began.
    since: Option<Instant>,
}

impl Ledger {
    fn is_stuck(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() > STUCK_AFTER)
    }
}

impl Closer {
    fn add(&'static self, account: u64, mut fds: VecDeque<OwnedFd>) {
        let mut state = lock(&self.state);
        self.left.fetch_add(fds.len(), Ordering::Relaxed);
        match state.ledgers.get_mut(&account) {
            Some(ledger) => ledger.waiting.append(&mut fds),
            None => {
                state.ledgers.insert(account, Ledger { waiting: fds, since: None });
                state.queue.push_back(account);
            }
        }
        self.provide_thread(&mut state);
    }

    /// The state, for somebody who asks after it. If no thread could be had for what waits, that is tried again.
    fn look_up(&'static self) -> MutexGuard<'static, State> {
        let mut state = lock(&self.state);
        if state.threads == 0 && !state.queue.is_empty() {
            self.provide_thread(&mut state);
        }
        state
    }

    /// Sees to it that a thread comes to the queue, if one can be had. If none can, the queue waits until somebody adds or asks.
    fn provide_thread(&'static self, state: &mut State) {
        if state.queue.len() <= state.idle {
            self.work.notify_one();
        } else if state.threads < MOST_THREADS {
            let started = thread::spawn("flipcall-close", || self.run());
            state.threads += usize::from(started.is_ok());
        }
    }

    fn run(&self) {
        let mut state = lock(&self.state);
        loop {
            while let Some((account, fd)) = state.begin() {
                drop(state);
                drop(fd);
                self.left.fetch_sub(1, Ordering::Relaxed);
                state = lock(&self.state);
                state.end(account);
            }
            state.idle += 1;
            let timed_out;
            (state, timed_out) = wait_timeout(&self.work, state, LINGER);
            state.idle -= 1;
            if timed_out && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl State {
    /// The next descriptor to close, and whose it is.
    fn begin(&mut self) -> Option<(u64, OwnedFd)> {
        let account = self.queue.pop_front()?;
        let ledger = self.ledgers.get_mut(&account)?;
        ledger.since = Some(Instant::now());
        Some((account, ledger.waiting.pop_front()?))
    }

    /// A close has ended. The account goes to the end of the queue with what is left of it.
    fn end(&mut self, account: u64) {
        match self.ledgers.get_mut(&account) {
            Some(ledger) if !ledger.waiting.is_empty() => {
                ledger.since = None;
                self.queue.push_back(account);
            }
            _ => drop(self.ledgers.remove(&account)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_closed_is_gone_and_forgotten() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let account = Account::default();
        assert!(!account.is_closing());
        account.close(Vec::new());
        assert_eq!(account.number.load(Ordering::Relaxed), 0);
        account.close([theirs.into()]);
        // The end of the stream says that the other end is closed.
        assert_eq!(std::io::Read::read(&mut ours, &mut [0]).unwrap(), 0);
        while account.is_closing() {
            std::thread::yield_now();
        }
        assert!(!account.is_stuck());
    }

    #[test]
    fn accounts_take_turns() {
        let fd = || OwnedFd::from(UnixStream::pair().unwrap().0);
        let mut state = State::default();
        for account in [1, 2] {
            state.ledgers.insert(account, Ledger { waiting: [fd(), fd()].into(), since: None });
            state.queue.push_back(account);
        }
        let mut order = Vec::new();
        while let Some((account, _)) = state.begin() {
            // Nobody else comes to an account at which a thread is at work.
            assert!(!state.queue.contains(&account));
            order.push(account);
            state.end(account);
        }
        assert_eq!(order, [1, 2, 1, 2]);
        assert!(state.ledgers.is_empty());
    }
}
