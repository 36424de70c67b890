//! How a child process ends: with its owner, with the process that started it, and not with the thread that did.

mod attacker;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attacker::raw::{die_with_thread, touch_memory};
use attacker::{AGES, PAGE, Peer, Role, Stage, alone, full, measured, median, promised};
use flipcall::ErrorKind;
use flipcall::endpoint::{Options, Spawned};
use flipcall::process::ChildProcess;
use flipcall::rpc::{Client, ClientConfig};

const ROLES: &[Role] = &[
    ("starts another on a thread", starts_another_on_a_thread),
    ("starts many beside much memory", starts_many_beside_much_memory),
];

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

/// What a start takes at the most, beside what the kernel takes for it.
const START: Duration = Duration::from_millis(1);

/// Touches so many MiB, then starts children in turns through the library and without it.
fn starts_many_beside_much_memory(stage: Stage) {
    let mebibytes: usize = stage.argument.parse().expect("a number");
    touch_memory(mebibytes << 20);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let begun = Instant::now();
        let mut child = Command::new("true").spawn().expect("it exists");
        bare.push(begun.elapsed());
        child.wait().expect("it ends");
        let begun = Instant::now();
        let child = ChildProcess::start(Command::new("true")).expect("it exists");
        ours.push(begun.elapsed());
        child.finish(AGES).expect("it ends");
    }
    stage.control.say(&format!("{} {}", median(&mut ours).as_nanos(), median(&mut bare).as_nanos()));
}

/// Issue 13, C19.
#[test]
fn a_start_takes_no_longer_where_the_program_has_much_memory() {
    let _alone = alone();
    let mebibytes = if full() { 1024 } else { 512 };
    let peer = Peer::start("starts many beside much memory", &mebibytes.to_string(), &[]);
    let said = peer.control.hear();
    let [ours, bare] =
        [0, 1].map(|n| said.split(' ').nth(n).expect("two").parse().map(Duration::from_nanos).expect("a number"));
    measured(&format!("a bare command beside {mebibytes} MiB"), format!("{bare:.2?}"), "none");
    promised(&format!("a child beside {mebibytes} MiB"), ours, bare + START);
}

/// Issue 13, C19: a child that is to end with the thread that starts it ends with this process, whatever thread that was.
#[test]
fn a_child_that_asks_for_a_parent_death_signal_lives_as_long_as_its_parent() {
    let _alone = alone();
    let mut command = sleeper();
    die_with_thread(&mut command);
    let mut child = ChildProcess::start(command).unwrap();
    assert_eq!(child.wait(Duration::from_millis(100)).unwrap_err().kind(), ErrorKind::Timeout);
}

/// Issue 13, C19: what the command piped is the program's, wherever the child was spawned.
#[test]
fn the_pipes_of_a_command_work() {
    let _alone = alone();
    let mut command = shell("cat; echo end >&2");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ChildProcess::start(command).unwrap();
    std::io::Write::write_all(&mut child.child().stdin.take().expect("it was piped"), b"through").unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    child.child().stdout.take().expect("it was piped").read_to_string(&mut out).unwrap();
    child.child().stderr.take().expect("it was piped").read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("through", "end\n"));
    assert!(child.finish(AGES).unwrap().success());
}

/// Issue 13, C19: other children of the program get nothing of what one child inherits, and no descriptor is left.
#[test]
fn starting_children_leaks_no_descriptor_to_this_process_or_to_others() {
    let _alone = alone();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let inherited = || {
        let listed = Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
        String::from_utf8(listed).unwrap().lines().count()
    };
    let fails_to_serve = || {
        let error = Client::spawn(shell("exit 3"), ClientConfig::new(), AGES).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerGone);
    };
    drop(ChildProcess::start(sleeper()).unwrap());
    // What the process keeps from its first client on, such as the descriptor that its watchdog waits on, is no leak.
    fails_to_serve();
    let (before, passed) = (count(), inherited());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fails_to_serve();
            }
        });
        for _ in 0..50 {
            assert_eq!(inherited(), passed);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let start = Instant::now();
    // A thread that has ended since may have held one when they were counted.
    while count() > before {
        assert!(start.elapsed() < AGES, "{} descriptors, {before} before", count());
        std::thread::sleep(Duration::from_millis(5));
    }
}
