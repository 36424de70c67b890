//! The roles that send frames over a socket, and their other side.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use flipcall::stream::{Access, FrameSocket, Listener};

use crate::Phases;
use crate::attacker::{AGES, Stage};

/// Messages in a row.
const CALLS: u32 = 200;
const LARGE: usize = 1 << 20;
/// Bytes of a file and of a pipe.
const SOME: u32 = 5000;

fn echoed(socket: &mut FrameSocket, length: usize) -> usize {
    let message = socket.receive(AGES).expect("an answer").expect("no end");
    assert_eq!(message.payload.len(), length);
    message.attachments.len()
}

fn call(socket: &mut FrameSocket, payload: &[u8]) {
    socket.send(1, payload, AGES).expect("room");
    assert_eq!(echoed(socket, payload.len()), 0);
}

/// A file and a pipe with bytes in them.
fn sources() -> (std::fs::File, std::io::PipeReader) {
    let bytes = [7; SOME as usize];
    let file = std::fs::File::from(rustix::fs::memfd_create("bytes", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd"));
    std::io::Write::write_all(&mut &file, &bytes).expect("room");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut writer, &bytes).expect("room");
    (file, reader)
}

pub fn frames(mut stage: Stage) {
    let (file, pipe) = sources();
    let phases = Phases::begin(&stage.argument);
    let mut socket = FrameSocket::new(stage.fds.remove(0));
    socket.set_attachments(true).expect("an option");
    call(&mut socket, b"");
    phases.called();
    (0..CALLS).for_each(|_| call(&mut socket, b"a few bytes"));
    call(&mut socket, &vec![1; LARGE]);
    let null: BorrowedFd<'_> = stage.fds[0].as_fd();
    socket.send_with_fds(1, &[b"a descriptor"], &[null], AGES).expect("room");
    assert_eq!(echoed(&mut socket, b"a descriptor".len()), 1);
    socket.send_file(1, file.as_fd(), 0, SOME, AGES).expect("a file");
    assert_eq!(echoed(&mut socket, SOME as usize), 0);
    // Of a socket that is nobody else's the kernel moves them itself.
    socket.assume_unshared().expect("a flag");
    socket.send_file(1, file.as_fd(), 0, SOME, AGES).expect("a file");
    assert_eq!(echoed(&mut socket, SOME as usize), 0);
    socket.send_pipe_bytes(1, pipe.as_fd(), SOME, AGES).expect("a pipe");
    assert_eq!(echoed(&mut socket, SOME as usize), 0);
    socket.peer().expect("a unix socket");
    assert!(!socket.has_hung_up().expect("a question"), "assertion: the peer is there");
    phases.ends();
    socket.finish().expect("an end");
    assert!(socket.receive(AGES).expect("the other end").is_none(), "assertion: nothing more comes");
}

/// Sends back what comes, until the end.
pub fn answer(mut socket: FrameSocket) {
    if socket.set_attachments(true).is_err() {
        return;
    }
    loop {
        let Ok(Some(message)) = socket.receive(AGES) else { return };
        let (payload, mut attachments) = (message.payload.to_vec(), message.attachments);
        let fds = attachments.take_all();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let sent = match &fds[..] {
            [] => socket.send(1, &payload, AGES),
            fds => socket.send_with_fds(1, &[&payload], fds, AGES),
        };
        if sent.is_err() {
            return;
        }
    }
}

pub fn listener(stage: Stage) {
    let path = crate::roles::fresh_path("frames");
    stage.control.say(path.to_str().expect("a name"));
    let phases = Phases::begin(&stage.argument);
    let listener = Listener::bind(&path, Access::Owner).expect("a socket file");
    let mut socket = listener.accept_frames(AGES / 2).expect("a client");
    let mut is_first = true;
    while let Some(message) = socket.receive(AGES).expect("a message") {
        let payload = message.payload.to_vec();
        drop(message);
        socket.send(1, &payload, AGES).expect("room");
        if std::mem::take(&mut is_first) {
            phases.called();
        }
    }
    phases.ends();
    drop((socket, listener));
}

/// Connects to a listener and calls it.
pub fn connect(path: &Path) {
    let begun = Instant::now();
    // The name is there before anybody listens.
    let mut socket = loop {
        match FrameSocket::connect(path, AGES) {
            Ok(socket) => break socket,
            Err(_) if begun.elapsed() < AGES / 2 => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return,
        }
    };
    for _ in 0..CALLS {
        let sent = socket.send(1, b"a few bytes", AGES);
        if sent.is_err() || socket.receive(AGES).is_err() {
            return;
        }
    }
}
