//! A program whose standard streams are closed: the library's descriptors stay away from their numbers. Issue 13, C16.

mod attacker;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use attacker::raw::{close_number, inherited, is_open};
use attacker::{AGES, PAGE, Peer, Role, Stage, alone, command};
use flipcall::endpoint::{Inherited, Options, Spawned};
use flipcall::rpc::{Client, Context, Router, Server, inherited_socket};
use flipcall::stream::mux::{Mux, MuxConfig, Role as Side};
use flipcall::stream::{Access, FrameSocket, Listener, receive_with_fd, send_pipe};
use flipcall::window::Allocator;

const ROLES: &[Role] = &[
    ("closes its streams", closes_its_streams),
    ("answers", answers),
    ("serves", serves),
    ("closes and calls", closes_and_calls),
];

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[ROLES]);
}

/// Closes the standard streams. A panic still finds the standard error.
fn close_streams() {
    let kept = std::fs::File::from(std::io::stderr().as_fd().try_clone_to_owned().expect("a number"));
    std::panic::set_hook(Box::new(move |panic| {
        let _ = std::io::Write::write_all(&mut &kept, format!("{panic}\n").as_bytes());
    }));
    (0..3).for_each(close_number);
}

/// The numbers of standard streams that are taken for longer than a thread needs to close what a peer sent.
fn taken() -> Vec<i32> {
    let start = std::time::Instant::now();
    loop {
        let taken: Vec<i32> = (0..3).filter(|&number| is_open(number)).collect();
        if taken.is_empty() || start.elapsed() > std::time::Duration::from_secs(2) {
            return taken;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Answers a window, and says what it found of its streams.
fn answers(stage: Stage) {
    let streams: Vec<String> = (0..3)
        .map(|n| {
            std::fs::read_link(format!("/proc/self/fd/{n}")).map_or("closed".into(), |at| at.display().to_string())
        })
        .collect();
    stage.control.say(&streams.join(" "));
    let acceptor = Inherited::from_env(&inherited()).expect("a window").into_acceptor(Options::new()).expect("watched");
    let (mut endpoint, mut length) = acceptor.recv_first(AGES).expect("a client");
    while let Ok(next) = endpoint.send_recv(length, AGES) {
        length = next;
    }
}

fn router() -> Router {
    let mut router = Router::new();
    router.unary(1, |_: &mut Context<'_>, value: u64| Ok(value));
    router
}

fn serves(_: Stage) {
    let socket = inherited_socket(&inherited()).expect("a socket");
    Server::new(router(), Default::default()).serve_one(socket).expect("a client");
}

fn closes_and_calls(stage: Stage) {
    let (command, _control) = command("serves", "", &[]);
    close_streams();
    let (client, process) = Client::spawn(command, Default::default(), AGES).expect("a server");
    let value: u64 = client.call(1, &42u64, AGES).expect("an answer");
    stage.control.say(&format!("{value} {:?}", taken()));
    drop(client);
    process.finish(AGES).expect("it ends");
}

/// Makes one of everything, and says which of them took the number of a stream.
fn closes_its_streams(stage: Stage) {
    let (device, heard) = command("answers", "", &[]);
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    close_streams();
    let mut faults = Vec::new();
    let mut check = |what: &str| {
        let taken = taken();
        if faults.is_empty() && !taken.is_empty() {
            faults.push(format!("{what}: {taken:?}"));
        }
    };
    let _allocator = Allocator::new().expect("a memfd");
    check("Allocator");
    let _pair = FrameSocket::pair().expect("a pair");
    check("FrameSocket::pair");
    let path = std::env::temp_dir().join(format!("flipcall-streams-{}.sock", std::process::id()));
    let listener = Listener::bind(&path, Access::Owner).expect("a listener");
    check("Listener");
    let _connection = FrameSocket::connect(&path, AGES).expect("it listens");
    check("FrameSocket::connect");
    let _accepted = listener.accept(AGES).expect("a connection");
    check("Listener::accept");
    let (near, far) = FrameSocket::pair().expect("a pair");
    let kept = send_pipe(&near, b"x", AGES).expect("room");
    check("send_pipe");
    let with_fd = receive_with_fd(&far, &mut [0; 8], flipcall::stream::MissingFd::Refuse, AGES);
    let _received = with_fd.expect("a message").expect("no end");
    check("receive_with_fd");
    drop(kept);
    let (near, far) = FrameSocket::pair().expect("a pair");
    let mux = Mux::new(far, MuxConfig::new(Side::Initiator)).expect("a mux");
    check("Mux");
    drop((near, mux));
    let mut device = Spawned::start(device, PAGE, Options::new()).expect("a device");
    check("Spawned");
    let streams = heard.hear();
    let mut endpoint = device.connect(AGES).expect("it answers");
    assert_eq!(endpoint.send_recv(3, AGES).expect("an answer"), 3);
    check("Endpoint");
    let served = std::thread::spawn(move || Server::new(router(), Default::default()).serve_one(theirs));
    let client = Client::from_socket(ours, Default::default()).expect("a server");
    for value in 0..3u64 {
        assert_eq!(client.call::<u64, u64>(1, &value, AGES).expect("an answer"), value);
    }
    check("Client");
    drop(client);
    served.join().expect("no panic").expect("a client");
    stage.control.say(&format!("{streams}; {}", faults.join(", ")));
}

#[test]
fn nothing_of_the_library_takes_the_number_of_a_closed_stream() {
    let _alone = alone();
    let peer = Peer::start("closes its streams", "", &[]);
    let said = peer.control.hear();
    let (streams, faults) = said.split_once("; ").expect("two parts");
    assert_eq!(faults, "");
    // The child's stdin and stdout were given by its command, its stderr is the pipe that is listened to.
    let streams: Vec<&str> = streams.split(' ').collect();
    assert!(streams[0] == "/dev/null" && streams[1] == "/dev/null" && streams[2].starts_with("pipe:"), "{streams:?}");
}

#[test]
fn a_program_without_streams_spawns_a_server_and_calls_it() {
    let _alone = alone();
    let peer = Peer::start("closes and calls", "", &[]);
    peer.control.expect("42 []");
}
