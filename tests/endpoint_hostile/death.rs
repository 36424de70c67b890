//! Row 5: the peer dies, at every system call and anywhere in between.

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options, Spawned, WaitPolicy};
use flipcall::endpoint::{Inherited, Interrupted};
use flipcall::window::{Seals, Window};
use flipcall::{Deadline, ErrorKind};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::attacker::account::{Holdings, cpu_time};
use crate::attacker::raw::{Tracer, thread_id};
use crate::attacker::{
    AGES, PAGE, Peer, Role, Stage, alone, arena, command, full, measured, median, next_window, promised_once,
};

pub const ROLES: &[Role] = &[("serves five calls", serves_five_calls), ("serves for ever", serves_for_ever)];

/// What it may take to notice a death.
const NOTICED: Duration = Duration::from_millis(100);

/// Takes its window from the environment, once told to; answers five calls and ends without a word.
fn serves_five_calls(stage: Stage) {
    stage.control.say(&thread_id().to_string());
    stage.control.expect("go");
    let inherited = Inherited::from_env(&crate::attacker::raw::inherited()).expect("a window");
    let server = inherited.into_acceptor(Options::new().policy(WaitPolicy::Park)).expect("a watchdog");
    let (mut endpoint, _) = server.recv_first(AGES).expect("a first call");
    for _ in 0..4 {
        endpoint.send_recv(0, AGES).expect("a call");
    }
    let _last = endpoint.send_last(0);
    std::process::exit(0);
}

/// Traces thread `id` and kills its process at its `number`th entry to or return from a system call. Says when it is in place, and
/// returns when it killed; `None` if the thread came to its end before.
fn kill_at(number: usize, id: i32, process: u32, in_place: mpsc::Sender<()>) -> JoinHandle<Option<Instant>> {
    std::thread::spawn(move || {
        let tracer = Tracer::seize(id).expect("ptrace");
        in_place.send(()).expect("the test waits for it");
        for _ in 0..number {
            if !tracer.step().expect("ptrace") {
                return None;
            }
        }
        let killed = Instant::now();
        let process = rustix::process::Pid::from_raw(process as i32).expect("not 0");
        rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it is not reaped yet");
        Some(killed)
    })
}

/// Calls until the connection ends.
fn call_until_the_end(child: &mut Spawned) -> (ErrorKind, Instant) {
    let kind = match child.connect(AGES) {
        Err(error) => error.kind(),
        Ok(mut endpoint) => loop {
            match endpoint.send_recv(0, AGES) {
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        },
    };
    (kind, Instant::now())
}

#[test]
fn a_peer_killed_at_any_of_its_system_calls_is_noticed_and_leaves_nothing() {
    let _alone = alone();
    // The watchdog and its thread stay: they are there before the first count.
    warm_up();
    let before = Holdings::of("self");
    let mut delays = Vec::new();
    for number in 0.. {
        let (command, control) = command("serves five calls", "", &[]);
        let options = Options::new().policy(WaitPolicy::Park);
        let mut child = Spawned::start(command, PAGE, options).expect("the second process starts");
        let process = child.id();
        let id = control.hear().parse().expect("a thread's number");
        let (in_place, tracing) = mpsc::channel();
        let killer = kill_at(number, id, process, in_place);
        tracing.recv().expect("the tracer stands");
        control.say("go");
        let (kind, noticed) = call_until_the_end(&mut child);
        assert_eq!(kind, ErrorKind::PeerGone, "killed at stop {number}");
        let killed = killer.join().unwrap();
        drop((child, control));
        assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "a zombie is left of stop {number}");
        before.comes_back(&format!("stop {number}"));
        match killed {
            Some(killed) => delays.push(noticed.saturating_duration_since(killed)),
            None => break,
        }
    }
    let stops = delays.len();
    assert!(stops > 40, "only {stops} stops: the peer was not traced");
    let (median, worst) = (median(&mut delays), *delays.last().unwrap());
    measured("kill -9: median", format!("{median:.2?}"), "none");
    promised_once(&format!("kill -9 at {stops} stops: noticed at worst after"), worst, NOTICED);
}

/// One connection to a peer that dies, for everything that is made once per process.
fn warm_up() {
    let (command, control) = command("serves five calls", "", &[]);
    let mut child = Spawned::start(command, PAGE, Options::new()).expect("the second process starts");
    control.hear();
    control.say("go");
    assert_eq!(call_until_the_end(&mut child).0, ErrorKind::PeerGone);
}

/// Answers until it dies. Arguments: the policy.
fn serves_for_ever(mut stage: Stage) {
    let policy = if stage.argument == "spin" { WaitPolicy::Spin } else { WaitPolicy::Adaptive };
    let window = Window::receive(stage.fds.remove(0), 0, PAGE, Seals::Strict).expect("our own window");
    let server = Acceptor::new(window, Options::new().policy(policy)).expect("nothing is watched");
    let mut endpoint = server.recv_first(Deadline::NEVER).expect("a first call").0;
    while endpoint.send_recv(8, Deadline::NEVER).is_ok() {}
}

