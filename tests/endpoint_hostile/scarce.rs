//! Our own process short of what it needs: descriptors, file size, address space, memory. Each is a clear error, and leaves nothing.
//!
//! Limits are those of a second process; what the kernel says of its memory is covered by a file of ours, in that process alone.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use flipcall::endpoint::{Acceptor, Connector, Options, Spawned};
use flipcall::window::{Allocator, Seals, Window};
use flipcall::{Error, ErrorKind};
use rustix::fs::{fallocate, ftruncate};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::attacker::account::Holdings;
use crate::attacker::raw::{cover, deny};
use crate::attacker::{PAGE, Peer, Role, Stage, alone, arena, next_window, skip};

pub const ROLES: &[Role] = &[
    ("runs out of descriptors", runs_out_of_descriptors),
    ("has a file size limit", has_a_file_size_limit),
    ("has little address space", has_little_address_space),
    ("does not overcommit", does_not_overcommit),
];

/// Runs `role` to its end. A failed assertion of it shows as silence here, and as its message on standard error.
fn runs(role: &str) -> Peer {
    let peer = Peer::start(role, "", &[]);
    match peer.control.hear() {
        said if said == "done" => {}
        why => skip(role, &why),
    }
    peer
}

fn errno(error: &Error) -> Option<i32> {
    error.source()?.downcast_ref::<std::io::Error>()?.raw_os_error()
}

#[track_caller]
fn is_system<T>(result: flipcall::Result<T>, what: &str, number: Errno) {
    let error = result.err().expect("the system lacks something");
    assert_eq!((error.kind(), errno(&error)), (ErrorKind::System, Some(number.raw_os_error())), "{error}");
    assert!(error.to_string().starts_with(what), "{error}");
}

fn limit(resource: Resource, current: u64) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: Some(current), maximum }).expect("a limit can be lowered");
}

fn children() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let of =
        |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("children")).ok();
    tasks.filter_map(of).map(|children| children.split_whitespace().count()).sum()
}

/// A pair of mapped ends still works.
fn a_call_still_works() {
    let arena = arena(1);
    let descriptor = arena.allocate(PAGE).expect("a page");
    let server = Acceptor::new(Window::map(&descriptor).expect("mmap"), Options::new()).expect("nothing is watched");
    let client = Connector::new(Window::map(&descriptor).expect("mmap"), Options::new()).expect("nothing is watched");
    let ends = crate::attacker::AGES;
    std::thread::scope(|scope| {
        scope.spawn(|| server.recv_first(ends).expect("a call").0.send_recv(3, ends));
        let mut endpoint = client.connect(ends).expect("a server");
        assert_eq!(endpoint.send_recv(0, ends).expect("an answer"), 3);
    });
}

/// Tries `attempt` with one more descriptor each time, until it succeeds. What each failure says, up to the first colon.
fn with_ever_more_descriptors<T>(mut attempt: impl FnMut() -> flipcall::Result<T>) -> BTreeSet<String> {
    let plenty = getrlimit(Resource::Nofile);
    let before = Holdings::of("self");
    let mut failed = BTreeSet::new();
    for most in 0.. {
        limit(Resource::Nofile, most);
        let result = attempt();
        setrlimit(Resource::Nofile, plenty).expect("back to what it was");
        let Err(error) = result else { return failed };
        assert_eq!((error.kind(), errno(&error)), (ErrorKind::System, Some(Errno::MFILE.raw_os_error())), "{error}");
        failed.insert(format!("{error:#}").split(':').next().unwrap_or_default().to_string());
        before.comes_back(&format!("{error}, {most} descriptors"));
        assert_eq!(children(), 0, "{error}, {most} descriptors");
    }
    unreachable!("a descriptor is to be had some time")
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_string).collect()
}

