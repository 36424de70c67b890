//! A program that leaves SIGPIPE at its default, and whose peer is gone.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;

use flipcall::rpc::{Client, ClientConfig, Router, Server};
use flipcall::stream::mux::{Mux, MuxConfig, PlainMux, Role as MuxRole};
use flipcall::stream::{BufferedWriter, FrameSocket, send_pipe, send_with_fd};
use flipcall::{Error, ErrorKind};

use crate::attacker::{AGES, Peer, Role, Stage, raw};

pub const ROLES: &[Role] = &[("writes to the dead", write_to_the_dead)];

/// Issue 13, C15.
#[test]
fn no_signal_reaches_a_program_that_writes_to_a_dead_peer() {
    let mut peer = Peer::start("writes to the dead", "", &[]);
    while let Some((text, _)) = peer.control.listen() {
        println!("{text}");
        if text == "all done" {
            return;
        }
        peer.control.say("go on");
    }
    let status = peer.child.wait().expect("waitpid");
    panic!("the program was ended: {status}, signal {:?}", status.signal());
}

/// A socket that is ours alone, with a dead peer.
fn dead() -> FrameSocket {
    let (ours, theirs) = FrameSocket::pair().expect("a pair");
    drop(theirs);
    ours
}

/// One that others may hold, too.
fn dead_stream() -> UnixStream {
    UnixStream::pair().expect("a pair").0
}

fn is_gone(result: Result<(), Error>) {
    assert_eq!(result.expect_err("the peer is gone").kind(), ErrorKind::PeerGone);
}

fn write_to_the_dead(stage: Stage) {
    raw::default_sigpipe();
    let about = |what: &str| drop(stage.control.ask(what));
    let file = std::fs::File::open("/proc/self/exe").expect("a file");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&[7; 4096]).expect("room");
    about("a file");
    is_gone(moved(|socket| socket.send_file(1, file.as_fd(), 0, 1 << 20, AGES)));
    about("a pipe");
    is_gone(moved(|socket| socket.send_pipe_bytes(1, reader.as_fd(), 4096, AGES)));
    about("a frame");
    is_gone(dead().send(1, b"x", AGES));
    is_gone(dead().send(1, &[7; 1 << 20], AGES));
    is_gone(FrameSocket::new(dead_stream()).send_vectored(1, &[b"a", b"b"], AGES));
    is_gone(dead().send_with_fds(1, &[b"x"], &[file.as_fd()], AGES));
    is_gone(dead().send_attach(&[file.as_fd()], AGES));
    about("a message without a frame");
    is_gone(send_with_fd(dead_stream(), b"x", &file, AGES));
    is_gone(send_pipe(dead_stream(), b"x", AGES).map(drop));
    is_gone(BufferedWriter::new(100).push(dead_stream(), 1, &[b"x"]));
    about("a mux");
    is_gone(PlainMux::new(dead_stream(), 100).send(1, b"x", AGES));
    if let Ok(mux) = Mux::new(dead_stream(), MuxConfig::new(MuxRole::Initiator)) {
        let _ = mux.open("name", AGES);
    }
    about("a call");
    assert!(Client::from_socket(dead_stream(), ClientConfig::new()).is_err());
    assert!(
        Client::from_socket(dead_stream(), ClientConfig::new().base_protocol())
            .map_or(true, |client| { client.call_raw(1, b"x", AGES).is_err() })
    );
    let server = Server::new(Router::new(), Default::default());
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    // A request, and nobody for its answer.
    theirs.write_all(&[0, 9, 0, 0, 0, 0]).expect("room");
    drop(theirs);
    let _ = server.serve_one(OwnedFd::from(ours));
    stage.control.say("all done");
}

/// Has a frame begun while the peer lives, whose bytes are moved after its end.
fn moved(send: impl FnOnce(&mut FrameSocket) -> Result<(), Error>) -> Result<(), Error> {
    let (mut ours, theirs) = FrameSocket::pair().expect("a pair");
    // The header fits in; then the buffer is full, and the move waits until the end.
    while ours.send(1, &[7; 4096], std::time::Duration::from_millis(1)).is_ok() {}
    let _ = &theirs;
    let ender = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(theirs);
    });
    let sent = send(&mut ours);
    ender.join().expect("no panic");
    sent
}
