//! Our own process in conditions that it did not choose: a filter that denies `futex_waitv`.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::endpoint::Interrupted;
use flipcall::endpoint::{Acceptor, Connector, Options, WaitPolicy};
use flipcall::window::{Seals, Window};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::attacker::raw::{deny, deny_futex_waitv};
use crate::attacker::{AGES, PAGE, Peer, Role, Stage, alone, arena, next_window, promised_once};

pub const ROLES: &[Role] =
    &[("calls under a filter", calls_under_a_filter), ("watches under a filter", watches_under_a_filter)];

/// Calls of each policy.
const CALLS: u32 = 500;
const POLICIES: [WaitPolicy; 3] = [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Park];
/// The slice in which the fallback looks at the cancel word, and what ending it takes.
const SLICE: Duration = Duration::from_millis(60);
/// What it may take to notice a death.
const NOTICED: Duration = Duration::from_millis(100);

/// Denies itself `futex_waitv` with the error number of its argument, then runs the test's part as client: each policy, a deadline,
/// a shutdown, the death of the watched socket's other end. Messages: what it measured, in milliseconds.
fn calls_under_a_filter(mut stage: Stage) {
    deny_futex_waitv(stage.argument.parse().expect("a number"));
    let file = stage.fds.remove(0);
    let mut index = 0;
    let mut client = |options: Options| {
        let window = Window::receive(file.try_clone().expect("dup"), index * u64::from(PAGE), PAGE, Seals::Strict);
        index += 1;
        Connector::new(window.expect("an honest window"), options).expect("it can be watched")
    };
    for policy in POLICIES {
        let mut endpoint = client(Options::new().policy(policy)).connect(AGES).expect("a server");
        for call in 0..CALLS {
            let length = endpoint.write_datagram(&call.to_ne_bytes()).expect("four bytes");
            assert_eq!(endpoint.send_recv(length, AGES).expect("an answer"), length);
            assert_eq!(endpoint.reader().read_array(), Some((call + 1).to_ne_bytes()));
        }
    }
    stage.control.say("called");
    // From here on the server keeps control.
    let parked = || Options::new().policy(WaitPolicy::Park);
    let mut endpoint = client(parked()).connect(AGES).expect("a server");
    let start = Instant::now();
    let Err(Interrupted::TimedOut(waiting)) = endpoint.send_recv(0, Duration::from_millis(120)) else {
        panic!("answered")
    };
    stage.control.say(&(start.elapsed().as_millis() - 120).to_string());
    let handle = waiting.shutdown_handle();
    let caller = std::thread::spawn(move || (waiting.resume(AGES).expect_err("shut down").kind(), Instant::now()));
    std::thread::sleep(Duration::from_millis(75));
    let start = Instant::now();
    handle.shut_down();
    let (kind, returned) = caller.join().expect("no panic");
    assert_eq!(kind, ErrorKind::LocalShutdown);
    stage.control.say(&returned.duration_since(start).as_millis().to_string());

    let mut endpoint = client(parked().watch_socket(stage.fds.remove(0))).connect(AGES).expect("a server");
    stage.control.say("calling");
    assert_eq!(endpoint.send_recv(0, AGES).expect_err("its socket is closed").kind(), ErrorKind::PeerGone);
    stage.control.say("gone");
}

#[test]
fn without_futex_waitv_everything_works_in_slices() {
    let _alone = alone();
    for (errno, name) in [(libc::ENOSYS, "ENOSYS"), (libc::EPERM, "EPERM"), (libc::EINVAL, "EINVAL")] {
        let arena = arena(5);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let peer = Peer::start("calls under a filter", &errno.to_string(), &[arena.fd(), theirs.as_fd()]);
        drop(theirs);
        for policy in POLICIES {
            let server = Acceptor::new(next_window(&arena), Options::new().policy(policy)).unwrap();
            let (mut endpoint, _) = server.recv_first(AGES).expect("a client");
            let end = loop {
                let call = u32::from_ne_bytes(endpoint.reader().read_array().expect("four bytes"));
                let length = endpoint.write_datagram(&(call + 1).to_ne_bytes()).unwrap();
                if let Err(error) = endpoint.send_recv(length, AGES) {
                    break error.kind();
                }
            };
            assert_eq!(end, ErrorKind::PeerShutdown, "{name} {policy:?}");
        }
        peer.control.expect("called");
        let hold = || Acceptor::new(next_window(&arena), Options::new()).unwrap().recv_first(AGES).expect("a client").0;
        let _kept = hold();
        for what in ["past the deadline", "shutdown noticed after"] {
            let took = Duration::from_millis(peer.control.hear().parse().expect("a number"));
            promised_once(&format!("{name}: {what}"), took, SLICE);
        }
        let ready = std::thread::scope(|scope| {
            let server = scope.spawn(hold);
            peer.control.expect("calling");
            server.join().expect("no panic")
        });
        let start = Instant::now();
        drop(ours);
        peer.control.expect("gone");
        promised_once(&format!("{name}: death noticed after"), start.elapsed(), NOTICED);
        drop(ready);
    }
}

/// Waits for a server that never answers, under a filter that refuses the system call of its argument.
fn watches_under_a_filter(mut stage: Stage) {
    let numbers: Vec<_> = stage.argument.split(' ').map(|number| number.parse().expect("a number")).collect();
    deny(numbers[0], numbers[1] as i32);
    let window = Window::receive(stage.fds.remove(0), 0, PAGE, Seals::Strict).expect("an honest window");
    let options = Options::new().policy(WaitPolicy::Park).watch_socket(stage.fds.remove(0));
    let mut endpoint = Connector::new(window, options).expect("it can be watched").connect(AGES).expect("a server");
    stage.control.say("calling");
    assert_eq!(endpoint.send_recv(0, AGES).expect_err("its socket is closed").kind(), ErrorKind::PeerGone);
    stage.control.say("gone");
}

/// Issue 13, C18.
#[test]
fn without_epoll_a_death_is_noticed_in_slices() {
    let _alone = alone();
    for (call, name) in [(libc::SYS_epoll_pwait, "epoll_pwait"), (libc::SYS_epoll_create1, "epoll_create1")] {
        for errno in [libc::EPERM, libc::ENOSYS, libc::EINVAL] {
            let arena = arena(1);
            let window = next_window(&arena);
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            let argument = format!("{call} {errno}");
            let peer = Peer::start("watches under a filter", &argument, &[arena.fd(), theirs.as_fd()]);
            drop(theirs);
            let server = Acceptor::new(window, Options::new()).unwrap();
            let _kept = server.recv_first(AGES).expect("a client");
            peer.control.expect("calling");
            let start = Instant::now();
            drop(ours);
            peer.control.expect("gone");
            promised_once(&format!("without {name} ({errno}): death noticed after"), start.elapsed(), NOTICED);
        }
    }
}
