//! Which thread reads the socket of a mux: leader and followers. The state alone; `waiting.rs` and `reader.rs` are the shells around it.
//!
//! Only one thread reads at a time, the leader, and it delivers to all. A program that must wait becomes the leader if there is none,
//! which saves the two switches of being woken by the reader thread. It steps down with the first thing that came for it, and does not
//! tell the reader thread, because waking that for each message would cost the switch that was saved. A lease makes this safe:
//!
//! - while there is no leader, the reader thread looks after the socket: it takes over once no program has been leader for [`LEASE`];
//! - a program that waits beside a leader is a follower; while there is one the lease is [`SHORT_LEASE`], so that no follower
//!   waits long because the leader went away to compute;
//! - a leader that wakes a follower with what came for that one steps down and becomes a follower: a stream is read by the thread that
//!   it is for, and not by one that waits for something rare;
//! - the reader thread sleeps without an end only while a program is the leader, and that one calls it when it steps down.
//!
//! ```text
//!  the reader thread sleeps …   until …                                     while …
//!  on the socket                something comes                             there is no leader
//!  for a lease                  the lease is over, or it is called          a program is the leader, or was lately
//!  until it is called           the leader steps down                       a program is the leader, and has been for a while
//! ```
//!
//! `leadership_explore.rs` walks through every order of steps of two programs, the reader thread and a peer.

use std::time::Duration;

/// How long the socket may go without a leader and without anybody reading it. Short beside the 100 ms within which a dead peer is to be noticed,
/// long beside the time that a program spends on a message; a thousand polls a second cost well under a percent of a CPU.
pub(in crate::stream::mux) const LEASE: Duration = Duration::from_millis(1);

/// The lease while there is a follower: what a message for a follower may have to wait, against two switches of the reader thread each time,
/// a percent of a CPU.
pub(in crate::stream::mux) const SHORT_LEASE: Duration = Duration::from_micros(200);

/// How the reader thread sleeps. Awake, it is on its way to one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::stream::mux) enum ReaderSleep {
    /// Until the socket has something.
    OnSocket,
    /// Until a lease is over, beside a program that reads.
    Lease,
    /// Until a short lease is over, beside one that reads and others that wait.
    ShortLease,
    /// Until it is called, because a program waits at the socket.
    UntilCalled,
}

/// The leader and its followers. `T` reads the socket: the leader has taken it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::stream::mux) struct Leadership<T> {
    /// `None`: the leader has it.
    receiver: Option<T>,
    /// How many threads wait for what somebody else reads.
    followers: usize,
    /// Whether a program has been the leader since the reader thread last went to sleep.
    lately: bool,
    sleep: ReaderSleep,
}

impl<T> Leadership<T> {
    pub(in crate::stream::mux) fn new(receiver: T) -> Self {
        Self { receiver: Some(receiver), followers: 0, lately: false, sleep: ReaderSleep::OnSocket }
    }

    /// A program that must wait becomes the leader, if there is none.
    pub(in crate::stream::mux) fn become_leader(&mut self) -> Option<T> {
        let receiver = self.receiver.take()?;
        self.lately = true;
        Some(receiver)
    }

    /// A program steps down. `true`: call the reader thread.
    #[must_use]
    pub(in crate::stream::mux) fn step_down(&mut self, receiver: T) -> bool {
        self.receiver = Some(receiver);
        self.lately = true;
        let calls = match self.sleep {
            ReaderSleep::OnSocket | ReaderSleep::ShortLease => false,
            ReaderSleep::Lease => self.followers > 0,
            ReaderSleep::UntilCalled => true,
        };
        if calls {
            self.sleep = ReaderSleep::OnSocket;
        }
        calls
    }

    /// A leader that has woken a follower steps down and becomes a follower. `true`: call the reader thread.
    #[must_use]
    pub(in crate::stream::mux) fn step_down_to_follower(&mut self, receiver: T) -> bool {
        // First: the follower that was woken may be gone by now, and a follower without a leader needs the short lease.
        self.add_follower();
        self.step_down(receiver)
    }

    /// A program begins to wait for what others read, because there is a leader: that one sees the follower when it steps down.
    pub(in crate::stream::mux) fn add_follower(&mut self) {
        self.followers += 1;
    }

    pub(in crate::stream::mux) fn remove_follower(&mut self) {
        self.followers -= 1;
    }

    /// The reader thread is about to sleep: how.
    pub(in crate::stream::mux) fn next_sleep(&mut self) -> ReaderSleep {
        let lately = std::mem::take(&mut self.lately);
        self.sleep = match (self.has_no_leader(), lately) {
            (true, false) => ReaderSleep::OnSocket,
            (false, false) => ReaderSleep::UntilCalled,
            (_, true) if self.followers == 0 => ReaderSleep::Lease,
            (_, true) => ReaderSleep::ShortLease,
        };
        self.sleep
    }

    /// The reader thread, which the socket has woken, becomes the leader: unless a program was faster, and may be again.
    pub(in crate::stream::mux) fn take_over(&mut self) -> Option<T> {
        if self.lately { None } else { self.receiver.take() }
    }

    /// The reader thread steps down. It asks before it sleeps.
    pub(in crate::stream::mux) fn return_from_reading(&mut self, receiver: T) {
        self.receiver = Some(receiver);
    }

    pub(in crate::stream::mux) fn has_no_leader(&self) -> bool {
        self.receiver.is_some()
    }

    pub(in crate::stream::mux) fn receiver(&mut self) -> Option<&mut T> {
        self.receiver.as_mut()
    }
}
