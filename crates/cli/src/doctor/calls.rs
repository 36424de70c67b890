//! System calls that this kernel, or a filter, may lack. Each is tried: a kernel may have it and a filter forbid it.

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::PidfdFlags;
use rustix::thread::futex::{self, ClockId, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags};

use super::finding::{Finding, finding, found};
use crate::sys::probe;

pub(super) fn waitv() -> Finding {
    let word = std::sync::atomic::AtomicU32::new(0);
    let mut wait = Wait::new();
    wait.uaddr = WaitPtr::new(word.as_ptr().cast());
    wait.flags = WaitFlags::PRIVATE | WaitFlags::SIZE_U32;
    let past = Timespec { tv_sec: 0, tv_nsec: 1 };
    let waited = match futex::waitv(&[wait], WaitvFlags::empty(), Some(&past), ClockId::Monotonic) {
        Ok(_) | Err(Errno::TIMEDOUT | Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    };
    found(
        waited,
        "a sleeper notices a shutdown or a dead peer at once",
        "a sleeper notices a local shutdown or a dead peer after up to 50 ms; Linux 5.16 has the call",
    )
}

pub(super) fn sched_yield() -> Finding {
    found(
        probe::sched_yield(),
        "a waiter gives its CPU away when others want it",
        "a waiter spins where it would yield: use policy park",
    )
}

pub(super) fn signal_masks() -> Finding {
    found(
        probe::signal_mask(),
        "no signal handler of a program runs on a thread of the library",
        "signal handlers of a program may run on threads of the library",
    )
}

pub(super) fn pidfd() -> Finding {
    let own = rustix::process::getpid();
    found(
        rustix::process::pidfd_open(own, PidfdFlags::empty()).map(drop),
        "the death of a child or a peer is noticed without a socket",
        "a child is waited for by a thread, and a peer must be watched by a socket; Linux 5.3 has the call",
    )
}

pub(super) fn close_range() -> Finding {
    found(
        probe::close_range(),
        "a child starts as fast in a process with much memory",
        "a child is forked, which takes 50 ms for each GiB that this process has touched; Linux 5.9 has the call",
    )
}

/// As the thread does that watches peers.
pub(super) fn epoll() -> Finding {
    let watched = || {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        let (reader, writer) = rustix::pipe::pipe()?;
        epoll::add(&set, &reader, EventData::new_u64(0), EventFlags::ONESHOT)?;
        drop(writer);
        let mut events = Vec::with_capacity(1);
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))
    };
    match watched() {
        Ok(1) => finding("yes", "a watched peer's death is noticed at once"),
        Ok(_) => finding("no (a hang-up is not reported)", "a watched peer's death shows as a deadline"),
        Err(errno) => finding(
            format!("no ({errno})"),
            "a watched peer's death is noticed after up to 50 ms, or not at all where epoll_ctl is refused",
        ),
    }
}

pub(super) fn limits() -> Finding {
    match probe::descriptor_limit() {
        Ok(limit) => finding(format!("{limit} descriptors"), "a server lowers its limits to what fits"),
        Err(errno) => finding(
            format!("unknown ({errno})"),
            "a server keeps its limits, and runs out of descriptors before it says no",
        ),
    }
}

pub(super) fn own_umask() -> Finding {
    // On a thread that ends: what it leaves does not come back to it.
    let tried = std::thread::spawn(probe::own_umask).join().unwrap_or(Err(Errno::PERM));
    found(
        tried,
        "a socket file has its mode when it appears, whatever the umask",
        "the mode of a socket file that the umask cuts is set afterwards, where nobody else can swap files",
    )
}