fn runs_out_of_descriptors(stage: Stage) {
    let (socket, _peer) = UnixStream::pair().expect("a socket pair");
    let failed = with_ever_more_descriptors(|| {
        let allocator = Allocator::with_size(u64::from(PAGE))?;
        let window = Window::map(&allocator.allocate(PAGE)?)?;
        Ok((window, allocator))
    });
    assert_eq!(failed, names(["cannot create a memfd", "cannot read vm.overcommit_memory"]));

    // A received descriptor was there before there was a limit.
    let arena = arena(1);
    let plenty = getrlimit(Resource::Nofile);
    let failed = with_ever_more_descriptors(|| {
        let few = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, plenty).expect("back to what it was");
        let file = arena.fd().try_clone_to_owned().expect("dup");
        setrlimit(Resource::Nofile, few).expect("a limit can be lowered");
        Window::receive(file, 0, PAGE, Seals::Strict)
    });
    assert_eq!(failed, names(["cannot read vm.overcommit_memory"]));

    // The first endpoint that watches something makes the set of what is watched.
    let (window, options) = (next_window(&arena), Options::new().watch_socket(socket.into()));
    limit(Resource::Nofile, 3);
    let refused = Connector::new(window, options);
    setrlimit(Resource::Nofile, plenty).expect("back to what it was");
    is_system(refused, "cannot watch the peer", Errno::MFILE);

    // Starting the child takes more than what comes after it, which can be refused, too.
    let start = || Spawned::start(Command::new("true"), PAGE, Options::new());
    let failed = with_ever_more_descriptors(start);
    let steps = [
        "cannot create a memfd",
        "cannot read vm.overcommit_memory",
        "cannot make a socket pair for a child",
        "cannot duplicate a descriptor for a child",
        "cannot make a pipe for a child",
        "cannot start true",
    ];
    assert_eq!(failed, names(steps));
    let before = Holdings::of("self");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            deny(libc::SYS_pidfd_open, Errno::MFILE.raw_os_error());
            is_system(start(), "cannot watch true", Errno::MFILE);
        });
    });
    before.comes_back("a child that cannot be watched");
    assert_eq!(children(), 0, "the child that cannot be watched");
    a_call_still_works();
    stage.control.say("done");
}

#[test]
fn without_a_descriptor_each_step_fails_by_name_and_leaves_nothing() {
    let _alone = alone();
    drop(runs("runs out of descriptors"));
}

fn has_a_file_size_limit(stage: Stage) {
    const MOST: u64 = 64 * PAGE as u64;
    limit(Resource::Core, 0);
    limit(Resource::Fsize, MOST);
    let before = Holdings::of("self");
    is_system(Allocator::with_size(MOST + 1), "cannot make a memfd of ", Errno::FBIG);
    is_system(Allocator::new(), "cannot make a memfd of ", Errno::FBIG);
    is_system(
        Spawned::start(Command::new("true"), MOST as u32 + 1, Options::new()),
        "cannot make a memfd of ",
        Errno::FBIG,
    );
    assert_eq!((Holdings::of("self"), children()), (before, 0));
    let allocator = Allocator::with_size(MOST).expect("as much as is allowed");
    allocator.allocate(MOST as u32).expect("all of it");
    a_call_still_works();
    stage.control.say("done");
    // What would happen had the limit not been looked at.
    stage.control.expect("exceed it");
    let file = rustix::fs::memfd_create("too large", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let _ = ftruncate(&file, MOST + 1);
    stage.control.say("alive");
}

#[test]
fn past_a_file_size_limit_there_is_an_error_and_no_signal() {
    let _alone = alone();
    let mut peer = runs("has a file size limit");
    peer.control.say("exceed it");
    assert!(peer.control.listen().is_none(), "the kernel kills who exceeds the limit");
    assert_eq!(peer.child.wait().unwrap().signal(), Some(libc::SIGXFSZ));
}

/// Bytes of address space that this process uses.
fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    pages.split(' ').next().expect("a number").parse::<u64>().expect("a number") * u64::from(PAGE)
}

/// A handshake that claims to fill its window is refused before anything of that size is made room for.
fn a_long_handshake_takes_no_memory() {
    const HALF: u32 = 160 << 20;
    let allocator = Allocator::with_size(u64::from(HALF)).expect("a sparse file");
    let window = Window::map(&allocator.allocate(HALF).expect("all of it")).expect("it fits once");
    let server = Acceptor::new(window, Options::new()).expect("nothing is watched");
    let file = File::from(allocator.fd().try_clone_to_owned().expect("dup"));
    for (word, value) in [(1, HALF - 16), (0, 1)] {
        file.write_all_at(&value.to_ne_bytes(), 4 * word).expect("a word of the header");
    }
    assert_eq!(server.recv_first(crate::attacker::AGES).expect_err("too long").kind(), ErrorKind::Violation);
}

