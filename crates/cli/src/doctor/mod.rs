//! `flipcall doctor`: what this kernel and machine offer, one line each, and what follows from it.

mod calls;
mod finding;
mod memory;
mod sockets;

use std::time::Instant;

use self::finding::{Finding, finding};
use crate::bench::first_line;
use crate::cpus::usable_cpus;
use crate::outcome::Outcome;
use crate::output::say;

/// Looks at one thing.
type Check = fn() -> Finding;

const CHECKS: [(&str, Check); 22] = [
    ("kernel", kernel),
    ("confined", confined),
    ("/proc", proc),
    ("seals", memory::seals),
    ("seal after map", memory::seal_after_map),
    ("noexec memfd", memory::noexec),
    ("wipe on fork", memory::wipe_on_fork),
    ("overcommit", overcommit),
    ("futex_waitv", calls::waitv),
    ("sched_yield", calls::sched_yield),
    ("signal masks", calls::signal_masks),
    ("pidfd", calls::pidfd),
    ("close_range", calls::close_range),
    ("epoll", calls::epoll),
    ("limits", calls::limits),
    ("own umask", calls::own_umask),
    ("credentials", sockets::credentials),
    ("SO_PEERPIDFD", sockets::peer_pidfd),
    ("SO_PASSRIGHTS", sockets::pass_rights),
    ("unread bytes", sockets::unread),
    ("CPUs", cpus),
    ("spinning", spinning),
];

/// Prints the lines. What is missing is no error: each line says what the library does without it.
pub(crate) fn run() -> Outcome {
    for (name, check) in CHECKS {
        let Finding { found, follows } = check();
        say(format_args!("{name:<14} {found}: {follows}\n"))?;
    }
    Ok(())
}

fn kernel() -> Finding {
    let release = first_line("/proc/sys/kernel/osrelease");
    finding(format!("Linux {release}, {}", std::env::consts::ARCH), copies())
}

/// The likely reason of a `no` further down.
fn confined() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    match mode {
        Some("0") => finding("no", "what is missing below is missing in the kernel"),
        Some(mode) => finding(
            format!("yes, by a system call filter (seccomp mode {mode})"),
            "it may be what refuses a call below",
        ),
        None => finding("unknown", "a system call filter may be what refuses a call below"),
    }
}

fn proc() -> Finding {
    match std::fs::metadata("/proc/self/status") {
        Ok(_) => finding("yes", "limits of memory and CPU time are read there"),
        Err(error) => finding(
            format!("no ({error})"),
            "everything works; memory is taken to be overcommitted, and all CPUs to be ours to use",
        ),
    }
}

#[cfg(target_arch = "x86_64")]
fn copies() -> &'static str {
    "payloads are copied by the fast assembly path"
}

#[cfg(not(target_arch = "x86_64"))]
fn copies() -> &'static str {
    "payloads are copied by volatile words, about half as fast as memcpy"
}

fn cpus() -> Finding {
    let online = first_line("/sys/devices/system/cpu/online");
    match usable_cpus() {
        Ok(usable) => finding(format!("online {online}, usable {usable:?}"), enough(usable.len())),
        Err(_) => finding(format!("online {online}, usable unknown"), "pin nothing"),
    }
}

fn enough(usable: usize) -> &'static str {
    match usable {
        0 | 1 => "both sides of a call share one CPU",
        _ => "each side of a call can have a CPU of its own",
    }
}

fn spinning() -> Finding {
    let pause = pause_ns();
    match usable_cpus().map_or(1, |usable| usable.len()) {
        0 | 1 => finding(
            format!("no, one CPU (a pause takes {pause:.0} ns)"),
            "policy spin yields every 50 µs rather than hangs, and crawls: use adaptive, or park",
        ),
        count => finding(
            format!("yes, {count} CPUs (a pause takes {pause:.0} ns)"),
            "policy spin pays while both sides run at once; pinned to one CPU it yields every 50 µs and crawls: use adaptive",
        ),
    }
}

fn pause_ns() -> f64 {
    const PAUSES: u32 = 10_000;
    let start = Instant::now();
    (0..PAUSES).for_each(|_| std::hint::spin_loop());
    start.elapsed().as_nanos() as f64 / f64::from(PAUSES)
}

fn overcommit() -> Finding {
    match first_line("/proc/sys/vm/overcommit_memory").as_str() {
        "2" => finding("strict (mode 2)", "a window's pages are reserved when it is made, not when they are touched"),
        mode @ ("0" | "1") => finding(format!("not strict (mode {mode})"), "a window costs memory as it is touched"),
        _ => finding("unknown", "a window costs memory as it is touched"),
    }
}
