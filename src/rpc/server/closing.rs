//! The graceful end of a server.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::config::LAST_ANSWER;
use super::counters::{CounterCells, ServerCounters};
use super::here;
use super::shared::{Connection, Shared};
use super::worker::Worker;
use crate::deadline::Deadline;
use crate::sys::lock::lock;

/// How often the closer polls whether running calls are done.
const POLL: Duration = Duration::from_millis(2);

/// Closes a [`Server`](super::Server) and reads its counters, from any thread. It does not keep the server alive.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    shared: Weak<Shared>,
    counters: Arc<CounterCells>,
}

impl ServerHandle {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared), counters: Arc::clone(&shared.counters) }
    }

    /// Closes the server. It accepts no connection and begins no call any more. Calls that run may finish until the deadline, and clients
    /// get 100 ms to take their last answers. Then the server shuts its channels down, and its connections last. Returns whether every call
    /// that ran was answered.
    ///
    /// A handler that runs on past the deadline finds its caller gone. Its thread ends when it returns. A handler may close its own server:
    /// its own call is not waited for, and is answered once it has returned. [`Server::serve`](super::Server::serve) returns when all of this
    /// is done.
    ///
    /// In a child that was forked since it does nothing and returns `false`: the server is the parent's.
    pub fn close(&self, deadline: impl Into<Deadline>) -> bool {
        let Some(shared) = self.shared.upgrade() else { return true };
        if !shared.origin.is_here() {
            return false;
        }
        let until = deadline.into().resolve();
        let _closer = Closer::new(&shared);
        here::spare();
        shared.closing.store(true, Ordering::SeqCst);
        for listener in &*lock(&shared.listeners) {
            listener.wake();
        }
        let marked = Instant::now();
        let expired = || until.is_some_and(|until| Instant::now() >= until);
        // Workers that are idle now may have flipped their last answer an instant ago.
        while marked.elapsed() < LAST_ANSWER && !expired() {
            std::thread::sleep(POLL);
        }
        let all_done = loop {
            let done = workers(&shared).iter().all(|worker| worker.is_idle() || worker.is_spared());
            if done || expired() {
                break done;
            }
            std::thread::sleep(POLL);
        };
        connections(&shared).iter().for_each(|connection| connection.end_unless_spared());
        wait_for_threads(&shared);
        all_done
    }

    /// What the server did so far; once it was dropped, and all of its connections have ended, what it did in its life.
    #[must_use]
    pub fn counters(&self) -> ServerCounters {
        let calls = |shared: Arc<Shared>| workers(&shared).iter().map(|worker| worker.calls()).sum();
        let running: u64 = self.shared.upgrade().filter(|shared| shared.origin.is_here()).map_or(0, calls);
        let counters = &self.counters;
        ServerCounters {
            connections: counters.connections.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            channels_opened: counters.channels_opened.load(Ordering::Relaxed),
            calls: counters.calls.load(Ordering::Relaxed) + running,
            errors: counters.errors.load(Ordering::Relaxed),
            panics: counters.panics.load(Ordering::Relaxed),
            broken: counters.broken.load(Ordering::Relaxed),
        }
    }
}

/// A call of `close` that is under way.
struct Closer<'a>(&'a Shared);

impl<'a> Closer<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.closers.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Closer<'_> {
    fn drop(&mut self) {
        self.0.closers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until nobody closes the server any more, and handlers that did have been answered: a program that exits next cuts nobody short.
pub(super) fn wait_for_closers(shared: &Shared) {
    let is_closing = || shared.closers.load(Ordering::SeqCst) > 0;
    while is_closing() || connections(shared).iter().any(|connection| connection.is_spared()) {
        std::thread::sleep(POLL);
    }
}

fn connections(shared: &Shared) -> Vec<Arc<Connection>> {
    lock(&shared.connections).clone()
}

/// Every worker of the server that has not left by itself: one that leaves is neither idle nor in the lists for long.
fn workers(shared: &Shared) -> Vec<Arc<Worker>> {
    let of = |connection: Arc<Connection>| {
        let mut workers = connection.channels().clone();
        workers.push(Arc::clone(&connection.base));
        workers
    };
    connections(shared).into_iter().flat_map(of).collect()
}

/// Gives the threads of transports that were just shut down a moment to end, so that a program that exits next leaves nothing behind.
fn wait_for_threads(shared: &Shared) {
    let begun = Instant::now();
    while !connections(shared).iter().all(|connection| connection.is_spared()) && begun.elapsed() < LAST_ANSWER {
        std::thread::sleep(POLL);
    }
}
