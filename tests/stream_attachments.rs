//! Which bytes may carry file descriptors, and that none leaks.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flipcall::stream::{FrameSocket, FrameViolation, MissingFd, receive_with_fd, send_pipe, send_with_fd};
use flipcall::{Deadline, Error, ErrorKind};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const SOON: Duration = Duration::from_secs(10);

/// Tests that count the descriptors of this process, or limit them, take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // Some messages bring 253 of them.
    flipcall::rpc::raise_descriptor_limit().unwrap();
    turn
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The descriptor limit below which exactly `spare` numbers are free.
fn limit_with_spare(spare: usize) -> u64 {
    let free = |number: &u64| !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists();
    (0..).filter(free).nth(spare).unwrap()
}

/// Waits until this process is back at `count` descriptors: closing happens on another thread.
fn settle_at(count: usize) {
    let give_up = Instant::now() + SOON;
    while open_fds() != count {
        assert!(Instant::now() < give_up, "{} descriptors instead of {count}", open_fds());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn send_raw(socket: &UnixStream, bytes: &[u8], fds: usize) {
    let null = std::fs::File::open("/dev/null").unwrap();
    let fds = vec![null.as_fd(); fds];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    assert_eq!(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap(), bytes.len());
}

fn attach(n: u8) -> Vec<u8> {
    vec![0xFF, 0xF2, 0, 0, 0, 1, n]
}

fn frame(tag: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    flipcall::stream::write_frame(&mut bytes, tag, payload).unwrap();
    bytes
}

fn pair() -> (UnixStream, FrameSocket) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let mut ours = FrameSocket::new(ours);
    ours.set_attachments(true).unwrap();
    (theirs, ours)
}

fn violation(error: &Error) -> Option<FrameViolation> {
    std::error::Error::source(error)?.downcast_ref().copied()
}

/// Bytes of one `sendmsg` and the number of descriptors on them.
type Step = (Vec<u8>, usize);

/// Sends `steps` one receive each, so that the cuts are where the steps end, and returns what the receiver says first.
fn first_error(steps: &[Step]) -> Option<Error> {
    let before = open_fds();
    let result = {
        let (theirs, mut ours) = pair();
        let mut result = None;
        for (bytes, fds) in steps {
            send_raw(&theirs, bytes, *fds);
            match ours.receive(Duration::from_millis(1)) {
                Err(error) if error.kind() == ErrorKind::Timeout => {}
                Err(error) => {
                    assert_eq!(ours.receive(SOON).unwrap_err().kind(), error.kind(), "poisoned");
                    result = Some(error);
                    break;
                }
                Ok(message) => assert!(message.is_some()),
            }
        }
        result
    };
    settle_at(before);
    result
}

#[test]
fn descriptors_belong_to_the_message_behind_their_announcement() {
    let _turn = alone();
    let before = open_fds();
    {
        let (mut theirs, mut ours) = pair();
        theirs.write_all(&frame(5, b"plain")).unwrap();
        send_raw(&theirs, &[attach(2), frame(6, b"with")].concat(), 2);
        send_raw(&theirs, &[attach(16), frame(7, b"more"), frame(8, b"none")].concat(), 16);
        for (tag, fds) in [(5, 0), (6, 2), (7, 16), (8, 0)] {
            let mut message = ours.receive(SOON).unwrap().unwrap();
            assert_eq!((message.tag, message.attachments.len()), (tag, fds));
            assert!(!message.attachments.lost());
            if tag == 6 {
                assert!(message.attachments.take_first().is_some());
                assert_eq!(message.attachments.take_all().len(), 1);
            }
        }
    }
    settle_at(before);
}

#[test]
fn honest_senders_pass_however_their_bytes_are_cut() {
    let _turn = alone();
    let bytes = [attach(3), frame(6, b"abc")].concat();
    for cut in 1..bytes.len() {
        let steps = [(frame(1, b"x"), 0), (bytes[..cut].to_vec(), 3), (bytes[cut..].to_vec(), 0)];
        assert!(first_error(&steps).is_none(), "cut at {cut}");
    }
}

#[test]
fn misplaced_missing_and_surplus_descriptors_end_the_connection() {
    let _turn = alone();
    let long = frame(1, &[0; 100]);
    let cases: Vec<(&str, Vec<Step>, FrameViolation)> = vec![
        ("on a plain frame", vec![(frame(1, b"x"), 1)], FrameViolation::MisplacedFds),
        ("on two bytes of a header", vec![(vec![0, 1], 1)], FrameViolation::MisplacedFds),
        (
            "inside a long frame",
            vec![(long[..50].to_vec(), 0), (long[50..60].to_vec(), 1)],
            FrameViolation::MisplacedFds,
        ),
        ("253 of them", vec![(frame(1, b"x"), 253)], FrameViolation::MisplacedFds),
        (
            "on the second byte of ATTACH",
            vec![(attach(1)[..1].to_vec(), 0), (attach(1)[1..].to_vec(), 1)],
            FrameViolation::AttachWithoutFds,
        ),
        ("none with ATTACH", vec![(attach(1), 0)], FrameViolation::AttachWithoutFds),
        ("none with the tag of ATTACH", vec![(vec![0xFF, 0xF2], 0)], FrameViolation::AttachWithoutFds),
        ("too few", vec![(attach(3), 2)], FrameViolation::WrongFdCount { announced: 3, came: 2 }),
        ("surplus", vec![(attach(1), 2)], FrameViolation::WrongFdCount { announced: 1, came: 2 }),
        ("253 with ATTACH", vec![(attach(16), 253)], FrameViolation::WrongFdCount { announced: 16, came: 253 }),
        ("none announced", vec![(attach(0), 1)], FrameViolation::MalformedAttach),
        ("17 announced", vec![(attach(17), 17)], FrameViolation::MalformedAttach),
        ("a long ATTACH", vec![(frame(0xFFF2, &[1, 1]), 1)], FrameViolation::MalformedAttach),
        ("an empty ATTACH", vec![(frame(0xFFF2, &[]), 1)], FrameViolation::MalformedAttach),
        ("two in one read", vec![([attach(1), frame(1, b""), attach(1)].concat(), 1)], FrameViolation::SecondAttach),
        ("two for a message", vec![(attach(1), 1), (attach(1), 1)], FrameViolation::SecondAttach),
        ("in a pipelined frame", vec![([frame(1, b"x"), frame(2, b"y")].concat(), 1)], FrameViolation::MisplacedFds),
    ];
    for (name, steps, expected) in cases {
        let error = first_error(&steps).unwrap_or_else(|| panic!("{name}: accepted"));
        assert_eq!(violation(&error), Some(expected), "{name}: {error}");
    }
}

#[test]
fn an_undecided_header_keeps_descriptors_until_it_is_decided() {
    let _turn = alone();
    let before = open_fds();
    {
        // Half a header and its descriptors, and then the end.
        let (theirs, mut ours) = pair();
        send_raw(&theirs, &[0xFF], 253);
        assert_eq!(ours.receive(Duration::from_millis(1)).unwrap_err().kind(), ErrorKind::Timeout);
        drop(theirs);
        assert_eq!(ours.receive(SOON).unwrap_err().kind(), ErrorKind::PeerGone);
        // An ATTACH whose message never comes.
        let (theirs, mut ours) = pair();
        send_raw(&theirs, &attach(4), 4);
        drop(theirs);
        assert_eq!(ours.receive(SOON).unwrap_err().kind(), ErrorKind::PeerGone);
    }
    settle_at(before);
}

#[test]
fn our_own_descriptor_limit_costs_one_message_and_nothing_else() {
    let _turn = alone();
    let before = open_fds();
    {
        let (theirs, mut ours) = pair();
        let limit = getrlimit(Resource::Nofile);
        for spare in 0..4 {
            send_raw(&theirs, &[attach(4), frame(9, b"lost")].concat(), 4);
            // Every number below the limit is taken but `spare` of them.
            let lowest = limit_with_spare(spare);
            setrlimit(Resource::Nofile, Rlimit { current: Some(lowest), maximum: limit.maximum }).unwrap();
            let message = ours.receive(SOON).map(|message| {
                let message = message.unwrap();
                (message.tag, message.attachments.lost(), message.attachments.len())
            });
            setrlimit(Resource::Nofile, limit).unwrap();
            assert_eq!(message.unwrap(), (9, true, 0), "{spare} spare");
            settle_at(before + 2);
        }
        send_raw(&theirs, &[attach(4), frame(10, b"whole")].concat(), 4);
        assert_eq!(ours.receive(SOON).unwrap().unwrap().attachments.len(), 4);
    }
    settle_at(before);
}

#[test]
fn where_no_descriptor_may_come_none_does() {
    let _turn = alone();
    let before = open_fds();
    {
        let (theirs, mut ours) = pair();
        ours.set_attachments(false).unwrap();
        let fds = [theirs.as_fd()];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let bytes = frame(3, b"with one");
        match sendmsg(&theirs, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()) {
            Ok(_) => assert!(ours.receive(SOON).unwrap().unwrap().attachments.is_empty()),
            Err(error) => assert_eq!(error, rustix::io::Errno::PERM),
        }
    }
    settle_at(before);
}

#[test]
fn a_pidfd_that_the_peer_turned_on_does_not_leak() {
    let _turn = alone();
    let before = open_fds();
    {
        let (theirs, mut ours) = pair();
        // A process that holds a duplicate of our end can do this; SO_PASSPIDFD is 76.
        if set_option(ours.as_fd(), 76).is_err() {
            eprintln!("skipped: no SO_PASSPIDFD on this kernel");
            assert!(std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none());
            return;
        }
        for _ in 0..10 {
            send_raw(&theirs, &[attach(1), frame(1, b"x")].concat(), 1);
            assert_eq!(ours.receive(SOON).unwrap().unwrap().attachments.len(), 1);
        }
        settle_at(before + 2);
    }
    settle_at(before);
}

fn set_option(socket: BorrowedFd<'_>, option: i32) -> std::io::Result<()> {
    let script = "import socket,sys\ns=socket.socket(fileno=0)\ns.setsockopt(1,int(sys.argv[1]),1)\ns.detach()";
    let status = std::process::Command::new("python3")
        .args(["-c", script, &option.to_string()])
        .stdin(socket.try_clone_to_owned()?)
        .status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other("setsockopt failed")) }
}

