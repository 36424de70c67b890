//! Ends of an endpoint's life that other tests pass by: the last datagram, a child that does not connect, a descriptor that two
//! threads want.

mod attacker;
mod page;

use std::io::Read;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::time::Duration;

use attacker::account::Holdings;
use attacker::raw::{self, RawWindow};
use attacker::{AGES, PAGE, Role, Stage, alone, command};
use flipcall::endpoint::{Connector, Endpoint, Options, Spawned};
use flipcall::endpoint::{Finished, Inherited};
use flipcall::{Error, ErrorKind};
use page::{AT_ONCE, BASE, Page, failed, waiting};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

const ROLES: &[Role] = &[
    ("takes its window twice", takes_its_window_twice),
    ("serves when told", serves_when_told),
    ("breaks the handshake", breaks_the_handshake),
    ("ends at once", |_| {}),
];
const CAPACITY: u32 = PAGE - 16;

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[ROLES]);
}

/// A descriptor that looks as if this process had inherited it, under a number that was never used before.
fn inherited(fd: impl Into<OwnedFd>, number: i32) -> i32 {
    attacker::many_descriptors();
    let copy = fcntl_dupfd_cloexec(fd.into(), number).unwrap();
    fcntl_setfd(&copy, FdFlags::empty()).unwrap();
    assert_eq!(copy.as_raw_fd(), number, "somebody uses the number");
    copy.into_raw_fd()
}

#[test]
fn of_two_threads_that_take_a_descriptor_one_gets_it() {
    let _alone = alone();
    for number in 600..800 {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let number = inherited(writer, number);
        let start = Barrier::new(2);
        let taken = std::thread::scope(|scope| {
            let take = || {
                start.wait();
                raw::inherited().take(number)
            };
            [scope.spawn(take), scope.spawn(take)].map(|thread| thread.join().unwrap())
        });
        let (won, lost) = match taken {
            [Ok(fd), Err(error)] | [Err(error), Ok(fd)] => (fd, error),
            both => panic!("{both:?}"),
        };
        assert_eq!((won.as_raw_fd(), lost.kind()), (number, ErrorKind::InvalidInput));
        assert!(fcntl_getfd(&won).unwrap().contains(FdFlags::CLOEXEC));
        rustix::io::write(&won, b"!").expect("the one who lost closed nothing");
        drop(won);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"!", "the only writer is closed");
        // The next owner of the number keeps it: nobody closes it a second time, or takes it.
        let next = fcntl_dupfd_cloexec(&reader, number).unwrap();
        drop(lost);
        assert_eq!(next.as_raw_fd(), number);
        fcntl_setfd(&next, FdFlags::empty()).unwrap();
        assert_eq!(raw::inherited().take(number).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(fcntl_getfd(&next).is_ok());
    }
}

#[test]
fn what_was_not_inherited_is_not_taken() {
    let _alone = alone();
    let file = std::fs::File::open("/dev/null").unwrap();
    // Ours, as the close-on-exec flag says; the standard streams; not open; no number of a descriptor.
    for number in [file.as_raw_fd(), 0, 1, 2, 990, -1, i32::MIN, i32::MAX] {
        assert_eq!(raw::inherited().take(number).unwrap_err().kind(), ErrorKind::InvalidInput, "{number}");
    }
    assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC), "it is as it was");
}

/// Two threads look for the window of this process; the one that finds it answers until the end.
fn takes_its_window_twice(stage: Stage) {
    let start = Barrier::new(2);
    let found = std::thread::scope(|scope| {
        let find = || {
            start.wait();
            Inherited::from_env(&raw::inherited())
        };
        [scope.spawn(find), scope.spawn(find)].map(|thread| thread.join().expect("no panic"))
    });
    let (inherited, error) = match found {
        [Ok(inherited), Err(error)] | [Err(error), Ok(inherited)] => (inherited, error),
        both => panic!("{both:?}"),
    };
    stage.control.say(error.kind().name());
    serve(inherited);
}

fn serve(inherited: Inherited) {
    let (mut endpoint, mut length) =
        inherited.into_acceptor(Options::new()).expect("a watchdog").recv_first(AGES).expect("a call");
    while let Ok(next) = endpoint.send_recv(length, AGES) {
        length = next;
    }
}

