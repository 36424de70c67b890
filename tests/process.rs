//! How a child process ends: with its owner, with the process that started it, and not with the thread that did.

mod attacker;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attacker::{AGES, PAGE, Peer, Role, Stage, alone};
use flipcall::ErrorKind;
use flipcall::endpoint::{Options, Spawned};
use flipcall::process::ChildProcess;
use flipcall::rpc::{Client, ClientConfig};

const ROLES: &[Role] = &[("starts another on a thread", starts_another_on_a_thread)];

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[ROLES]);
}

/// A process that would go on for longer than any test.
fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000");
    command
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Whether a process runs: one that ended and that nobody reaped does not.
fn runs(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X')))
}

fn ends_within(process: u32, time: Duration) -> bool {
    let start = Instant::now();
    while runs(process) && start.elapsed() < time {
        std::thread::sleep(Duration::from_millis(2));
    }
    !runs(process)
}

fn exists(process: u32) -> bool {
    std::path::Path::new(&format!("/proc/{process}")).exists()
}

#[test]
fn a_child_that_is_dropped_is_killed_and_reaped() {
    let _alone = alone();
    let child = ChildProcess::start(sleeper()).unwrap();
    let process = child.id();
    assert!(runs(process));
    drop(child);
    assert!(!exists(process));
    // One that ended by itself is reaped as well, and waited for again and again.
    let mut child = ChildProcess::start(shell("exit 7")).unwrap();
    for _ in 0..2 {
        assert_eq!(child.wait(AGES).unwrap().code(), Some(7));
    }
    assert!(!exists(child.id()));
}

#[test]
fn a_wait_has_a_deadline_and_a_finish_has_a_grace() {
    let _alone = alone();
    let mut child = ChildProcess::start(sleeper()).unwrap();
    let error = child.wait(Duration::from_millis(20)).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Timeout, "sleep has not ended by the deadline"));
    assert_eq!(child.finish(Duration::from_millis(20)).unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let _alone = alone();
    let error = ChildProcess::start(Command::new("/does/not/exist")).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::System, "cannot start /does/not/exist"));
}

/// Starts a child on a thread that ends at once, says which it is, and waits for its own end.
fn starts_another_on_a_thread(stage: Stage) {
    let start = || ChildProcess::start(sleeper()).expect("a child");
    let child = std::thread::spawn(start).join().expect("no panic");
    stage.control.say(&child.id().to_string());
    let _ = stage.control.listen();
    unreachable!("the test ends this process");
}

#[test]
fn a_child_ends_with_the_process_that_started_it_and_not_with_the_thread() {
    let _alone = alone();
    let parent = Peer::start("starts another on a thread", "", &[]);
    let process: u32 = parent.control.hear().parse().expect("a number");
    std::thread::sleep(Duration::from_millis(50));
    assert!(runs(process), "its thread has ended, its process has not");
    drop(parent);
    assert!(ends_within(process, Duration::from_secs(5)), "it outlives a parent that was killed");
}

#[test]
fn a_detached_child_goes_on() {
    let _alone = alone();
    let child = ChildProcess::start(sleeper()).unwrap();
    let process = child.id();
    child.detach().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(runs(process));
    let pid = rustix::process::Pid::from_raw(process.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let start = Instant::now();
    while exists(process) {
        assert!(start.elapsed() < AGES, "a thread reaps it");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_a_child_died_of_is_in_the_error() {
    let _alone = alone();
    let told = "sh has ended (exit status: 3); its last words: \"no such device: \\u{1b}[31mx\": ";
    let script = "printf 'no such device: \\033[31mx\\n' >&2; exit 3";
    let typed = Client::spawn(shell(script), ClientConfig::new(), AGES).map(drop).unwrap_err();
    let bare = Spawned::start(shell(script), PAGE, Options::new()).unwrap().connect(AGES).unwrap_err();
    for error in [typed, bare] {
        assert_eq!(error.kind(), ErrorKind::PeerGone);
        assert!(format!("{error:#}").starts_with(told), "{error:#}");
    }
    let silent = Client::spawn(shell("kill -9 $$"), ClientConfig::new(), AGES).map(drop).unwrap_err();
    assert_eq!(silent.to_string(), "sh has ended (signal: 9 (SIGKILL))");
}

#[test]
fn a_standard_error_that_the_program_chose_is_left_alone() {
    let _alone = alone();
    let mut command = shell("echo lost >&2; exit 3");
    command.stderr(Stdio::piped());
    let mut child = ChildProcess::start(command).unwrap();
    let mut said = String::new();
    child.child().stderr.take().expect("it was piped").read_to_string(&mut said).unwrap();
    assert_eq!(said, "lost\n");
    let mut command = shell("echo unheard >&2; exit 3");
    command.stderr(Stdio::null());
    let error = Client::spawn(command, ClientConfig::new(), AGES).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "sh has ended (exit status: 3)");
}
