//! How a program waits on a mux: at the socket itself as the leader, else until the leader wakes it. See `protocol/leadership.rs`.

use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::delivery::{self, Guard};
use super::frame_receiver::{FrameReceiver, Received};
use super::shared::{Inner, Shared};
use super::signal::Signal;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::stream::socket::readiness::{self, WaitEnd};

/// Waits for `signal` as one of the followers, until notified.
fn wait_as_follower<'a>(
    inner: MutexGuard<'a, Inner>,
    signal: &Signal,
    deadline: &mut Deadline,
) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
    let no_follower = |mut inner: MutexGuard<'a, Inner>| {
        inner.leadership.remove_follower();
        inner
    };
    signal.wait(inner, deadline).map(no_follower).map_err(no_follower)
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
    /// Waits on `signal`; may return early. `late` is the text of the error if the deadline passed.
    pub(super) fn wait<'a>(
        &'a self,
        inner: MutexGuard<'a, Inner>,
        signal: &Signal,
        deadline: &mut Deadline,
        late: &'static str,
    ) -> Result<MutexGuard<'a, Inner>> {
        self.wait_until(inner, signal, deadline).map_err(|_| readiness::timeout(late))
    }

    /// Waits on `signal`; may return early. `Err`: the deadline passed.
    pub(super) fn wait_until<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        signal: &Signal,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
        // The reader thread keeps the deadline of the HELLO, so until that came no program is the leader.
        let may_be_leader = inner.error.is_none() && inner.table.peer_max_frame().is_some();
        if let Some(receiver) = may_be_leader.then(|| inner.leadership.become_leader()).flatten() {
            return self.wait_as_leader(inner, receiver, signal, deadline);
        }
        inner.leadership.add_follower();
        wait_as_follower(inner, signal, deadline)
    }

    /// Reads the socket for all until `signal` is notified.
    fn wait_as_leader<'a>(
        &'a self,
        inner: MutexGuard<'a, Inner>,
        mut receiver: FrameReceiver,
        signal: &Signal,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
        signal.marked.store(false, Ordering::Relaxed);
        signal.has_leader.store(true, Ordering::Relaxed);
        drop(inner);
        // If this panics, nobody can read the socket any more.
        let guard = Guard(self);
        let (mut late, mut woke) = (false, false);
        let mut inner = loop {
            let woken = self.sleep_at_the_socket(&mut receiver, deadline);
            let mut inner = self.lock();
            match woken {
                Ok(Woken::Fed) if inner.error.is_none() => {
                    if let Err(error) = delivery::deliver_received(self, &mut inner, &mut receiver) {
                        delivery::end(self, &mut inner, &error);
                    }
                    (inner, woke) = self.tell_others(inner);
                }
                Ok(woken) => late = woken == Woken::Late,
                Err(error) => delivery::end(self, &mut inner, &error),
            }
            if let Some(error) = inner.write_queue.broken.clone().filter(|_| inner.error.is_none()) {
                let error = delivery::last_words(self, &mut inner, &mut receiver).unwrap_or(error);
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
        signal.has_leader.store(false, Ordering::Relaxed);
        let done = late || signal.marked.load(Ordering::Relaxed) || inner.error.is_some();
        let calls =
            if done { inner.leadership.step_down(receiver) } else { inner.leadership.step_down_to_follower(receiver) };
        if calls {
            self.wake_reader();
        }
        if !done {
            return wait_as_follower(inner, signal, deadline);
        }
        // What came for this thread, or the end of the mux, counts more than the deadline.
        let for_nothing = late && !signal.marked.load(Ordering::Relaxed) && inner.error.is_none();
        if for_nothing { Err(inner) } else { Ok(inner) }
    }

    /// Writes the control frames that are due and wakes those for whom something came. Whether anybody slept.
    fn tell_others<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) -> (MutexGuard<'a, Inner>, bool) {
        if inner.table.has_outgoing() {
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
    fn sleep_at_the_socket(&self, receiver: &mut FrameReceiver, deadline: &mut Deadline) -> Result<Woken> {
        loop {
            if !receiver.is_dry() {
                match receiver.fill(self.socket.as_fd())? {
                    Received::More | Received::Drained => return Ok(Woken::Fed),
                    Received::End => return Err(delivery::peer_closed()),
                    Received::Nothing => {}
                }
            }
            receiver.check()?;
            let end = WaitEnd::earliest(deadline, [receiver.frame_due()]);
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.nudge, PollFlags::IN)];
            if readiness::wait_any(&mut fds, end.at())? == 0 && end.is_deadline() {
                return Ok(Woken::Late);
            }
            if fds[1].revents().contains(PollFlags::IN) {
                let _ = rustix::io::read(&self.nudge, &mut [0u8; 8]);
                return Ok(Woken::Nudged);
            }
        }
    }

    /// Wakes a program that sleeps at the socket, to check its signal: for changes that no frame made.
    pub(super) fn nudge_leader(&self, inner: &Inner) {
        if !inner.leadership.has_no_leader() {
            // Only fails when the counter is full: then it is readable as well.
            let _ = rustix::io::write(&self.nudge, &1u64.to_ne_bytes());
        }
    }
}