fn start(role: &str) -> (Spawned, attacker::control::Control) {
    let (command, control) = command(role, "", &[]);
    (Spawned::start(command, PAGE, Options::new()).expect("the second process starts"), control)
}

#[test]
fn of_two_threads_that_look_for_their_window_one_finds_it() {
    let _alone = alone();
    for _ in 0..5 {
        let (mut child, control) = start("takes its window twice");
        control.expect("invalid-input");
        let mut endpoint = child.connect(AGES).expect("the other one serves");
        assert_eq!(endpoint.send_recv(7, AGES).unwrap(), 7);
        // It is told that it is over, although the endpoint is still held.
        assert!(child.finish(AGES).unwrap().success());
        assert_eq!(failed(endpoint.send_recv(7, AGES)).kind(), ErrorKind::LocalShutdown);
    }
}

fn serves_when_told(stage: Stage) {
    if stage.control.listen().is_some() {
        serve(Inherited::from_env(&raw::inherited()).expect("a window"));
    }
}

/// Answers the offer with something that is no handshake.
fn breaks_the_handshake(stage: Stage) {
    let place = std::env::var("FLIPCALL_WINDOW").expect("a window");
    let file =
        raw::inherited().take(place.split([',', ':']).next().unwrap().parse().expect("a number")).expect("inherited");
    let window = RawWindow::map(std::os::fd::AsFd::as_fd(&file), 0, PAGE as usize);
    assert!(window.await_state(1));
    window.flip(b"{}{}\n", 0);
    let _ = stage.control.listen();
}

#[test]
fn connecting_to_a_child_goes_on_after_a_deadline_and_only_then() {
    let _alone = alone();
    let (mut child, control) = start("serves when told");
    for _ in 0..2 {
        let error = child.connect(Duration::from_millis(30)).unwrap_err();
        assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Timeout, false));
    }
    control.say("serve");
    let mut endpoint = child.connect(AGES).expect("the offer was out already");
    let error = child.connect(AGES).unwrap_err();
    assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::InvalidInput, false));
    assert_eq!(endpoint.send_recv(9, AGES).expect("the connection is as it was"), 9);
    drop(endpoint);
    assert!(child.finish(AGES).unwrap().success());
}

#[test]
fn a_child_that_failed_to_connect_fails_the_same_way_again() {
    let _alone = alone();
    // What is made once per process is made before the count.
    drop(start("ends at once"));
    let before = Holdings::of("self");
    for (role, kind) in [("breaks the handshake", ErrorKind::Violation), ("ends at once", ErrorKind::PeerGone)] {
        let (mut child, control) = start(role);
        for attempt in 0..3 {
            let error = child.connect(AGES).unwrap_err();
            assert_eq!((error.kind(), error.is_fatal()), (kind, true), "{role}, attempt {attempt}");
        }
        drop(control);
        child.finish(AGES).unwrap();
        before.comes_back(role);
    }
    let (mut child, _control) = start("serves when told");
    child.shutdown_handle().shut_down();
    for _ in 0..2 {
        assert_eq!(child.connect(AGES).unwrap_err().kind(), ErrorKind::LocalShutdown);
    }
}

#[test]
fn a_child_that_does_not_end_is_killed_after_its_grace() {
    let _alone = alone();
    let (mut child, _control) = start("serves when told");
    assert!(child.process().child().try_wait().unwrap().is_none(), "it waits to be told");
    let process = child.id();
    let status = child.finish(Duration::from_millis(30)).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "it was reaped");
    // Dropped without a word, it has two seconds.
    let (child, _control) = start("serves when told");
    let process = child.id();
    drop(child);
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "it was reaped");
}

/// A client that holds control, and whose server is this test.
fn connected(page: &Page, options: Options) -> Endpoint {
    let ours = waiting(Connector::new(page.window(), options).unwrap().connect(AT_ONCE));
    page.flip(BASE, 0);
    ours.connect(AT_ONCE).unwrap()
}

/// What the last datagram of `length` bytes fails with, after `before`; what is left is a window that is shut down and unmapped.
#[track_caller]
fn last_fails(length: u32, before: impl FnOnce(&Page, &mut Endpoint)) -> Error {
    let page = Page::new(PAGE);
    let holdings = Holdings::of("self");
    let mut endpoint = connected(&page, Options::new());
    let handle = endpoint.shutdown_handle();
    before(&page, &mut endpoint);
    let sent = handle.counters().flips;
    let error = endpoint.send_last(length).expect_err("it cannot go out");
    assert!(error.is_fatal(), "the endpoint is gone: {error}");
    assert!(handle.is_shut_down());
    assert_eq!(handle.counters().flips, sent, "nothing was flipped");
    assert_eq!(page.words()[0], 2, "the peer knows");
    assert_eq!(Holdings::of("self"), holdings);
    error
}

