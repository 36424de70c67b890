//! `{:?}` of a type that has seen payloads shows none of their bytes.

use std::fmt::Debug;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use flipcall::Deadline;
use flipcall::stream::mux::{Mux, MuxConfig, PlainMux, Role};
use flipcall::stream::{BufferedWriter, FrameDecoder, FrameSocket, NonBlockingReader, write_frame};

/// A payload of one byte again and again, so that any two of them show.
const MARKER: [u8; 64] = [0xA7; 64];
const SOON: Duration = Duration::from_secs(5);

fn shows(value: &dyn Debug) -> bool {
    [format!("{value:?}"), format!("{value:#?}"), format!("{value:x?}")].iter().any(|text| {
        let dense = text.replace(char::is_whitespace, "");
        dense.contains("167,167") || dense.contains("a7,a7") || dense.contains("\u{A7}") || dense.contains("\\xa7")
    })
}

#[track_caller]
fn hides(value: &dyn Debug) {
    assert!(!shows(value), "a payload shows: {value:?}");
}

#[test]
fn frames_and_sockets_show_no_payload() {
    assert!(shows(&MARKER) && shows(&MARKER.to_vec()), "the search finds a payload that shows");
    let mut frames = Vec::new();
    (0..2).for_each(|_| write_frame(&mut frames, 7, &MARKER).unwrap());
    let mut decoder = FrameDecoder::new(1024);
    decoder.push(&frames);
    hides(&decoder);
    hides(&decoder.next_frame());
    hides(&decoder);

    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, mut theirs) = (FrameSocket::new(ours), FrameSocket::new(theirs));
    (0..2).for_each(|_| ours.send(7, &MARKER, SOON).unwrap());
    hides(&theirs.receive(SOON).unwrap());
    hides(&theirs);
    hides(&ours);

    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut reader, mut writer) = (NonBlockingReader::new(1024), BufferedWriter::new(1 << 20));
    while writer.backlog() == 0 {
        writer.push(&theirs, 7, &[&MARKER]).unwrap();
    }
    hides(&writer);
    hides(&reader.read(&ours).unwrap());
    hides(&reader);
}

#[test]
fn a_mux_shows_no_payload() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ours = Mux::new(ours, MuxConfig::new(Role::Initiator)).unwrap();
    let theirs = Mux::new(theirs, MuxConfig::new(Role::Acceptor)).unwrap();
    let accepting = thread::spawn(move || theirs.accept(SOON).unwrap().accept().unwrap());
    let mut near = ours.open("test", SOON).unwrap();
    let mut far = accepting.join().unwrap();
    (0..2).for_each(|_| near.sender.send(&MARKER, SOON).unwrap());
    assert_eq!(far.receiver.receive(SOON).unwrap().unwrap(), MARKER);
    hides(&far);
    hides(&near);
    hides(&ours);
    let mut reader = far.receiver.into_reader(SOON);
    reader.read_exact(&mut [0]).unwrap();
    hides(&reader);

    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, mut theirs) = (PlainMux::new(ours, 1024), PlainMux::new(theirs, 1024));
    ours.send(3, &MARKER, Deadline::NEVER).unwrap();
    hides(&theirs.receive(Deadline::NEVER).unwrap());
    hides(&theirs);
    hides(&ours);
}
