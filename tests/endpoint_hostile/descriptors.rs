//! Row 8: the peer hands over a descriptor that is no window.
//!
//! Every descriptor comes from a second process over a socket, as it would in a program.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use flipcall::window::{Refusal, Seals, Window};
use flipcall::{Error, ErrorKind};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, open};

use super::fuse::{DeadFile, FLUSH, GETATTR};
use crate::attacker::account::Holdings;
use crate::attacker::{PAGE, Peer, Role, Stage, alone, promised_once, raw, skip};

pub const ROLES: &[Role] = &[("hands over", hands_over), ("serves a file system", serves_a_file_system)];

const SHRINK: SealFlags = SealFlags::SHRINK;
const SIZE: u64 = 4 * PAGE as u64;
/// The seals of our own files.
const OURS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

type Made = std::io::Result<OwnedFd>;

/// A memfd of `size` bytes with `seals`.
fn memfd(flags: MemfdFlags, size: u64, seals: SealFlags) -> Made {
    let fd = memfd_create("hostile", MemfdFlags::CLOEXEC | flags)?;
    ftruncate(&fd, size)?;
    if !seals.is_empty() {
        fcntl_add_seals(&fd, seals)?;
    }
    Ok(fd)
}

fn sealed(seals: SealFlags) -> Made {
    memfd(MemfdFlags::ALLOW_SEALING, SIZE, seals)
}

fn file(path: &str) -> Made {
    Ok(File::options().read(true).write(true).create(true).truncate(false).open(path)?.into())
}

fn reopened(fd: &OwnedFd, how: OFlags) -> Made {
    Ok(open(format!("/proc/self/fd/{}", fd.as_raw_fd()), how | OFlags::CLOEXEC, Mode::empty())?)
}

/// A file with a page of content that nobody can see under its name.
fn unlinked(directory: &str) -> Made {
    let path = format!("{directory}/flipcall-hostile-{}", std::process::id());
    let fd = file(&path)?;
    std::fs::remove_file(path)?;
    ftruncate(&fd, SIZE)?;
    Ok(fd)
}

/// What the attacker makes, by the name that the test asks for.
fn make(what: &str) -> Made {
    Ok(match what {
        "an unsealed memfd" => sealed(SealFlags::empty())?,
        "a memfd that knows no seals" => memfd(MemfdFlags::empty(), SIZE, SealFlags::empty())?,
        "a memfd that is too small" => memfd(MemfdFlags::ALLOW_SEALING, u64::from(PAGE) - 1, OURS)?,
        "an empty memfd" => memfd(MemfdFlags::ALLOW_SEALING, 0, OURS)?,
        "a memfd opened for reading" => reopened(&sealed(OURS)?, OFlags::RDONLY)?,
        "a memfd opened for writing" => reopened(&sealed(OURS)?, OFlags::WRONLY)?,
        "a write-sealed memfd" => sealed(OURS | SealFlags::WRITE)?,
        "a memfd sealed against new writers" => sealed(OURS | SealFlags::FUTURE_WRITE)?,
        "a memfd that grows only" => sealed(SealFlags::GROW | SealFlags::SEAL)?,
        "gVisor's memfd" => sealed(SHRINK | SealFlags::SEAL)?,
        "a memfd that takes more seals" => sealed(SHRINK | SealFlags::GROW)?,
        "our memfd" => sealed(OURS)?,
        "a pipe" => rustix::pipe::pipe()?.0,
        "a directory" => File::open("/")?.into(),
        "a file on disk" => unlinked(env!("CARGO_TARGET_TMPDIR"))?,
        "a file on tmpfs" => unlinked("/dev/shm")?,
        "a device" => file("/dev/zero")?,
        "an O_PATH descriptor" => reopened(&sealed(OURS)?, OFlags::PATH)?,
        "a socket" => std::os::unix::net::UnixStream::pair()?.0.into(),
        "an event counter" => rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?,
        "a pidfd" => rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?,
        "a memfd of huge pages" => memfd(MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB, 2 << 20, OURS)?,
        "a secret memfd" => raw::memfd_secret()?,
        other => panic!("nobody makes {other}"),
    })
}

/// Makes and sends whatever is asked for, or says why it cannot.
fn hands_over(stage: Stage) {
    while let Some((what, _)) = stage.control.listen() {
        match make(&what) {
            Ok(fd) => stage.control.say_with("here", &[fd.as_fd()]),
            Err(error) => stage.control.say(&format!("{error:#}")),
        }
    }
}

