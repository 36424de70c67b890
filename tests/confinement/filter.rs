//! A seccomp filter from names of system calls.
#![allow(unsafe_code, reason = "no safe wrapper installs a filter")]

use std::io;

macro_rules! numbers {
    ($($name:ident = $number:ident),* $(,)?) => {
        /// Names and numbers of the system calls that a filter can allow.
        const NUMBERS: &[(&str, libc::c_long)] = &[$((stringify!($name), libc::$number)),*];
    };
}

numbers! {
    accept4 = SYS_accept4,
    bind = SYS_bind,
    brk = SYS_brk,
    chmod = SYS_chmod,
    clock_gettime = SYS_clock_gettime,
    clock_nanosleep = SYS_clock_nanosleep,
    clone = SYS_clone,
    clone3 = SYS_clone3,
    close = SYS_close,
    close_range = SYS_close_range,
    dup2 = SYS_dup2,
    epoll_create1 = SYS_epoll_create1,
    epoll_ctl = SYS_epoll_ctl,
    epoll_pwait = SYS_epoll_pwait,
    eventfd2 = SYS_eventfd2,
    exit = SYS_exit,
    exit_group = SYS_exit_group,
    fallocate = SYS_fallocate,
    fchmod = SYS_fchmod,
    fcntl = SYS_fcntl,
    flock = SYS_flock,
    fstat = SYS_fstat,
    fstatfs = SYS_fstatfs,
    ftruncate = SYS_ftruncate,
    futex = SYS_futex,
    futex_waitv = SYS_futex_waitv,
    getrandom = SYS_getrandom,
    getsockname = SYS_getsockname,
    getsockopt = SYS_getsockopt,
    gettid = SYS_gettid,
    ioctl = SYS_ioctl,
    kill = SYS_kill,
    listen = SYS_listen,
    lseek = SYS_lseek,
    madvise = SYS_madvise,
    memfd_create = SYS_memfd_create,
    mmap = SYS_mmap,
    mprotect = SYS_mprotect,
    mremap = SYS_mremap,
    munmap = SYS_munmap,
    openat = SYS_openat,
    pidfd_open = SYS_pidfd_open,
    pipe2 = SYS_pipe2,
    ppoll = SYS_ppoll,
    prctl = SYS_prctl,
    pread64 = SYS_pread64,
    prlimit64 = SYS_prlimit64,
    read = SYS_read,
    readlink = SYS_readlink,
    recvfrom = SYS_recvfrom,
    recvmsg = SYS_recvmsg,
    restart_syscall = SYS_restart_syscall,
    rseq = SYS_rseq,
    rt_sigprocmask = SYS_rt_sigprocmask,
    rt_sigreturn = SYS_rt_sigreturn,
    sched_getaffinity = SYS_sched_getaffinity,
    sched_yield = SYS_sched_yield,
    sendfile = SYS_sendfile,
    sendmsg = SYS_sendmsg,
    sendto = SYS_sendto,
    set_robust_list = SYS_set_robust_list,
    setsockopt = SYS_setsockopt,
    shutdown = SYS_shutdown,
    sigaltstack = SYS_sigaltstack,
    socket = SYS_socket,
    socketpair = SYS_socketpair,
    splice = SYS_splice,
    statx = SYS_statx,
    umask = SYS_umask,
    unlink = SYS_unlink,
    unshare = SYS_unshare,
    wait4 = SYS_wait4,
    waitid = SYS_waitid,
    write = SYS_write,
    writev = SYS_writev,
}

/// The number of a system call.
pub fn number(name: &str) -> Option<libc::c_long> {
    NUMBERS.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
}

fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// From now on every other system call of any thread kills this process.
pub fn allow_only(names: &[String]) {
    let mut rules = Vec::new();
    for name in names {
        rules.extend(if_it_is(name, libc::SECCOMP_RET_ALLOW));
    }
    rules.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
    install(rules);
}

/// From now on the system call `name` fails with `errno` in any thread, and every other one is made.
pub fn refuse(name: &str, errno: i32) {
    let mut rules = if_it_is(name, libc::SECCOMP_RET_ERRNO | errno as u32).to_vec();
    rules.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    install(rules);
}

/// From now on the system call `name` fails with `errno` in any thread where its argument `at` has all of `bits`, or is `bits` if `exactly`.
pub fn refuse_where(name: &str, (at, bits, exactly): (u32, u32, bool), errno: i32) {
    let number = number(name).unwrap_or_else(|| panic!("{name} is no known system call"));
    // The arguments follow the number, the architecture and the instruction pointer; the low half comes first.
    let argument = 16 + 8 * at;
    let mask = if exactly { u32::MAX } else { bits };
    install(vec![
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 4, number as u32),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, argument),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, bits),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// What the filter answers for the system call `name`.
fn if_it_is(name: &str, answer: u32) -> [libc::sock_filter; 2] {
    let number = number(name).unwrap_or_else(|| panic!("{name} is no known system call"));
    [
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, answer),
    ]
}

fn install(rules: Vec<libc::sock_filter>) {
    // The system call's number is the first word of what a filter sees.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    filter.extend(rules);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: plain numbers, and a program that outlives the calls.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) != 0
    };
    assert!(!failed, "seccomp: {}", io::Error::last_os_error());
}
