//! How a child process is started: what it inherits, and what makes it end with its parent.
//!
//! **Not by fork.** Code that runs between fork and exec makes the standard library fork, which copies the page tables of this process: 50 ms
//! for each GiB. Without it the kernel shares the memory until exec. So a thread that is started for it spawns the child, in a descriptor table
//! of its own: there it makes inheritable what the child is to have, and no other child of this process can get it. The new thread has the
//! CPUs, priority, namespaces and system call filter of the one that asked. It stays until the child ends, since a child that asked
//! for a parent-death signal (`PR_SET_PDEATHSIG`) gets it when the *thread* ends that started it. Where the kernel has no
//! `close_range`, or a filter denies it, the child is forked.
//!
//! **The end of the parent.** The child inherits the reading end of a pipe whose only writing end the parent holds, and the kernel sends SIGKILL
//! to the child when that is closed: the pipe's owner is the child (`F_SETOWN`), its signal SIGKILL (`F_SETSIG`), and `O_ASYNC`
//! asks for it. All three belong to the open file, so they outlive exec, and the parent can take them back.
#![allow(unsafe_code, reason = "descriptors by their numbers, and a closure that runs between fork and exec")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use rustix::io::FdFlags;

use super::{carry, thread};

/// A child that is to be started. It moves to the thread that spawns and back, and is dropped where its descriptors are at home.
pub(crate) struct Launch {
    pub(crate) command: Command,
    /// What the child inherits, under the numbers that these have here. All are above 2.
    pub(crate) kept: Vec<Arc<OwnedFd>>,
    /// The child's standard error, unless the command gave it one.
    pub(crate) stderr: Arc<OwnedFd>,
    /// The reading end of the pipe whose hang-up kills the child.
    pub(crate) lifeline: Arc<OwnedFd>,
}

/// What the thread that spawns gives back.
struct Spawned {
    launch: Launch,
    /// `None`: it could not have a table of its own.
    child: Option<io::Result<Child>>,
    /// Whether the child's pipes were sent.
    carries: bool,
    carriers: [OwnedFd; 2],
}

/// Starts the child.
pub(crate) fn start(mut launch: Launch) -> io::Result<Child> {
    launch.kept.push(Arc::clone(&launch.lifeline));
    let carriers = carry::pair()?;
    let (done, spawned) = sync_channel(1);
    thread::spawn("flipcall-spawn", move || spawn_aside(launch, carriers, &done))?;
    let Spawned { launch, child, carries, carriers } =
        spawned.recv().map_err(|_| io::Error::other("the thread that starts a child panicked"))?;
    match child {
        Some(child) => {
            let mut child = child?;
            let [_, carrier] = &carriers;
            if carries && let Err(error) = carry::receive_streams(carrier.as_fd(), &mut child) {
                // It is ours and not reaped yet, so neither call can hit another process.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(error);
            }
            Ok(child)
        }
        None => fork(launch),
    }
}

/// The thread that spawns. It owns nothing: what it drops would be closed in its own table and stay open in the program's.
fn spawn_aside(mut launch: Launch, carriers: [OwnedFd; 2], done: &SyncSender<Spawned>) {
    let has_own_table = close_range(RawFd::MAX.cast_unsigned(), CLOSE_RANGE_UNSHARE);
    let mut carries = false;
    let child = has_own_table.then(|| {
        prepare_table(&launch)?;
        let mut child = launch.command.spawn()?;
        let armed = arm(&launch.lifeline, child.id());
        let [carrier, _] = &carriers;
        match armed.and_then(|()| carry::send_streams(carrier.as_fd(), &mut child)) {
            Ok(sent) => {
                carries = sent;
                Ok(child)
            }
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(error)
            }
        }
    });
    let process = child.as_ref().and_then(|child| child.as_ref().ok()).map(Child::id);
    // The other side waits for it.
    let _ = done.send(Spawned { launch, child, carries, carriers });
    if has_own_table {
        // Copies of everything that the program has open: an end that it closes has to be seen.
        close_range(0, 0);
    }
    process.into_iter().for_each(wait_for_end);
}

