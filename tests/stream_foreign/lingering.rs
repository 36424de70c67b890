//! A TCP socket that lingers blocks its last close for as long as its maker likes. Here the maker is another process, and the last close is
//! up to us.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::rpc::{Client, ClientConfig, Router, Server, ServerConfig};
use flipcall::stream::mux::{Mux, MuxConfig, PlainMux, Role as MuxRole};
use flipcall::stream::{FrameSocket, MissingFd, receive_with_fd, write_frame};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::attacker::{AGES, Peer, Role, Stage, alone};

pub const ROLES: &[Role] = &[("sends lingering sockets", send), ("fills a server", fill_server)];

/// How long the last close of such a socket blocks.
const LINGER: Duration = Duration::from_secs(20);

/// What our side may take for something that has a deadline of half a second.
const BOUND: Duration = Duration::from_secs(5);

const DEADLINE: Duration = Duration::from_millis(500);

/// A socket whose last close lingers, and what has to stay open for that.
pub fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut socket = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (other, _) = listener.accept().expect("a connection");
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    // Nobody reads: bytes are left to be sent, which is what a close waits for.
    while socket.write(&[0; 1 << 16]).is_ok() {}
    socket.set_nonblocking(false).expect("O_NONBLOCK");
    set_socket_linger(&socket, Some(LINGER)).expect("SO_LINGER");
    (socket.into(), other)
}

/// Sends bytes with descriptors.
pub fn send_raw(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    assert_eq!(try_send_raw(socket, bytes, fds), Ok(bytes.len()));
}

fn try_send_raw(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

pub fn frame(tag: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, tag, payload).expect("a frame");
    bytes
}

/// Sends what the argument names, one lingering socket on each message, and stays.
fn send(stage: Stage) {
    let connection = &stage.fds[0];
    for part in stage.argument.split(',') {
        let (socket, other) = lingering();
        let bytes = match part {
            "frame" => frame(7, b"x"),
            "half" => frame(7, b"x")[..3].to_vec(),
            "hello" => frame(0, &[0, 1, 0, 1, 0, 0, 0, 128]),
            "bytes" => b"x".to_vec(),
            "long" => frame(7, &[7; 20_000])[..15_000].to_vec(),
            part => panic!("no such part: {part}"),
        };
        send_raw(connection, &bytes, &[socket.as_fd()]);
        drop(socket);
        std::mem::forget(other);
    }
    stage.control.say("sent");
    stage.control.listen();
}

/// A peer that has sent `parts` to our socket, and lives.
fn sent(parts: &str) -> (Peer, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let peer = Peer::start("sends lingering sockets", parts, &[theirs.as_fd()]);
    peer.control.expect("sent");
    (peer, ours)
}

/// Has `body` done with what the peer sent, quickly.
fn quickly(what: &str, parts: &str, body: impl FnOnce(UnixStream)) {
    let (_peer, ours) = sent(parts);
    let start = Instant::now();
    body(ours);
    assert!(start.elapsed() < BOUND, "{what} took {:?}", start.elapsed());
}

/// Issue 13, B9.
#[test]
fn a_receive_without_room_for_descriptors_does_not_close_them() {
    let _alone = alone();
    quickly("a frame on a socket without attachments", "frame", |ours| {
        let mut ours = FrameSocket::new(ours);
        assert_eq!(ours.receive(DEADLINE).expect("a message").expect("no end").payload, b"x");
    });
    quickly("a message in plain mode", "frame,long", |ours| {
        let mut ours = PlainMux::new(ours, 1 << 16);
        assert_eq!(ours.receive(DEADLINE).expect("a message").expect("no end").payload, b"x");
        assert_eq!(ours.receive(DEADLINE).expect_err("half a message").kind(), ErrorKind::Timeout);
    });
    quickly("a mux whose peer says HELLO", "hello", |ours| {
        let mux = Mux::new(ours, MuxConfig::new(MuxRole::Initiator)).expect("a mux");
        assert_eq!(mux.open("name", DEADLINE).map(drop).expect_err("nobody accepts").kind(), ErrorKind::Timeout);
    });
}

