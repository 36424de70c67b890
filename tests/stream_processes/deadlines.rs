//! Deadlines against a peer that changes flags of the socket, or sends a byte now and then.

// An option that no library has a safe face for.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flipcall::stream::FrameSocket;
use flipcall::stream::mux::{Mux, MuxConfig, Role};
use flipcall::{Deadline, ErrorKind};

use super::{SOON, spawn};

/// The first message carries a duplicate of the peer's own end: its flags are ours to change from now on.
fn take_end(socket: &UnixStream) -> UnixStream {
    let mut buffer = [0; 1];
    let received = flipcall::stream::receive_with_fd(socket, &mut buffer, flipcall::stream::MissingFd::Refuse, SOON);
    UnixStream::from(received.unwrap().unwrap().fd)
}

pub fn toggle(socket: &mut UnixStream) {
    let shared = take_end(socket);
    let end = Instant::now() + Duration::from_millis(600);
    while Instant::now() < end {
        for nonblocking in [false, true] {
            shared.set_nonblocking(nonblocking).unwrap();
            shared.set_read_timeout(Some(Duration::from_secs(3600))).unwrap();
        }
    }
}

pub fn deadlines_hold_while_the_peer_toggles_flags() {
    let (mut child, ours) = spawn("toggle");
    flipcall::stream::send_with_fd(&ours, b"x", &ours, SOON).unwrap();
    let mut socket = FrameSocket::new(ours);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(socket.receive(Duration::from_millis(20)).unwrap_err().kind(), ErrorKind::Timeout);
    }
    // And for writing: nobody reads, the socket fills up.
    let error = loop {
        match socket.send(1, &[0; 4096], Duration::from_millis(20)) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < SOON);
    child.kill().unwrap();
    child.wait().unwrap();
}

pub fn a_wait_without_a_deadline_survives_toggled_flags() {
    let (mut child, ours) = spawn("toggle");
    flipcall::stream::send_with_fd(&ours, b"x", &ours, SOON).unwrap();
    let (mut socket, start) = (FrameSocket::new(ours), Instant::now());
    // The other process ends, and with it its end.
    assert!(socket.receive(Deadline::NEVER).unwrap().is_none());
    assert!(start.elapsed() < SOON);
    child.wait().unwrap();
}

/// Has a receive on our end wait for a megabyte and for an hour, and sends half a frame.
pub fn hoard(socket: &mut UnixStream) {
    let shared = take_end(socket);
    let (hour, megabyte): (_, libc::c_int) = (Duration::from_secs(3600), 1 << 20);
    shared.set_nonblocking(false).unwrap();
    shared.set_read_timeout(Some(hour)).unwrap();
    // SAFETY: the pointer and the length describe `megabyte`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        let (value, length) = (std::ptr::from_ref(&megabyte).cast(), size_of_val(&megabyte) as _);
        libc::setsockopt(shared.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, length)
    };
    assert_eq!(result, 0);
    // What is sent now finds the other side asleep.
    std::thread::sleep(Duration::from_millis(200));
    socket.write_all(&[0, 7, 0, 0, 0, 200, 1]).unwrap();
    std::thread::sleep(SOON + Duration::from_secs(2));
}

pub fn half_a_frame_is_cut_off_whatever_the_peer_sets() {
    let (mut child, ours) = spawn("hoard");
    flipcall::stream::send_with_fd(&ours, b"x", &ours, SOON).unwrap();
    let (mut socket, start) = (FrameSocket::new(ours).with_patience(Duration::from_millis(300)), Instant::now());
    // The option is set while this side waits, or just before.
    std::thread::sleep(Duration::from_millis(100));
    let error = socket.receive(Deadline::NEVER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Violation, "{error}");
    assert!(start.elapsed() < SOON, "a peer kept half a frame for {:?}", start.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
}

pub fn a_dripping_peer_is_cut_off() {
    for (role, deadline) in [("drip", Deadline::from(SOON)), ("drip", Deadline::NEVER), ("half", Deadline::NEVER)] {
        let (mut child, ours) = spawn(role);
        let mut socket = FrameSocket::new(ours).with_patience(Duration::from_millis(300));
        let error = socket.receive(deadline).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Violation, "{error}");
        assert!(!socket.is_usable());
        drop(socket);
        child.wait().unwrap();
    }
    // A mux says why before it closes; the child does not say HELLO, so the shorter deadline for that cuts it off.
    let (mut child, ours) = spawn("hold");
    let config = MuxConfig::new(Role::Initiator).handshake(Duration::from_millis(300));
    let mux = Mux::new(ours, config).unwrap();
    assert_eq!(mux.open("x", SOON).unwrap_err().kind(), ErrorKind::Violation);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Issue 13, A2. A call that waits twice, or for a peer that drips, waits until one point in time.
pub fn a_relative_deadline_counts_once() {
    let (early, second) = (Duration::from_millis(700), Duration::from_secs(1));
    let took = |begun: Instant, error: flipcall::Error, what: &str| {
        let took = begun.elapsed();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{what}: {error}");
        assert!(took >= second && took < Duration::from_millis(1500), "{what}: {took:?}");
    };

    // The header comes early enough, the payload never.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut socket = FrameSocket::new(ours);
    let begun = Instant::now();
    let peer = std::thread::spawn(move || {
        std::thread::sleep(early);
        theirs.write_all(&[0, 7, 0, 0, 0, 200]).unwrap();
        theirs
    });
    took(begun, socket.discard(second).unwrap_err(), "discard");
    drop(peer.join().unwrap());

    // The header of a file goes out when the peer has made room for it, its bytes do not.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut socket = FrameSocket::new(ours);
    while socket.send(1, &[0; 512], Duration::from_millis(10)).is_ok() {}
    let file = std::env::temp_dir().join(format!("flipcall-file-{}", std::process::id()));
    std::fs::write(&file, vec![0; 4 << 20]).unwrap();
    let open = std::fs::File::open(&file).unwrap();
    let begun = Instant::now();
    let peer = std::thread::spawn(move || {
        std::thread::sleep(early);
        std::io::Read::read_exact(&mut &theirs, &mut [0; 64 << 10]).unwrap();
        theirs
    });
    let sent = socket.send_file(1, std::os::fd::AsFd::as_fd(&open), 0, 4 << 20, second);
    took(begun, sent.unwrap_err(), "send_file");
    drop(peer.join().unwrap());
    std::fs::remove_file(&file).unwrap();

    // What is passed over is always there.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let until = Instant::now() + 3 * second;
    let peer = std::thread::spawn(move || while Instant::now() < until && (&theirs).write_all(&[0; 4096]).is_ok() {});
    let begun = Instant::now();
    let missing = flipcall::stream::MissingFd::Skip;
    let received = flipcall::stream::receive_with_fd(&ours, &mut [0; 16], missing, second);
    took(begun, received.unwrap_err(), "a flood");
    drop(ours);
    peer.join().unwrap();

    // Each wait in the kernel brings a byte.
    let (mut child, ours) = spawn("drip");
    let mut socket = FrameSocket::new(ours);
    socket.assume_unshared().unwrap();
    let (begun, deadline) = (Instant::now(), Duration::from_millis(3500));
    let error = socket.receive(deadline).unwrap_err();
    let took = begun.elapsed();
    assert_eq!(error.kind(), ErrorKind::Timeout, "drip: {error}");
    assert!(took >= deadline && took < deadline + second, "drip: {took:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
