//! Who reads the socket of a mux: programs that wait there themselves, and the reader thread that stands in for them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::stream::mux::{Channel, Mux, MuxConfig, Reason, Role};
use flipcall::stream::write_frame;

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(20);
/// Far over every bound here (a lease is a millisecond, a death is noticed within 100), and far under a hang.
const BOUND: Duration = Duration::from_secs(2);

fn pair() -> (Mux, Mux) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (
        Mux::new(ours, MuxConfig::new(Role::Initiator)).unwrap(),
        Mux::new(theirs, MuxConfig::new(Role::Acceptor)).unwrap(),
    )
}

fn channel(ours: &Mux, theirs: &Mux) -> (Channel, Channel) {
    thread::scope(|scope| {
        let accepted = scope.spawn(|| theirs.accept(SOON).unwrap().accept().unwrap());
        (ours.open("test", SOON).unwrap(), accepted.join().unwrap())
    })
}

/// A mux that takes one channel, with that channel open and a message received on it: so its program has been the leader. At the other end the
/// test writes frames itself.
fn after_being_leader() -> (Mux, Channel, UnixStream) {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let mux = Mux::new(ours, MuxConfig::new(Role::Acceptor).max_channels(1)).unwrap();
    write_frame(&mut peer, 0, &[0, 1, 0, 1, 0, 0, 0, 16]).unwrap();
    write_frame(&mut peer, 0, b"\x01\0\x01\0\x10\0\0\0\x01x").unwrap();
    let mut channel = mux.accept(SOON).unwrap().accept().unwrap();
    let sending = thread::spawn(move || {
        thread::sleep(MOMENT);
        write_frame(&mut peer, 1, b"hello").unwrap();
        peer
    });
    assert_eq!(channel.receiver.receive(SOON).unwrap().unwrap(), b"hello");
    let mut peer = sending.join().unwrap();
    // HELLO and ACCEPT.
    peer.read_exact(&mut [0; 14 + 13]).unwrap();
    (mux, channel, peer)
}

#[test]
fn a_program_that_led_and_computes_keeps_nobody_waiting_for_an_answer() {
    let (_mux, _channel, mut peer) = after_being_leader();
    peer.set_read_timeout(Some(BOUND)).unwrap();
    write_frame(&mut peer, 0, b"\x01\0\x03\0\x10\0\0\0\x01y").unwrap();
    let mut refusal = [0; 10];
    peer.read_exact(&mut refusal).unwrap();
    assert_eq!(refusal, [0, 0, 0, 0, 0, 4, 3, 0, 3, 4]);
}

#[test]
fn the_death_of_a_peer_is_noticed_while_nobody_waits() {
    let (mux, _channel, peer) = after_being_leader();
    drop(peer);
    let start = Instant::now();
    while mux.error().is_none() {
        assert!(start.elapsed() < BOUND);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(mux.error().unwrap().kind(), ErrorKind::PeerGone);
}

#[test]
fn a_peer_that_drips_is_cut_off_by_a_leader_too() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let mux = Mux::new(ours, MuxConfig::new(Role::Acceptor).patience(Duration::from_millis(100))).unwrap();
    write_frame(&mut peer, 0, &[0, 1, 0, 1, 0, 0, 0, 16]).unwrap();
    let waiting = mux.clone();
    let waiting = thread::spawn(move || waiting.accept(SOON).unwrap_err().kind());
    peer.write_all(&[0, 0, 0, 0, 16, 0]).unwrap();
    let start = Instant::now();
    while peer.write_all(&[1]).is_ok() {
        assert!(start.elapsed() < BOUND);
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(waiting.join().unwrap(), ErrorKind::Violation);
}

#[test]
fn a_leader_keeps_its_deadline_under_a_flood_for_others() {
    let (_mux, mut channel, peer) = after_being_leader();
    // CREDIT for an idle id, which is ignored. So few that a write of them all is never cut.
    let mut frames = Vec::new();
    (0..1000).for_each(|_| write_frame(&mut frames, 0, &[4, 0, 9, 0, 0, 0, 1]).unwrap());
    let done = AtomicBool::new(false);
    let (errors, elapsed) = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if (&peer).write_all(&frames).is_err() {
                        break;
                    }
                }
            });
        }
        thread::sleep(MOMENT);
        let start = Instant::now();
        let errors: Vec<_> = (0..5).map(|_| channel.receiver.receive(MOMENT).map_err(|error| error.kind())).collect();
        let elapsed = start.elapsed();
        done.store(true, Ordering::Relaxed);
        (errors, elapsed)
    });
    assert!(errors.iter().all(|error| *error == Err(ErrorKind::Timeout)), "{errors:?}");
    assert!(elapsed < BOUND, "{elapsed:?}");
}

