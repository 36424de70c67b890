//! What a program holds when it forks is its own: in the child every handle refuses, and its end leaves the parent's alone. Issue 13, A5.

mod attacker;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use attacker::raw::{deny, fork, fork_here, inherited, reap};
use attacker::{AGES, PAGE, Peer, Role, Stage, alone, arena, command};
use flipcall::endpoint::{Acceptor, Connector, Inherited, Interrupted, Options, Spawned};
use flipcall::process::ChildProcess;
use flipcall::rpc::{Client, Context, Router, Server};
use flipcall::stream::mux::{Mux, MuxConfig, PlainMux};
use flipcall::stream::{Access, BufferedWriter, FrameSocket, Listener, NonBlockingReader};
use flipcall::window::{Allocator, Window};
use flipcall::{Deadline, Error, ErrorKind};

const ROLES: &[Role] = &[("echoes", echoes), ("forks where no page can be wiped", forks_where_no_page_can_be_wiped)];
/// What a child has for a wait that must not be one.
const MOMENT: Duration = Duration::from_secs(2);

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[ROLES]);
}

fn echoes(stage: Stage) {
    let acceptor = Inherited::from_env(&inherited()).expect("a window").into_acceptor(Options::new());
    let (mut endpoint, mut length) = acceptor.expect("it can be watched").recv_first(AGES).expect("a client");
    while let Ok(next) = endpoint.send_recv(length, AGES) {
        length = next;
    }
    drop(stage);
}

/// Forks, has the child try `uses` and then drop the handle. Each use has to be refused there.
fn refused_in_a_fork<T>(what: &str, handle: &mut Option<T>, uses: impl FnOnce(&mut T) -> Vec<Option<Error>>) {
    let child = fork(|| {
        let errors = uses(handle.as_mut().expect("it is there"));
        let is_right = |error: &Option<Error>| {
            let right =
                error.as_ref().is_some_and(|e| e.kind() == ErrorKind::InvalidInput && e.to_string().contains("forked"));
            if !right {
                eprintln!("{what}: in the child {error:?}");
            }
            right
        };
        let right = errors.iter().all(is_right);
        drop(handle.take());
        i32::from(!right)
    });
    assert_eq!(reap(child), 0, "{what}");
}

fn router() -> Router {
    let mut router = Router::new();
    router.unary(1, |_: &mut Context<'_>, value: u64| Ok(value));
    router
}

fn path(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("flipcall-fork-{name}-{}.sock", std::process::id()))
}

#[test]
fn a_client_in_a_fork_refuses_and_its_parent_calls_on() {
    let _alone = alone();
    let server = Server::new(router(), Default::default());
    let (listener, handle) = (server.bind(path("client")).unwrap(), server.handle());
    let serving = std::thread::spawn(move || server.serve(listener));
    let client = Client::connect(path("client"), Default::default(), AGES).unwrap();
    let calls =
        |from: u64| (from..from + 300).map(|value| client.call::<u64, u64>(1, &value, AGES).map(|got| (value, got)));
    assert!(calls(0).all(|answer| answer.is_ok_and(|(sent, got)| sent == got)));
    let mut copy = Some(client.clone());
    let child = fork(|| {
        let refused = calls(1 << 32).filter(|answer| matches!(answer, Err(flipcall::rpc::CallError::Failed(e)) if e.kind() == ErrorKind::InvalidInput)).count();
        let alive = client.is_alive();
        client.close();
        drop(copy.take());
        i32::from(refused != 300 || alive || client.peer().is_ok())
    });
    assert!(calls(1000).all(|answer| answer.is_ok_and(|(sent, got)| sent == got)), "while the child is at it");
    assert_eq!(reap(child), 0);
    assert!(client.is_alive());
    assert!(calls(2000).all(|answer| answer.is_ok_and(|(sent, got)| sent == got)), "after the child's close and drop");
    // The server's side: its handle, its file.
    let mut copy = Some(handle.clone());
    let child = fork(|| i32::from(copy.take().expect("it is there").close(Deadline::NEVER)));
    assert_eq!(reap(child), 0, "a server is not closed by a child");
    assert!(path("client").exists());
    assert!(calls(3000).all(|answer| answer.is_ok_and(|(sent, got)| sent == got)));
    assert!(handle.close(AGES));
    serving.join().unwrap().unwrap();
}

