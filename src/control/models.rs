//! Models of flip, wait, park, cancel and shutdown.
//!
//! Under `--cfg loom` every interleaving within the preemption bound is explored, with the reorderings that the memory model allows; a
//! wake that is lost shows as a deadlock. As ordinary tests the same models run many times on the machine's own threads and futex.
//!
//! The datagram is the length word: it is stored and loaded relaxed, so a model sees an old one if the state word does not order it.

use std::sync::Arc;

use super::transfer::{Expect, Transfer, shut_down};
use super::{CounterCells, Side, Stop, WaitPolicy};
use crate::deadline::Deadline;
use crate::sys::cancel::{Cancel, CancelWord};
use crate::sys::sync::{HeaderWords, Ordering, explore, sleep, thread, wake_shared};

const CAPACITY: u32 = 1000;

/// One end of the window in a model.
struct End {
    words: Arc<HeaderWords>,
    cancel: Arc<CancelWord>,
    transfer: Transfer,
}

impl End {
    fn new(words: &Arc<HeaderWords>, side: Side, park: bool) -> Self {
        let cancel = Arc::new(CancelWord::new());
        let mut transfer = Transfer::new(side, WaitPolicy::Park, cancel.clone(), Arc::default());
        if park {
            transfer.enable_park();
        }
        Self { words: words.clone(), cancel, transfer }
    }

    fn flip(&self, length: u32) -> Result<(), Stop> {
        self.transfer.flip(&self.words, length).map_err(|found| self.transfer.refused_flip(found))
    }

    fn wait(&mut self) -> Result<u32, Stop> {
        if !self.transfer.spin_hot(&self.words) {
            self.transfer.wait(&self.words, Expect::Answer, Deadline::NEVER)?;
        }
        self.transfer.take(&self.words, CAPACITY).map_err(Stop::Violation)
    }

    /// What a shutdown from another thread needs.
    fn handle(&self) -> (Arc<HeaderWords>, Arc<CancelWord>) {
        (self.words.clone(), self.cancel.clone())
    }
}

fn pair(park: bool) -> (End, End) {
    let words = Arc::new(HeaderWords::zeroed());
    (End::new(&words, Side::Client, park), End::new(&words, Side::Server, park))
}

fn shut_down_from((words, cancel): &(Arc<HeaderWords>, Arc<CancelWord>)) {
    shut_down(words, cancel, &CounterCells::default());
}

/// Two calls, each with a datagram of its own both ways: nobody hangs, and every datagram arrives with control.
fn calls(park: bool, hot_spins: u32) {
    explore(move || {
        let (mut client, mut server) = pair(park);
        (client.transfer.hot_spins, server.transfer.hot_spins) = (hot_spins, hot_spins);
        let serving = thread::spawn(move || {
            assert_eq!(server.wait(), Ok(1));
            server.flip(2).unwrap();
            assert_eq!(server.wait(), Ok(3));
            server.flip(4).unwrap();
        });
        client.flip(1).unwrap();
        assert_eq!(client.wait(), Ok(2));
        client.flip(3).unwrap();
        assert_eq!(client.wait(), Ok(4));
        serving.join().unwrap();
    });
}

#[test]
fn calls_with_wake_elision() {
    calls(true, 0);
}

/// The fast path takes control with a load of its own.
#[test]
fn calls_that_spin_first() {
    calls(true, 1);
}

#[test]
fn calls_of_the_base_protocol() {
    calls(false, 0);
}

/// A shutdown of our own ends our wait, as ours; at the peer as the peer's.
#[test]
fn a_shutdown_ends_the_waits_of_both_sides() {
    explore(|| {
        let (client, mut server) = pair(true);
        let handle = server.handle();
        let serving = thread::spawn(move || assert_eq!(server.wait(), Err(Stop::LocalShutdown)));
        shut_down_from(&handle);
        assert_eq!(client.flip(1), Err(Stop::PeerShutdown));
        serving.join().unwrap();
    });
    explore(|| {
        let (client, mut server) = pair(true);
        let handle = client.handle();
        let serving = thread::spawn(move || assert_eq!(server.wait(), Err(Stop::PeerShutdown)));
        shut_down_from(&handle);
        assert_eq!(client.flip(1), Err(Stop::LocalShutdown));
        serving.join().unwrap();
    });
}