#[test]
fn a_reset_of_this_side_reaches_a_leader() {
    // This peer answers nothing, so nothing that comes wakes the leader.
    let (_mux, Channel { sender, mut receiver }, _peer) = after_being_leader();
    let start = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || receiver.receive(SOON).map_err(|error| error.kind()));
        thread::sleep(MOMENT);
        sender.reset(Reason::CANCELLED);
        assert_eq!(waiting.join().unwrap(), Err(ErrorKind::LocalShutdown));
    });
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
}

#[test]
fn offers_are_of_no_use_once_the_mux_has_ended() {
    let (mux, channel, mut peer) = after_being_leader();
    channel.sender.reset(Reason::CANCELLED);
    // The reset answered, which makes room for the offer.
    write_frame(&mut peer, 0, &[6, 0, 1, 5]).unwrap();
    write_frame(&mut peer, 0, b"\x01\0\x03\0\x10\0\0\0\x01y").unwrap();
    write_frame(&mut peer, 0, b"\x07\x09\0\0").unwrap();
    while mux.error().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(mux.accept(SOON).unwrap_err().kind(), ErrorKind::PeerShutdown);
}

#[test]
fn whoever_waits_beside_a_leader_is_served_and_not_left_behind() {
    let (ours, theirs) = pair();
    let (mut near, mut far) = channel(&ours, &theirs);
    let (mut near2, mut far2) = channel(&ours, &theirs);
    let leader = thread::spawn(move || {
        // Leaves at its deadline, with the other still waiting.
        assert_eq!(near.receiver.receive(MOMENT * 2).unwrap_err().kind(), ErrorKind::Timeout);
        near
    });
    thread::sleep(MOMENT / 2);
    let follower = thread::spawn(move || {
        for number in 0..2 {
            assert_eq!(near2.receiver.receive(SOON).unwrap().unwrap(), [number]);
        }
    });
    thread::sleep(MOMENT / 2);
    far2.sender.send(&[0], SOON).unwrap();
    let mut near = leader.join().unwrap();
    let start = Instant::now();
    far2.sender.send(&[1], SOON).unwrap();
    follower.join().unwrap();
    assert!(start.elapsed() < BOUND);
    far.sender.send(b"last", SOON).unwrap();
    assert_eq!(near.receiver.receive(SOON).unwrap().unwrap(), b"last");
    drop(far2.receiver);
}

/// Both sides, several channels, threads that wait with short deadlines, compute, and send in between: every message comes once and in
/// its order, whichever thread read it.
#[test]
fn leaders_take_turns_without_losing_anything() {
    let (ours, theirs) = pair();
    let messages: u32 = if std::env::var_os("FLIPCALL_FULL").is_some() { 20_000 } else { 2_000 };
    let pairs: Vec<_> = (0..4).map(|_| channel(&ours, &theirs)).collect();
    thread::scope(|scope| {
        for (index, (near, far)) in pairs.into_iter().enumerate() {
            for (side, Channel { mut sender, mut receiver }) in [near, far].into_iter().enumerate() {
                let seed = (index * 2 + side) as u32;
                scope.spawn(move || {
                    for number in 0..messages {
                        // Some are long enough to run out of credit.
                        let length = if number % 7 == seed % 7 { 60_000 } else { 4 };
                        let mut message = vec![0; length];
                        message[..4].copy_from_slice(&number.to_be_bytes());
                        sender.send(&message, SOON).unwrap();
                    }
                    sender.end();
                });
                scope.spawn(move || receive_all(&mut receiver, messages, seed));
            }
        }
    });
    assert!(ours.error().is_none() && theirs.error().is_none());
}

fn receive_all(receiver: &mut flipcall::stream::mux::ChannelReceiver, messages: u32, seed: u32) {
    let (mut expected, mut message) = (0u32, Vec::new());
    loop {
        let patience = Duration::from_micros(u64::from((expected ^ seed) % 5) * 100);
        match receiver.receive_into(&mut message, patience) {
            Ok(true) => {
                assert_eq!(message[..4], expected.to_be_bytes());
                expected += 1;
            }
            Ok(false) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
        }
        if expected % 97 == seed {
            thread::sleep(Duration::from_micros(1500));
        }
    }
    assert_eq!(expected, messages);
}
