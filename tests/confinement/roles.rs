//! What a confined process does, role by role.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flipcall::endpoint::Interrupted;
use flipcall::endpoint::{Acceptor, Connector, Endpoint, Inherited, Options, Spawned};
use flipcall::rpc::{Client, ClientConfig, Router, Server, WaitPolicy, inherited_socket};
use flipcall::stream::mux::{Channel, Mux, MuxConfig, Role as MuxRole};
use flipcall::window::{Seals, Window};

use crate::Phases;
use crate::attacker::{AGES, PAGE, Role, Stage, command, raw};
use crate::peers::{ADD, CALLED, ECHO, ENDS, GIVE, LARGE, SLEEP, SLOW, STREAM, UNASKED};

pub const ROLES: &[Role] = &[
    ("window client, spin", |stage| window_client(stage, WaitPolicy::Spin)),
    ("window client, adaptive", |stage| window_client(stage, WaitPolicy::Adaptive)),
    ("window client, park", |stage| window_client(stage, WaitPolicy::Park)),
    ("window server, spin", |stage| window_server(stage, WaitPolicy::Spin)),
    ("window server, adaptive", |stage| window_server(stage, WaitPolicy::Adaptive)),
    ("window server, park", |stage| window_server(stage, WaitPolicy::Park)),
    ("typed client", |stage| typed_client(stage, false)),
    ("typed client that grows", |stage| typed_client(stage, true)),
    ("typed server", typed_server),
    ("typed server that grows", typed_server),
    ("typed server with a path", typed_server_with_a_path),
    ("mux", mux),
    ("frames", crate::frames::frames),
    ("listener of frames", crate::frames::listener),
    ("spawner of a window", spawner_of_a_window),
    ("spawner of a server", spawner_of_a_server),
];

/// Whether the role says first where it will listen.
pub fn says_its_path(role: &str) -> bool {
    role == "typed server with a path" || role == "listener of frames"
}

/// A name for a socket. A process that had the same number may have been killed under a filter, and left its file.
pub fn fresh_path(role: &str) -> PathBuf {
    let path = PathBuf::from("/tmp").join(format!("flipcall-{role}-{}", std::process::id()));
    forget_path(&path);
    path
}

/// Removes what a role that was killed left of its socket.
pub fn forget_path(path: &Path) {
    for path in [path.to_owned(), path.with_extension("lock")] {
        let _ = std::fs::remove_file(path);
    }
}

/// What the spawners start.
pub const CHILDREN: &[Role] =
    &[("child with a window", child_with_a_window), ("child with a server", child_with_a_server)];

/// Calls in a row that are answered at once.
const CALLS: u32 = 2000;
/// A deadline that no answer meets which takes its time.
const SHORT: Duration = Duration::from_millis(10);

fn window(stage: &mut Stage, policy: WaitPolicy) -> (Window, Options) {
    let window = Window::receive(stage.fds.remove(0), 0, PAGE, Seals::Strict).expect("an honest window");
    (window, Options::new().policy(policy).watch_socket(stage.fds.remove(0)))
}

fn window_client(mut stage: Stage, policy: WaitPolicy) {
    let phases = Phases::begin(&stage.argument);
    let (window, options) = window(&mut stage, policy);
    let mut endpoint = Connector::new(window, options).expect("it is watched").connect(AGES).expect("a server");
    let call = |endpoint: &mut Endpoint, datagram: &[u8], deadline: Duration| {
        let length = endpoint.write_datagram(datagram).expect("room");
        endpoint.send_recv(length, deadline)
    };
    call(&mut endpoint, b"", AGES).expect("an answer");
    phases.called();
    for _ in 0..CALLS {
        call(&mut endpoint, b"", AGES).expect("an answer");
    }
    call(&mut endpoint, SLOW, AGES).expect("a slow answer");
    let waiting = loop {
        match call(&mut endpoint, SLOW, SHORT) {
            Err(Interrupted::TimedOut(waiting)) => break waiting,
            // This thread did not run for a while.
            Ok(_) => {}
            Err(error) => panic!("{error:?}"),
        }
    };
    let (endpoint, _) = waiting.resume(AGES).expect("the answer");
    phases.ends();
    drop(endpoint);
}

fn window_server(mut stage: Stage, policy: WaitPolicy) {
    let phases = Phases::begin(&stage.argument);
    let (window, options) = window(&mut stage, policy);
    let acceptor = Acceptor::new(window, options).expect("it is watched");
    let (mut endpoint, mut length) = acceptor.recv_first(AGES).expect("a client");
    let mut is_first = true;
    while let Ok(next) = endpoint.send_recv(length, AGES) {
        if std::mem::take(&mut is_first) {
            phases.called();
        }
        length = next;
    }
    phases.ends();
    drop(endpoint);
}

