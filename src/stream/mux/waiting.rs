//! How a program waits on a mux: at the socket itself if it can lead, else until the thread that does wakes it. See `protocol/lead.rs`.

use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::delivery::{self, Guard};
use super::intake::{Intake, Intook};
use super::shared::{Inner, Shared};
use super::signal::Signal;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::stream::socket::readiness;

/// Waits for `signal` as one of the followers, until notified.
fn follow<'a>(
    inner: MutexGuard<'a, Inner>,
    signal: &Signal,
    deadline: &mut Deadline,
) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
    let unfollow = |mut inner: MutexGuard<'a, Inner>| {
        inner.lead.unfollow();
        inner
    };
    signal.wait(inner, deadline).map(unfollow).map_err(unfollow)
}

/// What a leader that waited has.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    /// Bytes.
    Fed,
    /// A nudge of another thread.
    Nudged,
    /// No time left.
    Late,
}

impl Shared {
    /// Waits on `signal`; may return early.
    pub(super) fn wait<'a>(
        &'a self,
        inner: MutexGuard<'a, Inner>,
        signal: &Signal,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, Inner>> {
        self.wait_until(inner, signal, deadline).map_err(|_| readiness::timeout("the deadline passed on a mux"))
    }

    /// Waits on `signal`; may return early. `Err`: the deadline passed.
    pub(super) fn wait_until<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        signal: &Signal,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
        // The reader thread keeps the deadline of the HELLO, so until that came it leads.
        let may_lead = inner.error.is_none() && inner.core.peer_max_frame().is_some();
        if let Some(intake) = may_lead.then(|| inner.lead.take()).flatten() {
            return self.lead(inner, intake, signal, deadline);
        }
        inner.lead.follow();
        follow(inner, signal, deadline)
    }

    /// Reads the socket for all until `signal` is notified.
    fn lead<'a>(
        &'a self,
        inner: MutexGuard<'a, Inner>,
        mut intake: Intake,
        signal: &Signal,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
        signal.marked.store(false, Ordering::Relaxed);
        signal.leading.store(true, Ordering::Relaxed);
        drop(inner);
        // If this panics, nobody can read the socket any more.
        let guard = Guard(self);
        let (mut late, mut woke) = (false, false);
        let mut inner = loop {
            let woken = self.sleep_at_the_socket(&mut intake, deadline);
            let mut inner = self.lock();
            match woken {
                Ok(Woken::Fed) if inner.error.is_none() => {
                    if let Err(error) = delivery::take_in(self, &mut inner, &mut intake) {
                        delivery::end(self, &mut inner, &error);
                    }
                    (inner, woke) = self.tell_others(inner);
                }
                Ok(woken) => late = woken == Woken::Late,
                Err(error) => delivery::end(self, &mut inner, &error),
            }
            if let Some(error) = inner.pen.broken.clone().filter(|_| inner.error.is_none()) {
                let error = delivery::last_words(self, &mut inner, &mut intake).unwrap_or(error);
                delivery::end(self, &mut inner, &error);
            }
            if signal.marked.load(Ordering::Relaxed) || inner.error.is_some() {
                break inner;
            }
            // A peer that always sends something for others must not keep this thread past its deadline.
            late = late || deadline.resolve().is_some_and(|at| Instant::now() >= at);
            if late || woke {
                break inner;
            }
        };
        std::mem::forget(guard);
        signal.leading.store(false, Ordering::Relaxed);
        let done = late || signal.marked.load(Ordering::Relaxed) || inner.error.is_some();
        let calls = if done { inner.lead.give_back(intake) } else { inner.lead.hand_on(intake) };
        if calls {
            self.wake_reader();
        }
        if !done {
            return follow(inner, signal, deadline);
        }
        // What came for this thread, or the end of the mux, counts more than the deadline.
        let for_nothing = late && !signal.marked.load(Ordering::Relaxed) && inner.error.is_none();
        if for_nothing { Err(inner) } else { Ok(inner) }
    }

    /// Writes the control frames that are due and wakes those for whom something came. Whether anybody slept.
    fn tell_others<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) -> (MutexGuard<'a, Inner>, bool) {
        if inner.core.has_outgoing() {
            self.flush(&mut inner);
            self.wake_reader_if_needed(&inner);
        }
        let due = std::mem::take(&mut inner.due_wakes);
        if !due.iter().any(|signal| signal.is_slept_on()) {
            due.iter().for_each(|signal| signal.notify());
            return (inner, false);
        }
        drop(inner);
        due.iter().for_each(|signal| signal.notify());
        (self.lock(), true)
    }

    /// Receives, after a sleep if nothing is there.
    fn sleep_at_the_socket(&self, intake: &mut Intake, deadline: &mut Deadline) -> Result<Woken> {
        loop {
            if !intake.is_dry() {
                match intake.fill(self.socket.as_fd())? {
                    Intook::More | Intook::Drained => return Ok(Woken::Fed),
                    Intook::End => return Err(delivery::peer_closed()),
                    Intook::Nothing => {}
                }
            }
            intake.check()?;
            let caller = deadline.resolve();
            let until = [caller, intake.frame_due()].into_iter().flatten().min();
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.nudge, PollFlags::IN)];
            if readiness::wait_any(&mut fds, until)? == 0 && caller.is_some() && until == caller {
                return Ok(Woken::Late);
            }
            if fds[1].revents().contains(PollFlags::IN) {
                let _ = rustix::io::read(&self.nudge, &mut [0u8; 8]);
                return Ok(Woken::Nudged);
            }
        }
    }

    /// Wakes a program that sleeps at the socket, to look at its signal: for changes that no frame made.
    pub(super) fn nudge_leader(&self, inner: &Inner) {
        if !inner.lead.is_free() {
            // Only fails when the counter is full: then it is readable as well.
            let _ = rustix::io::write(&self.nudge, &1u64.to_ne_bytes());
        }
    }
}