/// Makes this thread's own table what the child is to find.
fn prepare_table(launch: &Launch) -> io::Result<()> {
    for stream in 0..=libc::STDERR_FILENO {
        // SAFETY: numbers and a constant string. What is opened stands in this thread's own table, and has no owner.
        unsafe {
            if libc::fcntl(stream, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    // SAFETY: as above; the first one is open.
    if unsafe { libc::dup2(launch.stderr.as_raw_fd(), libc::STDERR_FILENO) } == -1 {
        return Err(io::Error::last_os_error());
    }
    launch.kept.iter().try_for_each(|fd| Ok(rustix::io::fcntl_setfd(fd, FdFlags::empty())?))
}

/// Has the child be killed when the last writing end of the pipe is closed.
fn arm(lifeline: &OwnedFd, process: u32) -> io::Result<()> {
    let (fd, process) = (lifeline.as_raw_fd(), process.cast_signed());
    // SAFETY: the descriptor is open, and the arguments are numbers.
    let set = unsafe {
        [
            libc::fcntl(fd, F_SETSIG, libc::SIGKILL),
            libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC),
            libc::fcntl(fd, libc::F_SETOWN, process),
        ]
    };
    let error = io::Error::last_os_error();
    // Without such a process it has ended, and was reaped by somebody else.
    if set.contains(&-1) && error.raw_os_error() != Some(libc::ESRCH) { Err(error) } else { Ok(()) }
}

/// The child that holds `lifeline` outlives this process.
pub(crate) fn let_live(lifeline: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the arguments are numbers.
    let set = unsafe { libc::fcntl(lifeline.as_raw_fd(), libc::F_SETFL, 0) };
    if set == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until a child has ended, and leaves it to be reaped by whoever does.
fn wait_for_end(process: u32) {
    // SAFETY: a zeroed siginfo_t is a valid one, and the pointer is to a live variable. A number that is no child of ours any more is
    // an error, which ends the wait.
    unsafe {
        let mut info = std::mem::zeroed();
        libc::waitid(libc::P_PID, process, &raw mut info, libc::WEXITED | libc::WNOWAIT);
    }
}

/// How a process ended that somebody else reaped: what the kernel remembers, or else exit status 255.
pub(crate) fn exit_status(pidfd: &OwnedFd) -> ExitStatus {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request carries the size of the structure, which is the kernel's first version of it, and the pointer is to a live one.
    let asked = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) } == 0;
    let is_known = asked && info.mask & PIDFD_INFO_EXIT != 0;
    ExitStatus::from_raw(if is_known { info.exit_code } else { 255 << 8 })
}

/// The kernel's `struct pidfd_info`.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);

/// Closes every descriptor from `first` on, in this thread's own table or, with [`CLOSE_RANGE_UNSHARE`], after making one.
fn close_range(first: libc::c_uint, flags: libc::c_uint) -> bool {
    // SAFETY: with CLOSE_RANGE_UNSHARE it closes nothing that this process owns; without, it is called in a table of which nobody owns
    // anything.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) == 0 }
}

/// Starts a child by fork.
#[cold]
fn fork(launch: Launch) -> io::Result<Child> {
    let Launch { mut command, kept, stderr, lifeline } = launch;
    let ours = rustix::fs::fstat(io::stderr()).ok();
    let prepare = move || {
        for fd in &kept {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        // SAFETY: nothing in the child owns the standard streams. One that is not open is an error, and then left alone.
        let theirs = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) }).ok();
        let is_inherited = theirs.zip(ours).is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino));
        // SAFETY: both are numbers of open descriptors; that the second one is replaced is what the call is for.
        if is_inherited && unsafe { libc::dup2(stderr.as_raw_fd(), libc::STDERR_FILENO) } == -1 {
            return Err(io::Error::last_os_error());
        }
        arm(&lifeline, std::process::id())
    };
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls and nothing else: no allocation, no lock, no
    // memory that another thread of the parent could have left half-written.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// Asks for a [`PidfdInfo`] (Linux 6.13); with this bit for the end of the process, too (Linux 6.15).
const PIDFD_GET_INFO: u32 = 0xC040_FF0B;
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// Chooses the signal that `O_ASYNC` sends; the `libc` crate has no name for it.
const F_SETSIG: libc::c_int = 10;
/// Makes a table of the thread's own; the `libc` crate has it for some targets only.
const CLOSE_RANGE_UNSHARE: libc::c_uint = 2;
