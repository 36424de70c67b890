//! Issue 13, D: what a server does about windows and descriptors that no honest client can tell.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::endpoint::Interrupted;
use flipcall::rpc::{CallError, Client, ClientConfig, Code, Router, Server, ServerConfig};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_get_seals};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::attacker::{AGES, Peer, Role, Stage, alone, raw};
use crate::raw_client::{RawChannel, datagram, frame};
use crate::serving::{PATIENCE, Serving, eventually};

pub const ROLES: &[Role] = &[
    ("keeps a window unsealed", keeps_a_window_unsealed),
    ("leaves descriptors of a window", leaves_descriptors_of_a_window),
    ("leaves descriptors of a socket", leaves_descriptors_of_a_socket),
    ("serves without descriptors", serves_without_descriptors),
    ("calls without descriptors", calls_without_descriptors),
    ("refuses the dead", refuses_the_dead),
];

/// Answers with a descriptor.
const GIVE: u16 = 1;
/// Takes one.
const TAKE: u16 = 2;
/// Sets the limit of open descriptors to none, and back.
const STARVE: u16 = 3;
const FEED: u16 = 4;

/// Long enough for a server to do what it should not.
const LONG: Duration = Duration::from_millis(300);

fn file() -> OwnedFd {
    std::io::stderr().as_fd().try_clone_to_owned().expect("a descriptor")
}

/// So few descriptors that no other can be had: the standard ones are open. With fewer, the kernel polls nothing at all.
const NONE: Option<u64> = Some(3);

/// Sets the soft limit of descriptors. Those that are open stay so.
fn limit(soft: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: soft.or(maximum), maximum }).expect("a limit");
}

fn router(given: Arc<AtomicU32>) -> Router {
    let mut router = Router::new();
    router.unary(GIVE, move |context, ()| {
        given.fetch_add(1, Ordering::Relaxed);
        context.attach(file())
    });
    router.raw_with_fds(TAKE, |context, _, reply| {
        let came = context.take_fd().is_some();
        reply.send(context, &came)
    });
    router.unary(STARVE, |_, ()| {
        limit(NONE);
        Ok(())
    });
    router.unary(FEED, |_, ()| {
        limit(None);
        Ok(())
    });
    router
}

fn serving() -> (Serving, Arc<AtomicU32>) {
    let given = Arc::new(AtomicU32::new(0));
    (Serving::start(router(Arc::clone(&given)), Default::default()), given)
}

/// Opens a channel, and adds no seal to its file: its server must.
fn keeps_a_window_unsealed(stage: Stage) {
    let channel = RawChannel::open(&stage.argument, 1 << 16);
    let (file, _endpoint) = channel.window.expect("a window");
    let (wanted, begun) = (SealFlags::FUTURE_WRITE | SealFlags::SEAL, Instant::now());
    while !fcntl_get_seals(&file).expect("seals").contains(wanted) {
        assert!(begun.elapsed() < AGES, "the server left the file as it was");
        std::thread::sleep(Duration::from_millis(1));
    }
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(&file, hole, 0, 1 << 16), Err(Errno::PERM));
    stage.control.say("sealed");
}

#[test]
fn a_window_whose_client_seals_nothing_is_sealed_by_its_server() {
    let _alone = alone();
    let (serving, _) = serving();
    Peer::start("keeps a window unsealed", serving.path().to_str().unwrap(), &[]).control.expect("sealed");
}

/// Calls again before it takes the descriptor of the answer.
fn leaves_descriptors_of_a_window(stage: Stage) {
    let mut channel = RawChannel::open(&stage.argument, 1 << 16);
    let (_file, mut endpoint) = channel.window.take().expect("a window");
    let length = endpoint.write_datagram(&datagram(GIVE)).expect("room");
    endpoint.send_recv(length, PATIENCE).expect("the answer to the first call");
    endpoint.write_datagram(&datagram(GIVE)).expect("room");
    let Err(Interrupted::TimedOut(waiting)) = endpoint.send_recv(length, LONG) else {
        panic!("answered, with the descriptor of the answer before that unread");
    };
    stage.control.say("left");
    stage.control.expect("take them");
    let _ = channel.socket.read(&mut [0; 64]).expect("the descriptor of the first answer");
    waiting.resume(PATIENCE).expect("the answer to the second call");
    stage.control.say("taken");
}

fn leaves_descriptors_of_a_socket(stage: Stage) {
    let mut channel = RawChannel::open(&stage.argument, 0);
    channel.socket.write_all(&[frame(GIVE), frame(GIVE)].concat()).expect("room");
    std::thread::sleep(LONG);
    stage.control.say("left");
    stage.control.expect("take them");
    let mut bytes = [0; 64];
    let first = channel.socket.read(&mut bytes).expect("the first answer");
    let second = channel.socket.read(&mut bytes).expect("the second answer");
    assert!(first > 0 && second > 0);
    stage.control.say("taken");
}

