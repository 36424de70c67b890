//! What the library never does: a hostile or broken process's view of a window and of the kernel. The tests' only unsafe code.
#![allow(unsafe_code, reason = "an attacker maps, forks, traces and filters as it likes")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flipcall::process::InheritedFds;

/// The right to what this process inherited.
pub fn inherited() -> InheritedFds {
    // SAFETY: what is inheritable in a process of the tests was left to it by its parent, or made to look so by a test that gave it up.
    unsafe { InheritedFds::claim() }
}

/// A mapped window as its attacker sees it.
pub struct RawWindow {
    base: *mut u8,
    len: usize,
}

// SAFETY: every access goes through an atomic, and the mapping lives as long as the value.
unsafe impl Send for RawWindow {}
// SAFETY: as above.
unsafe impl Sync for RawWindow {}

/// The words of the header, by their index.
pub const STATE: usize = 0;
pub const LENGTH: usize = 1;

impl RawWindow {
    pub fn map(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Self {
        let (access, offset) = (libc::PROT_READ | libc::PROT_WRITE, offset as libc::off_t);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd.as_raw_fd(), offset) };
        assert_ne!(base, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self { base: base.cast(), len }
    }

    /// Word `index` of the window, header first.
    pub fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index * 4 + 4 <= self.len);
        // SAFETY: inside the mapping, aligned, only accessed atomically, alive as long as `self`.
        unsafe { AtomicU32::from_ptr(self.base.add(index * 4).cast()) }
    }

    /// Word `index`, for threads that nobody waits for.
    pub fn leaked_word(&self, index: usize) -> &'static AtomicU32 {
        let mut again = self.base;
        // SAFETY: an old size of 0 maps the pages of a shared mapping a second time. The copy is never unmapped, and the word lies in it.
        unsafe {
            again = libc::mremap(again.cast(), 0, self.len, libc::MREMAP_MAYMOVE).cast();
            assert_ne!(again.cast(), libc::MAP_FAILED, "mremap: {}", io::Error::last_os_error());
            AtomicU32::from_ptr(again.add(index * 4).cast())
        }
    }

    /// Byte `index` of the datagram.
    pub fn byte(&self, index: usize) -> &AtomicU8 {
        assert!(16 + index < self.len);
        // SAFETY: as in `word`.
        unsafe { AtomicU8::from_ptr(self.base.add(16 + index)) }
    }

    /// Waits until the state is `wanted`; `false` once the window is shut down. A test that gets nowhere ends here.
    pub fn await_state(&self, wanted: u32) -> bool {
        let start = Instant::now();
        loop {
            match self.word(STATE).load(Ordering::Acquire) {
                state if state == wanted => return true,
                2 => return false,
                _ => std::thread::yield_now(),
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the state never became {wanted}");
        }
    }

    /// Puts a datagram into the window and hands control over by setting the state to `state`, as an honest peer would.
    pub fn flip(&self, datagram: &[u8], state: u32) {
        datagram.iter().enumerate().for_each(|(at, &byte)| self.byte(at).store(byte, Ordering::Relaxed));
        self.word(LENGTH).store(datagram.len() as u32, Ordering::Relaxed);
        self.word(STATE).store(state, Ordering::Release);
        let _ = futex_wake(self.word(STATE), 1);
    }

    /// The server's half of the base handshake.
    pub fn shake_hands_as_server(&self) {
        assert!(self.await_state(1), "the client shut down before its handshake");
        self.flip(b"{}\n", 0);
    }

    /// The client's half of the base handshake. Control is the client's after it.
    pub fn shake_hands_as_client(&self) {
        self.flip(b"{}\n", 1);
        assert!(self.await_state(0), "the server shut down instead of answering");
    }
}

