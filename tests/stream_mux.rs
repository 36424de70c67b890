//! The handles of a mux: deadlines, ends, resets, refusals, byte streams, mpsc bridges, plain mode, and the bulk path of frames.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use flipcall::stream::mux::{Channel, Ended, Mux, MuxConfig, PlainMux, Reason, Role};
use flipcall::stream::{BufferedWriter, FrameSocket, FrameViolation, NonBlockingReader, Step};
use flipcall::{Deadline, Error, ErrorKind};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(20);

fn pair() -> (Mux, Mux) {
    pair_with(|config| config)
}

fn pair_with(change: impl Fn(MuxConfig) -> MuxConfig) -> (Mux, Mux) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let side = |socket, role| Mux::new(socket, change(MuxConfig::new(role))).unwrap();
    (side(ours, Role::Initiator), side(theirs, Role::Acceptor))
}

fn channel(ours: &Mux, theirs: &Mux) -> (Channel, Channel) {
    thread::scope(|scope| {
        let accepted = scope.spawn(|| theirs.accept(SOON).unwrap().accept().unwrap());
        (ours.open("test", SOON).unwrap(), accepted.join().unwrap())
    })
}

fn ended(error: &Error) -> Option<&Ended> {
    std::error::Error::source(error)?.downcast_ref()
}

#[test]
fn every_wait_has_its_deadline() {
    let (ours, theirs) = pair_with(|config| config.credit(64 * 1024 + 16));
    let start = Instant::now();
    assert_eq!(ours.open("nobody answers", MOMENT).unwrap_err().kind(), ErrorKind::Timeout);
    // The cancelled offer is still there; accepting it meets a reset.
    let mut late = theirs.accept(SOON).unwrap().accept().unwrap();
    let error = late.receiver.receive(SOON).unwrap_err();
    assert_eq!(ended(&error), Some(&Ended::Reset(Reason::CANCELLED)));
    assert_eq!(theirs.accept(MOMENT).unwrap_err().kind(), ErrorKind::Timeout);
    let (mut near, mut far) = channel(&ours, &theirs);
    assert_eq!(far.receiver.receive(MOMENT).unwrap_err().kind(), ErrorKind::Timeout);
    near.sender.send(&[1; 64 * 1024], SOON).unwrap();
    assert_eq!(near.sender.send(b"no credit", MOMENT).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(far.receiver.receive(SOON).unwrap().unwrap().len(), 64 * 1024);
    near.sender.send(b"credit again", SOON).unwrap();
    assert_eq!(far.receiver.receive(SOON).unwrap().unwrap(), b"credit again");
    assert!(start.elapsed() < SOON);
}

#[test]
fn refusals_and_resets_carry_their_reason() {
    let (ours, theirs) = pair();
    let refusing = thread::spawn(move || {
        theirs.accept(SOON).unwrap().refuse(Reason(200));
        drop(theirs.accept(SOON).unwrap());
        theirs
    });
    let error = ours.open("first", SOON).unwrap_err();
    assert_eq!((error.kind(), ended(&error)), (ErrorKind::PeerShutdown, Some(&Ended::Refused(Reason(200)))));
    let error = ours.open("second", SOON).unwrap_err();
    assert_eq!(ended(&error), Some(&Ended::Refused(Reason::CANCELLED)));
    let theirs = refusing.join().unwrap();
    let (mut near, far) = channel(&ours, &theirs);
    near.sender.send(b"never read", SOON).unwrap();
    far.sender.reset(Reason(9));
    let error = near.receiver.receive(SOON).unwrap_err();
    assert_eq!(ended(&error), Some(&Ended::Reset(Reason(9))));
    assert_eq!(ended(&near.sender.send(b"x", SOON).unwrap_err()), Some(&Ended::Reset(Reason(9))));
    drop((near, far.receiver));
    // The mux lives on.
    let (mut near, mut far) = channel(&ours, &theirs);
    near.sender.send(b"alive", SOON).unwrap();
    assert_eq!(far.receiver.receive(SOON).unwrap().unwrap(), b"alive");
}

#[test]
fn what_was_sent_before_an_end_arrives_before_it() {
    let (ours, theirs) = pair();
    let (near, far) = channel(&ours, &theirs);
    let mut writer = near.sender.into_writer(Deadline::NEVER);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    let expected = bytes.clone();
    let sending = thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut received = Vec::new();
    far.receiver.into_reader(Deadline::NEVER).read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    assert!(received == expected);
}

#[test]
fn dropped_handles_end_the_mux_after_what_was_due() {
    // Many at a time: a thread that begins to wait while another one reads the goodbye finds the end of the stream, which is not the reason.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| a_goodbye_is_read_behind_what_was_due()));
        }
    });
}