/// A client that takes no descriptor costs its server those of one answer and no more.
#[test]
fn a_server_makes_no_second_descriptor_before_the_first_is_taken() {
    let _alone = alone();
    for role in ["leaves descriptors of a window", "leaves descriptors of a socket"] {
        let (serving, given) = serving();
        let peer = Peer::start(role, serving.path().to_str().unwrap(), &[]);
        peer.control.expect("left");
        assert_eq!(given.load(Ordering::Relaxed), 1, "{role}");
        peer.control.say("take them");
        peer.control.expect("taken");
        eventually("the second call is served", || given.load(Ordering::Relaxed) == 2);
    }
}

fn serves_without_descriptors(mut stage: Stage) {
    let served = Server::new(router(Arc::default()), Default::default()).serve_one(stage.fds.remove(0));
    stage.control.say(&format!("{served:?}"));
}

#[test]
fn a_request_whose_descriptors_are_lost_costs_its_call_only() {
    let _alone = alone();
    for config in [ClientConfig::new(), ClientConfig::new().window(0)] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = Peer::start("serves without descriptors", "", &[theirs.as_fd()]);
        drop(theirs);
        let client = Client::from_socket(ours, config).unwrap();
        let take = || client.call_with_fds::<_, bool>(TAKE, &(), &[file().as_fd()], PATIENCE).map(|(taken, _)| taken);
        assert!(take().unwrap());
        client.call::<_, ()>(STARVE, &(), PATIENCE).unwrap();
        let error = take().unwrap_err();
        assert!(matches!(&error, CallError::Status(status) if status.code == Code::NoResource), "{error}");
        assert!(error.to_string().contains("no descriptors left"), "{error}");
        client.call::<_, ()>(FEED, &(), PATIENCE).unwrap();
        assert!(take().unwrap());
        assert_eq!(client.counters().channels_opened, 1, "the channel is as good as before");
        drop(client);
        peer.control.expect("Ok(())");
    }
}

/// Gets an answer while this process has no descriptor left for what comes with it.
fn calls_without_descriptors(stage: Stage) {
    for config in [ClientConfig::new(), ClientConfig::new().window(0)] {
        let client = Client::connect(Path::new(&stage.argument), config, PATIENCE).expect("a server");
        let get = || client.call_with_fds::<_, ()>(GIVE, &(), &[], PATIENCE).map(|((), fds)| fds.len());
        assert_eq!(get().expect("an answer"), 1);
        limit(NONE);
        let starved = get().expect_err("there was no descriptor to be had");
        limit(None);
        assert!(matches!(&starved, CallError::Failed(error) if error.kind() == ErrorKind::System), "{starved}");
        assert!(starved.to_string().contains("no descriptors left"), "{starved}");
        assert_eq!(get().expect("an answer"), 1);
        assert_eq!(client.counters().channels_opened, 1, "the channel is as good as before");
    }
    stage.control.say("done");
}

#[test]
fn an_answer_whose_descriptors_are_lost_is_an_error_of_its_call() {
    let _alone = alone();
    let (serving, _) = serving();
    Peer::start("calls without descriptors", serving.path().to_str().unwrap(), &[]).control.expect("done");
}

/// Serves with SIGPIPE at its default, which ends a process: Rust's runtime ignores it, other programs do not.
fn refuses_the_dead(stage: Stage) {
    raw::default_sigpipe();
    let path = Path::new(&stage.argument);
    let server = Server::new(Router::new(), ServerConfig::new().connections(4));
    let (handle, listener) = (server.handle(), server.bind(path).expect("a socket file"));
    // One process has a quarter.
    let _held = UnixStream::connect(path).expect("the backlog has room");
    (0..10).for_each(|_| drop(UnixStream::connect(path).expect("the backlog has room")));
    std::thread::scope(|scope| {
        scope.spawn(|| server.serve(listener));
        eventually("the dead are refused", || handle.counters().refused == 10);
        handle.close(Duration::ZERO);
    });
    stage.control.say("refused");
}

#[test]
fn a_client_that_is_refused_and_gone_ends_no_server() {
    let _alone = alone();
    let path = std::env::temp_dir().join(format!("flipcall-refused-{}.sock", std::process::id()));
    Peer::start("refuses the dead", path.to_str().unwrap(), &[]).control.expect("refused");
    let _ = std::fs::remove_file(format!("{}.lock", path.display()));
}
