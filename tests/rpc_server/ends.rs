//! Issue 13, A7 and C24: every end of a connection gives back what it had, and is counted.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flipcall::rpc::{CallError, Client, ClientConfig, Code, Router, Server};

use crate::attacker::raw::deny;
use crate::attacker::{Peer, Role, Stage, alone};
use crate::serving::{PATIENCE, Serving, eventually};

pub const ROLES: &[Role] = &[("serves without limits", serves_without_limits), ("serves grenades", serves_grenades)];

fn adder() -> Router {
    let mut router = Router::new();
    router.unary(1, |_, (a, b): (u64, u64)| Ok(a + b));
    router
}

/// Serves while the system call that tells a limit fails with the error number of its argument.
fn serves_without_limits(mut stage: Stage) {
    let errno = stage.argument.parse().expect("a number");
    deny(libc::SYS_prlimit64, errno);
    deny(libc::SYS_getrlimit, errno);
    let ended = Server::new(adder(), Default::default()).serve_one(stage.fds.remove(0));
    stage.control.say(&format!("{ended:?}"));
}

/// A base connection that asked for a limit to make a window panicked: its client waited for ever.
#[test]
fn a_server_that_may_not_read_its_limits_serves_windows() {
    let _alone = alone();
    for errno in [libc::EPERM, libc::ENOSYS, libc::EINVAL] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = Peer::start("serves without limits", &errno.to_string(), &[theirs.as_fd()]);
        drop(theirs);
        let client = Client::from_socket(ours, ClientConfig::new()).unwrap();
        assert_eq!(client.call::<_, u64>(1, &(1u64, 2u64), PATIENCE).unwrap(), 3);
        assert_eq!((client.counters().channels_opened, client.counters().fallbacks), (1, 0));
        drop(client);
        peer.control.expect("Ok(())");
    }
}

/// Panics when it is dropped, with another of its kind.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        std::panic::panic_any(Self);
    }
}

/// Serves a method that panics with something that panics when it is dropped.
fn serves_grenades(mut stage: Stage) {
    let mut router = adder();
    router.unary(2, |_, ()| -> Result<(), _> { std::panic::panic_any(Grenade) });
    router.streaming(3, |_, _, _| std::panic::panic_any(Grenade));
    std::panic::set_hook(Box::new(|_| {}));
    let ended = Server::new(router, Default::default()).serve_one(stage.fds.remove(0));
    stage.control.say(&format!("{ended:?}"));
}

#[test]
fn a_panic_that_panics_when_it_is_dropped_costs_its_call_only() {
    let _alone = alone();
    for config in [ClientConfig::new(), ClientConfig::new().window(0), ClientConfig::new().base_protocol()] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = Peer::start("serves grenades", "", &[theirs.as_fd()]);
        drop(theirs);
        let client = Client::from_socket(ours, config).unwrap();
        for _ in 0..3 {
            let error = client.call::<_, ()>(2, &(), PATIENCE).unwrap_err();
            assert!(matches!(&error, CallError::Status(status) if status.code == Code::Unknown), "{error}");
            let mut stream = client.stream(3, &(), PATIENCE).unwrap();
            assert!(stream.next().is_some_and(|chunk| chunk.is_err()));
            drop(stream);
            assert_eq!(client.call::<_, u64>(1, &(1u64, 2u64), PATIENCE).unwrap(), 3);
        }
        assert!(client.counters().channels_opened <= 1, "no panic costs a channel");
        drop(client);
        peer.control.expect("Ok(())");
    }
}

#[test]
fn counters_outlive_their_server() {
    let mut serving = Serving::start(adder(), Default::default());
    let handle = serving.handle.clone();
    let client = Client::connect(serving.path(), ClientConfig::new(), PATIENCE).unwrap();
    for call in 0..5u64 {
        assert_eq!(client.call::<_, u64>(1, &(call, 1u64), PATIENCE).unwrap(), call + 1);
    }
    assert!(client.call::<_, u64>(9, &(), PATIENCE).is_err());
    // HELLO and OPEN are calls. Some answers go out before they are counted.
    eventually("every call is counted", || handle.counters().calls == 8);
    let before = handle.counters();
    assert_eq!((before.connections, before.channels_opened, before.errors), (1, 1, 1));
    drop(client);
    serving.close();
    drop(serving);
    // What the last threads counted is there once they have ended.
    eventually("the counters are those of its life", || handle.counters() == before);
    assert!(handle.close(Duration::ZERO), "a server that is gone is closed");
}