#[test]
fn a_server_and_a_listener_in_a_fork_refuse_and_leave_the_file() {
    let _alone = alone();
    let mut server = Some(Server::new(router(), Default::default()));
    refused_in_a_fork("Server", &mut server, |server| {
        let socket = UnixStream::pair().unwrap().0;
        vec![server.bind(path("other")).err(), server.serve_one(socket).err()]
    });
    let mut listener = Some(Listener::bind(path("listener"), Access::Owner).unwrap());
    refused_in_a_fork("Listener", &mut listener, |listener| vec![listener.accept(MOMENT).err()]);
    assert!(path("listener").exists(), "the parent's socket file is the parent's");
    let _client = UnixStream::connect(path("listener")).unwrap();
    listener.as_ref().unwrap().accept(AGES).unwrap();
}

#[test]
fn the_ends_of_a_window_in_a_fork_refuse_and_their_drop_shuts_nothing_down() {
    let _alone = alone();
    let mut arena = Some(arena(4));
    let [window, theirs] = [0, 1].map(|_| Window::map(&arena.as_ref().unwrap().allocate(PAGE).unwrap()).unwrap());
    drop(theirs);
    let mut unused = Some(window);
    refused_in_a_fork("Window", &mut unused, |_| vec![]);
    let child = fork(|| i32::from(Connector::new(unused.take().unwrap(), Options::new()).is_ok()));
    assert_eq!(reap(child), 0, "a window of the parent is no window of the child");
    refused_in_a_fork("Allocator", &mut arena, |arena: &mut Allocator| vec![arena.allocate(PAGE).err()]);

    let arena = attacker::arena(1);
    let descriptor = arena.allocate(PAGE).unwrap();
    let mut connector = Some(Connector::new(Window::map(&descriptor).unwrap(), Options::new()).unwrap());
    let mut acceptor = Some(Acceptor::new(Window::map(&descriptor).unwrap(), Options::new()).unwrap());
    let child = fork(|| {
        i32::from(connector.take().unwrap().connect(MOMENT).map(drop).unwrap_err().kind() != ErrorKind::InvalidInput)
    });
    assert_eq!(reap(child), 0, "Connector");
    let child = fork(|| {
        i32::from(acceptor.take().unwrap().recv_first(MOMENT).map(drop).unwrap_err().kind() != ErrorKind::InvalidInput)
    });
    assert_eq!(reap(child), 0, "Acceptor");
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let acceptor = acceptor.take().unwrap();
    let serving = std::thread::spawn(move || {
        let (mut endpoint, mut length) = acceptor.recv_first(AGES).unwrap();
        loop {
            // The fourth byte says whether to be late.
            let mut request = [0; 4];
            endpoint.read_at(0, &mut request).unwrap();
            if request[3] == 1 {
                gone.recv().unwrap();
            }
            match endpoint.send_recv(length, AGES) {
                Ok(next) => length = next,
                Err(error) => return error.kind(),
            }
        }
    });
    let mut endpoint = Some(connector.take().unwrap().connect(AGES).unwrap());
    let call = |endpoint: &mut flipcall::endpoint::Endpoint| {
        let length = endpoint.write_datagram(&[1, 2, 3, 0]).unwrap();
        assert_eq!(endpoint.send_recv(length, AGES).unwrap(), 4);
    };
    call(endpoint.as_mut().unwrap());
    refused_in_a_fork("Endpoint", &mut endpoint, |endpoint| {
        vec![
            endpoint.write_datagram(b"from the child").err(),
            endpoint.read_at(0, &mut [0; 4]).err(),
            endpoint.send_recv(4, MOMENT).err().map(Error::from),
        ]
    });
    call(endpoint.as_mut().unwrap());
    let mut handle = Some(endpoint.as_ref().unwrap().shutdown_handle());
    refused_in_a_fork("ShutdownHandle", &mut handle, |handle| {
        handle.shut_down();
        vec![]
    });
    call(endpoint.as_mut().unwrap());
    let mut last = endpoint.take().unwrap();
    let length = last.write_datagram(&[1, 2, 3, 1]).unwrap();
    let Err(Interrupted::TimedOut(waiting)) = last.send_recv(length, Duration::from_millis(10)) else {
        panic!("it is late")
    };
    let mut waiting = Some(waiting);
    let child = fork(|| {
        i32::from(waiting.take().unwrap().resume(MOMENT).map(drop).unwrap_err().kind() != ErrorKind::InvalidInput)
    });
    assert_eq!(reap(child), 0, "Waiting");
    go.send(()).unwrap();
    let (mut endpoint, length) = waiting.take().unwrap().resume(AGES).unwrap();
    assert_eq!(length, 4);
    call(&mut endpoint);
    let length = endpoint.write_datagram(&[0; 4]).unwrap();
    let mut finished = Some(endpoint.send_last(length).unwrap());
    refused_in_a_fork("Finished", &mut finished, |finished| {
        finished.shut_down();
        vec![finished.wait(MOMENT).err()]
    });
    finished.take().unwrap().shut_down();
    assert_eq!(serving.join().unwrap(), ErrorKind::PeerShutdown);
}