#[test]
fn the_handshake_is_no_datagram_and_a_late_answer_shows_no_insides() {
    let _alone = alone();
    let page = Page::new(PAGE);
    let mut endpoint = connected(&page, Options::new());
    assert_eq!((endpoint.received(), endpoint.reader().remaining()), (0, 0));
    assert_eq!(endpoint.read_at(0, &mut [0]).unwrap_err().kind(), ErrorKind::InvalidInput);
    let late = endpoint.send_recv(0, AT_ONCE).unwrap_err();
    assert_eq!(format!("{late:?}"), "TimedOut(timeout: the peer did not answer by the deadline)");
}

#[test]
fn a_last_datagram_that_cannot_go_out_ends_the_connection() {
    let _alone = alone();
    let kind = |length, before: fn(&Page, &mut Endpoint)| last_fails(length, before).kind();
    assert_eq!(kind(0, |page, _| page.set_word(0, 2)), ErrorKind::PeerShutdown);
    assert_eq!(kind(0, |page, _| page.set_word(0, 1)), ErrorKind::Violation);
    assert_eq!(kind(0, |page, _| page.set_word(0, 3)), ErrorKind::Violation);
    assert_eq!(kind(0, |page, _| page.set_word(0, u32::MAX)), ErrorKind::Violation);
    assert_eq!(kind(0, |_, endpoint| endpoint.shutdown_handle().shut_down()), ErrorKind::LocalShutdown);
    let too_long = last_fails(CAPACITY + 1, |_, _| {});
    assert_eq!(too_long.kind(), ErrorKind::InvalidInput);
    assert!(too_long.to_string().contains("4081 bytes: the window has room for 4080"), "{too_long}");
    assert_eq!(kind(u32::MAX, |_, _| {}), ErrorKind::InvalidInput);
    // Poisoned before: what poisoned it, whatever the length and the word.
    let poisoned = last_fails(CAPACITY + 1, |page, endpoint| {
        page.set_word(0, 7);
        assert_eq!(failed(endpoint.send_recv(0, AT_ONCE)).kind(), ErrorKind::Violation);
    });
    assert_eq!(poisoned.kind(), ErrorKind::Violation);
    // A call that was given up at its deadline.
    let given_up = last_fails(0, |_, endpoint| drop(waiting(endpoint.send_recv(0, AT_ONCE))));
    assert_eq!(given_up.kind(), ErrorKind::LocalShutdown);
}

#[test]
fn a_last_datagram_while_an_answer_is_pending_leaves_that_call_alone() {
    let _alone = alone();
    let page = Page::new(PAGE);
    let mut endpoint = connected(&page, Options::new());
    let pending = waiting(endpoint.send_recv(5, AT_ONCE));
    let error = endpoint.send_last(0).unwrap_err();
    assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::AnswerPending, false));
    assert_eq!(page.words()[..2], [1, 5]);
    page.flip(b"late", 0);
    let (endpoint, length) = pending.resume(AT_ONCE).expect("the answer");
    assert_eq!((length, endpoint.reader().read_array()), (4, Some(*b"late")));
}

/// A connection whose last datagram is out.
fn finished(page: &Page) -> Finished {
    let mut endpoint = connected(page, Options::new());
    let length = endpoint.write_datagram(b"bye").unwrap();
    let finished = endpoint.send_last(length).expect("it goes out");
    assert_eq!((page.words()[..2].to_vec(), page.datagram(3)), (vec![1, 3], b"bye".to_vec()));
    finished
}

