//! Deadlines on sockets that this process has made itself, where a wait sleeps in the kernel and relies on the socket's own timeouts.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use flipcall::stream::{Access, FrameSocket, Listener};
use flipcall::{Deadline, ErrorKind};
use rustix::process::{Pid, Signal, kill_process};

use super::{SOON, resources, settle, this};

/// Where a child finds the path of a socket.
const PATH: &str = "FLIPCALL_TEST_PATH";
/// Over the three seconds from which on a wait may sleep in the kernel.
const FAR: Duration = Duration::from_millis(3300);
/// How late a deadline may be noticed. A wait that relied on nothing but the socket would end with the child.
const LATE: Duration = Duration::from_secs(2);
/// How long a child lives that nobody kills.
const LIFE: Duration = Duration::from_secs(15);

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("flipcall-unshared-{}-{name}.sock", std::process::id()))
}

fn path_of_child() -> PathBuf {
    std::env::var_os(PATH).unwrap().into()
}

/// Does to its own end what it can, and neither sends nor takes anything.
fn be_silent(socket: &UnixStream) {
    socket.set_nonblocking(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3600))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(3600))).unwrap();
    thread::sleep(LIFE);
}

pub fn connect() {
    be_silent(&UnixStream::connect(path_of_child()).unwrap());
}

pub fn listen() {
    let listener = Listener::bind(path_of_child(), Access::Owner).unwrap();
    be_silent(&listener.accept(SOON).unwrap());
}

pub fn hold(socket: &UnixStream) {
    be_silent(socket);
}

fn child(role: &str, path: &PathBuf) -> Child {
    this().args(["child", role]).env(PATH, path).spawn().unwrap()
}

fn accepted() -> (Child, FrameSocket) {
    let path = path("accept");
    let listener = Listener::bind(&path, Access::Owner).unwrap();
    let child = child("connect", &path);
    (child, listener.accept_frames(SOON).unwrap())
}

fn connected() -> (Child, FrameSocket) {
    let path = path("connect");
    let missing = FrameSocket::connect(&path, SOON).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::PeerGone);
    let (child, start) = (child("listen", &path), Instant::now());
    loop {
        match FrameSocket::connect(&path, SOON) {
            Ok(socket) => return (child, socket),
            Err(error) => assert!(error.kind() == ErrorKind::PeerGone && start.elapsed() < SOON, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn paired() -> (Child, FrameSocket) {
    let (ours, theirs) = FrameSocket::pair().unwrap();
    (this().args(["child", "silent"]).stdin(OwnedFd::from(theirs)).spawn().unwrap(), ours)
}

pub fn deadlines_hold_on_sockets_of_our_own() {
    let before = resources();
    let tests = [accepted, connected, paired].map(|make| thread::spawn(move || keeps_deadlines(make())));
    tests.into_iter().for_each(|test| test.join().unwrap());
    for name in ["accept", "connect"] {
        // The child that listened was killed.
        let _ = std::fs::remove_file(path(name));
        let _ = std::fs::remove_file(path(name).with_extension("sock.lock"));
    }
    settle(before);
}

fn keeps_deadlines((mut child, mut socket): (Child, FrameSocket)) {
    for limit in [Duration::from_millis(20), FAR] {
        let start = Instant::now();
        assert_eq!(socket.receive(limit).unwrap_err().kind(), ErrorKind::Timeout);
        let elapsed = start.elapsed();
        assert!(elapsed >= limit && elapsed < limit + LATE, "{elapsed:?} for a deadline of {limit:?}");
    }
    // And for writing: nobody reads, the socket fills up.
    let start = Instant::now();
    let error = loop {
        match socket.send(1, &[0; 60_000], FAR) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let elapsed = start.elapsed();
    assert!(elapsed >= FAR && elapsed < FAR + LATE, "{elapsed:?} for a deadline of {FAR:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

pub fn a_shutdown_ends_a_wait_without_a_deadline() {
    let (unshared, _theirs) = FrameSocket::pair().unwrap();
    let (shared, _others) = UnixStream::pair().unwrap();
    for mut socket in [unshared, FrameSocket::new(shared)] {
        let handle = socket.shutdown_handle();
        let stopping = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            handle.shutdown();
        });
        let start = Instant::now();
        assert!(socket.receive(Deadline::NEVER).unwrap().is_none());
        assert!(start.elapsed() < SOON);
        stopping.join().unwrap();
    }
}

/// Waits for something that never comes while it is stopped and continued, which ends a receive or a send with a timeout each time.
pub fn wait_through_signals() {
    let (mut ours, _theirs) = FrameSocket::pair().unwrap();
    let start = Instant::now();
    assert_eq!(ours.receive(FAR).unwrap_err().kind(), ErrorKind::Timeout);
    assert!(start.elapsed() >= FAR);
    // The socket is full before the send that is to wait.
    while ours.send(1, &[0; 100], Duration::ZERO).is_ok() {}
    assert!(ours.is_usable());
    let start = Instant::now();
    assert_eq!(ours.send(1, &[0; 100], FAR).unwrap_err().kind(), ErrorKind::Timeout);
    let elapsed = start.elapsed();
    assert!(elapsed >= FAR && elapsed < FAR + LATE, "{elapsed:?} for a deadline of {FAR:?}");
}

pub fn a_deadline_holds_under_signals() {
    let mut child = this().args(["child", "signals"]).spawn().unwrap();
    let (pid, start) = (Pid::from_child(&child), Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > SOON {
            child.kill().unwrap();
        }
        // The kernel does not count the time for which a process is stopped inside a poll: that is kept short.
        kill_process(pid, Signal::STOP).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
        thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "the deadline did not hold: {status}");
}

/// How late the deadline of a file may be noticed: a slice and a half.
const LATE_FILE: Duration = Duration::from_millis(150);

/// Takes what is sent slowly, so that each buffer of a transfer waits for a while.
pub fn sip(socket: &mut UnixStream) {
    let mut taken = vec![0; 65_536];
    while socket.read(&mut taken).is_ok_and(|count| count > 0) {
        thread::sleep(Duration::from_millis(95));
    }
}

pub fn the_deadline_of_a_file_holds() {
    let file = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 16 << 20).unwrap();
    for role in ["silent", "sip"] {
        let (ours, theirs) = FrameSocket::pair().unwrap();
        let mut child = this().args(["child", role]).stdin(OwnedFd::from(theirs)).spawn().unwrap();
        let (mut socket, limit, start) = (ours, Duration::from_millis(50), Instant::now());
        let error = socket.send_file(1, file.as_fd(), 0, 16 << 20, limit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let elapsed = start.elapsed();
        assert!(elapsed >= limit && elapsed < limit + LATE_FILE, "{role}: {elapsed:?} for a deadline of {limit:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
