//! `flipcall doctor`: what this kernel and machine offer, one line each, and what follows from it.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::PidfdFlags;
use rustix::thread::futex::{self, ClockId, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags};

use crate::bench::first_line;
use crate::cpus::usable_cpus;
use crate::outcome::Outcome;
use crate::output::say;

/// Looks at one thing.
type Check = fn() -> Finding;

const CHECKS: [(&str, Check); 9] = [
    ("kernel", kernel),
    ("seals", seals),
    ("noexec memfd", noexec),
    ("futex_waitv", waitv),
    ("pidfd", pidfd),
    ("SO_PASSRIGHTS", pass_rights),
    ("CPUs", cpus),
    ("spinning", spinning),
    ("overcommit", overcommit),
];

/// What is there, and what follows from it.
struct Finding {
    found: String,
    follows: &'static str,
}

fn finding(found: impl Into<String>, follows: &'static str) -> Finding {
    Finding { found: found.into(), follows }
}

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

#[cfg(target_arch = "x86_64")]
fn copies() -> &'static str {
    "payloads are copied by the fast assembly path"
}

#[cfg(not(target_arch = "x86_64"))]
fn copies() -> &'static str {
    "payloads are copied by volatile words, about half as fast as memcpy"
}

fn sealed_memfd(flags: MemfdFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::memfd_create("flipcall-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags)
}

fn seals() -> Finding {
    let add = |seal| sealed_memfd(MemfdFlags::empty()).and_then(|fd| rustix::fs::fcntl_add_seals(&fd, seal));
    match (add(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL), add(SealFlags::FUTURE_WRITE)) {
        (Err(errno), _) => {
            finding(format!("no ({errno})"), "windows cannot be made: nothing of this library works here")
        }
        (Ok(()), Err(_)) => finding("all but FUTURE_WRITE", "windows work; a peer may punch holes in a window's file"),
        (Ok(()), Ok(())) => finding("yes", "windows can be shared safely with a peer that is not trusted"),
    }
}

fn noexec() -> Finding {
    match sealed_memfd(MemfdFlags::NOEXEC_SEAL) {
        Ok(_) => finding("yes", "the shared memory can never be executed as a program"),
        Err(_) => finding("no", "windows work, but a peer may execute its window's file; Linux 6.3 has the flag"),
    }
}

/// Tries it: a kernel may have it and a seccomp filter forbid it.
fn waitv() -> Finding {
    let word = std::sync::atomic::AtomicU32::new(0);
    let mut wait = Wait::new();
    wait.uaddr = WaitPtr::new(word.as_ptr().cast());
    wait.flags = WaitFlags::PRIVATE | WaitFlags::SIZE_U32;
    let past = Timespec { tv_sec: 0, tv_nsec: 1 };
    match futex::waitv(&[wait], WaitvFlags::empty(), Some(&past), ClockId::Monotonic) {
        Ok(_) | Err(Errno::TIMEDOUT | Errno::AGAIN | Errno::INTR) => {
            finding("yes", "a sleeper notices a shutdown or a dead peer at once")
        }
        Err(errno) => {
            finding(format!("no ({errno})"), "a sleeper notices a local shutdown or a dead peer after up to 50 ms")
        }
    }
}

fn pidfd() -> Finding {
    let own = rustix::process::getpid();
    match rustix::process::pidfd_open(own, PidfdFlags::empty()) {
        Ok(_) => finding("yes", "the death of a spawned peer is noticed without a socket"),
        Err(errno) => finding(format!("no ({errno})"), "a peer must be watched by a socket; Spawned does not work"),
    }
}

/// The option came with Linux 6.16; the version tells, since asking for it takes a raw system call.
fn pass_rights() -> Finding {
    let release = first_line("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let socket = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    match socket {
        Err(errno) => finding(format!("no Unix sockets ({errno})"), "only windows work here"),
        Ok(_) if version >= (6, 16) => {
            finding("yes, by the kernel's version", "descriptors that nobody asked for are refused at the sender")
        }
        Ok(_) => finding("no, before Linux 6.16", "descriptors that nobody asked for are received and closed"),
    }
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
