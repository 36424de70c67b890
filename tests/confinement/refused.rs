//! One system call after another is refused to each role: with EPERM and EINVAL, as filters do, and with ENOSYS, as old kernels do.
//!
//! The table is docs/confinement.md: every call that it lists for a role is refused, from the role's beginning or after its first call.
//! The role then works without, or ends by an error that says what the system refused. It never panics, hangs, aborts, gives a wrong
//! answer, or blames its peer.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::{Child, Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::attacker::{alone, command, full};
use crate::page::{groups, page, rows};
use crate::peers::Peer;

/// How a process ends whose story broke off by an error of the library.
const ENDED_BY_AN_ERROR: i32 = 3;

/// What each call is refused with.
pub const ERRNOS: [(i32, &str); 3] = [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS"), (libc::EINVAL, "EINVAL")];

/// When it is.
pub const WHEN: [&str; 2] = ["at-once", "after"];

/// Longer than every deadline of the roles, so that a call that merely comes to its deadline is told from a hang.
const HANGS: Duration = Duration::from_secs(25);

/// What the process itself does in every phase, whoever wrote it: the allocator, locks, stacks of threads, the end. They are not this library's
/// to do without: the language aborts where there is no memory, and a lock without its futex never wakes.
const THE_RUNTIMES: [&str; 13] = [
    "brk",
    "clock_gettime",
    "exit",
    "exit_group",
    "futex",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    // The tests find their own program by it.
    "readlink",
    "restart_syscall",
    "rseq",
    "rt_sigreturn",
];

/// What a process that starts another cannot do without: where nothing can be closed, no pipe comes to its end, and the standard library
/// waits for one. And it panics, on a thread of this library that turns that into an error, where it cannot read how its child began.
const A_SPAWNERS: [&str; 2] = ["close", "recvfrom"];

/// One trial: what is refused to whom, when, and with what.
#[derive(Clone)]
pub struct Trial {
    pub role: String,
    pub call: String,
    /// Only calls with this argument: its place, bits of its value, whether it has no others.
    pub argument: Option<(u32, u32, bool)>,
    pub when: &'static str,
    pub errno: (i32, &'static str),
}

impl Trial {
    pub fn name(&self) -> String {
        format!("{:<26} {:<18} {:<7} {}", self.role, self.call, self.errno.1, self.when)
    }

    /// What [`parse`] reads.
    fn words(&self) -> String {
        let argument = self.argument.map(|(at, bits, exactly)| format!(" {at} {bits} {exactly}")).unwrap_or_default();
        format!("{} refuse {} {}{argument}", self.when, self.call, self.errno.0)
    }
}

/// The filter of a trial, in the second process.
pub fn parse(words: &str) -> crate::Filter {
    let words: Vec<_> = words.split(' ').collect();
    if words[0].starts_with('/') {
        return crate::Filter::Hide(words[0].to_owned());
    }
    let number = |at: usize| words[at].parse().expect("a number");
    let argument = words.get(4).map(|exactly| (number(2), number(3), *exactly == "true"));
    crate::Filter::Refuse(words[0].to_owned(), argument, words[1].parse().expect("a number"))
}

/// Plays the second process. A story expects that everything works; in these trials something does not, and then the expectation that
/// fails has the library's error in its message. That ends the process in its own way, everything dropped. Any other panic is one.
pub fn ends_by_an_error_of_the_story(play: impl FnOnce()) {
    if std::env::var_os(TRIAL).is_none() {
        return play();
    }
    std::panic::set_hook(Box::new(|info| {
        // The call that is refused may be the one that says it.
        let _ = writeln!(std::io::stderr(), "{}", said(info));
        if !is_of_the_story(info) {
            std::process::abort();
        }
    }));
    if catch_unwind(AssertUnwindSafe(play)).is_err() {
        std::process::exit(ENDED_BY_AN_ERROR);
    }
}

/// Set in the second process of these trials.
const TRIAL: &str = "FLIPCALL_TEST_TRIAL";

fn said(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    format!("{}, at {place}", message(info))
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let words = info.payload().downcast_ref::<String>().map(String::as_str);
    words.or_else(|| info.payload().downcast_ref::<&str>().copied()).unwrap_or_default()
}

/// Whether an expectation of a story failed, or a thread that the story itself wanted could not be had.
fn is_of_the_story(info: &PanicHookInfo<'_>) -> bool {
    let message = message(info);
    let in_tests = info.location().is_some_and(|place| place.file().contains("tests/"));
    message.contains("failed to spawn thread") || in_tests && !message.starts_with("assertion")
}

/// Every trial that the page asks for.
fn all() -> Vec<Trial> {
    let page = page();
    let groups = groups(&page);
    let mut trials = Vec::new();
    for row in rows(&page) {
        let [before, after, end] = row.phases;
        let later = [after, end].concat();
        let all = [before, groups["runtime"].clone(), later.clone()].concat();
        for (when, calls) in WHEN.into_iter().zip([all, later]) {
            let is_needed = |call: &str| {
                THE_RUNTIMES.contains(&call) || row.role.starts_with("spawner") && A_SPAWNERS.contains(&call)
            };
            let mut calls: Vec<_> = calls.into_iter().filter(|call| !is_needed(call)).collect();
            calls.sort();
            calls.dedup();
            for call in calls {
                trials.extend(ERRNOS.map(|errno| {
                    let (role, call) = (row.role.clone(), call.clone());
                    Trial { role, call, argument: None, when, errno }
                }));
            }
        }
    }
    trials
}

/// Each call once, with one error number and one role in turn.
fn sample(all: Vec<Trial>) -> Vec<Trial> {
    let mut by_call: BTreeMap<String, Vec<Trial>> = BTreeMap::new();
    all.into_iter().for_each(|trial| by_call.entry(trial.call.clone()).or_default().push(trial));
    // A step that is prime to the number of error numbers and phases meets all of them.
    by_call.into_values().enumerate().map(|(at, trials)| trials[at * 7 % trials.len()].clone()).collect()
}

/// How a trial ended: well, by a named error, or in a way that it must not.
pub fn attempt(trial: &Trial) -> Result<String, String> {
    let mut peer = Peer::of(&trial.role);
    let fds = std::mem::take(&mut peer.fds);
    let (mut command, control) = command(&trial.role, &trial.words(), &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    let mut said = log_of(&mut command);
    command.env(TRIAL, "1");
    let mut child = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
    drop((command, fds));
    let first = if crate::roles::says_its_path(&trial.role) { control.hear() } else { String::new() };
    // It ends when the role does, or at its own deadline: nobody waits for that.
    drop(peer.start(first.clone()));
    let status = wait(&mut child);
    crate::roles::forget_path(std::path::Path::new(&first));
    let mut text = String::new();
    said.rewind().and_then(|()| said.read_to_string(&mut text)).map_err(|error| error.to_string())?;
    verdict(trial, status, &text)
}

/// A file for what the role says.
fn log_of(command: &mut Command) -> std::fs::File {
    let file = rustix::fs::memfd_create("said", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    command.stderr(file.try_clone().expect("dup"));
    OwnedFd::into(file)
}

/// `None`: it hung.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < HANGS {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill().and_then(|()| child.wait());
    None
}

fn verdict(trial: &Trial, status: Option<ExitStatus>, text: &str) -> Result<String, String> {
    let text = text.trim().replace('\n', " | ");
    let Some(status) = status else { return Err(format!("hangs: {text}")) };
    match status.code() {
        Some(0) => Ok("works".to_owned()),
        // It cannot say anything.
        Some(ENDED_BY_AN_ERROR) if trial.call == "write" => Ok("ends by an error".to_owned()),
        Some(ENDED_BY_AN_ERROR) if says_whose_fault(trial, &text) => Ok(format!("says: {text}")),
        Some(ENDED_BY_AN_ERROR) => Err(format!("the wrong error: {text}")),
        _ => Err(format!("{status}: {text}")),
    }
}

/// What an error calls a system call, where it does not use its name.
const WORDS: [(&str, &[&str]); 37] = [
    ("accept4", &["accept"]),
    ("bind", &["listen on"]),
    ("chmod", &["listen on"]),
    ("clone3", &["thread"]),
    ("close", &["close"]),
    ("epoll_create1", &["epoll_create"]),
    ("eventfd2", &["eventfd"]),
    ("fchmod", &["listen on"]),
    ("fcntl", &["seal", "duplicate a descriptor", "close-on-exec", "listen on"]),
    ("flock", &["listen on"]),
    ("fstat", &["what a descriptor is"]),
    ("ftruncate", &["memfd of"]),
    ("futex_waitv", &["futex"]),
    ("getsockopt", &["ask who"]),
    ("ioctl", &["has not received", "socket blocking"]),
    ("listen", &["listen on"]),
    ("memfd_create", &["memfd"]),
    ("openat", &["listen on"]),
    ("pidfd_open", &["watch"]),
    ("pipe2", &["pipe"]),
    ("ppoll", &["poll", "wait for"]),
    ("pread64", &["cannot read the file"]),
    ("read", &["cannot read the file"]),
    ("recvfrom", &["receive", "read from"]),
    ("recvmsg", &["receive", "read from"]),
    ("sendfile", &["cannot move", "cannot send", "cannot read the file"]),
    ("sendmsg", &["send", "write to", "start"]),
    ("sendto", &["send", "write to"]),
    ("setsockopt", &["SO_"]),
    ("shutdown", &["end this direction"]),
    ("socket", &["listen on"]),
    ("socketpair", &["socket pair"]),
    ("splice", &["cannot move", "cannot send", "cannot read the file"]),
    ("statx", &["listen on"]),
    ("umask", &["listen on"]),
    ("unshare", &["listen on"]),
    ("wait4", &["wait for"]),
];

/// Whether an error names the system as its cause, and what of it.
fn says_whose_fault(trial: &Trial, text: &str) -> bool {
    let kinds = ["system", "unsupported"].map(|kind| format!("Error({kind}: "));
    // What a child of the role was refused, since it inherits the filter, the role reports as the end of that child or of its connection.
    let child = trial.role.starts_with("spawner") && trial.when == "at-once";
    let other = WORDS.iter().find(|(call, _)| *call == trial.call).map_or(&[][..], |(_, words)| words);
    // To start a process is many calls, and the program is what a caller knows.
    let starts = trial.role.starts_with("spawner") && text.contains("cannot start ");
    let is_named = starts || text.contains(&trial.call) || other.iter().any(|word| text.contains(word));
    kinds.iter().any(|kind| text.contains(kind)) && is_named
        || text.contains("failed to spawn thread")
        || child
            && (text.contains("has ended (")
                || ["peer-gone", "no-resource"].iter().any(|kind| text.contains(&format!("Error({kind}: "))))
}

/// Runs trials, several at a time.
pub fn run(trials: &[Trial], try_it: impl Fn(&Trial) -> Result<String, String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (word, what) = match try_it(trial) {
                Ok(what) => ("fine", what),
                Err(what) => ("BAD", what),
            };
            let line = format!("{word:<4} {} {what}", trial.name());
            println!("{line}");
            if word == "BAD" {
                failures.lock().expect("no panic").push(line);
            }
        }
    };
    std::thread::scope(|scope| (0..AT_A_TIME).for_each(|_| drop(scope.spawn(work))));
    failures.into_inner().expect("no panic")
}

/// Trials at a time: most of one is waiting.
const AT_A_TIME: usize = 4;

/// Issue 13, C18.
#[test]
fn every_call_that_a_role_makes_may_be_refused() {
    let _alone = alone();
    let chosen = std::env::var("FLIPCALL_REFUSED").ok();
    let mut trials = all();
    match &chosen {
        Some(chosen) => trials.retain(|trial| trial.name().contains(chosen)),
        None if full() => {}
        None => trials = sample(trials),
    }
    assert!(!trials.is_empty(), "nothing to try");
    let failures = run(&trials, attempt);
    assert!(failures.is_empty(), "{} of {} trials:\n{}", failures.len(), trials.len(), failures.join("\n"));
}