/// A shutdown races a call: each side gets the datagram or the shutdown it must get, and nobody hangs.
#[test]
fn a_shutdown_races_a_call() {
    explore(|| {
        let (client, mut server) = pair(true);
        let handle = server.handle();
        let serving = thread::spawn(move || match server.wait() {
            Ok(length) => assert_eq!(length, 1),
            stop => assert_eq!(stop, Err(Stop::LocalShutdown)),
        });
        let ending = thread::spawn(move || shut_down_from(&handle));
        match client.flip(1) {
            Ok(()) => {}
            stop => assert_eq!(stop, Err(Stop::PeerShutdown)),
        }
        ending.join().unwrap();
        serving.join().unwrap();
    });
}

/// The watchdog's cancel ends a wait; an answer that came before it always counts.
#[test]
fn the_death_of_the_peer_ends_a_wait() {
    explore(|| {
        let (client, mut server) = pair(true);
        let cancel = server.cancel.clone();
        let serving = thread::spawn(move || assert_eq!(server.wait(), Ok(1)));
        client.flip(1).unwrap();
        cancel.raise(Cancel::PeerGone);
        serving.join().unwrap();
    });
    explore(|| {
        let (_client, mut server) = pair(true);
        let cancel = server.cancel.clone();
        let serving = thread::spawn(move || assert_eq!(server.wait(), Err(Stop::PeerGone)));
        cancel.raise(Cancel::PeerGone);
        serving.join().unwrap();
    });
}

/// An adversary writes a word that no state has and wakes nobody: our own shutdown still ends the wait.
#[test]
fn a_forged_word_does_not_hold_a_shutdown_up() {
    explore(|| {
        let (client, mut server) = pair(true);
        let handle = server.handle();
        let serving = thread::spawn(move || match server.wait() {
            Err(Stop::Violation(_) | Stop::LocalShutdown) => {}
            other => panic!("{other:?}"),
        });
        let adversary = thread::spawn(move || {
            client.words.state.store(7, Ordering::Relaxed);
            client.words.server_parked.store(0, Ordering::Relaxed);
        });
        shut_down_from(&handle);
        serving.join().unwrap();
        adversary.join().unwrap();
    });
}

/// An adversary forges wakes and lies about who sleeps: a wait neither ends early nor misses the death that is raised.
#[test]
fn forged_wakes_and_lies_change_nothing() {
    explore(|| {
        let (client, mut server) = pair(true);
        let cancel = server.cancel.clone();
        let serving = thread::spawn(move || assert_eq!(server.wait(), Err(Stop::PeerGone)));
        let adversary = thread::spawn(move || {
            client.words.server_parked.store(0, Ordering::Relaxed);
            wake_shared(&client.words.state).unwrap();
            client.words.client_parked.store(1, Ordering::Relaxed);
        });
        cancel.raise(Cancel::PeerGone);
        serving.join().unwrap();
        adversary.join().unwrap();
    });
}

/// An adversary sleeps on the state word itself and so may take the one wake of a shutdown: our own wait ends by the cancel word.
#[test]
fn a_swallowed_wake_does_not_hold_a_shutdown_up() {
    explore(|| {
        let (client, mut server) = pair(true);
        let handle = server.handle();
        let own = Arc::new(CancelWord::new());
        let release = own.clone();
        let serving = thread::spawn(move || assert_eq!(server.wait(), Err(Stop::LocalShutdown)));
        let adversary = thread::spawn(move || sleep(&client.words.state, 0, own.word(), None).unwrap());
        shut_down_from(&handle);
        serving.join().unwrap();
        release.raise(Cancel::Shutdown);
        adversary.join().unwrap();
    });
}