fn ask(peer: &Peer, what: &str) -> Option<OwnedFd> {
    peer.control.say(what);
    let (answer, mut fds) = peer.control.listen().expect("the peer is there");
    let fd = fds.pop();
    if fd.is_none() {
        skip(what, &answer);
    }
    fd
}

fn refusal(error: &Error) -> Refusal {
    use std::error::Error as _;
    assert_eq!(error.kind(), ErrorKind::Refused);
    *error.source().and_then(|source| source.downcast_ref()).expect("a refusal is the source")
}

/// What is refused for which reason, and what its error says.
const REFUSED: &[(&str, Refusal, &str)] = {
    use Refusal::{FileTooSmall, MissingSeal, NotReadWrite, NotSealable, NotTmpfs, PathOnly, WriteSealed};
    const PAGE_BYTES: u64 = PAGE as u64;
    &[
        ("an unsealed memfd", MissingSeal("F_SEAL_SHRINK"), "the seal F_SEAL_SHRINK is missing"),
        ("a memfd that knows no seals", MissingSeal("F_SEAL_SHRINK"), "the seal F_SEAL_SHRINK is missing"),
        ("a memfd that grows only", MissingSeal("F_SEAL_SHRINK"), "the seal F_SEAL_SHRINK is missing"),
        ("a file on tmpfs", MissingSeal("F_SEAL_SHRINK"), "the seal F_SEAL_SHRINK is missing"),
        (
            "a memfd that is too small",
            FileTooSmall { size: PAGE_BYTES - 1, needed: PAGE_BYTES },
            "the file has 4095 bytes",
        ),
        ("an empty memfd", FileTooSmall { size: 0, needed: PAGE_BYTES }, "the file has 0 bytes"),
        ("a memfd opened for reading", NotReadWrite, "not open for reading and writing"),
        ("a memfd opened for writing", NotReadWrite, "not open for reading and writing"),
        ("a write-sealed memfd", WriteSealed("F_SEAL_WRITE"), "the seal F_SEAL_WRITE forbids"),
        (
            "a memfd sealed against new writers",
            WriteSealed("F_SEAL_FUTURE_WRITE"),
            "the seal F_SEAL_FUTURE_WRITE forbids",
        ),
        ("a pipe", NotSealable, "it is not a memfd"),
        ("a directory", NotSealable, "it is not a memfd"),
        ("a file on disk", NotSealable, "it is not a memfd"),
        ("a device", NotSealable, "it is not a memfd"),
        ("a socket", NotSealable, "it is not a memfd"),
        ("an event counter", NotSealable, "it is not a memfd"),
        ("a pidfd", NotSealable, "it is not a memfd"),
        ("an O_PATH descriptor", PathOnly, "O_PATH"),
        ("a memfd of huge pages", NotTmpfs, "not in ordinary shared memory"),
        ("a secret memfd", NotSealable, "it is not a memfd"),
    ]
};

#[test]
fn hostile_descriptors_are_refused_by_name_before_they_are_mapped() {
    let _alone = alone();
    let peer = Peer::start("hands over", "", &[]);
    let before = Holdings::of("self");
    for (what, reason, text) in REFUSED {
        for seals in [Seals::Compatible, Seals::Strict] {
            let Some(fd) = ask(&peer, what) else { continue };
            let error = Window::receive(fd, 0, PAGE, seals).expect_err(what);
            assert_eq!(refusal(&error), *reason, "{what}");
            assert!(format!("{error:#}").contains(text), "{what}: {error:#}");
            before.comes_back(what);
        }
    }
}

#[test]
fn the_seals_of_other_makers_are_told_apart() {
    let _alone = alone();
    let peer = Peer::start("hands over", "", &[]);
    let before = Holdings::of("self");
    for (what, missing) in [
        ("gVisor's memfd", Some("F_SEAL_GROW")),
        ("a memfd that takes more seals", Some("F_SEAL_SEAL")),
        ("our memfd", None),
    ] {
        let window = Window::receive(ask(&peer, what).expect("a memfd"), 0, PAGE, Seals::Compatible).expect(what);
        assert_eq!(window.capacity(), PAGE - 16);
        let strict = Window::receive(ask(&peer, what).expect("a memfd"), 0, PAGE, Seals::Strict);
        assert_eq!(strict.err().map(|error| refusal(&error)), missing.map(Refusal::MissingSeal), "{what}");
    }
    before.comes_back("windows that were mapped and dropped");
}