impl Drop for RawWindow {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; nothing borrows from it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

fn result(value: libc::c_long) -> io::Result<i64> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn futex(word: &AtomicU32, op: libc::c_int, value: u32, value2: usize, word2: Option<&AtomicU32>) -> io::Result<i64> {
    let second = word2.map_or(std::ptr::null_mut(), AtomicU32::as_ptr);
    // SAFETY: the words are mapped, and `value2` is a number or the address of a time that outlives the call.
    result(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, value2, second, 0) })
}

pub fn futex_wake(word: &AtomicU32, count: u32) -> io::Result<i64> {
    futex(word, libc::FUTEX_WAKE, count, 0, None)
}

/// Sleeps while `word` is `expected`, at most for `most`.
pub fn futex_wait(word: &AtomicU32, expected: u32, most: Duration) -> io::Result<i64> {
    let time = libc::timespec { tv_sec: most.as_secs() as i64, tv_nsec: i64::from(most.subsec_nanos()) };
    futex(word, libc::FUTEX_WAIT, expected, &raw const time as usize, None)
}

/// Moves every sleeper of `from` over to `to`, waking none.
pub fn futex_requeue(from: &AtomicU32, to: &AtomicU32) -> io::Result<i64> {
    futex(from, libc::FUTEX_REQUEUE, 0, i32::MAX as usize, Some(to))
}

/// Takes `word` as a lock with priority inheritance, or queues for it.
pub fn futex_lock_pi(word: &AtomicU32) -> io::Result<i64> {
    futex(word, libc::FUTEX_LOCK_PI, 0, 0, None)
}

pub fn die_with_parent() {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

pub fn outlive_parent() {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

pub fn thread_id() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// From now on `futex_waitv` fails with `errno` for this thread and those that it starts, as under a container's filter.
pub fn deny_futex_waitv(errno: i32) {
    deny(libc::SYS_futex_waitv, errno);
    // SAFETY: bad pointers are never looked at: either the filter answers, or the kernel with EINVAL.
    let denied = result(unsafe { libc::syscall(libc::SYS_futex_waitv, 0, 0, 0, 0, 0) }).unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(errno), "the filter does not work");
}

/// From now on the system call `number` fails with `errno` for this thread and those that it starts.
pub fn deny(number: libc::c_long, errno: i32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The system call's number is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain numbers, and a program that outlives the call.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    assert!(!failed, "seccomp: {}", io::Error::last_os_error());
}

/// Runs `body` in a forked child, which exits with what it returns. The number of the child.
pub fn fork(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child uses this thread's memory and libc's allocator, which libc keeps usable across a fork.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        let status = body();
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(status) };
    }
    pid
}

/// Closes a forked child's copy of what its parent goes on using. The child never drops it.
pub fn close_in_child(fd: &impl AsRawFd) {
    // SAFETY: the child ends with `_exit`, so nobody closes the number again.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Waits for a forked child: its exit status, or -1 if a signal ended it.
pub fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: a child of ours, and a place for its status.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}

/// A file that no other mapping of the kernel shows, where the kernel has them.
pub fn memfd_secret() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; a descriptor that comes back is nobody else's.
    unsafe { result(libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC)).map(|fd| OwnedFd::from_raw_fd(fd as i32)) }
}

/// Mounts the FUSE file system that `device` serves at `path`, in a mount namespace of this thread's own.
pub fn mount_fuse(device: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", device.as_raw_fd());
    let path = format!("{path}\0");
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: every string ends with a zero byte and outlives its call.
    unsafe {
        result(libc::unshare(libc::CLONE_NEWNS).into())?;
        let none = std::ptr::null();
        result(libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()).into())?;
        let fuse = c"fuse".as_ptr();
        result(libc::mount(fuse, path.as_ptr().cast(), fuse, 0, options.as_ptr().cast()).into())?;
    }
    Ok(())
}

