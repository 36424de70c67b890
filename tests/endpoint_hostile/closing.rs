//! A peer attaches a file of its own FUSE file system, so that closing it never ends: what that costs us is bounded.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::stream::FrameSocket;

use crate::attacker::account::Holdings;
use crate::attacker::{AGES, Peer, alone, promised_once, skip};

/// How many closes may be stuck in a process before it takes no more descriptors.
const STUCK_MAX: usize = 32;

/// A connection on which descriptors may come, and its other end.
fn connection() -> (FrameSocket, FrameSocket) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let mut ours = FrameSocket::new(ours);
    ours.set_attachments(true).expect("descriptors can be allowed");
    (ours, FrameSocket::new(theirs))
}

/// Has `theirs` attach `fd` to a message, receives it, and takes nothing of it.
fn receive_and_drop(ours: &mut FrameSocket, theirs: &mut FrameSocket, fd: &OwnedFd) -> flipcall::Result<()> {
    theirs.send_with_fds(7, &[b"x"], &[fd.as_fd()], AGES)?;
    let message = ours.receive(AGES)?.expect("the peer has not closed");
    assert_eq!(message.attachments.len(), 1);
    Ok(())
}

/// A peer that serves the file, and the file. A process that closes the file is stuck until the peer dies, so the peer is dropped first.
fn dead_file() -> Option<(Peer, OwnedFd)> {
    let peer = Peer::start("serves a file system", "", &[]);
    let (answer, mut fds) = peer.control.listen().expect("the peer is there");
    let fd = fds.pop();
    if fd.is_none() {
        skip("a FUSE file", &answer);
    }
    fd.map(|fd| (peer, fd))
}

#[test]
fn a_close_that_hangs_ends_its_connection_and_no_other() {
    let _alone = alone();
    let before = Holdings::of("self");
    let Some((peer, fd)) = dead_file() else { return };
    let ((mut ours, mut theirs), (mut other, mut others)) = (connection(), connection());
    receive_and_drop(&mut ours, &mut theirs, &fd).expect("a message");
    let start = Instant::now();
    // Nothing comes any more; what ends this wait is the close.
    let error = ours.receive(AGES).expect_err("a close hangs");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
    promised_once("a connection with a stuck close ends after", start.elapsed(), Duration::from_millis(2100));
    assert!(!ours.is_usable());
    others.send(1, b"alive", AGES).expect("another connection");
    assert_eq!(other.receive(AGES).expect("a message").expect("no end").payload, b"alive");
    let pipe = std::io::pipe().expect("a pipe");
    receive_and_drop(&mut other, &mut others, &pipe.0.into()).expect("descriptors are still taken");
    drop((ours, theirs, other, others, pipe.1));
    drop((peer, fd));
    before.comes_back("a close that hung");
}

/// How many threads of this process are about closing.
fn closers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| name.trim_end() == "flipcall-close").count()
}

#[test]
fn a_peer_that_attaches_many_such_files_costs_one_thread() {
    let _alone = alone();
    let before = Holdings::of("self");
    let Some((peer, fd)) = dead_file() else { return };
    let ((mut ours, mut theirs), (mut other, mut others)) = (connection(), connection());
    for _ in 0..3 {
        theirs.send_with_fds(7, &[b"x"], &[fd.as_fd(); 16], AGES).expect("room for a message");
        drop(ours.receive(AGES).expect("a message").expect("the peer has not closed"));
    }
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(ours.receive(AGES).map(drop).expect_err("a close hangs").kind(), ErrorKind::Refused);
    // 48 closes hang or will: they wait behind one another, and nobody else behind them.
    assert_eq!(closers(), 1);
    let pipe = std::io::pipe().expect("a pipe");
    receive_and_drop(&mut other, &mut others, &pipe.0.into()).expect("descriptors are still taken");
    let start = Instant::now();
    // Nobody reads the pipe once its other end is closed.
    while rustix::io::write(&pipe.1, b"x").is_ok() {
        assert!(start.elapsed() < AGES);
        std::thread::sleep(Duration::from_millis(1));
    }
    drop((ours, theirs, other, others, pipe.1));
    drop((peer, fd));
    before.comes_back("closes that hung one behind the other");
}

#[test]
fn a_process_with_too_many_stuck_closes_takes_no_descriptors() {
    let _alone = alone();
    let before = Holdings::of("self");
    let Some((peer, fd)) = dead_file() else { return };
    let pipe: OwnedFd = std::io::pipe().expect("a pipe").0.into();
    let mut stuck = Vec::new();
    while stuck.len() < STUCK_MAX {
        if stuck.len() == STUCK_MAX - 1 {
            std::thread::sleep(Duration::from_millis(1200));
            let (mut ours, mut theirs) = connection();
            receive_and_drop(&mut ours, &mut theirs, &pipe).expect("one too few are stuck");
        }
        let (mut ours, mut theirs) = connection();
        receive_and_drop(&mut ours, &mut theirs, &fd).expect("a message");
        stuck.push((ours, theirs));
    }
    std::thread::sleep(Duration::from_millis(1200));
    let (mut ours, mut theirs) = connection();
    let error = receive_and_drop(&mut ours, &mut theirs, &pipe).expect_err("too many are stuck");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    // Messages without descriptors are as welcome as ever.
    (ours, theirs) = connection();
    theirs.send(1, b"alive", AGES).expect("a fresh connection");
    assert_eq!(ours.receive(AGES).expect("a message").expect("no end").payload, b"alive");
    // The peer's death lets the closes go, and with them the rule.
    drop((peer, fd, stuck));
    let start = Instant::now();
    while let Err(error) = receive_and_drop(&mut ours, &mut theirs, &pipe) {
        assert!(error.kind() == ErrorKind::Refused && start.elapsed() < AGES, "{error}");
        (ours, theirs) = connection();
        std::thread::sleep(Duration::from_millis(5));
    }
    drop((ours, theirs, pipe));
    before.comes_back("closes that hung");
}