/// How the death of a peer can be seen.
#[derive(Debug, Clone, Copy)]
enum Sight {
    Socket,
    Process,
}

/// A client of a new peer that is watched in one of two ways.
fn watching(sight: Sight, argument: &str, policy: WaitPolicy) -> (Peer, Connector) {
    let arena = arena(1);
    let window = next_window(&arena);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let peer = Peer::start("serves for ever", argument, &[arena.fd(), theirs.as_fd()]);
    drop(theirs);
    let options = Options::new().policy(policy);
    let options = match sight {
        Sight::Socket => options.watch_socket(ours),
        Sight::Process => options.watch_process(peer.pidfd()),
    };
    (peer, Connector::new(window, options).expect("it can be watched"))
}

#[test]
fn a_peer_killed_anywhere_is_noticed_by_socket_and_by_process() {
    let _alone = alone();
    warm_up();
    let before = Holdings::of("self");
    let mut delays = Vec::new();
    for round in 0..if full() { 300 } else { 24 } {
        let sight = if round % 2 == 0 { Sight::Socket } else { Sight::Process };
        let (policy, argument) =
            [(WaitPolicy::Adaptive, "adaptive"), (WaitPolicy::Spin, "spin"), (WaitPolicy::Park, "adaptive")][round % 3];
        let (peer, client) = watching(sight, argument, policy);
        let mut endpoint = client.connect(AGES).expect("it is alive");
        let calls = std::thread::spawn(move || {
            let kind = loop {
                match endpoint.send_recv(8, AGES) {
                    Ok(_) => {}
                    Err(error) => break error.kind(),
                }
            };
            (kind, Instant::now())
        });
        std::thread::sleep(Duration::from_micros(round as u64 % 24 * 137));
        let killed = Instant::now();
        drop(peer);
        let (kind, noticed) = calls.join().unwrap();
        assert_eq!(kind, ErrorKind::PeerGone, "{sight:?} {policy:?}");
        delays.push(noticed.saturating_duration_since(killed));
        before.comes_back(&format!("round {round}, {sight:?}"));
    }
    let (median, worst) = (median(&mut delays), *delays.last().unwrap());
    measured("kill -9: median", format!("{median:.2?}"), "none");
    promised_once("kill -9 anywhere: noticed at worst after", worst, NOTICED);
}

#[test]
fn a_peer_that_is_dead_already_is_noticed_in_every_state() {
    let _alone = alone();
    for sight in [Sight::Socket, Sight::Process] {
        let (peer, client) = watching(sight, "", WaitPolicy::Adaptive);
        drop(peer);
        let start = Instant::now();
        let error = client.connect(AGES).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::PeerGone, "{sight:?}: connecting");
        assert!(start.elapsed() < NOTICED * 50);

        // A call that timed out goes on waiting, and learns of the death.
        let (peer, client) = watching(sight, "", WaitPolicy::Park);
        let mut endpoint: Endpoint = client.connect(AGES).expect("it is alive");
        peer.stop();
        let Err(Interrupted::TimedOut(waiting)) = endpoint.send_recv(0, Duration::from_millis(20)) else {
            panic!("a stopped peer answered");
        };
        drop(peer);
        assert_eq!(waiting.resume(AGES).expect_err("it is dead").kind(), ErrorKind::PeerGone, "{sight:?}: resuming");
    }
}

#[test]
fn a_death_is_told_once_and_then_costs_nothing() {
    let _alone = alone();
    for sight in [Sight::Socket, Sight::Process] {
        let (peer, client) = watching(sight, "", WaitPolicy::Park);
        let mut endpoint = client.connect(AGES).expect("it is alive");
        drop(peer);
        assert_eq!(endpoint.send_recv(0, AGES).expect_err("it is dead").kind(), ErrorKind::PeerGone);
        let (start, before) = (Instant::now(), cpu_time("self"));
        std::thread::sleep(Duration::from_millis(300));
        let share = (cpu_time("self") - before).as_secs_f64() / start.elapsed().as_secs_f64();
        assert!(share < 0.5, "{sight:?}: {:.0}% of a core for a peer that is dead", share * 100.0);
        drop(endpoint);
    }
}

#[test]
fn without_anything_watched_a_dead_peer_is_a_deadline() {
    let _alone = alone();
    let arena = arena(1);
    let peer = Peer::start("serves for ever", "", &[arena.fd()]);
    let mut endpoint = Connector::new(next_window(&arena), Options::new()).unwrap().connect(AGES).unwrap();
    drop(peer);
    let error = endpoint.send_recv(0, Duration::from_millis(50)).expect_err("it is dead");
    assert_eq!(error.kind(), ErrorKind::Timeout);
}
