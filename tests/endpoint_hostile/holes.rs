//! Row 7: the peer changes the file under the window.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flipcall::endpoint::{Connector, Options, WaitPolicy};
use flipcall::window::Allocator;
use flipcall::{Deadline, ErrorKind};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};

use crate::attacker::raw::{STATE, futex_requeue};
use crate::attacker::{AGES, PAGE, Peer, Role, Stage, alone, arena, full, measured, next_window};

pub const ROLES: &[Role] =
    &[("punches holes", punches_holes), ("punches one hole", punches_one_hole), ("resizes the file", resizes_the_file)];

/// Bytes of the large file: gVisor's allocator makes files of this size.
const LARGE: u64 = 64 << 20;
/// Of each call; far more than the peer takes from one hole in the large file to the next.
const DEADLINE: Duration = Duration::from_secs(1);
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// Messages `WINDOW BYTES`: shakes hands, then punches a hole into the first BYTES of the file in a loop until the window is shut down,
/// which it can only learn over the socket. Touches the whole file in between, so that there is something to punch.
fn punches_holes(stage: Stage) {
    while let Some((order, _)) = stage.control.listen() {
        let (index, bytes) = order.split_once(' ').expect("two fields");
        let bytes: u64 = bytes.parse().expect("a number");
        let window = stage.window(index.parse().expect("a number"));
        window.shake_hands_as_server();
        stage.control.expect("connected");
        let (mut punches, start) = (0u64, Instant::now());
        while start.elapsed() < Duration::from_millis(if full() { 3000 } else { 600 }) {
            fallocate(&stage.fds[0], FallocateFlags::empty(), 0, bytes).expect("fallocate");
            fallocate(&stage.fds[0], PUNCH, 0, bytes).expect("a window can have holes");
            punches += 1;
        }
        stage.control.say(&punches.to_string());
    }
}

/// Calls for as long as the holes are punched. What our side sees is zeroes: the state of a client that holds control.
fn call_into_holes(peer: &Peer, arena: &Allocator, bytes: u64) {
    let rounds = if bytes == LARGE { 1 } else { 2 };
    for index in 0..rounds {
        peer.control.say(&format!("{index} {bytes}"));
        // A hole wakes nobody: a side that spins meets more of them than one that sleeps.
        let policy = if index == 0 { WaitPolicy::Spin } else { WaitPolicy::Adaptive };
        let client = Connector::new(next_window(arena), Options::new().policy(policy)).unwrap();
        let mut endpoint = client.connect(AGES).unwrap();
        peer.control.say("connected");
        let (start, mut worst, mut answers) = (Instant::now(), Duration::ZERO, 0u64);
        let mut copy = [0; 256];
        let kind = loop {
            let call = Instant::now();
            endpoint.write_at(0, &[7; 256]).expect("in range");
            match endpoint.send_recv(256, DEADLINE) {
                Ok(length) => endpoint.read_at(0, &mut copy[..length as usize]).expect("in range"),
                Err(error) => break error.kind(),
            }
            assert!(copy.iter().all(|byte| [0, 7].contains(byte)), "bytes from nowhere: {copy:?}");
            answers += 1;
            worst = worst.max(call.elapsed());
        };
        assert!(start.elapsed() < AGES);
        // Once the peer has stopped nobody flips control back; a hole in the middle of a flip looks like a broken protocol.
        assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Violation), "{kind}");
        let punches: u64 = peer.control.hear().parse().expect("a number");
        assert!(punches > 0 && answers > 0, "{punches} holes, {answers} answers: the attack never bit");
        measured(&format!("{punches} holes of {bytes} bytes, {answers} calls: longest"), format!("{worst:?}"), "none");
    }
}

#[test]
fn a_hole_in_the_window_is_no_fault() {
    let _alone = alone();
    let arena = arena(2);
    let peer = Peer::start("punches holes", "", &[arena.fd()]);
    call_into_holes(&peer, &arena, 2 * u64::from(PAGE));
}