fn a_goodbye_is_read_behind_what_was_due() {
    let (ours, theirs) = pair();
    let (mut near, mut far) = channel(&ours, &theirs);
    for number in 0..5u8 {
        near.sender.send(&[number; 50_000], SOON).unwrap();
    }
    drop((near, ours));
    for number in 0..5u8 {
        assert_eq!(far.receiver.receive(SOON).unwrap().unwrap(), [number; 50_000]);
    }
    assert!(far.receiver.receive(SOON).unwrap().is_none());
    let error = theirs.accept(SOON).unwrap_err();
    assert_eq!(ended(&error), Some(&Ended::Goodbye(Reason::CLOSING, String::new())), "{error:?}");
    assert_eq!(theirs.error().unwrap().kind(), ErrorKind::PeerShutdown);
}

#[test]
fn mpsc_ends_are_tied_to_channels() {
    let (ours, theirs) = pair();
    let (near, far) = channel(&ours, &theirs);
    let (deliver, messages) = mpsc::channel();
    let sending = near.sender.bridge(messages).unwrap();
    let (received, receiving) = far.receiver.bridge(4).unwrap();
    for number in 0..100u8 {
        deliver.send(vec![number; 100]).unwrap();
    }
    drop(deliver);
    assert_eq!(received.iter().map(|message| message[0]).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    sending.join().unwrap();
    receiving.join().unwrap();
    // A receiver that goes away is noticed at the other end.
    let (near, far) = channel(&ours, &theirs);
    let (deliver, messages) = mpsc::channel();
    let sending = near.sender.bridge(messages).unwrap();
    let (received, receiving) = far.receiver.bridge(1).unwrap();
    drop(received);
    let give_up = Instant::now() + SOON;
    while deliver.send(vec![1]).is_ok() {
        assert!(Instant::now() < give_up);
        thread::sleep(Duration::from_millis(1));
    }
    let error = sending.join().unwrap_err();
    assert_eq!(ended(&error), Some(&Ended::Reset(Reason::CANCELLED)));
    receiving.join().unwrap();
}

#[test]
fn configurations_out_of_range_are_refused() {
    let with = |change: fn(MuxConfig) -> MuxConfig| {
        Mux::new(UnixStream::pair().unwrap().0, change(MuxConfig::new(Role::Initiator))).unwrap_err().kind()
    };
    assert_eq!(with(|config| config.max_frame(0)), ErrorKind::InvalidInput);
    assert_eq!(with(|config| config.max_frame(1 << 31)), ErrorKind::InvalidInput);
    assert_eq!(with(|config| config.max_channels(4097)), ErrorKind::InvalidInput);
    assert_eq!(
        with(|config| {
            let credit = config.get_max_frame() + 15;
            config.credit(credit)
        }),
        ErrorKind::InvalidInput
    );
    assert_eq!(with(|config| config.budget(1)), ErrorKind::InvalidInput);
    let (ours, theirs) = pair();
    assert_eq!(ours.open("", SOON).unwrap_err().kind(), ErrorKind::InvalidInput);
    let (mut near, _far) = channel(&ours, &theirs);
    let long = vec![0; near.sender.max_message() + 1];
    assert_eq!(near.sender.send(&long, SOON).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn plain_mode_takes_an_empty_message_and_sends_none() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, mut theirs) = (PlainMux::new(ours, 1000), theirs);
    assert_eq!(ours.send(1, b"", SOON).unwrap_err().kind(), ErrorKind::InvalidInput);
    flipcall::stream::write_frame(&mut theirs, 0, b"").unwrap();
    let message = ours.receive(SOON).unwrap().unwrap();
    assert_eq!((message.tag, message.payload), (0, &b""[..]));
    assert_eq!(ours.receive(MOMENT).unwrap_err().kind(), ErrorKind::Timeout);
    drop(theirs);
    assert!(ours.receive(SOON).unwrap().is_none());
}

#[test]
fn a_buffered_writer_reports_its_backlog_and_keeps_its_bound() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut writer = BufferedWriter::new(100_000);
    let mut sent = 0u16;
    let error = loop {
        match writer.push(&ours, sent, &[&[7; 900], &[8; 100]]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<FrameViolation>());
    assert_eq!(source, Some(&FrameViolation::Backlog { waiting: writer.backlog(), bound: writer.bound() }));
    assert!((98_000..=100_000).contains(&writer.backlog()), "{}", writer.backlog());
    let mut reader = NonBlockingReader::new(1000);
    for expected in 0..sent {
        writer.flush(&ours).unwrap();
        let Step::Message(message) = reader.read(&theirs).unwrap() else { panic!("message {expected} is missing") };
        assert_eq!((message.tag, message.payload.len()), (expected, 1000));
    }
    assert_eq!(writer.backlog(), 0);
}

#[test]
fn files_and_pipes_go_into_frames_with_and_without_the_kernels_help() {
    let mut file = std::fs::File::from(rustix::fs::memfd_create("bulk", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    let bytes: Vec<u8> = (0..700_000u32).map(|index| (index % 249) as u8).collect();
    file.write_all(&bytes).unwrap();
    for unshared in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (FrameSocket::new(ours), FrameSocket::new(theirs));
        if unshared {
            ours.assume_unshared().unwrap();
        }
        let expected = bytes.clone();
        let receiving = thread::spawn(move || {
            assert!(theirs.receive(SOON).unwrap().unwrap().payload == &expected[5..]);
            assert!(theirs.receive(SOON).unwrap().unwrap().payload == &expected[..40_000]);
            assert_eq!(theirs.receive(SOON).unwrap_err().kind(), ErrorKind::PeerGone);
        });
        ours.send_file(1, file.as_fd(), 5, 699_995, SOON).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&bytes[..40_000]).unwrap();
        ours.send_pipe_bytes(2, reader.as_fd(), 40_000, SOON).unwrap();
        // A file that ends early cannot finish its frame.
        let error = ours.send_file(3, file.as_fd(), 0, 700_001, SOON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::System);
        assert!(!ours.is_usable());
        receiving.join().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
    }
}

#[test]
fn a_send_after_finish_is_our_mistake_and_costs_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, mut theirs) = (FrameSocket::new(ours), FrameSocket::new(theirs));
    ours.finish().unwrap();
    assert_eq!(ours.send(1, b"late", SOON).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(ours.send_attach(&[std::io::stdin().as_fd()], SOON).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(theirs.receive(SOON).unwrap().is_none());
    theirs.send(2, b"still open", SOON).unwrap();
    assert_eq!(ours.receive(SOON).unwrap().unwrap().payload, b"still open");
    assert!(ours.is_usable());
}

#[test]
fn a_message_is_peeked_at_and_thrown_away() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, mut theirs) = (FrameSocket::new(ours), FrameSocket::new(theirs));
    let sending = thread::spawn(move || {
        ours.send(1, &[1; 3_000_000], SOON).unwrap();
        ours.send(2, b"kept", SOON).unwrap();
        ours.finish().unwrap();
        ours
    });
    assert_eq!(theirs.peek(SOON).unwrap().unwrap().length, 3_000_000);
    assert_eq!(theirs.discard(SOON).unwrap().unwrap().tag, 1);
    assert_eq!(theirs.receive(SOON).unwrap().unwrap().payload, b"kept");
    assert!(theirs.receive(SOON).unwrap().is_none());
    let ours = sending.join().unwrap();
    assert!(ours.is_drained().unwrap() && !ours.has_hung_up().unwrap());
    assert_eq!(ours.peer().unwrap().pid, std::process::id());
    theirs.shutdown_handle().shutdown();
    assert!(ours.has_hung_up().unwrap());
}

#[test]
fn a_goodbye_right_behind_an_answer_takes_nothing_away() {
    for _ in 0..200 {
        let (ours, theirs) = pair();
        let serving = thread::spawn(move || {
            let mut channel = theirs.accept(SOON).unwrap().accept().unwrap();
            channel.sender.send(b"hello", SOON).unwrap();
        });
        let mut channel = ours.open("greeting", SOON).unwrap();
        assert_eq!(channel.receiver.receive(SOON).unwrap().unwrap(), b"hello");
        assert!(channel.receiver.receive(SOON).unwrap().is_none());
        serving.join().unwrap();
    }
}
