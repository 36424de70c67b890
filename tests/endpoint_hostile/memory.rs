//! Rows 1 to 3: the peer writes what it likes into the window, while we read it and before.

use std::sync::atomic::{AtomicBool, Ordering};

use flipcall::ErrorKind;
use flipcall::endpoint::Interrupted;
use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options, WaitPolicy};
use flipcall::window::Window;

use crate::attacker::raw::{LENGTH, STATE, futex_wake};
use crate::attacker::{AGES, PAGE, Peer, Role, Stage, alone, arena, full, next_window};

pub const ROLES: &[Role] = &[
    ("toggles the length", toggles_the_length),
    ("toggles the handshake", toggles_the_handshake),
    ("writes as told", writes_as_told),
];

const CAPACITY: u32 = PAGE - 16;
/// Connections under attack while the peer toggles words: each ends at the first violation.
const TOGGLED: u32 = 60;
/// Connections whose length is toggled: what has to be hit is the moment between two reads of it, a few nanoseconds.
const LENGTHS_TOGGLED: u32 = 400;

/// What the length word holds in turn: mostly what is allowed, or a connection would end before it was tried often.
const LENGTHS: [u32; 12] = [0, 48, 1, CAPACITY + 1, 7, CAPACITY, 0, 9, u32::MAX, 3, 48, 0];

/// An otherwise honest server whose second thread never stops writing the length.
fn toggles_the_length(stage: Stage) {
    for index in 0..LENGTHS_TOGGLED {
        let window = stage.window(index);
        let over = AtomicBool::new(false);
        window.shake_hands_as_server();
        window.await_state(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for length in LENGTHS.into_iter().cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    window.word(LENGTH).store(length, Ordering::Relaxed);
                }
            });
            while window.await_state(1) {
                window.word(STATE).store(0, Ordering::Release);
                let _ = futex_wake(window.word(STATE), 1);
            }
            over.store(true, Ordering::Relaxed);
        });
    }
    stage.control.say("done");
}

#[test]
fn a_length_that_changes_while_we_read_it_is_taken_once() {
    let _alone = alone();
    let arena = arena(LENGTHS_TOGGLED);
    let peer = Peer::start("toggles the length", "", &[arena.fd()]);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..LENGTHS_TOGGLED {
        let client = Connector::new(next_window(&arena), Options::new()).unwrap();
        let mut endpoint = client.connect(AGES).expect("the handshake is honest");
        let mut copy = vec![0; CAPACITY as usize + 64];
        for _ in 0..64 {
            match endpoint.send_recv(8, AGES) {
                Ok(length) => {
                    taken += 1;
                    check_one_length(&endpoint, length, &mut copy);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Violation);
                    assert_eq!(endpoint.send_recv(8, AGES).unwrap_err().kind(), ErrorKind::Violation, "poisoned");
                    refused += 1;
                    break;
                }
            }
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} lengths taken, {refused} refused: the attack never bit");
    peer.control.expect("done");
}

/// Whatever the shared word says by now, the datagram has the length that was returned.
fn check_one_length(endpoint: &Endpoint, length: u32, copy: &mut [u8]) {
    assert!(length <= CAPACITY, "a length of {length} got through");
    for _ in 0..20 {
        assert_eq!(endpoint.received(), length);
        assert_eq!(endpoint.reader().remaining(), length);
        endpoint.read_at(0, &mut copy[..length as usize]).expect("the datagram is as long as it was said to be");
        let beyond = endpoint.read_at(length, &mut copy[..1]).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::InvalidInput);
    }
}

/// The answer to the handshake, rewritten all the time between a good one and garbage.
fn toggles_the_handshake(stage: Stage) {
    const GOOD: &[u8] = b"{\"flipcall\":{\"version\":1,\"extensions\":[\"park\"]}}\n";
    for index in 0..TOGGLED {
        let window = stage.window(index);
        let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
        assert!(window.await_state(1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begun.store(true, Ordering::Relaxed);
                for at in (0..GOOD.len()).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    // Two stores in a row would meet in the store buffer, where no other CPU sees the first.
                    for byte in [GOOD[at] ^ 0x81, GOOD[at]] {
                        window.byte(at).store(byte, Ordering::Relaxed);
                        (0..16).for_each(|_| std::hint::spin_loop());
                    }
                }
            });
            while !begun.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            window.flip(GOOD, 0);
            assert!(window.await_state(2));
            over.store(true, Ordering::Relaxed);
        });
    }
    stage.control.say("done");
}

#[test]
fn a_handshake_that_changes_while_we_parse_it_is_read_once() {
    let _alone = alone();
    let arena = arena(TOGGLED);
    let peer = Peer::start("toggles the handshake", "", &[arena.fd()]);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..TOGGLED {
        let client = Connector::new(next_window(&arena), Options::new()).unwrap();
        match client.connect(AGES) {
            // Nothing in between: a copy with one wrong byte is no handshake, and the right one names the extension.
            Ok(endpoint) => {
                assert!(endpoint.elides_wakes());
                accepted += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Violation);
                refused += 1;
            }
        }
    }
    peer.control.expect("done");
    // About half of the time a byte is wrong.
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused: the attack never bit");
}

