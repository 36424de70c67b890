//! `flipcall doctor`: a line for everything that matters, and the system's reason where something is missing.
//!
//! System calls have other names elsewhere, so this is for the machine that the filter was written on.
#![cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#![allow(unsafe_code, reason = "a filter is installed in the command that a test starts")]

#[path = "../../../tests/confinement/filter.rs"]
#[allow(dead_code, reason = "the other half allows a list of calls")]
mod filter;

use std::os::unix::process::CommandExt;
use std::process::Command;

const NAMES: [&str; 22] = [
    "kernel",
    "confined",
    "/proc",
    "seals",
    "seal after map",
    "noexec memfd",
    "wipe on fork",
    "overcommit",
    "futex_waitv",
    "sched_yield",
    "signal masks",
    "pidfd",
    "close_range",
    "epoll",
    "limits",
    "own umask",
    "credentials",
    "SO_PEERPIDFD",
    "SO_PASSRIGHTS",
    "unread bytes",
    "CPUs",
    "spinning",
];

const SO_PEERPIDFD: u32 = 77;
const SO_PASSRIGHTS: u32 = 83;

/// The only calls refused: those with this argument (its place, bits of its value, whether it has no others).
type Argument = (u32, u32, bool);

/// A line, and what is refused so that it says so.
const REFUSED: [(&str, &str, Option<Argument>); 16] = [
    ("seals", "memfd_create", None),
    ("seal after map", "fcntl", Some((2, libc::F_SEAL_FUTURE_WRITE as u32, true))),
    ("noexec memfd", "memfd_create", Some((1, libc::MFD_NOEXEC_SEAL, false))),
    ("wipe on fork", "madvise", Some((2, libc::MADV_WIPEONFORK as u32, true))),
    ("futex_waitv", "futex_waitv", None),
    ("sched_yield", "sched_yield", None),
    ("signal masks", "rt_sigprocmask", None),
    ("pidfd", "pidfd_open", None),
    ("close_range", "close_range", None),
    ("epoll", "epoll_create1", None),
    ("limits", "prlimit64", None),
    ("own umask", "unshare", None),
    ("SO_PEERPIDFD", "getsockopt", Some((2, SO_PEERPIDFD, true))),
    ("SO_PASSRIGHTS", "setsockopt", Some((2, SO_PASSRIGHTS, true))),
    ("unread bytes", "ioctl", None),
    ("credentials", "getsockopt", Some((2, libc::SO_PEERCRED as u32, true))),
];

const ERRNOS: [(i32, &str); 3] = [
    (libc::EPERM, "Operation not permitted"),
    (libc::ENOSYS, "Function not implemented"),
    (libc::EINVAL, "Invalid argument"),
];

fn doctor(command: &mut Command) -> Vec<String> {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    text.lines().map(str::to_owned).collect()
}

fn flipcall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipcall"));
    command.arg("doctor");
    command
}

/// Without what differs from run to run.
fn stable(line: &str) -> &str {
    line.split(" (a pause").next().unwrap_or(line)
}

#[test]
fn doctor_has_a_line_for_everything_that_matters() {
    let lines = doctor(&mut flipcall());
    assert_eq!(lines.len(), NAMES.len(), "{lines:?}");
    for (line, name) in lines.iter().zip(NAMES) {
        assert!(line.starts_with(name), "{line}");
        assert!(line.split_once(": ").is_some_and(|(_, follows)| !follows.is_empty()), "nothing follows from: {line}");
    }
    let spinning = lines.last().expect("checked above");
    assert!(spinning.contains("yields every 50 µs") && spinning.contains("adaptive"), "{spinning}");
}

/// Issue 13, C18. What is refused changes its own line and the one that tells of the filter, and no other.
#[test]
fn a_refused_call_is_told_with_its_reason() {
    let before = doctor(&mut flipcall());
    for (name, call, argument) in REFUSED {
        for (errno, reason) in ERRNOS {
            let mut command = flipcall();
            let refuse = move || {
                match argument {
                    Some(argument) => filter::refuse_where(call, argument, errno),
                    None => filter::refuse(call, errno),
                }
                Ok(())
            };
            // SAFETY: the closure makes system calls and allocates, which the C library allows after a fork.
            let lines = doctor(unsafe { command.pre_exec(refuse) });
            for (line, before) in lines.iter().zip(&before).filter(|(line, _)| !line.starts_with("confined")) {
                // One call can be behind several lines.
                if line.starts_with(name) {
                    assert!(line.contains(reason), "{call}, {reason}: {line}");
                } else if !line.contains(reason) {
                    assert_eq!(stable(line), stable(before), "{call}, {reason}");
                }
            }
            assert!(lines.iter().any(|line| line.starts_with("confined       yes")), "{lines:?}");
        }
    }
}

/// Issue 13, C18.
#[test]
fn a_missing_proc_is_told_and_does_no_harm() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none_or(|value| value != "1"),
            "a process without /proc takes root"
        );
        eprintln!("skipped a process without /proc: that takes root");
        return;
    }
    let script = "mount -t tmpfs none /proc && exec \"$0\" doctor";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_flipcall")]);
    let lines = doctor(&mut command);
    assert_eq!(lines.len(), NAMES.len(), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("/proc          no (")), "{lines:?}");
}