#[test]
fn sockets_in_a_fork_refuse_and_their_drop_ends_no_connection() {
    let _alone = alone();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, mut theirs) = (Some(FrameSocket::new(ours)), FrameSocket::new(theirs));
    refused_in_a_fork("FrameSocket", &mut ours, |socket| {
        socket.shutdown_handle().shutdown();
        vec![
            socket.send(1, b"from the child", MOMENT).err(),
            socket.receive(MOMENT).err(),
            socket.finish().err(),
            socket.set_attachments(true).err(),
            socket.assume_unshared().err(),
        ]
    });
    let mut shutdown = Some(ours.as_ref().unwrap().shutdown_handle());
    refused_in_a_fork("SocketShutdown", &mut shutdown, |shutdown| {
        shutdown.shutdown();
        vec![]
    });
    ours.as_mut().unwrap().send(7, b"from the parent", AGES).unwrap();
    let message = theirs.receive(AGES).unwrap().unwrap();
    assert_eq!((message.tag, message.payload), (7, &b"from the parent"[..]));

    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut loops = Some((NonBlockingReader::new(100), BufferedWriter::new(100)));
    refused_in_a_fork("NonBlockingReader, BufferedWriter", &mut loops, |(reader, writer)| {
        vec![reader.read(&ours).err(), writer.push(&theirs, 1, &[b"x"]).err(), writer.flush(&theirs).err()]
    });
    let mut plain = Some(PlainMux::new(ours, 100));
    refused_in_a_fork("PlainMux", &mut plain, |plain| {
        vec![plain.send(1, b"x", MOMENT).err(), plain.receive(MOMENT).err()]
    });
}

#[test]
fn a_mux_in_a_fork_refuses_and_says_no_goodbye() {
    let _alone = alone();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let config = |role| MuxConfig::new(role);
    let mut ours = Some(Mux::new(ours, config(flipcall::stream::mux::Role::Initiator)).unwrap());
    let theirs = Mux::new(theirs, config(flipcall::stream::mux::Role::Acceptor)).unwrap();
    let accepting = std::thread::spawn(move || {
        let channel = theirs.accept(AGES).unwrap().accept().unwrap();
        let offer = theirs.accept(AGES).unwrap();
        (theirs, channel, offer)
    });
    let channel = ours.as_ref().unwrap().open("first", AGES).unwrap();
    let opener = ours.clone().unwrap();
    let opening = std::thread::spawn(move || opener.open("second", AGES));
    let (theirs, mut far, offer) = accepting.join().unwrap();
    let (mut channel, mut offer) = (Some(channel), Some(offer));
    refused_in_a_fork("Offer", &mut offer, |_| vec![]);
    refused_in_a_fork("Channel", &mut channel, |channel| {
        vec![
            channel.sender.send(b"x", MOMENT).err(),
            channel.sender.check().err(),
            channel.receiver.receive(MOMENT).err(),
            channel.receiver.wait_end(MOMENT).err(),
        ]
    });
    refused_in_a_fork("Mux", &mut ours, |mux| {
        let closed = mux.close(flipcall::stream::mux::Reason::CLOSING, MOMENT).err();
        vec![mux.open("third", MOMENT).err(), mux.accept(MOMENT).err(), closed, mux.error()]
    });
    let _second = (offer.take().unwrap().accept().unwrap(), opening.join().unwrap().unwrap());
    channel.as_mut().unwrap().sender.send(b"from the parent", AGES).unwrap();
    assert_eq!(far.receiver.receive(AGES).unwrap().unwrap(), b"from the parent");
    assert!(theirs.error().is_none() && ours.as_ref().unwrap().error().is_none());
}