/// Accepts `park`, takes the first call, and punches its page away once the caller sleeps. The sleeper is left to sleep.
fn punches_one_hole(stage: Stage) {
    const CLIENT_PARKED: usize = 2;
    const ELSEWHERE: usize = 64;
    let window = stage.window(0);
    assert!(window.await_state(1));
    window.flip(b"{\"flipcall\":{\"version\":1,\"extensions\":[\"park\"]}}\n", 0);
    assert!(window.await_state(1));
    while window.word(CLIENT_PARKED).load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    // It says so before it sleeps: that it does shows in that it can be moved to another word, and back.
    for [from, to] in [[STATE, ELSEWHERE], [ELSEWHERE, STATE]] {
        while futex_requeue(window.word(from), window.word(to)).expect("FUTEX_REQUEUE") == 0 {
            std::thread::yield_now();
        }
    }
    fallocate(&stage.fds[0], PUNCH, 0, u64::from(PAGE)).expect("a window can have holes");
    stage.control.say("punched");
    stage.control.expect("bye");
}

#[test]
fn a_hole_under_a_sleeper_wakes_nobody_and_its_deadline_holds() {
    const PATIENT: Duration = Duration::from_millis(400);
    let _alone = alone();
    for absolute in [false, true] {
        let arena = arena(1);
        let peer = Peer::start("punches one hole", "", &[arena.fd()]);
        let client = Connector::new(next_window(&arena), Options::new().policy(WaitPolicy::Park)).unwrap();
        let mut endpoint = client.connect(AGES).unwrap();
        let (start, before) = (Instant::now(), endpoint.counters());
        let deadline = if absolute { Deadline::at(start + PATIENT) } else { Deadline::after(PATIENT) };
        let outcome = endpoint.send_recv(256, deadline);
        let took = start.elapsed();
        peer.control.expect("punched");
        // Zeroes are what a peer could have written: control, and an empty datagram. Found at the deadline, not before.
        assert_eq!(outcome.expect("the state that is all zero"), 0);
        assert!(took >= PATIENT && took < AGES / 2, "{took:?}");
        assert_eq!(endpoint.counters().spurious_wakes, before.spurious_wakes, "nobody woke it");
        peer.control.say("bye");
    }
}

#[test]
fn a_hole_of_64_mib_is_no_fault() {
    let _alone = alone();
    let arena = Allocator::with_size(LARGE).unwrap();
    let peer = Peer::start("punches holes", "", &[arena.fd()]);
    call_into_holes(&peer, &arena, LARGE);
}

/// Tries to shrink, grow and seal the file, and says how each attempt ended.
fn resizes_the_file(stage: Stage) {
    let file = &stage.fds[0];
    let size = rustix::fs::fstat(file).expect("fstat").st_size as u64;
    let attempts = [
        ("shrink to nothing", ftruncate(file, 0)),
        ("shrink by a page", ftruncate(file, size - 4096)),
        ("grow", ftruncate(file, size + 4096)),
        ("grow by allocating", fallocate(file, FallocateFlags::empty(), size, 4096)),
        ("seal against writing", fcntl_add_seals(file, SealFlags::FUTURE_WRITE)),
    ];
    for (what, result) in attempts {
        stage
            .control
            .say(&format!("{what}: {}", result.err().map_or("done".into(), |errno| errno.raw_os_error().to_string())));
    }
    let window = stage.window(0);
    window.shake_hands_as_server();
    window.await_state(1);
    window.flip(b"still here", 0);
    window.await_state(2);
}

#[test]
fn our_file_can_be_neither_shrunk_nor_grown_nor_sealed() {
    let _alone = alone();
    let arena = arena(2);
    let peer = Peer::start("resizes the file", "", &[arena.fd()]);
    for _ in 0..5 {
        let attempt = peer.control.hear();
        assert!(attempt.ends_with(": 1"), "{attempt} instead of EPERM");
    }
    let mut endpoint = Connector::new(next_window(&arena), Options::new()).unwrap().connect(AGES).unwrap();
    let length = endpoint.send_recv(0, AGES).expect("an answer");
    let mut answer = vec![0; length as usize];
    endpoint.read_at(0, &mut answer).unwrap();
    assert_eq!(answer, b"still here");
}
