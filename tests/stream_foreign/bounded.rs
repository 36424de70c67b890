//! What closes that take long may cost a process: 32 threads, a bounded queue, and nothing by surprise.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::stream::{FrameSocket, unclosed_descriptors};

use super::lingering::{frame, lingering, send_raw};
use crate::attacker::account::Holdings;
use crate::attacker::{AGES, Peer, Role, Stage, alone, many_descriptors, raw};

pub const ROLES: &[Role] = &[("makes lingering sockets", make), ("has no threads", without_threads)];

/// Closes that may be under way at a time.
const MOST_THREADS: usize = 32;
/// Descriptors that may wait behind them.
const MOST_WAITING: usize = 1024;

/// Hands out lingering sockets, one for each question.
fn make(stage: Stage) {
    let mut kept = Vec::new();
    while stage.control.listen().is_some() {
        let (socket, other) = lingering();
        stage.control.say_with("one", &[socket.as_fd()]);
        // The next close of it is not ours, so it does not linger here.
        drop(socket);
        stage.control.say("it is yours alone");
        kept.push(other);
    }
}

fn next_lingering(peer: &Peer) -> OwnedFd {
    peer.control.say("one more");
    let fd = peer.control.listen().expect("the peer is there").1.pop().expect("a descriptor");
    peer.control.expect("it is yours alone");
    fd
}

/// How many threads of this process close descriptors.
fn closers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| name.trim_end() == "flipcall-close").count()
}

fn connection() -> (FrameSocket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let mut ours = FrameSocket::new(ours);
    ours.set_attachments(true).expect("descriptors can be allowed");
    (ours, theirs)
}

/// Sends `fd` where it may not come, on a connection of its own.
fn misplace(fd: OwnedFd) {
    let (mut ours, theirs) = connection();
    send_raw(&theirs, &frame(7, b"x"), &[fd.as_fd()]);
    // The last descriptor is then the one on its way.
    drop(fd);
    assert_eq!(ours.receive(AGES).map(drop).expect_err("misplaced").kind(), ErrorKind::Violation);
}

/// Issue 13, B10.
#[test]
fn closes_that_take_long_cost_32_threads_and_a_queue_that_is_bounded() {
    many_descriptors();
    let _alone = alone();
    let null = std::fs::File::open("/dev/null").expect("a file");
    let before = Holdings::of("self");
    let peer = Peer::start("makes lingering sockets", "", &[]);
    let start = Instant::now();
    for _ in 0..MOST_THREADS + 8 {
        misplace(next_lingering(&peer));
    }
    assert!(start.elapsed() < AGES, "{:?}", start.elapsed());
    assert!(closers() <= MOST_THREADS, "{} threads", closers());
    // What is closed at once elsewhere waits behind them: 253 descriptors on each message.
    let fds = vec![null.as_fd(); 253];
    let mut received = 0;
    let refused = loop {
        let (mut ours, theirs) = connection();
        send_raw(&theirs, &frame(7, b"x"), &fds);
        match ours.receive(AGES).map(drop).expect_err("misplaced, or refused") {
            error if error.kind() == ErrorKind::Violation => received += fds.len(),
            error => break error,
        }
        assert!(received <= MOST_WAITING + fds.len(), "{received} were taken");
    };
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert!(unclosed_descriptors() >= MOST_WAITING, "{}", unclosed_descriptors());
    let held = Holdings::of("self").descriptors;
    // Refused means that they were not received: this process holds no more of them.
    let (mut ours, theirs) = connection();
    send_raw(&theirs, &frame(7, b"x"), &fds);
    assert_eq!(ours.receive(AGES).map(drop).expect_err("refused").kind(), ErrorKind::Refused);
    assert!(Holdings::of("self").descriptors <= held + 4, "{} of {held}", Holdings::of("self").descriptors);
    drop((ours, theirs));
    // Bytes alone are as welcome as ever.
    let (mut ours, theirs) = connection();
    send_raw(&theirs, &frame(7, b"alive"), &[]);
    assert_eq!(ours.receive(AGES).expect("a message").expect("no end").payload, b"alive");
    drop((ours, theirs));
    assert!(closers() <= MOST_THREADS, "{} threads", closers());
    assert!(start.elapsed() < AGES, "{:?}", start.elapsed());
    // The peer's end lets the closes go, and with them the rule.
    drop(peer);
    before.comes_back("closes that took long");
    // They are counted until after their close.
    while unclosed_descriptors() > 0 {
        assert!(start.elapsed() < 2 * AGES, "{} wait for ever", unclosed_descriptors());
        std::thread::sleep(Duration::from_millis(1));
    }
    let (mut ours, theirs) = connection();
    send_raw(&theirs, &frame(7, b"x"), &fds);
    assert_eq!(ours.receive(AGES).map(drop).expect_err("misplaced").kind(), ErrorKind::Violation);
    drop((ours, theirs));
    before.comes_back("descriptors that came later");
}

/// Issue 13, B10.
#[test]
fn without_a_thread_to_be_had_nothing_is_closed_by_the_caller() {
    let _alone = alone();
    let peer = Peer::start("has no threads", "", &[]);
    assert_eq!(peer.control.hear(), "as it should be");
}

/// A process in which no thread can be started receives what takes long to close.
fn without_threads(stage: Stage) {
    let (socket, _other) = lingering();
    raw::deny(libc::SYS_clone3, libc::EAGAIN);
    raw::deny(libc::SYS_clone, libc::EAGAIN);
    let start = Instant::now();
    misplace(socket);
    let took = start.elapsed();
    // The descriptor, and the connection that it came on.
    let waiting = unclosed_descriptors();
    let verdict = took < Duration::from_secs(2) && (1..=2).contains(&waiting);
    let text = if verdict { "as it should be".into() } else { format!("{took:?}, {waiting} wait") };
    stage.control.say(&text);
}
