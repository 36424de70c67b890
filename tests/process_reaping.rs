//! Children that cannot be reaped, that somebody else reaps, and whose ends others hold. Issue 13, B12.

mod attacker;

use std::process::Command;
use std::time::{Duration, Instant};

use attacker::raw::{allow_tracing, fork, ignore_children, inherited, reap_everything, trace_parent};
use attacker::{AGES, Peer, Role, Stage, alone, command, command_under, promised_once};
use flipcall::ErrorKind;
use flipcall::endpoint::{Options, Spawned};
use flipcall::process::ChildProcess;
use flipcall::rpc::{CallError, Client, Context, Router, Server, inherited_socket};

const ROLES: &[Role] = &[
    ("is traced by its child", is_traced_by_its_child),
    ("ignores its children", |stage| starts_children(stage, ignore_children)),
    ("reaps everything", |stage| starts_children(stage, || drop(std::thread::spawn(reap_everything)))),
    ("serves", serves),
];

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[ROLES]);
}

/// Has a child of its own trace it until the test ends.
fn is_traced_by_its_child(stage: Stage) {
    allow_tracing();
    let (ours, theirs) = attacker::control::Control::pair();
    fork(|| {
        trace_parent();
        theirs.say("traced");
        // Until the other side of the test is gone.
        while stage.control.listen().is_some() {}
        0
    });
    ours.expect("traced");
    stage.control.say("traced");
    std::thread::sleep(10 * AGES);
}

fn exists(process: u32) -> bool {
    std::path::Path::new(&format!("/proc/{process}")).exists()
}

#[test]
fn a_child_that_its_own_child_traces_is_left_to_the_reaper() {
    let _alone = alone();
    for drops in [false, true] {
        let (command, control) = command("is traced by its child", "", &[]);
        let child = ChildProcess::start(command).unwrap();
        control.expect("traced");
        let (process, begun) = (child.id(), Instant::now());
        if drops {
            drop(child);
        } else {
            let error = child.finish(Duration::from_millis(100)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        }
        // The grace, and two seconds in which a killed child may end.
        promised_once("a child that cannot be reaped: left alone after", begun.elapsed(), Duration::from_millis(2200));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert!(exists(process), "its tracer has not let go of it");
        drop(control);
        let begun = Instant::now();
        while exists(process) {
            assert!(begun.elapsed() < AGES, "nobody reaps it");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Starts children where `prepare` has made sure that somebody else reaps them, and says how it went.
fn starts_children(stage: Stage, prepare: fn()) {
    prepare();
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    let tell = |what: &str, good: bool, how: String| if good { String::new() } else { format!("{what}: {how}; ") };
    let mut said = String::new();
    for script in ["exit 7", "sleep 0.1; exit 7"] {
        let mut child = ChildProcess::start(shell(script)).expect("a child");
        for _ in 0..2 {
            let ended = child.wait(AGES);
            let good = ended.as_ref().is_ok_and(|status| matches!(status.code(), Some(7 | 255)));
            said += &tell(script, good, format!("{ended:?}"));
        }
        let ended = child.kill().and_then(|()| child.finish(AGES));
        said += &tell("finish", ended.is_ok(), format!("{ended:?}"));
    }
    let ended = ChildProcess::start(shell("sleep 1000")).expect("a child").finish(Duration::from_millis(20));
    said += &tell("kill", ended.as_ref().is_ok_and(|status| !status.success()), format!("{ended:?}"));
    let error = Client::spawn(shell("sleep 0.1; exit 3"), Default::default(), AGES).map(drop).expect_err("it ends");
    said += &tell("spawn", error.to_string().contains("has ended"), format!("{error:#}"));
    let error =
        Spawned::start(shell("exit 3"), 4096, Options::new()).and_then(|mut child| child.connect(AGES).map(drop));
    said += &tell("Spawned", error.as_ref().is_err_and(|e| e.to_string().contains("has ended")), format!("{error:?}"));
    stage.control.say(if said.is_empty() { "well" } else { &said[..said.len().min(400)] });
}

#[test]
fn where_nobody_can_be_reaped_an_end_is_an_end() {
    let _alone = alone();
    Peer::start("ignores its children", "", &[]).control.expect("well");
}

#[test]
fn where_a_thread_reaps_every_child_an_end_is_an_end() {
    let _alone = alone();
    Peer::start("reaps everything", "", &[]).control.expect("well");
}

fn serves(_: Stage) {
    let mut router = Router::new();
    router.unary(1, |_: &mut Context<'_>, value: u64| {
        std::thread::sleep(Duration::from_secs(value));
        Ok(value)
    });
    let socket = inherited_socket(&inherited()).expect("a socket");
    let _ = Server::new(router, Default::default()).serve_one(socket);
}

#[test]
fn the_end_of_a_server_is_seen_though_its_own_child_holds_its_socket() {
    let _alone = alone();
    // A process that inherits everything, and outlives the server.
    let under = ["sh", "-c", "sleep 15 & exec \"$0\" \"$@\""];
    for window in [256 * 1024, 0] {
        let (command, _control) = command_under(&under, "serves", "", &[]);
        let config = flipcall::rpc::ClientConfig::new().window(window);
        let (client, mut server) = Client::spawn(command, config, AGES).unwrap();
        assert_eq!(client.call::<u64, u64>(1, &0, AGES).unwrap(), 0);
        let calling = {
            let client = client.clone();
            std::thread::spawn(move || (client.call::<u64, u64>(1, &60, AGES), Instant::now()))
        };
        std::thread::sleep(Duration::from_millis(100));
        let killed = Instant::now();
        server.kill().unwrap();
        let (ended, at) = calling.join().unwrap();
        let Err(CallError::Failed(error)) = ended else { panic!("{ended:?}") };
        assert_eq!(error.kind(), ErrorKind::PeerGone, "{error:#}");
        promised_once(
            "a killed server whose child holds its socket: seen after",
            at - killed,
            Duration::from_millis(20),
        );
        assert!(at - killed < Duration::from_secs(2));
        let begun = Instant::now();
        assert!(client.call::<u64, u64>(1, &0, AGES).is_err() && begun.elapsed() < Duration::from_secs(2));
        assert!(!client.is_alive());
    }
    // One that dies before it says a word.
    let begun = Instant::now();
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 15 & exit 3"]);
    let error = Client::spawn(command, Default::default(), AGES).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "sh has ended (exit status: 3)");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
