//! Channels with windows, opened by the rules and used without any: by a client of a real server, and by a server of a real client.

use std::fs::DirEntry;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use flipcall::endpoint::Options;
use flipcall::rpc::codec::{from_bytes, to_bytes};
use flipcall::rpc::{CallError, Client, ClientConfig, Router, Server, ServerConfig, Status};
use flipcall::stream::FrameSocket;
use flipcall::window::{Seals, Window};
use flipcall::{Deadline, ErrorKind};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::steps::{Hostile, MAXIMUM, PATIENCE};
use super::{Input, WINDOW, ended};

/// Channels that a client opens, each after the one before it ended.
const CHANNELS: usize = 4;

const HELLO: u16 = 0xFFF1;
const OPEN: u16 = 0xFFF0;
const RESPONSE: u16 = 0xFF00;

fn extensions(parts: bool) -> Vec<String> {
    if parts { vec!["parts".to_owned()] } else { Vec::new() }
}

fn router() -> Router {
    let mut router = Router::new();
    router.unary(1, |_, bytes: Vec<u8>| Ok(bytes));
    router.unary(2, |_, (a, b): (u64, u64)| a.checked_add(b).ok_or_else(|| Status::invalid_argument("overflow")));
    router.raw(3, |context, request, reply| reply.send(context, &from_bytes::<&[u8]>(request)?));
    router.streaming(4, |context, request, mut chunks| {
        for _ in 0..from_bytes::<u8>(request)? % 4 {
            context.check()?;
            chunks.send(&7u8)?;
        }
        chunks.finish()
    });
    router.raw_with_fds(5, |context, request, reply| {
        while let Some(fd) = context.take_fd() {
            context.attach(fd)?;
        }
        reply.send(context, &from_bytes::<&[u8]>(request)?)
    });
    router
}

/// A client that opens channels and says in them what it likes.
pub fn requests(data: &[u8]) {
    let mut input = Input(data);
    let (what, small) = (input.byte(), 4096);
    let maximum = if what & 2 == 0 { MAXIMUM } else { small };
    let server = Server::new(router(), ServerConfig::new().max_message(MAXIMUM).max_window(WINDOW));
    let handle = server.handle();
    ended::validate_ends();
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve_one(theirs));
        let mut base = FrameSocket::new(ours);
        let hello = to_bytes(&(1u32, u64::from(maximum), extensions(what & 1 == 0)));
        base.send(HELLO, &hello, PATIENCE).expect("the server reads");
        let answer = base.receive(PATIENCE).expect("the server answers").expect("the server stays");
        assert_eq!(answer.tag, RESPONSE);
        drop(answer);
        base.set_attachments(true).expect("it takes attachments");
        for _ in 0..CHANNELS {
            if !input.is_empty() {
                let (window, socket) = open(&mut base);
                let client =
                    flipcall::endpoint::Connector::new(window, Options::new()).expect("a window of the server's");
                let endpoint = client.connect(PATIENCE).expect("the server shakes hands");
                Hostile::new(endpoint, socket).play(&mut input);
            }
        }
        drop(base);
        serving.join().expect("serving does not panic").expect("the base connection was in order");
    });
    library_is_at_rest();
    assert_eq!(handle.counters().panics, 0, "a method panicked or did not answer");
}

/// Opens a channel by hand.
fn open(base: &mut FrameSocket) -> (Window, UnixStream) {
    base.send(OPEN, &to_bytes(&(0u64, WINDOW)), PATIENCE).expect("the server reads");
    let mut opened = base.receive(PATIENCE).expect("the server answers").expect("the server stays");
    let (ok, offset, length): (u8, u64, u32) = from_bytes(opened.payload).expect("the answer to OPEN");
    assert_eq!((opened.tag, ok, length), (RESPONSE, 0, WINDOW));
    let mut take = || opened.attachments.take_first().expect("a window has two");
    let (file, socket) = (take(), take());
    (Window::receive(file, offset, length, Seals::AfterMap).expect("a window of the server's"), socket.into())
}

