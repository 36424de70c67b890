//! What connections cost and leave behind: CPU time, pages, descriptors, mappings, system calls.

mod attacker;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use attacker::account::{Holdings, cpu_time, resident};
use attacker::control::Control;
use attacker::{AGES, PAGE, Peer, Role, Stage, alone, arena, full, measured, next_window, promised_share};
use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options, WaitPolicy};
use flipcall::window::{Allocator, Seals, Window};
use flipcall::{Deadline, Error};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const ROLES: &[Role] = &[("serves windows", serves_windows), ("serves rounds", serves_rounds)];

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[ROLES]);
}

/// Answers every call with nothing, until the client shuts down.
fn serve(window: Window, options: Options) -> Result<(), Error> {
    let (mut endpoint, _) = Acceptor::new(window, options)?.recv_first(Deadline::NEVER)?;
    while endpoint.send_recv(0, Deadline::NEVER).is_ok() {}
    Ok(())
}

/// Serves the windows of one file one after the other. Argument: the policy, and the bytes of a window.
fn serves_windows(stage: Stage) {
    let (policy, length) = stage.argument.split_once(' ').expect("two fields");
    let (policy, length) = (policy_named(policy), length.parse::<u32>().expect("a number"));
    for index in 0.. {
        let fd = stage.fds[0].try_clone().expect("dup");
        let Ok(window) = Window::receive(fd, index * u64::from(length), length, Seals::Strict) else { break };
        serve(window, Options::new().policy(policy)).expect("a client");
    }
    stage.control.say("done");
    // The test looks at what is left in this process, and ends it.
    let _ = stage.control.listen();
}

fn policy_named(name: &str) -> WaitPolicy {
    match name {
        "spin" => WaitPolicy::Spin,
        "park" => WaitPolicy::Park,
        _ => WaitPolicy::Adaptive,
    }
}

fn connect(window: Window, options: Options) -> Endpoint {
    Connector::new(window, options).unwrap().connect(AGES).expect("a server")
}

#[test]
fn an_idle_pair_uses_no_cpu_and_only_the_pages_it_touched() {
    const LENGTH: u32 = 1 << 20;
    let _alone = alone();
    let allocator = Allocator::with_size(u64::from(LENGTH)).unwrap();
    let window = Window::map(&allocator.allocate(LENGTH).unwrap()).unwrap();
    let peer = Peer::start("serves windows", &format!("adaptive {LENGTH}"), &[allocator.fd()]);
    let mut endpoint = connect(window, Options::new());
    let bytes = || u64::try_from(rustix::fs::fstat(allocator.fd()).unwrap().st_blocks).unwrap() * 512;
    for _ in 0..100 {
        endpoint.send_recv(0, AGES).expect("an answer");
    }
    assert_eq!(bytes(), u64::from(PAGE), "small calls touch the first page alone");
    let length = endpoint.write_datagram(&[1; 3 * PAGE as usize]).unwrap();
    endpoint.send_recv(length, AGES).expect("an answer");
    assert_eq!(bytes(), 4 * u64::from(PAGE), "header and three pages of datagram");

    std::thread::sleep(Duration::from_millis(50));
    let length = Duration::from_secs(if full() { 5 } else { 2 });
    let id = peer.child.id().to_string();
    let used = || cpu_time("self") + cpu_time(&id);
    let before = used();
    std::thread::sleep(length);
    let share = (used() - before).as_secs_f64() / length.as_secs_f64();
    promised_share("idle pair: CPU of both processes", share, 0.005);
    assert_eq!(bytes(), 4 * u64::from(PAGE));
}

#[test]
fn ten_thousand_windows_come_out_of_one_allocator() {
    const COUNT: u32 = 10_000;
    let _alone = alone();
    let allocator = arena(COUNT);
    let peer = Peer::start("serves windows", &format!("adaptive {PAGE}"), &[allocator.fd()]);
    let mut all = Vec::new();
    for _ in 0..COUNT {
        let mut endpoint = connect(next_window(&allocator), Options::new());
        endpoint.send_recv(0, AGES).expect("an answer");
        // The server moves on to the next window; this one stays mapped until all were there.
        endpoint.shutdown_handle().shut_down();
        all.push(endpoint);
    }
    assert!(allocator.allocate(1).is_err(), "the file was sized for as many");
    peer.control.expect("done");
    assert_eq!(all.len(), COUNT as usize);
}

