//! Row 4: the peer never answers, or is stopped.

use std::time::{Duration, Instant};

use flipcall::endpoint::Interrupted;
use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options, WaitPolicy};
use flipcall::window::{Seals, Window};
use flipcall::{Deadline, ErrorKind};
use rustix::process::Signal;

use crate::attacker::{AGES, PAGE, Peer, Role, Stage, alone, arena, full, median, next_window, promised};

pub const ROLES: &[Role] = &[("echoes", echoes), ("never answers", never_answers)];

const DEADLINE: Duration = Duration::from_millis(60);
/// Ten times what a deadline may be overshot by.
const GRACE: Duration = Duration::from_millis(100);
const POLICIES: [WaitPolicy; 3] = [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Park];

/// An honest server of one window after the other: every answer is the call.
pub fn echoes(stage: Stage) {
    for index in 0.. {
        let fd = stage.fds[0].try_clone().expect("dup");
        let Ok(window) = Window::receive(fd, index * u64::from(PAGE), PAGE, Seals::Strict) else { return };
        let server = Acceptor::new(window, Options::new()).expect("nothing is watched");
        let Ok((mut endpoint, mut length)) = server.recv_first(Deadline::NEVER) else { continue };
        let mut copy = vec![0; PAGE as usize];
        loop {
            let datagram = &mut copy[..length as usize];
            endpoint.read_at(0, datagram).expect("in range");
            endpoint.write_at(0, datagram).expect("in range");
            match endpoint.send_recv(length, Deadline::NEVER) {
                Ok(next) => length = next,
                Err(_) => break,
            }
        }
    }
}

/// Shakes hands on window after window and keeps control of each.
fn never_answers(stage: Stage) {
    while let Some((index, _)) = stage.control.listen() {
        let window = stage.window(index.parse().expect("a number"));
        window.shake_hands_as_server();
        window.await_state(2);
    }
}

#[test]
fn a_call_that_is_never_answered_ends_at_its_deadline() {
    let _alone = alone();
    let rounds = if full() { 50 } else { 5 };
    let arena = arena(rounds * 3);
    let peer = Peer::start("never answers", "", &[arena.fd()]);
    let mut index = 0;
    for policy in POLICIES {
        let mut late = Vec::new();
        for _ in 0..rounds {
            peer.control.say(&index.to_string());
            index += 1;
            let client = Connector::new(next_window(&arena), Options::new().policy(policy)).unwrap();
            let mut endpoint = client.connect(AGES).unwrap();
            let start = Instant::now();
            let waiting = timed_out(endpoint.send_recv(0, DEADLINE));
            late.push(start.elapsed().checked_sub(DEADLINE).expect("not before the deadline"));
            assert_eq!(endpoint.send_recv(0, DEADLINE).unwrap_err().kind(), ErrorKind::AnswerPending);
            // Again, now with a point in time and one that is past.
            let waiting = timed_out(waiting.resume(Instant::now() + DEADLINE / 4));
            let start = Instant::now();
            let _ = timed_out(waiting.resume(Duration::ZERO));
            assert!(start.elapsed() < GRACE * 20);
        }
        let late = median(&mut late);
        promised(&format!("silent peer, {policy:?}: past the deadline"), late, GRACE / 10);
    }
}

fn timed_out<T: std::fmt::Debug, S>(result: Result<T, Interrupted<S>>) -> S {
    match result {
        Err(Interrupted::TimedOut(waiting)) => waiting,
        Err(Interrupted::Failed(error)) => panic!("{error}"),
        Ok(answer) => panic!("answered {answer:?}"),
    }
}

#[test]
fn a_handshake_that_is_never_answered_ends_at_its_deadline_and_goes_on() {
    let _alone = alone();
    let arena = arena(2);
    let peer = Peer::start("echoes", "", &[arena.fd()]);
    peer.stop();
    let client = Connector::new(next_window(&arena), Options::new()).unwrap();
    let start = Instant::now();
    let client = timed_out(client.connect(DEADLINE));
    assert!(start.elapsed() >= DEADLINE && start.elapsed() < DEADLINE + GRACE * 20);
    peer.signal(Signal::CONT);
    let mut endpoint = client.connect(AGES).expect("the offer was out already");
    assert_eq!(say(&mut endpoint, b"after all"), b"after all");

    let server = Acceptor::new(next_window(&arena), Options::new()).unwrap();
    let start = Instant::now();
    drop(timed_out(server.recv_first(DEADLINE)));
    assert!(start.elapsed() >= DEADLINE && start.elapsed() < DEADLINE + GRACE * 20);
}

fn say(endpoint: &mut Endpoint, datagram: &[u8]) -> Vec<u8> {
    let length = endpoint.write_datagram(datagram).unwrap();
    let length = endpoint.send_recv(length, AGES).expect("an answer");
    read(endpoint, length)
}

fn read(endpoint: &Endpoint, length: u32) -> Vec<u8> {
    let mut answer = vec![0; length as usize];
    endpoint.read_at(0, &mut answer).unwrap();
    answer
}

#[test]
fn the_answer_of_a_stopped_peer_comes_late_and_only_once() {
    let _alone = alone();
    let arena = arena(8);
    let peer = Peer::start("echoes", "", &[arena.fd()]);
    for (options, name) in POLICIES.into_iter().flat_map(|policy| {
        let options = || Options::new().policy(policy);
        [(options(), "park"), (options().base_protocol(), "base")]
    }) {
        let client = Connector::new(next_window(&arena), options).unwrap();
        let mut endpoint = client.connect(AGES).unwrap();
        assert_eq!(say(&mut endpoint, b"first"), b"first");
        peer.stop();
        let length = endpoint.write_datagram(b"second").unwrap();
        let mut waiting = timed_out(endpoint.send_recv(length, DEADLINE));
        for _ in 0..2 {
            assert_eq!(endpoint.send_recv(0, DEADLINE).unwrap_err().kind(), ErrorKind::AnswerPending);
            waiting = timed_out(waiting.resume(DEADLINE / 2));
        }
        peer.signal(Signal::CONT);
        let (mut endpoint, length) = waiting.resume(AGES).expect("the late answer");
        assert_eq!(read(&endpoint, length), b"second", "{name}");
        assert_eq!(say(&mut endpoint, b"third, longer"), b"third, longer", "{name}");
    }
}

#[test]
fn a_late_answer_to_a_dropped_call_reaches_nobody() {
    let _alone = alone();
    let arena = arena(2);
    let peer = Peer::start("echoes", "", &[arena.fd()]);
    let mut endpoint = Connector::new(next_window(&arena), Options::new()).unwrap().connect(AGES).unwrap();
    assert_eq!(say(&mut endpoint, b"first"), b"first");
    let handle = endpoint.shutdown_handle();
    peer.stop();
    let length = endpoint.write_datagram(b"second").unwrap();
    drop(timed_out(endpoint.send_recv(length, DEADLINE)));
    let received = handle.counters().receives;
    peer.signal(Signal::CONT);
    assert_eq!(endpoint.send_recv(0, DEADLINE).unwrap_err().kind(), ErrorKind::LocalShutdown);
    // The peer found the shutdown instead of a taker, and serves the next window.
    let mut endpoint = Connector::new(next_window(&arena), Options::new()).unwrap().connect(AGES).unwrap();
    assert_eq!(say(&mut endpoint, b"third"), b"third");
    assert_eq!(handle.counters().receives, received);
}