#[test]
fn one_shot_messages_keep_the_first_descriptor_only() {
    let _turn = alone();
    let before = open_fds();
    {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let mut buffer = [0; 16];
        send_raw(&theirs, b"three", 3);
        let received = receive_with_fd(&ours, &mut buffer, MissingFd::Refuse, SOON).unwrap().unwrap();
        assert_eq!(&buffer[..received.bytes], b"three");
        settle_at(before + 3);
        drop(received);
        send_raw(&theirs, b"none", 0);
        let error = receive_with_fd(&ours, &mut buffer, MissingFd::Refuse, SOON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        send_raw(&theirs, b"none", 0);
        let error = receive_with_fd(&ours, &mut buffer, MissingFd::Skip, Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        send_with_fd(&theirs, b"one", &theirs, Deadline::NEVER).unwrap();
        assert_eq!(receive_with_fd(&ours, &mut buffer, MissingFd::Skip, SOON).unwrap().unwrap().bytes, 3);
        let kept = send_pipe(&theirs, b"pipe", Deadline::NEVER).unwrap();
        drop(receive_with_fd(&ours, &mut buffer, MissingFd::Skip, SOON).unwrap());
        drop((kept, theirs));
        assert!(receive_with_fd(&ours, &mut buffer, MissingFd::Refuse, SOON).unwrap().is_none());
    }
    settle_at(before);
}
