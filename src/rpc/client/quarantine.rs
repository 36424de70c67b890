//! Channels whose call timed out.
//!
//! Such a channel is set aside until its answer comes, which is thrown away; then the channel goes back to the others. If the answer does not
//! come for a while longer, the channel is retired. In between nobody else can use it, so an answer that comes too late is seen by
//! nobody. A channel that is set aside is still one of its client's: it counts against the limit.
//!
//! One thread of the process looks after all of them. It waits for none: each is polled, often at first and ever more rarely. An answer that
//! is not whole when it is found would have to be waited for, so it costs its channel.

use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::overdue::Overdue;
use super::shared::Shared;
use crate::rpc::trace;
use crate::sys::fork::PerProcess;
use crate::sys::lock::{lock, wait_timeout};
use crate::sys::thread;

/// How long the answer to a call that timed out is waited for before its channel is retired.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How long it is waited for where much depends on it: with the base connection, everything ends.
pub(super) const BASE_PATIENCE: Duration = Duration::from_secs(30);

/// The first poll comes so soon after a channel was set aside.
const SOONEST: Duration = Duration::from_millis(1);

/// Two polls of a channel are never further apart.
const RAREST: Duration = Duration::from_millis(25);

/// What the thread looks after.
static QUARANTINE: PerProcess<Quarantine> = PerProcess::new();

#[derive(Default)]
struct Quarantine {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    /// What was set aside since the thread looked last.
    arrivals: Vec<Aside>,
    /// Whether there is a thread.
    running: bool,
}

/// A channel that is set aside.
struct Aside {
    shared: Weak<Shared>,
    channel: Box<Channel>,
    since: Instant,
    until: Option<Instant>,
    next: Instant,
}

/// Sets a channel aside that waits for the answer to a call of type `tag`, for `patience` at most.
pub(super) fn set_aside(shared: &Arc<Shared>, channel: Box<Channel>, tag: u16, patience: Duration) {
    trace::slow_call(tag);
    let now = Instant::now();
    let shared = Arc::downgrade(shared);
    let aside = Aside { shared, channel, since: now, until: now.checked_add(patience), next: now + SOONEST };
    match QUARANTINE.get_or_try_init(|| Ok(Quarantine::default())) {
        Ok(quarantine) => quarantine.take_in(aside),
        Err(_) => aside.retire(),
    }
}

impl Quarantine {
    fn take_in(&'static self, aside: Aside) {
        let mut state = lock(&self.state);
        if !state.running && thread::spawn("flipcall-aside", || self.run()).is_err() {
            drop(state);
            return aside.retire();
        }
        state.running = true;
        state.arrivals.push(aside);
        drop(state);
        self.came.notify_one();
    }

    /// Looks after what is set aside until there is nothing more.
    fn run(&self) {
        let running = Running(self);
        let mut asides = Vec::new();
        let mut state = lock(&self.state);
        loop {
            asides.append(&mut state.arrivals);
            if asides.is_empty() {
                state.running = false;
                std::mem::forget(running);
                return;
            }
            drop(state);
            asides = asides.into_iter().filter_map(Aside::polled).collect();
            let now = Instant::now();
            let next = asides.iter().map(|aside| aside.next).min().unwrap_or(now);
            state = lock(&self.state);
            if state.arrivals.is_empty() && next > now {
                state = wait_timeout(&self.came, state, next - now).0;
            }
        }
    }
}

/// The thread of the quarantine runs. If it ends by a panic, the next channel gets another.
struct Running<'a>(&'a Quarantine);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.running = false;
        drop(std::mem::take(&mut state.arrivals));
    }
}

impl Aside {
    /// The same, unless its wait is over.
    fn polled(mut self) -> Option<Self> {
        let now = Instant::now();
        if now < self.next {
            return Some(self);
        }
        let Some(shared) = self.shared.upgrade() else {
            self.retire();
            return None;
        };
        match self.channel.poll_overdue() {
            Overdue::Came => shared.give_back(self.channel),
            Overdue::Outstanding if self.until.is_none_or(|until| now < until) && !shared.is_closed() => {
                self.next = now + ((now - self.since) / 8).clamp(SOONEST, RAREST);
                return Some(self);
            }
            Overdue::Outstanding | Overdue::Unusable => self.retire(),
        }
        None
    }

    /// Ends the channel.
    fn retire(self) {
        self.channel.shut_down();
        drop(self.channel);
        if let Some(shared) = self.shared.upgrade() {
            shared.pool.released();
        }
    }
}
