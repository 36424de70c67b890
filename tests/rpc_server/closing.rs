//! Issue 13, C20: a handler may close its own server, and a server without descriptors can be closed.

use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use flipcall::Deadline;
use flipcall::rpc::{Client, ClientConfig, Server, ServerHandle};

use crate::attacker::{Peer, Role, Stage, alone, promised_once};
use crate::serving::{ADD, PATIENCE, eventually, fresh_path, router};

pub const ROLES: &[Role] = &[("closes itself", closes_itself), ("has no descriptor left", has_no_descriptor_left)];

/// Closes the server once two such calls are there, waits for as long as it takes, and answers.
const CLOSE: u16 = 10;
/// Answers after half a second.
const SLOW: u16 = 11;

fn closes_itself(stage: Stage) {
    let handle: Arc<OnceLock<ServerHandle>> = Arc::default();
    let mut router = router();
    let of_method = Arc::clone(&handle);
    // Once it is closing it begins no call.
    let both = Barrier::new(2);
    router.unary(CLOSE, move |_, ()| {
        both.wait();
        Ok(of_method.get().expect("it serves").close(Deadline::NEVER))
    });
    router.unary(SLOW, |_, ()| {
        std::thread::sleep(Duration::from_millis(500));
        Ok(7u8)
    });
    let server = Server::new(router, Default::default());
    let _ = handle.set(server.handle());
    let listener = server.bind(&stage.argument).expect("a socket file");
    stage.control.say("serving");
    server.serve(listener).expect("no error");
    let done = handle.get().expect("set").close(Duration::ZERO);
    stage.control.say(&format!("ended {done}"));
}

#[test]
fn a_handler_closes_its_server_and_every_call_is_answered() {
    let _alone = alone();
    for (name, config) in [
        ("window", ClientConfig::new()),
        ("socket", ClientConfig::new().window(0)),
        ("base", ClientConfig::new().base_protocol()),
    ] {
        let path = fresh_path();
        let mut peer = Peer::start("closes itself", path.to_str().unwrap(), &[]);
        peer.control.expect("serving");
        let client = || Client::connect(&path, config.clone(), PATIENCE).unwrap();
        let (first, second, other) = (client(), client(), client());
        assert_eq!(other.call::<_, u64>(ADD, &(1u64, 2u64), PATIENCE).unwrap(), 3);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| other.call::<_, u8>(SLOW, &(), PATIENCE));
            std::thread::sleep(Duration::from_millis(50));
            // Two that close do not wait for each other either.
            let closing = scope.spawn(|| second.call::<_, bool>(CLOSE, &(), PATIENCE));
            assert!(first.call::<_, bool>(CLOSE, &(), PATIENCE).unwrap(), "{name}");
            assert!(closing.join().unwrap().unwrap(), "{name}");
            assert_eq!(slow.join().unwrap().unwrap(), 7, "{name}");
        });
        peer.control.expect("ended true");
        promised_once(&format!("{name}: closed from inside after"), begun.elapsed(), Duration::from_secs(1));
        assert!(peer.child.wait().unwrap().success());
        let _ = std::fs::remove_file(format!("{}.lock", path.display()));
    }
}

fn has_no_descriptor_left(stage: Stage) {
    let server = Server::new(router(), Default::default());
    let (handle, listener) = (server.handle(), server.bind(&stage.argument).expect("a socket file"));
    let serving = std::thread::spawn(move || server.serve(listener));
    let mut held = Vec::new();
    while let Ok(file) = rustix::io::dup(stage.control.as_fd()) {
        held.push(file);
    }
    // A connection that cannot be accepted, in place of the last of them.
    held.pop();
    let _refused = std::os::unix::net::UnixStream::connect(&stage.argument).expect("room in the backlog");
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    assert!(handle.close(Duration::from_secs(10)), "every call is answered");
    eventually("serve ends", || serving.is_finished());
    let took = begun.elapsed();
    serving.join().expect("no panic").expect("no error");
    drop(held);
    stage.control.say(&took.as_millis().to_string());
}

#[test]
fn a_server_without_a_descriptor_left_can_be_closed() {
    let _alone = alone();
    let path = fresh_path();
    let peer = Peer::start("has no descriptor left", path.to_str().unwrap(), &[]);
    let took = Duration::from_millis(peer.control.hear().parse().expect("a number"));
    promised_once("a server without descriptors is closed after", took, Duration::from_millis(400));
    let _ = std::fs::remove_file(format!("{}.lock", path.display()));
}
