//! Who reads the socket of a mux: the state, without input and output. `wait.rs` and `reader.rs` are the shells around it.
//!
//! Only one thread reads at a time, the one that has taken the intake: it *leads*, and delivers to all. A program that must wait leads
//! if nobody else waits, which saves the two switches of being woken by the reader thread. It gives the lead back with the first thing
//! that came for it, and does not tell the reader thread, because waking that for each message would cost the switch that was saved.
//! What makes this safe is a lease:
//!
//! - a lead that is free is looked after by the reader thread, which takes over once no program has led for [`LEASE`];
//! - who waits while another leads *follows*; who gives the lead back while somebody follows calls the reader thread, so that nobody
//!   who waits does so for a lease;
//! - the reader thread sleeps without an end only while a program leads, and who gives the lead back then calls it.
//!
//! ```text
//!  the reader thread sleeps …   until …                                              while …
//!  on the socket                something comes                                      the lead is free
//!  for a lease                  a millisecond is over, or it is called                a program leads, or did lately
//!  until it is called           the lead is given back                               a program leads, and has for a while
//! ```
//!
//! `lead_explore.rs` walks through every order of steps of two programs, the reader thread and a peer.

use std::time::Duration;

/// How long a free lead may go without anybody reading the socket. Short beside the 100 ms within which a dead peer is to be noticed,
/// long beside the time that a program spends on a message; a thousand looks a second cost well under a percent of a CPU.
pub(super) const LEASE: Duration = Duration::from_millis(1);

/// How the reader thread sleeps. Awake, it is on its way to one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Watch {
    /// Until the socket has something.
    Socket,
    /// Until a lease is over, beside a program that reads.
    Lease,
    /// Until it is called, because a program waits at the socket.
    Called,
}

/// The lead and who is interested in it. `T` reads the socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lead<T> {
    /// Whoever has taken it leads.
    intake: Option<T>,
    /// How many threads wait for what somebody else reads.
    followers: usize,
    /// Whether a program has led since the reader thread looked.
    lately: bool,
    watch: Watch,
}

impl<T> Lead<T> {
    pub(super) fn new(intake: T) -> Self {
        Self { intake: Some(intake), followers: 0, lately: false, watch: Watch::Socket }
    }

    /// The lead, for a program that must wait: if it is free and nobody else waits.
    pub(super) fn take(&mut self) -> Option<T> {
        if self.followers > 0 {
            return None;
        }
        let intake = self.intake.take()?;
        self.lately = true;
        Some(intake)
    }

    /// A program gives the lead back. `true`: call the reader thread.
    #[must_use]
    pub(super) fn give_back(&mut self, intake: T) -> bool {
        self.intake = Some(intake);
        self.lately = true;
        let calls = match self.watch {
            Watch::Socket => false,
            Watch::Lease => self.followers > 0,
            Watch::Called => true,
        };
        if calls {
            self.watch = Watch::Socket;
        }
        calls
    }

    /// A program begins to wait for what others read, because the lead could not be had: whoever has it sees the follower when giving
    /// it back, and if it is free there was a follower already, and the reader thread has been called.
    pub(super) fn follow(&mut self) {
        self.followers += 1;
    }

    pub(super) fn unfollow(&mut self) {
        self.followers -= 1;
    }

    /// The reader thread is about to sleep: how.
    pub(super) fn look(&mut self) -> Watch {
        let lately = std::mem::take(&mut self.lately);
        self.watch = match (self.is_free(), lately) {
            (true, true) if self.followers == 0 => Watch::Lease,
            (true, _) => Watch::Socket,
            (false, true) => Watch::Lease,
            (false, false) => Watch::Called,
        };
        self.watch
    }

    /// The lead, for the reader thread, which the socket has woken: unless a program was faster, and may be again.
    pub(super) fn take_over(&mut self) -> Option<T> {
        if self.lately && self.followers == 0 { None } else { self.intake.take() }
    }

    /// The reader thread gives the lead back. It looks before it sleeps.
    pub(super) fn hand_over(&mut self, intake: T) {
        self.intake = Some(intake);
    }

    pub(super) fn is_free(&self) -> bool {
        self.intake.is_some()
    }

    pub(super) fn intake(&mut self) -> Option<&mut T> {
        self.intake.as_mut()
    }
}