/// Issue 13, B9.
#[test]
fn a_socket_is_dropped_without_closing_what_lies_in_its_queue() {
    let _alone = alone();
    quickly("a socket that was never read", "frame,frame", |ours| drop(FrameSocket::new(ours)));
    quickly("a socket of ours alone", "frame,frame", |ours| {
        let mut ours = FrameSocket::new(ours);
        ours.assume_unshared().expect("options");
        drop(ours);
    });
    quickly("a plain mux", "frame,frame", |ours| drop(PlainMux::new(ours, 100)));
    // On the first message a descriptor is a violation; on the second it is never received.
    quickly("a violation, and a descriptor behind it", "frame,half", |ours| {
        let mut ours = FrameSocket::new(ours);
        ours.set_attachments(true).expect("an option");
        assert_eq!(ours.receive(DEADLINE).map(drop).expect_err("misplaced").kind(), ErrorKind::Violation);
    });
    quickly("a message with one descriptor too many", "bytes,bytes", |ours| {
        let received = receive_with_fd(&ours, &mut [0; 8], MissingFd::Refuse, DEADLINE);
        // The first is ours to close, and so is the socket.
        std::mem::forget((received.expect("a message"), ours));
    });
    quickly("a client whose server sends no answer to its HELLO", "half", |ours| {
        assert!(Client::from_socket(ours, ClientConfig::new()).is_err());
    });
    quickly("a watched socket", "bytes", |ours| {
        use flipcall::endpoint::{Connector, Options};
        let window = crate::attacker::next_window(&crate::attacker::arena(1));
        let connector = Connector::new(window, Options::new().watch_socket(ours.into())).expect("a connector");
        assert!(connector.connect(DEADLINE).is_err());
    });
}

/// Issue 13, B9: connections that wait at a listener, or are refused, on a kernel without `SO_PASSRIGHTS`.
#[test]
fn refused_connections_hold_up_nobody() {
    let _alone = alone();
    let path = std::env::temp_dir().join(format!("flipcall-refused-{}.sock", std::process::id()));
    let mut router = Router::new();
    router.unary(1, |_, value: u32| Ok(value + 1));
    let server = Server::new(router, ServerConfig::new().connections(8));
    let listener = server.bind(&path).expect("a listener");
    // As on a kernel that has no such option. What it accepts inherits it.
    allow_descriptors(listener.as_fd());
    let handle = server.handle();
    let serving = std::thread::spawn(move || server.serve(listener));
    let peer = Peer::start("fills a server", path.to_str().expect("a path"), &[]);
    peer.control.expect("filled");
    let start = Instant::now();
    let mut refused = 0;
    // The peer holds every connection it may have; the accept thread has to get to this one.
    while start.elapsed() < BOUND {
        match Client::connect(&path, ClientConfig::new(), DEADLINE) {
            Ok(client) => {
                assert_eq!(client.call::<_, u32>(1, &1u32, DEADLINE).expect("an answer"), 2);
                break;
            }
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Timeout, "{error}");
                refused += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        peer.control.ask("let one go");
    }
    assert!(start.elapsed() < BOUND, "nobody was served for {:?} ({refused} refused)", start.elapsed());
    handle.close(Duration::from_millis(100));
    serving.join().expect("no panic").expect("no error");
    assert!(start.elapsed() < 2 * BOUND, "closing took {:?}", start.elapsed());
}

fn allow_descriptors(socket: BorrowedFd<'_>) {
    let script = "import socket,sys\ns=socket.socket(fileno=0)\ns.setsockopt(1,83,1)\ns.detach()";
    let command = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(socket.try_clone_to_owned().expect("dup"))
        .stderr(std::process::Stdio::null())
        .status();
    // A kernel without the option is what this makes.
    let _ = command.expect("python3");
}

/// Takes every connection, and goes on connecting, with a lingering socket on the first byte.
fn fill_server(stage: Stage) {
    let mut served = Vec::new();
    loop {
        let Ok(client) = Client::connect(&stage.argument, ClientConfig::new().window(0), AGES) else { break };
        served.push(client);
    }
    let (mut queued, start) = (0, Instant::now());
    while queued < 3 && start.elapsed() < AGES {
        let (socket, other) = lingering();
        let mut connection = UnixStream::connect(&stage.argument).expect("a connection");
        // It may have been refused already, or the kernel forbids descriptors.
        queued += usize::from(try_send_raw(&connection, b"x", &[socket.as_fd()]).is_ok());
        std::mem::forget(other);
        std::thread::spawn(|| drop(socket));
        connection.set_read_timeout(Some(Duration::from_millis(100))).expect("SO_RCVTIMEO");
        let _ = connection.read(&mut [0; 64]);
    }
    stage.control.say("filled");
    while stage.control.listen().is_some() {
        served.pop();
        stage.control.say("gone");
    }
}
