//! The last words on a mux, ours and the peer's, where the socket does not carry them at once.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::stream::mux::{Channel, Ended, Mux, MuxConfig, Reason, Role};
use flipcall::stream::write_frame;
use rustix::net::sockopt::set_socket_send_buffer_size;

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(20);
/// Each order of two threads is a matter of luck, so it is tried some times.
const TRIES: usize = 20;

const GOODBYE_9: &[u8] = b"\x07\x09\0\0";
const WORDS: &[u8] = b"what was said before";

/// A mux with an open channel. At the other end the test writes frames itself, and has read what came so far.
fn opened(ours: UnixStream, mut peer: UnixStream) -> (Mux, Channel, UnixStream) {
    let mux = Mux::new(ours, MuxConfig::new(Role::Acceptor)).unwrap();
    write_frame(&mut peer, 0, &[0, 1, 0, 1, 0, 0, 0, 16]).unwrap();
    write_frame(&mut peer, 0, b"\x01\0\x01\0\x10\0\0\0\x01x").unwrap();
    let channel = mux.accept(SOON).unwrap().accept().unwrap();
    peer.set_read_timeout(Some(SOON)).unwrap();
    // HELLO and ACCEPT.
    peer.read_exact(&mut [0; 14 + 13]).unwrap();
    (mux, channel, peer)
}

/// Such a mux, whose program has just been the leader: the reader thread leaves the socket alone for a moment.
fn after_being_leader() -> (Mux, Channel, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    let (mux, mut channel, mut peer) = opened(ours, peer);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(MOMENT / 4);
            write_frame(&mut peer, 1, b"hello").unwrap();
        });
        assert_eq!(channel.receiver.receive(SOON).unwrap().unwrap(), b"hello");
    });
    (mux, channel, peer)
}

/// Waits for the end of `mux`, which must be the peer's goodbye.
fn expect_goodbye(mux: &Mux, which: usize) {
    let start = Instant::now();
    let error = loop {
        match mux.error() {
            Some(error) => break error,
            None => assert!(start.elapsed() < SOON, "the mux does not end"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    let ended = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Ended>());
    assert_eq!(ended, Some(&Ended::Goodbye(Reason(9), String::new())), "try {which}: {error}");
}

#[test]
fn what_a_peer_said_before_a_write_to_it_failed_arrives() {
    for which in 0..TRIES {
        let (mux, Channel { mut sender, mut receiver }, mut peer) = after_being_leader();
        write_frame(&mut peer, 1, WORDS).unwrap();
        write_frame(&mut peer, 0, GOODBYE_9).unwrap();
        peer.shutdown(Shutdown::Read).unwrap();
        // Nobody has read that yet, and this finds that the peer takes nothing more.
        let _ = sender.send(b"too late", SOON);
        expect_goodbye(&mux, which);
        assert_eq!(receiver.receive(SOON).unwrap().unwrap(), WORDS, "try {which}");
    }
}

#[test]
fn a_leader_reads_what_a_peer_said_before_a_write_of_another_thread_failed() {
    // More than one receive brings.
    const MESSAGES: usize = 5000;
    for which in 0..TRIES {
        let (mux, Channel { mut sender, mut receiver }, mut peer) = after_being_leader();
        let mut last = Vec::new();
        (0..MESSAGES).for_each(|_| write_frame(&mut last, 1, WORDS).unwrap());
        write_frame(&mut last, 0, GOODBYE_9).unwrap();
        let received = thread::scope(|scope| {
            let receiving = scope.spawn(|| {
                let mut received = 0;
                let error = loop {
                    match receiver.receive(SOON) {
                        Ok(Some(message)) => assert_eq!(message, WORDS),
                        Ok(None) => panic!("an end that nobody sent"),
                        Err(error) => break error,
                    }
                    received += 1;
                };
                (received, error.kind())
            });
            scope.spawn(|| while sender.send(b"too late", SOON).is_ok() {});
            scope.spawn(|| {
                thread::sleep(MOMENT / 10);
                peer.write_all(&last).unwrap();
                peer.shutdown(Shutdown::Both).unwrap();
            });
            receiving.join().unwrap()
        });
        assert_eq!(received, (MESSAGES, ErrorKind::PeerShutdown), "try {which}");
        expect_goodbye(&mux, which);
    }
}

/// Room for so many writes of `size` bytes on a socket like `socket`.
fn room_for(size: usize, send_buffer: usize) -> usize {
    let (writer, _reader) = UnixStream::pair().unwrap();
    set_socket_send_buffer_size(&writer, send_buffer).unwrap();
    writer.set_nonblocking(true).unwrap();
    let bytes = vec![0; size];
    (0..).take_while(|_| (&writer).write(&bytes).is_ok_and(|count| count == size)).count()
}

#[test]
fn a_goodbye_waits_for_room_and_is_said_once() {
    const MESSAGE: [u8; 994] = [7; 994];
    const SEND_BUFFER: usize = 16 * 1024;
    let frames = room_for(6 + MESSAGE.len(), SEND_BUFFER);
    assert!(frames > 3, "{frames} frames fill a socket");
    let (ours, peer) = UnixStream::pair().unwrap();
    set_socket_send_buffer_size(&ours, SEND_BUFFER).unwrap();
    let (mux, mut channel, mut peer) = opened(ours, peer);
    // The socket is full to the last frame, so nothing is left to write but the goodbye, and that does not fit.
    for _ in 0..frames {
        channel.sender.send(&MESSAGE, SOON).unwrap();
    }
    let closing = {
        let mux = mux.clone();
        thread::spawn(move || mux.close(Reason(9), SOON))
    };
    thread::sleep(MOMENT);
    assert!(mux.error().is_none() && !closing.is_finished(), "it ended without its goodbye");
    let mut came = Vec::new();
    peer.read_to_end(&mut came).unwrap();
    closing.join().unwrap().unwrap();
    let mut expected = Vec::new();
    (0..frames).for_each(|_| write_frame(&mut expected, 1, &MESSAGE).unwrap());
    write_frame(&mut expected, 0, GOODBYE_9).unwrap();
    assert!(came == expected, "{} bytes instead of {}", came.len(), expected.len());
}
