//! The state table against an oracle that is too simple to be wrong: control that lies somewhere.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::state::{Control, SHUT_DOWN, Side, StateViolation, read};
use super::transfer::Transfer;
use super::{Expect, Stop, WaitPolicy};
use crate::deadline::Deadline;
use crate::sys::cancel::{Cancel, CancelWord};
use crate::sys::sync::{HeaderWords, Ordering};

/// Where control is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    With(Side),
    /// Somebody shut down.
    Nowhere,
    /// Somebody wrote what no state is.
    Broken(u32),
}

/// What happens to a window.
#[derive(Debug, Clone, Copy)]
enum Event {
    Flip(Side),
    ShutDown,
    /// The adversary overwrites the word.
    Forge(u32),
}

fn sides() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => sides().prop_map(Event::Flip),
        1 => Just(Event::ShutDown),
        1 => prop_oneof![0..5u32, any::<u32>()].prop_map(Event::Forge),
    ]
}

/// The oracle's idea of a word that somebody wrote.
fn forged(word: u32) -> Lies {
    match word {
        0 => Lies::With(Side::Client),
        1 => Lies::With(Side::Server),
        2 => Lies::Nowhere,
        word => Lies::Broken(word),
    }
}

/// What `side` must see.
fn seen(lies: Lies, side: Side) -> Control {
    match lies {
        Lies::With(holder) if holder == side => Control::Ours,
        Lies::With(_) => Control::Theirs,
        Lies::Nowhere => Control::Down,
        Lies::Broken(word) => Control::Invalid(word),
    }
}

/// A header in private memory and the code that both sides run on it.
struct Table {
    words: HeaderWords,
    client: Transfer,
    server: Transfer,
}

impl Table {
    fn new(word: u32) -> Self {
        let words = HeaderWords::zeroed();
        words.state.store(word, Ordering::Relaxed);
        let transfer = |side| Transfer::new(side, WaitPolicy::Park, Arc::new(CancelWord::new()), Arc::default());
        Self { words, client: transfer(Side::Client), server: transfer(Side::Server) }
    }

    fn side(&mut self, side: Side) -> (&HeaderWords, &mut Transfer) {
        match side {
            Side::Client => (&self.words, &mut self.client),
            Side::Server => (&self.words, &mut self.server),
        }
    }

    fn flip(&mut self, side: Side) -> Result<(), Stop> {
        let (words, transfer) = self.side(side);
        transfer.flip(words, 0).map_err(|found| transfer.refused_flip(found))
    }

    /// One poll of the word.
    fn wait(&mut self, side: Side) -> Result<u32, Stop> {
        let (words, transfer) = self.side(side);
        transfer.wait(words, Expect::Answer, Deadline::after(Duration::ZERO))?;
        transfer.take(words, 0).map_err(Stop::Violation)
    }

    fn word(&self) -> u32 {
        self.words.state.load(Ordering::Relaxed)
    }
}

/// What a wait that sees `control` and has no time leads to.
fn waited(control: Control) -> Result<u32, Stop> {
    match control {
        Control::Ours => Ok(0),
        Control::Theirs => Err(Stop::TimedOut),
        Control::Down => Err(Stop::PeerShutdown),
        Control::Invalid(word) => Err(Stop::Violation(StateViolation::State(word))),
    }
}

/// What `side`'s flip must lead to, and where control is then.
fn flipped(lies: Lies, side: Side) -> (Lies, Result<(), Stop>) {
    let other = match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    };
    let broken = |word| Err(Stop::Violation(StateViolation::State(word)));
    match lies {
        Lies::With(holder) if holder == side => (Lies::With(other), Ok(())),
        // A side that does not hold control cannot flip: an endpoint only tries when it held control, so somebody else moved it.
        Lies::With(Side::Client) => (lies, broken(0)),
        Lies::With(Side::Server) => (lies, broken(1)),
        Lies::Nowhere => (lies, Err(Stop::PeerShutdown)),
        Lies::Broken(word) => (lies, broken(word)),
    }
}

/// A flip that finds the window shut down says who did it: our own shutdown may come between the last poll of the cancel word and the
/// exchange, and leaves the same state as the peer's.
#[test]
fn a_flip_tells_our_own_shutdown_from_the_peers() {
    let words = HeaderWords::zeroed();
    for side in [Side::Client, Side::Server] {
        for (raised, found, expected) in [
            (None, SHUT_DOWN, Stop::PeerShutdown),
            (None, 7, Stop::Violation(StateViolation::State(7))),
            // Its death was seen as well: it shut down before.
            (Some(Cancel::PeerGone), SHUT_DOWN, Stop::PeerShutdown),
            (Some(Cancel::Shutdown), SHUT_DOWN, Stop::LocalShutdown),
            (Some(Cancel::Shutdown), 7, Stop::LocalShutdown),
        ] {
            let cancel = Arc::new(CancelWord::new());
            let transfer = Transfer::new(side, WaitPolicy::Park, cancel.clone(), Arc::default());
            raised.into_iter().for_each(|cause| assert!(cancel.raise(cause)));
            words.state.store(found, Ordering::Relaxed);
            let stop = transfer.flip(&words, 0).map_err(|found| transfer.refused_flip(found)).unwrap_err();
            assert_eq!(stop, expected, "{side:?} found {found} after {raised:?}");
            assert_eq!(words.state.load(Ordering::Relaxed), found);
        }
    }
}

proptest! {
    /// Whatever happens, both sides read the word as the oracle does, and each flip leads where the oracle says.
    #[test]
    fn the_table_agrees_with_the_oracle(events in prop::collection::vec(events(), 0..64)) {
        let (mut table, mut lies) = (Table::new(0), Lies::With(Side::Client));
        for event in events {
            match event {
                Event::Flip(side) => {
                    let (after, expected) = flipped(lies, side);
                    prop_assert_eq!(table.flip(side), expected);
                    lies = after;
                }
                Event::ShutDown => {
                    table.words.state.swap(SHUT_DOWN, Ordering::AcqRel);
                    lies = Lies::Nowhere;
                }
                Event::Forge(value) => {
                    table.words.state.store(value, Ordering::Relaxed);
                    lies = forged(value);
                }
            }
            for side in [Side::Client, Side::Server] {
                prop_assert_eq!(read(table.word(), side), seen(lies, side));
                prop_assert_eq!(table.wait(side), waited(seen(lies, side)));
            }
        }
    }

    /// Neither side ever gets control back by flipping once somebody shut down or wrote nonsense.
    #[test]
    fn what_is_over_stays_over(end in 2..=u32::MAX, flips in prop::collection::vec(sides(), 0..16)) {
        let mut table = Table::new(end);
        for side in flips {
            prop_assert!(table.flip(side).is_err());
            prop_assert!(table.wait(side).is_err());
            prop_assert_eq!(table.word(), end);
        }
    }

    /// One side at most holds control, and if one does the other knows.
    #[test]
    fn no_word_gives_control_to_both(word in prop_oneof![0..5u32, any::<u32>()]) {
        let both = (read(word, Side::Client), read(word, Side::Server));
        prop_assert!(matches!(
            both,
            (Control::Ours, Control::Theirs) | (Control::Theirs, Control::Ours) | (Control::Down, Control::Down) | (Control::Invalid(_), Control::Invalid(_))
        ));
    }
}
