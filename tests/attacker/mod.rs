//! The second process of the tests.
//!
//! A test starts its own executable again and has it run one hidden test, `second_process`, which plays the role that an environment
//! variable names. The two talk over a socket of their own, one message at a time, so that a test knows when an attack is in place.
//! What a role does to the window goes through `raw`: that is the other side's memory, no rule of the library holds there.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod account;
pub mod control;
pub mod raw;

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use flipcall::process::pass_descriptor;
use flipcall::window::{Allocator, Window, WindowDescriptor};

use control::Control;
use raw::RawWindow;

/// Bytes of the windows that the tests use unless they say otherwise.
pub const PAGE: u32 = 4096;
/// What an answer that should come takes at the very most: a test that waits longer has found a hang.
pub const AGES: Duration = Duration::from_secs(10);

const ROLE: &str = "FLIPCALL_TEST_ROLE";
const ARGUMENT: &str = "FLIPCALL_TEST_ARGUMENT";
const DESCRIPTORS: &str = "FLIPCALL_TEST_DESCRIPTORS";

/// What the second process can be told to be.
pub type Role = (&'static str, fn(Stage));

/// What a role has to work with.
pub struct Stage {
    pub control: Control,
    pub argument: String,
    /// What the test passed along; the first one is usually the file of the windows.
    pub fds: Vec<OwnedFd>,
}

impl Stage {
    /// Window `index` of the file, pages one after the other.
    pub fn window(&self, index: u32) -> RawWindow {
        RawWindow::map(self.fds[0].as_fd(), u64::from(index) * u64::from(PAGE), PAGE as usize)
    }
}

/// Plays the role that the environment names; returns at once in the process that runs the tests.
pub fn play(roles: &[&[Role]]) {
    let Ok(name) = std::env::var(ROLE) else { return };
    raw::die_with_parent();
    let (_, role) = roles.iter().copied().flatten().find(|(role, _)| *role == name).expect("a known role");
    let numbers = std::env::var(DESCRIPTORS).expect("descriptors are named");
    let mut fds =
        numbers.split(',').map(|number| raw::inherited().take(number.parse().expect("a number")).expect("inherited"));
    let control = Control::new(fds.next().expect("the control socket"));
    role(Stage { control, argument: std::env::var(ARGUMENT).unwrap_or_default(), fds: fds.collect() });
    std::process::exit(0);
}

/// The command that makes this executable play `role`, and our end of its control socket.
pub fn command(role: &str, argument: &str, fds: &[BorrowedFd<'_>]) -> (Command, Control) {
    command_under(&[], role, argument, fds)
}

/// As [`command`], started by another program: its name and its arguments.
pub fn command_under(program: &[&str], role: &str, argument: &str, fds: &[BorrowedFd<'_>]) -> (Command, Control) {
    let executable = std::env::current_exe().expect("the path of this executable");
    let words = program.iter().map(|word| std::ffi::OsStr::new(*word)).chain([executable.as_os_str()]);
    let words: Vec<_> = words.collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.args(["--exact", "second_process", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (ours, theirs) = Control::pair();
    let passed = std::iter::once(theirs.as_fd()).chain(fds.iter().copied());
    let numbers: Vec<String> = passed.map(|fd| pass_descriptor(&mut command, fd).expect("dup").to_string()).collect();
    command.env(ROLE, role).env(ARGUMENT, argument).env(DESCRIPTORS, numbers.join(","));
    (command, ours)
}

/// A running second process, killed and reaped when dropped.
pub struct Peer {
    pub child: Child,
    pub control: Control,
}

impl Peer {
    pub fn start(role: &str, argument: &str, fds: &[BorrowedFd<'_>]) -> Self {
        let (mut command, control) = command(role, argument, fds);
        let child = command.spawn().expect("starting the second process");
        Self { child, control }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        // The child is not reaped before the drop, so the number is its own.
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("kill");
    }

    /// Stops the process, and returns once it stands still.
    pub fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
        let is_stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        while !is_stopped(std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("procfs")) {
            std::thread::yield_now();
        }
    }

    pub fn pidfd(&self) -> OwnedFd {
        let flags = rustix::process::PidfdFlags::empty();
        rustix::process::pidfd_open(rustix::process::Pid::from_child(&self.child), flags).expect("pidfd_open")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file with `count` windows of a page.
pub fn arena(count: u32) -> Allocator {
    Allocator::with_size(u64::from(count) * u64::from(PAGE)).expect("a memfd")
}

/// The next window of `arena`, mapped for our side.
pub fn next_window(arena: &Allocator) -> Window {
    let descriptor: WindowDescriptor<'_> = arena.allocate(PAGE).expect("room for a window");
    Window::map(&descriptor).expect("mmap")
}

/// Holds the other tests of this program back, and its own test to a time.
pub struct Alone {
    _turn: MutexGuard<'static, ()>,
    /// Dropped, it sends the watching thread home.
    _over: Sender<()>,
}

/// Tests that measure time, descriptors or memory run one at a time. One that hangs ends the program.
pub fn alone() -> Alone {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let most = Duration::from_secs(if full() { 1500 } else { 120 });
    let (over, ended) = std::sync::mpsc::channel();
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::spawn(move || {
        if ended.recv_timeout(most) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{test} still runs after {most:?}");
            std::process::abort();
        }
    });
    Alone { _turn: turn, _over: over }
}

/// Sees to it that this process and those that it starts may have the hundreds of descriptors that a test is about.
pub fn many_descriptors() {
    flipcall::rpc::raise_descriptor_limit().expect("the soft limit can be raised");
}

/// Whether the long forms were asked for.
pub fn full() -> bool {
    std::env::var_os("FLIPCALL_FULL").is_some_and(|value| value == "1")
}

/// Says why something is left out. With `FLIPCALL_REQUIRE_ALL=1` nothing may be.
pub fn skip(what: &str, why: &str) {
    assert!(
        std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{what} cannot be left out: {why}"
    );
    // Past the test harness, which keeps what a passing test prints to itself.
    let _ = writeln!(std::io::stderr(), "skipped {what}: {why}");
}

/// A figure for the report.
pub fn measured(what: &str, value: impl std::fmt::Display, bound: &str) {
    println!("measured {what}: {value} (bound {bound})");
}

/// A median that the project promises. Only ten times as much fails a test, since the machine may be busy; `ci/hostile.sh --full`
/// fails for a line that says `OVER`.
pub fn promised(what: &str, took: Duration, bound: Duration) {
    within(what, took, bound, 10);
}

/// The same for a single time or the worst of many, which one unlucky time slice of a crowded machine decides: fifty times as much
/// fails. What really hangs takes longer.
pub fn promised_once(what: &str, took: Duration, bound: Duration) {
    within(what, took, bound, 50);
}

fn within(what: &str, took: Duration, bound: Duration, tolerance: u32) {
    measured(what, format!("{took:.2?}"), &format!("{bound:?}{}", if took > bound { ", OVER" } else { "" }));
    assert!(took <= bound * tolerance, "{what}: {took:?}, promised {bound:?}");
}

/// A share of a core that the project promises, likewise; three times as much fails a test.
pub fn promised_share(what: &str, share: f64, bound: f64) {
    let verdict = if share > bound { ", OVER" } else { "" };
    measured(what, format!("{:.3}%", share * 100.0), &format!("{}%{verdict}", bound * 100.0));
    assert!(share <= bound * 3.0, "{what}: {:.2}% of a core", share * 100.0);
}

/// The middle one of some durations.
pub fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}