fn typed_client(mut stage: Stage, grows: bool) {
    let phases = Phases::begin(&stage.argument);
    let owned = Client::from_socket(stage.fds.remove(0), ClientConfig::new()).expect("a server");
    let client = &owned;
    let add = |deadline: Duration| client.call::<_, u64>(ADD, &(1u64, 2u64), deadline);
    assert_eq!(add(AGES).expect("an answer"), 3);
    std::thread::scope(|scope| {
        // Inside, so that a story that breaks off lets the other thread go.
        let (go, wait) = mpsc::channel::<()>();
        let other = scope.spawn(move || wait.recv().is_ok().then(|| client.call::<_, ()>(SLEEP, &50u32, AGES)));
        phases.called();
        (0..CALLS).for_each(|_| assert_eq!(add(AGES).expect("an answer"), 3));
        client.call::<_, ()>(SLEEP, &20u32, AGES).expect("a slow answer");
        let bytes = vec![7u8; LARGE];
        assert_eq!(client.call::<_, Vec<u8>>(ECHO, &bytes, AGES).expect("a long answer"), bytes);
        let fd = stage.fds[0].as_fd();
        let (_, fds) = client.call_with_fds::<_, ()>(GIVE, &(), &[fd], AGES).expect("a descriptor");
        assert_eq!(fds.len(), 1);
        let _ = client.call::<_, ()>(UNASKED, &(), AGES);
        let mut stream = client.stream(STREAM, &(), AGES).expect("a stream");
        assert_eq!(stream.by_ref().filter(Result::is_ok).count(), 3);
        if grows {
            go.send(()).expect("the other thread waits");
            std::thread::sleep(SHORT);
            client.call::<_, ()>(SLEEP, &20u32, AGES).expect("on another channel");
            // It is late, unless this thread did not run for so long.
            assert!(client.call::<_, ()>(SLEEP, &50u32, SHORT).err().is_none_or(|error| error.is_timeout()));
            std::thread::sleep(2 * SHORT);
        }
        drop(go);
        assert_eq!(other.join().expect("no panic").is_some(), grows);
        phases.ends();
    });
    drop(owned);
}

/// A router that tells when its process has answered its first call and its last.
fn router(phases: Phases, over: mpsc::Sender<()>) -> Router {
    let mut router = crate::peers::router();
    let phases = std::sync::Mutex::new(phases);
    let over = std::sync::Mutex::new(over);
    let phase = move |ends: bool| {
        let phases = phases.lock().expect("no panic");
        if ends { phases.ends() } else { phases.called() }
    };
    let phase = std::sync::Arc::new(phase);
    let called = std::sync::Arc::clone(&phase);
    router.unary(CALLED, move |_, ()| {
        called(false);
        Ok(())
    });
    router.unary(ENDS, move |_, ()| {
        phase(true);
        let _ = over.lock().expect("no panic").send(());
        Ok(())
    });
    router
}

fn typed_server(mut stage: Stage) {
    let phases = Phases::begin(&stage.argument);
    let server = Server::new(router(phases, mpsc::channel().0), Default::default());
    server.serve_one(stage.fds.remove(0)).expect("a client that closes");
}

fn typed_server_with_a_path(stage: Stage) {
    let path = fresh_path("confined");
    stage.control.say(path.to_str().expect("a name"));
    let phases = Phases::begin(&stage.argument);
    let (over, is_over) = mpsc::channel();
    let server = Server::new(router(phases, over), Default::default());
    let listener = server.bind(&path).expect("a socket file");
    let handle = server.handle();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(listener));
        // Where its clients cannot get at it, the last call never comes.
        let begun = Instant::now();
        while is_over.recv_timeout(SHORT).is_err() && !serving.is_finished() && begun.elapsed() < AGES / 2 {}
        handle.close(AGES);
        serving.join().expect("no panic").expect("a clean end");
    });
}

fn mux(mut stage: Stage) {
    let phases = Phases::begin(&stage.argument);
    let socket = UnixStream::from(stage.fds.remove(0));
    let mux = Mux::new(socket, MuxConfig::new(MuxRole::Initiator)).expect("a mux");
    let echo = |mux: &Mux, sizes: &[usize]| {
        let Channel { mut sender, mut receiver, .. } = mux.open("echo", AGES).expect("a channel");
        for &size in sizes {
            sender.send(&vec![1; size], AGES).expect("room");
            assert_eq!(receiver.receive(AGES).expect("a message").map(|message| message.len()), Some(size));
        }
        sender.end();
        assert_eq!(receiver.receive(AGES).expect("an end"), None);
    };
    echo(&mux, &[1]);
    phases.called();
    let mut sizes = vec![100; CALLS as usize];
    sizes.extend([60_000, 60_000]);
    echo(&mux, &sizes);
    phases.ends();
    drop(mux);
}

fn spawner_of_a_window(stage: Stage) {
    let (command, _control) = command("child with a window", "", &[]);
    let phases = Phases::begin(&stage.argument);
    let mut child = Spawned::start(command, PAGE, Options::new()).expect("a child");
    let mut endpoint = child.connect(AGES).expect("a server");
    endpoint.send_recv(0, AGES).expect("an answer");
    phases.called();
    (0..CALLS).for_each(|_| assert_eq!(endpoint.send_recv(0, AGES).expect("an answer"), 0));
    phases.ends();
    drop(endpoint);
    assert!(child.finish(AGES).expect("it ends").success());
}

fn child_with_a_window(_: Stage) {
    let inherited = Inherited::from_env(&raw::inherited()).expect("a window");
    let (mut endpoint, mut length) =
        inherited.into_acceptor(Options::new()).expect("it is watched").recv_first(AGES).expect("a client");
    while let Ok(next) = endpoint.send_recv(length, AGES) {
        length = next;
    }
}

fn spawner_of_a_server(stage: Stage) {
    let (command, _control) = command("child with a server", "", &[]);
    let phases = Phases::begin(&stage.argument);
    let (client, mut child) = Client::spawn(command, ClientConfig::new(), AGES).expect("a child");
    let add = || client.call::<_, u64>(ADD, &(1u64, 2u64), AGES);
    assert_eq!(add().expect("an answer"), 3);
    phases.called();
    (0..CALLS).for_each(|_| assert_eq!(add().expect("an answer"), 3));
    phases.ends();
    drop(client);
    assert!(child.wait(AGES).expect("it ends").success());
}

fn child_with_a_server(_: Stage) {
    let socket = inherited_socket(&raw::inherited()).expect("a socket");
    Server::new(crate::peers::router(), Default::default()).serve_one(socket).expect("a client that closes");
}
