//! Sockets of the wrong kind are refused where they are given, at once, and nobody blames the peer. Issue 13, C17.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use flipcall::endpoint::{Acceptor, Connector, Options};
use flipcall::rpc::{Client, ClientConfig, Router, Server, ServerConfig};
use flipcall::stream::mux::{Mux, MuxConfig, PlainMux, Role};
use flipcall::stream::{BufferedWriter, FrameSocket, NonBlockingReader};
use flipcall::window::{Allocator, Window};
use flipcall::{Blame, Error, ErrorKind};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const SOON: Duration = Duration::from_secs(5);

fn seqpacket() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn datagram() -> (OwnedFd, OwnedFd) {
    let (one, other) = UnixDatagram::pair().unwrap();
    (one.into(), other.into())
}

fn tcp() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one.into(), listener.accept().unwrap().0.into())
}

fn file() -> (OwnedFd, OwnedFd) {
    let open = || std::fs::File::open("/proc/self/exe").unwrap().into();
    (open(), open())
}

/// A name, and a maker of connected pairs.
type Kind = (&'static str, fn() -> (OwnedFd, OwnedFd));

/// What carries no stream.
const NO_STREAM: [Kind; 3] = [("seqpacket", seqpacket), ("datagram", datagram), ("file", file)];

/// What no descriptor can be sent over, or what does not hang up.
const NO_UNIX_STREAM: [Kind; 4] = [NO_STREAM[0], NO_STREAM[1], NO_STREAM[2], ("tcp", tcp)];

/// Gives one end of each of `kinds` to `body`, which must fail at once for our fault.
fn refused<T>(kinds: &[Kind], what: &str, body: impl Fn(OwnedFd) -> Result<T, Error>) {
    for (name, make) in kinds {
        let (ours, _theirs) = make();
        let start = Instant::now();
        let Err(error) = body(ours) else { panic!("{what} took a {name}") };
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}, {name}: {error:#}");
        assert_eq!(error.kind().blame(), Blame::Us, "{what}, {name}: {error:#}");
        assert!(start.elapsed() < SOON, "{what}, {name}: {:?}", start.elapsed());
    }
}

#[test]
fn frames_need_a_stream() {
    refused(&NO_STREAM, "receive", |fd| FrameSocket::new(fd).receive(SOON).map(drop));
    refused(&NO_STREAM, "peek", |fd| FrameSocket::new(fd).peek(SOON));
    refused(&NO_STREAM, "send", |fd| FrameSocket::new(fd).send(1, b"x", SOON));
    refused(&NO_STREAM, "set_attachments", |fd| FrameSocket::new(fd).set_attachments(true));
    refused(&NO_STREAM, "assume_unshared", |fd| FrameSocket::new(fd).assume_unshared());
    refused(&NO_STREAM, "a reader", |fd| NonBlockingReader::new(100).read(fd).map(drop));
    refused(&NO_STREAM, "a writer", |fd| BufferedWriter::new(100).push(fd, 1, &[b"x"]));
}

#[test]
fn a_mux_needs_a_stream() {
    refused(&NO_STREAM, "a mux", |fd| Mux::new(fd, MuxConfig::new(Role::Initiator)));
    refused(&NO_STREAM, "a mux that receives", |fd| PlainMux::new(fd, 100).receive(SOON).map(drop));
    refused(&NO_STREAM, "a mux that sends", |fd| PlainMux::new(fd, 100).send(1, b"x", SOON));
}

#[test]
fn typed_calls_need_a_unix_stream() {
    refused(&NO_UNIX_STREAM, "a client", |fd| Client::from_socket(fd, ClientConfig::new()));
    let server = Server::new(Router::new(), ServerConfig::new());
    refused(&NO_UNIX_STREAM, "a server", |fd| server.serve_one(fd));
    refused(&NO_STREAM, "a base client", |fd| Client::from_socket(fd, ClientConfig::new().base_protocol()));
    let server = Server::new(Router::new(), ServerConfig::new().base_protocol());
    refused(&NO_STREAM, "a base server", |fd| server.serve_one(fd));
}

#[test]
fn a_socket_that_shows_no_end_is_not_watched() {
    let window = || {
        let windows = Allocator::with_size(4096).unwrap();
        Window::map(&windows.allocate(4096).unwrap()).unwrap()
    };
    let watching = |fd| Options::new().watch_socket(fd);
    refused(&NO_UNIX_STREAM, "a connector", |fd| Connector::new(window(), watching(fd)));
    refused(&NO_UNIX_STREAM, "an acceptor", |fd| Acceptor::new(window(), watching(fd)));
    // A pipe shows its end as well as a socket does.
    Connector::new(window(), watching(std::io::pipe().unwrap().0.into())).unwrap();
}

#[test]
fn the_base_protocol_goes_over_tcp_where_it_is_asked_for() {
    let (ours, theirs) = tcp();
    let mut router = Router::new();
    router.unary(1, |_, value: u32| Ok(value + 1));
    let server = Server::new(router, ServerConfig::new().base_protocol());
    let serving = std::thread::spawn(move || server.serve_one(theirs));
    let client = Client::from_socket(ours, ClientConfig::new().base_protocol()).unwrap();
    assert_eq!(client.call::<_, u32>(1, &1u32, SOON).unwrap(), 2);
    drop(client);
    serving.join().unwrap().unwrap();
}

#[test]
fn frames_and_a_mux_go_over_tcp() {
    let (ours, theirs) = tcp();
    FrameSocket::new(ours).send(7, b"over tcp", SOON).unwrap();
    assert_eq!(FrameSocket::new(theirs).receive(SOON).unwrap().unwrap().payload, b"over tcp");
    let (ours, theirs) = tcp();
    let ours = Mux::new(ours, MuxConfig::new(Role::Initiator)).unwrap();
    let theirs = Mux::new(theirs, MuxConfig::new(Role::Acceptor)).unwrap();
    let opening = std::thread::spawn(move || ours.open("name", SOON).map(drop));
    let _channel = theirs.accept(SOON).unwrap().accept().unwrap();
    opening.join().unwrap().unwrap();
}