/// Serves the rounds of the test: each message brings a file of windows and the number of them. Every round has its own mapping and
/// a watched socket of its own.
fn serves_rounds(stage: Stage) {
    while let Some((count, mut fds)) = stage.control.listen() {
        let (socket, file): (OwnedFd, OwnedFd) = (fds.pop().expect("a socket"), fds.pop().expect("a file"));
        for index in 0..count.parse::<u64>().expect("a number") {
            let file = file.try_clone().expect("dup");
            let window = Window::receive(file, index * u64::from(PAGE), PAGE, Seals::Strict).expect("an honest window");
            let options = Options::new().watch_socket(socket.try_clone().expect("dup"));
            serve(window, options).expect("a client");
        }
        drop((file, socket));
        stage.control.say("served");
    }
}

/// Connects, calls and closes `rounds` times.
fn rounds(control: &Control, rounds: u32) {
    const AT_ONCE: u32 = 500;
    for batch in (0..rounds).step_by(AT_ONCE as usize) {
        let count = AT_ONCE.min(rounds - batch);
        let allocator = arena(count);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        control.say_with(&count.to_string(), &[allocator.fd(), theirs.as_fd()]);
        drop(theirs);
        for _ in 0..count {
            let options = Options::new().watch_socket(ours.try_clone().unwrap());
            connect(next_window(&allocator), options).send_recv(0, AGES).expect("an answer");
        }
        control.expect("served");
    }
}

#[test]
fn connecting_and_closing_leaves_nothing_behind() {
    /// What an allocator's and a hash table's growth may leave: a leak of 50 bytes a round would pass it in the long form.
    const SLACK: u64 = 4 << 20;
    let _alone = alone();
    let count = if full() { 100_000 } else { 2_000 };
    let peer = Peer::start("serves rounds", "", &[]);
    let id = peer.child.id().to_string();
    rounds(&peer.control, 1_000);
    let before = [Holdings::of("self"), Holdings::of(&id)];
    let memory = [resident("self"), resident(&id)];
    let start = Instant::now();
    rounds(&peer.control, count);
    let per_round = start.elapsed() / count;
    before[0].comes_back("rounds");
    assert_eq!(Holdings::of(&id), before[1], "in the server");
    let grown: [i64; 2] = [resident("self") as i64 - memory[0] as i64, resident(&id) as i64 - memory[1] as i64];
    measured(&format!("{count} rounds of {per_round:?}: resident bytes grew by"), format!("{grown:?}"), "4 MiB");
    assert!(grown.iter().all(|&bytes| bytes < SLACK as i64), "{grown:?} bytes");
}

/// Calls of an exchange whose system calls are counted.
const CALLS: u64 = 10_000;

#[test]
fn a_busy_exchange_wakes_nobody_where_park_was_agreed_on() {
    let _alone = alone();
    for (base, policy) in [(false, "spin"), (true, "spin"), (false, "adaptive"), (true, "park")] {
        let arena = arena(1);
        let _peer = Peer::start("serves windows", &format!("{policy} {PAGE}"), &[arena.fd()]);
        let options = Options::new().policy(policy_named(policy));
        let mut endpoint = connect(next_window(&arena), if base { options.base_protocol() } else { options });
        assert_eq!(endpoint.elides_wakes(), !base);
        let before = endpoint.counters();
        for _ in 0..CALLS {
            endpoint.send_recv(0, AGES).expect("an answer");
        }
        let after = endpoint.counters();
        let (sent, elided) = (after.wakes_sent - before.wakes_sent, after.wakes_elided - before.wakes_elided);
        assert_eq!(sent + elided, CALLS, "{policy}, base {base}");
        match (base, policy) {
            (true, _) => assert_eq!(sent, CALLS, "a base peer is woken by every flip"),
            (false, "spin") => {
                assert_eq!(sent, 0, "nobody slept");
                assert_eq!(after.parks, before.parks);
            }
            _ => measured("adaptive pair: wakes of 10,000 flips", sent, "none"),
        }
    }
}