#[test]
fn a_child_process_in_a_fork_is_neither_waited_for_nor_killed() {
    let _alone = alone();
    let (device, _control) = command("echoes", "", &[]);
    let mut device = Some(Spawned::start(device, PAGE, Options::new()).unwrap());
    refused_in_a_fork("Spawned", &mut device, |device| {
        vec![device.connect(MOMENT).err(), device.process().kill().err(), device.process().wait(MOMENT).err()]
    });
    let device = device.as_mut().unwrap();
    let mut endpoint = device.connect(AGES).unwrap();
    assert_eq!(endpoint.send_recv(3, AGES).unwrap(), 3);
    let mut sleeper = std::process::Command::new("sleep");
    sleeper.arg("1000");
    let mut sleeper = Some(ChildProcess::start(sleeper).unwrap());
    refused_in_a_fork("ChildProcess", &mut sleeper, |child| vec![child.wait(MOMENT).err(), child.kill().err()]);
    assert_eq!(sleeper.unwrap().wait(Duration::from_millis(50)).unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn a_forked_child_makes_handles_of_its_own() {
    let _alone = alone();
    let child = fork(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = Server::new(router(), Default::default());
        std::thread::spawn(move || server.serve_one(theirs));
        let client = Client::from_socket(ours, Default::default()).unwrap();
        let here = client.call::<u64, u64>(1, &7, AGES).unwrap() == 7;
        let grandchild = fork(|| i32::from(client.call::<u64, u64>(1, &7, MOMENT).is_ok()));
        i32::from(!here || reap(grandchild) != 0)
    });
    assert_eq!(reap(child), 0);
}

/// The kernel of gVisor and old ones refuse `MADV_WIPEONFORK`.
fn forks_where_no_page_can_be_wiped(stage: Stage) {
    deny(libc::SYS_madvise, libc::EINVAL);
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let (mut ours, mut theirs) = (FrameSocket::new(ours), FrameSocket::new(theirs));
    let child = fork(|| {
        let refused = ours.send(1, b"from the child", MOMENT).is_err();
        let (mut own, _far) = FrameSocket::pair().expect("a pair");
        let works = own.send(1, b"of the child", MOMENT).is_ok();
        let grandchild = fork(|| i32::from(own.send(1, b"from the grandchild", MOMENT).is_ok()));
        i32::from(!refused || !works || reap(grandchild) != 0)
    });
    let status = reap(child);
    ours.send(7, b"from the parent", AGES).expect("the connection is the parent's");
    let tag = theirs.receive(AGES).expect("a message").expect("no end").tag;
    stage.control.say(&format!("{status} {tag}"));
}

#[test]
fn a_fork_is_noticed_where_no_page_can_be_wiped() {
    let _alone = alone();
    Peer::start("forks where no page can be wiped", "", &[]).control.expect("0 7");
}

#[test]
fn a_handler_that_forks_answers_once() {
    let _alone = alone();
    for window in [64 * 1024, 0] {
        let mut router = Router::new();
        router.unary(1, |context: &mut Context<'_>, value: u64| {
            let cancel = context.cancel_token();
            let mut answer = value + 1;
            // The child returns from the handler, too.
            if fork_here() == 0 {
                assert!(cancel.is_cancelled(), "it has no caller");
                answer = 666;
            }
            Ok(answer)
        });
        let server = Server::new(router, Default::default());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || server.serve_one(theirs));
        let client = Client::from_socket(ours, flipcall::rpc::ClientConfig::new().window(window)).unwrap();
        for value in 0..20u64 {
            assert_eq!(client.call::<u64, u64>(1, &value, AGES).unwrap(), value + 1);
        }
        client.close();
        serving.join().unwrap().unwrap();
    }
}

#[test]
fn a_stream_in_a_fork_refuses_and_its_drop_cancels_nothing() {
    let _alone = alone();
    let mut router = Router::new();
    router.streaming(2, |_, _, mut chunks| {
        for n in 0..5u64 {
            chunks.send(&n)?;
        }
        chunks.finish()
    });
    let server = Server::new(router, Default::default());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || server.serve_one(theirs));
    let client = Client::from_socket(ours, Default::default()).unwrap();
    let mut stream = Some(client.stream(2, &5u64, AGES).unwrap());
    assert_eq!(stream.as_mut().unwrap().next().unwrap().unwrap(), 0u64.to_be_bytes());
    refused_in_a_fork("Stream", &mut stream, |stream| {
        vec![stream.next().and_then(|chunk| match chunk {
            Err(flipcall::rpc::CallError::Failed(error)) => Some(error),
            _ => None,
        })]
    });
    let rest: Vec<_> = stream.take().unwrap().map(Result::unwrap).collect();
    assert_eq!(rest.len(), 4);
    drop(client);
    serving.join().unwrap().unwrap();
}