#[test]
fn a_seal_that_comes_between_the_checks_and_the_mapping_is_a_refusal_by_name() {
    const ATTEMPTS: u32 = 400;
    let _alone = alone();
    let before = Holdings::of("self");
    let mut refused = 0;
    for attempt in 0..ATTEMPTS {
        let file = sealed(SHRINK).expect("a memfd");
        let received = file.try_clone().expect("dup");
        let start = std::sync::Barrier::new(2);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // The checks and the mapping take some 10 µs: each attempt waits a little longer.
                (0..attempt * 10).for_each(|_| std::hint::spin_loop());
                fcntl_add_seals(&file, SealFlags::FUTURE_WRITE).expect("it can be sealed further");
            });
            start.wait();
            Window::receive(received, 0, PAGE, Seals::Compatible)
        });
        if let Err(error) = outcome {
            assert_eq!(refusal(&error), Refusal::WriteSealed("F_SEAL_FUTURE_WRITE"), "attempt {attempt}");
            refused += 1;
        }
    }
    assert!(refused > 0, "the seal never came in time");
    before.comes_back("windows that were sealed too early");
}

#[test]
fn a_range_that_is_no_window_is_refused() {
    let _alone = alone();
    let peer = Peer::start("hands over", "", &[]);
    let before = Holdings::of("self");
    let cases = [
        (1, PAGE, Refusal::Misaligned { offset: 1 }),
        (u64::MAX - 4095, PAGE, Refusal::Misaligned { offset: u64::MAX - 4095 }),
        (0, 0, Refusal::TooShort { length: 0 }),
        (0, PAGE - 1, Refusal::TooShort { length: PAGE - 1 }),
        (SIZE, PAGE, Refusal::FileTooSmall { size: SIZE, needed: SIZE + u64::from(PAGE) }),
        (0, u32::MAX, Refusal::FileTooSmall { size: SIZE, needed: u64::from(u32::MAX) }),
    ];
    for (offset, length, reason) in cases {
        let fd = ask(&peer, "our memfd").expect("a memfd");
        let error = Window::receive(fd, offset, length, Seals::Strict).expect_err("no window");
        assert_eq!(refusal(&error), reason);
    }
    // The next test counts as well, and refused descriptors are closed a little later.
    before.comes_back("ranges that are no windows");
}

/// Sends a file of its own file system, and afterwards the numbers of the requests that came for it.
fn serves_a_file_system(stage: Stage) {
    // A process that uses the file is stuck until this process dies: that it does, whatever becomes of the test.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(20));
        std::process::exit(1);
    });
    let directory = format!("{}/fuse-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let served = DeadFile::serve(&directory, |file| {
        match &file {
            Ok(fd) => stage.control.say_with("here", &[fd.as_fd()]),
            Err(error) => stage.control.say(&format!("{error:#}")),
        }
        // The file stays open: closing it here would be a flush as well.
        loop {
            std::thread::park();
        }
    });
    match served {
        Ok(dead) => {
            while stage.control.listen().is_some() {
                stage.control.say(&format!("{:?}", dead.requests.lock().unwrap()));
                let _ = std::fs::remove_dir(&directory);
            }
        }
        Err(error) => stage.control.say(&format!("{error:#}")),
    }
}

#[test]
fn a_file_of_the_peers_own_file_system_is_refused_without_a_question() {
    let _alone = alone();
    let before = Holdings::of("self");
    let peer = Peer::start("serves a file system", "", &[]);
    let (answer, mut fds) = peer.control.listen().expect("the peer is there");
    let Some(fd) = fds.pop() else { return skip("a FUSE file", &answer) };
    let start = Instant::now();
    let error = Window::receive(fd, 0, PAGE, Seals::Compatible).expect_err("a FUSE file");
    let took = start.elapsed();
    assert_eq!(refusal(&error), Refusal::NotSealable);
    promised_once("a FUSE file is refused after", took, Duration::from_millis(10));
    // The thread that closes it is stuck by now, in the flush that nobody answers; nothing else was asked.
    let start = Instant::now();
    let flushed = format!("[{FLUSH}]");
    loop {
        match peer.control.ask("requests?") {
            requests if requests == flushed => break,
            requests => assert_eq!(requests, "[]", "{GETATTR} is an fstat"),
        }
        assert!(start.elapsed() < Duration::from_secs(5), "nobody closes the file");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Others are refused and closed meanwhile.
    let other = Peer::start("hands over", "", &[]);
    assert!(Window::receive(ask(&other, "a pipe").expect("a pipe"), 0, PAGE, Seals::Compatible).is_err());
    drop((peer, other));
    before.comes_back("a close that was stuck");
}
