//! Who reads the socket of a mux: the state, without input and output. `waiting.rs` and `reader.rs` are the shells around it.
//!
//! Only one thread reads at a time, the one that has taken the intake: it *leads*, and delivers to all. A program that must wait leads
//! if nobody else does, which saves the two switches of being woken by the reader thread. It gives the lead back with the first thing
//! that came for it, and does not tell the reader thread, because waking that for each message would cost the switch that was saved.
//! What makes this safe is a lease:
//!
//! - a lead that is free is looked after by the reader thread, which takes over once no program has led for [`LEASE`];
//! - who waits while another leads *follows*; while somebody follows the lease is [`SHORT_LEASE`], so that nobody who waits does so for
//!   long because whoever led went away to compute;
//! - who leads and wakes a follower with what came for that one hands it the lead, and follows: a stream is read by the thread that it is
//!   for, and not by one that waits for something rare;
//! - the reader thread sleeps without an end only while a program leads, and who gives the lead back then calls it.
//!
//! ```text
//!  the reader thread sleeps …   until …                                              while …
//!  on the socket                something comes                                      the lead is free
//!  for a lease                  the lease is over, or it is called                    a program leads, or did lately
//!  until it is called           the lead is given back                               a program leads, and has for a while
//! ```
//!
//! `lead_explore.rs` walks through every order of steps of two programs, the reader thread and a peer.

use std::time::Duration;

/// How long a free lead may go without anybody reading the socket. Short beside the 100 ms within which a dead peer is to be noticed,
/// long beside the time that a program spends on a message; a thousand looks a second cost well under a percent of a CPU.
pub(in crate::stream::mux) const LEASE: Duration = Duration::from_millis(1);

/// The same while somebody follows: what a message for a follower may have to wait, against two switches of the reader thread each time,
/// a percent of a CPU.
pub(in crate::stream::mux) const SHORT_LEASE: Duration = Duration::from_micros(200);

/// How the reader thread sleeps. Awake, it is on its way to one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::stream::mux) enum Watch {
    /// Until the socket has something.
    Socket,
    /// Until a lease is over, beside a program that reads.
    Lease,
    /// Until a short lease is over, beside one that reads and others that wait.
    ShortLease,
    /// Until it is called, because a program waits at the socket.
    Called,
}

/// The lead and who is interested in it. `T` reads the socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::stream::mux) struct Lead<T> {
    /// Whoever has taken it leads.
    intake: Option<T>,
    /// How many threads wait for what somebody else reads.
    followers: usize,
    /// Whether a program has led since the reader thread looked.
    lately: bool,
    watch: Watch,
}

impl<T> Lead<T> {
    pub(in crate::stream::mux) fn new(intake: T) -> Self {
        Self { intake: Some(intake), followers: 0, lately: false, watch: Watch::Socket }
    }

    /// The lead, for a program that must wait: if it is free.
    pub(in crate::stream::mux) fn take(&mut self) -> Option<T> {
        let intake = self.intake.take()?;
        self.lately = true;
        Some(intake)
    }

    /// A program gives the lead back. `true`: call the reader thread.
    #[must_use]
    pub(in crate::stream::mux) fn give_back(&mut self, intake: T) -> bool {
        self.intake = Some(intake);
        self.lately = true;
        let calls = match self.watch {
            Watch::Socket | Watch::ShortLease => false,
            Watch::Lease => self.followers > 0,
            Watch::Called => true,
        };
        if calls {
            self.watch = Watch::Socket;
        }
        calls
    }

    /// A program that leads has woken a follower: gives the lead back and follows. `true`: call the reader thread.
    #[must_use]
    pub(in crate::stream::mux) fn hand_on(&mut self, intake: T) -> bool {
        // First: the follower that was woken may be gone by now, and a free lead beside a follower needs the short lease.
        self.follow();
        self.give_back(intake)
    }

    /// A program begins to wait for what others read, because the lead could not be had: whoever has it sees the follower when giving
    /// it back.
    pub(in crate::stream::mux) fn follow(&mut self) {
        self.followers += 1;
    }

    pub(in crate::stream::mux) fn unfollow(&mut self) {
        self.followers -= 1;
    }

    /// The reader thread is about to sleep: how.
    pub(in crate::stream::mux) fn look(&mut self) -> Watch {
        let lately = std::mem::take(&mut self.lately);
        self.watch = match (self.is_free(), lately) {
            (true, false) => Watch::Socket,
            (false, false) => Watch::Called,
            (_, true) if self.followers == 0 => Watch::Lease,
            (_, true) => Watch::ShortLease,
        };
        self.watch
    }

    /// The lead, for the reader thread, which the socket has woken: unless a program was faster, and may be again.
    pub(in crate::stream::mux) fn take_over(&mut self) -> Option<T> {
        if self.lately { None } else { self.intake.take() }
    }

    /// The reader thread gives the lead back. It looks before it sleeps.
    pub(in crate::stream::mux) fn hand_over(&mut self, intake: T) {
        self.intake = Some(intake);
    }

    pub(in crate::stream::mux) fn is_free(&self) -> bool {
        self.intake.is_some()
    }

    pub(in crate::stream::mux) fn intake(&mut self) -> Option<&mut T> {
        self.intake.as_mut()
    }
}