fn has_little_address_space(stage: Stage) {
    const LARGE: u32 = 1 << 30;
    // What is made once per process is made before the count.
    a_call_still_works();
    limit(Resource::As, address_space() + (256 << 20));
    let before = Holdings::of("self");
    let allocator = Allocator::with_size(u64::from(LARGE)).expect("a sparse file");
    let descriptor = allocator.allocate(LARGE).expect("a range of it");
    is_system(Window::map(&descriptor), "cannot map a window of ", Errno::NOMEM);
    let file = descriptor.fd().try_clone_to_owned().expect("dup");
    is_system(Window::receive(file, 0, LARGE, Seals::Strict), "cannot map a received window of ", Errno::NOMEM);
    is_system(Spawned::start(Command::new("true"), LARGE, Options::new()), "cannot map a window of ", Errno::NOMEM);
    drop(allocator);
    before.comes_back("windows that do not fit");
    assert_eq!(children(), 0);
    a_long_handshake_takes_no_memory();
    a_call_still_works();
    stage.control.say("done");
}

#[test]
fn a_window_that_does_not_fit_the_address_space_is_an_error() {
    let _alone = alone();
    drop(runs("has little address space"));
}

/// Bytes of memory that a file has.
fn memory_of(file: BorrowedFd<'_>) -> u64 {
    u64::try_from(rustix::fs::fstat(file).expect("fstat").st_blocks).expect("not negative") * 512
}

fn does_not_overcommit(stage: Stage) {
    let path = format!("{}/overcommit-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&path, "2\n").expect("a scratch file");
    let covered = cover("/proc/sys/vm/overcommit_memory", &path);
    std::fs::remove_file(&path).expect("it is there");
    if let Err(error) = covered {
        return stage.control.say(&format!("{error:#}"));
    }
    // Ours and a received one have their pages before they are touched.
    let allocator = arena(64);
    let descriptor = allocator.allocate(16 * PAGE).expect("there is memory");
    assert_eq!(memory_of(allocator.fd()), 16 * u64::from(PAGE));
    let sparse =
        File::from(rustix::fs::memfd_create("sparse", rustix::fs::MemfdFlags::ALLOW_SEALING).expect("a memfd"));
    ftruncate(&sparse, 8 * u64::from(PAGE)).expect("a small file");
    rustix::fs::fcntl_add_seals(&sparse, rustix::fs::SealFlags::SHRINK).expect("it can be sealed");
    let received = || {
        Window::receive(
            sparse.as_fd().try_clone_to_owned().expect("dup"),
            4 * u64::from(PAGE),
            2 * PAGE,
            Seals::Compatible,
        )
    };
    drop(received().expect("there is memory"));
    assert_eq!(memory_of(sparse.as_fd()), 2 * u64::from(PAGE), "those of the window alone");
    a_call_still_works();

    // Without memory `fallocate` says so: here, to one thread.
    let before = Holdings::of("self");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            deny(libc::SYS_fallocate, Errno::NOSPC.raw_os_error());
            let refused = fallocate(&sparse, rustix::fs::FallocateFlags::empty(), 0, 1);
            assert_eq!(refused, Err(Errno::NOSPC), "the filter does not work");
            for _ in 0..100 {
                is_system(allocator.allocate(PAGE), "cannot reserve ", Errno::NOSPC);
                is_system(received(), "cannot reserve ", Errno::NOSPC);
            }
            is_system(Spawned::start(Command::new("true"), PAGE, Options::new()), "cannot reserve ", Errno::NOSPC);
        });
    });
    before.comes_back("windows without memory");
    assert_eq!(children(), 0);
    // The windows that failed took nothing of the file.
    allocator.allocate(48 * PAGE).expect("all that was left");
    assert_eq!(memory_of(allocator.fd()), 64 * u64::from(PAGE));
    Window::map(&descriptor).expect("it is there as before");
    stage.control.say("done");
}

#[test]
fn where_the_kernel_does_not_overcommit_windows_get_their_pages_or_an_error() {
    let _alone = alone();
    drop(runs("does not overcommit"));
}