#[test]
fn after_the_last_datagram_the_end_of_the_peer_is_waited_for() {
    let _alone = alone();
    // Dropped, it leaves the datagram to the peer.
    let page = Page::new(PAGE);
    drop(finished(&page));
    assert_eq!(page.words()[..2], [1, 3]);
    // The peer shuts down, or answers, by which it is shut down.
    for last in [[2, 3], [0, 4], [0, CAPACITY]] {
        let page = Page::new(PAGE);
        let mut finished = finished(&page);
        for _ in 0..2 {
            assert_eq!(finished.wait(AT_ONCE).unwrap_err().kind(), ErrorKind::Timeout);
            assert_eq!(page.words()[..2], [1, 3]);
        }
        page.set_word(1, last[1]);
        page.set_word(0, last[0]);
        for _ in 0..2 {
            finished.wait(AT_ONCE).expect("that is the end");
            assert_eq!(page.words()[0], 2);
        }
    }
    // The peer breaks the protocol.
    for broken in [[3, 0], [0, CAPACITY + 1]] {
        let page = Page::new(PAGE);
        let mut finished = finished(&page);
        page.set_word(1, broken[1]);
        page.set_word(0, broken[0]);
        for _ in 0..2 {
            assert_eq!(finished.wait(AT_ONCE).unwrap_err().kind(), ErrorKind::Violation);
            assert_eq!(page.words()[0], 2);
        }
    }
    // We shut down.
    let page = Page::new(PAGE);
    let mut finished = finished(&page);
    finished.shut_down();
    assert_eq!(page.words()[0], 2);
    finished.wait(AT_ONCE).expect("that is the end");
}

#[test]
fn a_last_datagram_to_the_dead_is_an_error_once_the_death_is_known() {
    let _alone = alone();
    let page = Page::new(PAGE);
    // The death has not been seen by a wait: the datagram goes out, and the wait tells.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let endpoint = connected(&page, Options::new().watch_socket(ours.into()));
    drop(theirs);
    let mut finished = endpoint.send_last(0).expect("nobody looked yet");
    for _ in 0..2 {
        assert_eq!(finished.wait(AGES).unwrap_err().kind(), ErrorKind::PeerGone);
    }
    // It has.
    let page = Page::new(PAGE);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut endpoint = connected(&page, Options::new().watch_socket(ours.into()));
    drop(theirs);
    assert_eq!(failed(endpoint.send_recv(0, AGES)).kind(), ErrorKind::PeerGone);
    page.set_word(0, 0);
    let error = endpoint.send_last(0).unwrap_err();
    assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::PeerGone, true));
    assert_eq!(page.words()[0], 2);
}

#[test]
fn a_last_datagram_takes_nothing_along_that_was_not_meant() {
    let _alone = alone();
    for keep in [false, true] {
        let options = if keep { Options::new().keep_stale_bytes() } else { Options::new() };
        let page = Page::new(PAGE);
        let mut endpoint = connected(&page, options);
        endpoint.write_at(0, &[7; 200]).unwrap();
        let pending = waiting(endpoint.send_recv(200, AT_ONCE));
        page.set_word(1, 0);
        page.set_word(0, 0);
        let (mut endpoint, 0) = pending.resume(AT_ONCE).unwrap() else { panic!("another length") };
        endpoint.write_at(0, &[5; 100]).unwrap();
        let _finished = endpoint.send_last(3).unwrap();
        let earlier = if keep { 7 } else { 0 };
        assert_eq!(page.datagram(201), [&[5; 3][..], &[0; 97], &[earlier; 100], &[0]].concat());
    }
}

#[test]
fn a_poisoned_endpoint_gives_no_bytes_and_takes_none() {
    let _alone = alone();
    let page = Page::new(PAGE);
    let pending = waiting(connected(&page, Options::new()).send_recv(0, AT_ONCE));
    page.flip(b"data", 0);
    let (mut endpoint, 4) = pending.resume(AT_ONCE).unwrap() else { panic!("another length") };
    page.set_word(0, 9);
    assert_eq!(failed(endpoint.send_recv(0, AT_ONCE)).kind(), ErrorKind::Violation);
    page.set_word(0, 0);
    let before = page.everything();
    let mut bytes = [0xEE; 4];
    for offset in [0, 1, CAPACITY, u32::MAX] {
        assert_eq!(endpoint.read_at(offset, &mut bytes).unwrap_err().kind(), ErrorKind::Violation);
        assert_eq!(endpoint.write_at(offset, b"x").unwrap_err().kind(), ErrorKind::Violation);
    }
    assert_eq!((endpoint.received(), endpoint.reader().remaining(), bytes), (0, 0, [0xEE; 4]));
    assert!(std::io::Write::write_all(&mut endpoint.writer(), b"x").is_err());
    assert_eq!(page.everything(), before);
}