/// When a word is overwritten, seen from our side.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// We wait for the other half of the handshake.
    Handshake,
    /// We wait for an answer; as a server, for the first call.
    Waiting,
    /// We hold control.
    Holding,
}

/// Messages `WINDOW SIDE WHEN STATE LENGTH`: behaves until WHEN, then writes both words and wakes.
fn writes_as_told(stage: Stage) {
    while let Some((order, _)) = stage.control.listen() {
        let fields: Vec<&str> = order.split(' ').collect();
        let number = |at: usize| -> u32 { fields[at].parse().expect("a number") };
        let (window, we_serve) = (stage.window(number(0)), fields[1] == "client");
        let (mine, theirs) = if we_serve { (1, 0) } else { (0, 1) };
        match (fields[2], we_serve) {
            ("Handshake", true) => assert!(window.await_state(mine)),
            ("Handshake", false) => {}
            (_, true) => {
                window.shake_hands_as_server();
                if fields[2] == "Waiting" {
                    assert!(window.await_state(mine));
                } else {
                    stage.control.expect("connected");
                }
            }
            (_, false) => {
                window.shake_hands_as_client();
                if fields[2] == "Holding" {
                    window.flip(b"a call", theirs);
                    stage.control.expect("connected");
                }
            }
        }
        window.word(LENGTH).store(number(4), Ordering::Relaxed);
        window.word(STATE).store(number(3), Ordering::Release);
        let _ = futex_wake(window.word(STATE), 1);
        stage.control.say("written");
    }
}

/// Lets the peer write both words, and returns the kinds of the error that follows and of the one after that.
fn overwritten(
    peer: &Peer,
    index: u32,
    window: Window,
    policy: WaitPolicy,
    cell: (&str, When, u32, u32),
) -> [ErrorKind; 2] {
    let (side, when, state, length) = cell;
    let options = Options::new().policy(policy);
    peer.control.say(&format!("{index} {side} {when:?} {state} {length}"));
    let first = match side {
        "client" => {
            Connector::new(window, options).unwrap().connect(AGES).map(|endpoint| (endpoint, 0)).map_err(drop_waiting)
        }
        _ => Acceptor::new(window, options).unwrap().recv_first(AGES).map_err(drop_waiting),
    };
    let (mut endpoint, _) = match first {
        Ok(connected) => connected,
        Err(kind) => {
            peer.control.expect("written");
            return [kind, kind];
        }
    };
    if when == When::Holding {
        peer.control.say("connected");
        peer.control.expect("written");
    }
    let kinds = std::array::from_fn(|_| endpoint.send_recv(4, AGES).expect_err("the words are wrong").kind());
    if when != When::Holding {
        peer.control.expect("written");
    }
    kinds
}

fn drop_waiting<S>(interrupted: Interrupted<S>) -> ErrorKind {
    interrupted.kind()
}

#[test]
fn a_state_that_cannot_be_is_a_violation_for_good() {
    let _alone = alone();
    let mut states = vec![3, 4, 0x100, 0x0001_0000, 1 << 31, (1 << 31) | 1, u32::MAX - 1, u32::MAX];
    let more = if full() { 2000 } else { 40 };
    states.extend((1..more).map(|n: u32| n.wrapping_mul(2_654_435_761) | 4));
    let arena = arena(states.len() as u32 * 18 + 2);
    let peer = Peer::start("writes as told", "", &[arena.fd()]);
    let mut index = 0;
    for (side, when) in cells() {
        for policy in [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Park] {
            for &state in &states {
                let kinds = overwritten(&peer, index, next_window(&arena), policy, (side, when, state, 0));
                assert_eq!(kinds, [ErrorKind::Violation; 2], "{side} {when:?} {policy:?}: state {state:#x}");
                index += 1;
            }
        }
    }
    // The peer takes control out of our hands: a state that exists, but that cannot be now.
    for (side, theirs) in [("client", 1), ("server", 0)] {
        let cell = (side, When::Holding, theirs, 0);
        let kinds = overwritten(&peer, index, next_window(&arena), WaitPolicy::Adaptive, cell);
        assert_eq!(kinds, [ErrorKind::Violation; 2], "{side}: control was stolen");
        index += 1;
    }
}

#[test]
fn a_length_over_the_capacity_is_a_violation_for_good() {
    let _alone = alone();
    let arena = arena(64);
    let peer = Peer::start("writes as told", "", &[arena.fd()]);
    let mut index = 0;
    for (side, when) in cells().filter(|(_, when)| *when != When::Holding) {
        let ours = u32::from(side == "server");
        for length in [CAPACITY + 1, PAGE, 4097, 1 << 16, 1 << 31, u32::MAX] {
            let cell = (side, when, ours, length);
            let kinds = overwritten(&peer, index, next_window(&arena), WaitPolicy::Adaptive, cell);
            assert_eq!(kinds, [ErrorKind::Violation; 2], "{side} {when:?}: length {length}");
            index += 1;
        }
    }
}

/// Both sides at each moment. A server that waits for its first call has no endpoint yet, but the same words.
fn cells() -> impl Iterator<Item = (&'static str, When)> {
    ["client", "server"]
        .into_iter()
        .flat_map(|side| [When::Handshake, When::Waiting, When::Holding].into_iter().map(move |when| (side, when)))
}