/// Puts the file `with` in the place of `path`, for this thread and those that it starts alone.
pub fn cover(path: &str, with: &str) -> io::Result<()> {
    let (path, with) = (format!("{path}\0"), format!("{with}\0"));
    let (private, none) = (libc::MS_REC | libc::MS_PRIVATE, std::ptr::null());
    // SAFETY: every string ends with a zero byte and outlives its call.
    unsafe {
        result(libc::unshare(libc::CLONE_NEWNS).into())?;
        result(libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()).into())?;
        let bind = libc::MS_BIND;
        result(libc::mount(with.as_ptr().cast(), path.as_ptr().cast(), none, bind, std::ptr::null()).into())?;
    }
    Ok(())
}

/// Follows one thread of another process from system call to system call. All calls come from the thread that made it.
pub struct Tracer(i32);

impl Tracer {
    /// Stops thread `id`, wherever it is.
    pub fn seize(id: i32) -> io::Result<Self> {
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXIT;
        // SAFETY: plain numbers.
        result(unsafe { libc::ptrace(libc::PTRACE_SEIZE, id, 0, options) })?;
        // SAFETY: plain numbers.
        result(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, id, 0, 0) })?;
        let tracer = Self(id);
        tracer.wait()?;
        Ok(tracer)
    }

    /// Lets the thread run to the next entry to or return from a system call. `false`: it is about to exit.
    pub fn step(&self) -> io::Result<bool> {
        // SAFETY: plain numbers.
        result(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.0, 0, 0) })?;
        let status = self.wait()?;
        Ok(libc::WIFSTOPPED(status) && status >> 8 != libc::SIGTRAP | (libc::PTRACE_EVENT_EXIT << 8))
    }

    fn wait(&self) -> io::Result<i32> {
        let mut status = 0;
        // SAFETY: a place for the status.
        result(unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) }.into())?;
        Ok(status)
    }
}

/// Puts SIGPIPE back to what a program finds that is not Rust's: it kills.
pub fn default_sigpipe() {
    // SAFETY: plain numbers; no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Private memory of which every small page was touched, kept until the process ends.
pub fn touch_memory(bytes: usize) {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice, and writes inside it.
    unsafe {
        let base = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        libc::madvise(base, bytes, libc::MADV_NOHUGEPAGE);
        (0..bytes).step_by(4096).for_each(|at| base.cast::<u8>().add(at).write_volatile(1));
    }
}

/// Has the processes that `command` starts be killed when the thread ends that starts them.
pub fn die_with_thread(command: &mut std::process::Command) {
    let ask = || {
        // SAFETY: a system call with numbers.
        result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into()).map(drop)
    };
    // SAFETY: the closure makes one system call.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, ask) };
}

/// Closes a standard stream of this process, or any other descriptor that nobody owns.
pub fn close_number(number: i32) {
    // SAFETY: the caller says that nobody owns it.
    unsafe { libc::close(number) };
}

/// Whether a descriptor of that number is open.
pub fn is_open(number: i32) -> bool {
    // SAFETY: it asks for flags and changes nothing.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Allows every process of this user to trace this one, where the kernel asks (Yama).
pub fn allow_tracing() {
    // SAFETY: a system call with numbers. A kernel that does not ask does not know it.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
}

/// Traces the parent of this process, for as long as this process lives.
pub fn trace_parent() {
    // SAFETY: system calls with numbers, and a null pointer where none is looked at.
    unsafe {
        let traced = libc::ptrace(libc::PTRACE_SEIZE, libc::getppid(), std::ptr::null_mut::<libc::c_void>(), 0);
        assert_ne!(traced, -1, "ptrace: {}", io::Error::last_os_error());
    }
}

/// From now on the kernel reaps the children of this process.
pub fn ignore_children() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Reaps every child of this process, for ever.
pub fn reap_everything() {
    loop {
        // SAFETY: a null pointer asks for no status.
        if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } == -1 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Forks; 0 in the child, which goes on like its parent.
pub fn fork_here() -> i32 {
    // SAFETY: as in `fork`.
    unsafe { libc::fork() }
}