/// A server that gives channels and answers in them what it likes.
pub fn answers(data: &[u8]) {
    let mut input = Input(data);
    let parts = input.byte() & 1 == 0;
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || serve(FrameSocket::new(theirs), parts, &mut input));
        let config = ClientConfig::new().max_message(MAXIMUM).window(WINDOW);
        let client = Client::from_socket(ours, config).expect("the server greets");
        validate(client.call::<_, Vec<u8>>(1, &[1u8, 2, 3][..], PATIENCE));
        // In three parts if the server takes them.
        validate(client.call::<_, Vec<u8>>(1, &[4u8; 9000][..], PATIENCE));
        if let Some(stream) = validate(client.stream(4, &3u8, PATIENCE)) {
            stream.take(8).for_each(|chunk| drop(validate(chunk)));
        }
        // Too many parts.
        validate(client.call::<_, Vec<u8>>(3, &[5u8; 40_000][..], PATIENCE));
        validate(client.call_with_fds::<_, u64>(5, &7u64, &[std::io::stderr().as_fd()], PATIENCE));
        validate(client.call::<_, u64>(2, &(1u64, 2u64), PATIENCE));
        drop(client);
        serving.join().expect("the peer does not panic");
    });
    library_is_at_rest();
}

fn serve(mut base: FrameSocket, parts: bool, input: &mut Input<'_>) {
    let hello = base.receive(PATIENCE).expect("the client greets").expect("the client stays");
    assert_eq!(hello.tag, HELLO);
    drop(hello);
    let hello = to_bytes(&(0u8, (1u32, u64::from(MAXIMUM), extensions(parts))));
    base.send(RESPONSE, &hello, PATIENCE).expect("the client reads");
    while !input.is_empty()
        && let Ok(Some(request)) = base.receive(Deadline::NEVER)
    {
        assert_eq!(request.tag, OPEN);
        drop(request);
        let (file, window) = create();
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let opened = to_bytes(&(0u8, (0u64, WINDOW)));
        let fds = [file.as_fd(), theirs.as_fd()];
        base.send_with_fds(RESPONSE, &[&opened], &fds, PATIENCE).expect("the client reads");
        drop((file, theirs));
        let server = flipcall::endpoint::Acceptor::new(window, Options::new()).expect("a window of our own");
        let (endpoint, _) = server.recv_first(PATIENCE).expect("the client shakes hands and calls");
        Hostile::new(endpoint, ours).play(input);
    }
}

/// The file of a window as a server of calls makes it: the client adds seals once it has mapped it.
fn create() -> (OwnedFd, Window) {
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&file, u64::from(WINDOW)).expect("it can grow");
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).expect("it can be sealed");
    let copy = file.try_clone().expect("a descriptor");
    let window = Window::receive(copy, 0, WINDOW, Seals::AfterMap).expect("a window of our own");
    (file, window)
}

/// Waits for the threads of the library that nobody joins, such as one that closes refused descriptors. What a thread holds that just
/// ends looks lost to a leak checker; and there is none that stays, but the one that watches every socket of the process.
fn library_is_at_rest() {
    let begun = Instant::now();
    let is_left = |task: DirEntry| {
        let name = std::fs::read(task.path().join("comm")).unwrap_or_default();
        name.starts_with(b"flipcall-") && name != b"flipcall-watch\n"
    };
    while std::fs::read_dir("/proc/self/task").expect("/proc is there").flatten().any(is_left) {
        assert!(begun.elapsed() < PATIENCE, "a thread of the library stays");
        std::thread::yield_now();
    }
}

/// What the server answered; an error is what its messages, or their end, may lead to.
fn validate<T>(called: Result<T, CallError>) -> Option<T> {
    let Err(CallError::Failed(error)) = &called else { return called.ok() };
    let blamed = matches!(
        error.kind(),
        ErrorKind::Violation | ErrorKind::PeerGone | ErrorKind::PeerShutdown | ErrorKind::Refused
    );
    assert!(blamed, "the server's messages led to {error:?}");
    None
}
