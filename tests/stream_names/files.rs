//! What lies in the place of a socket or of its lock.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use flipcall::stream::{Access, Listener};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{FileType, Mode};

use super::{PATIENCE, Place, says};
#[cfg(target_arch = "x86_64")]
use super::{again, has_passed, place_of_child};

/// Binds on a thread of its own: what waits for ever fails the test, and does not hang it.
fn bind(path: &Path) -> flipcall::Result<Listener> {
    let (said, heard) = mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || said.send(Listener::bind(&path, Access::Owner)));
    heard.recv_timeout(PATIENCE / 2).expect("bind waits for ever")
}

/// Issue 13, B13: what is set after the name is there may be set on something else.
#[test]
fn the_mode_is_there_before_the_name() {
    let place = Place::new("mode");
    let path = place.join("a.sock");
    let events = rustix::fs::inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    rustix::fs::inotify::add_watch(&events, &place.0, WatchFlags::CREATE | WatchFlags::ATTRIB).unwrap();
    for (access, mode) in [(Access::Owner, 0o600), (Access::Everyone, 0o666), (Access::Mode(0o660), 0o660)] {
        let listener = Listener::bind(&path, access).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut reader = Reader::new(&events, &mut buffer);
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
            let changed = event.events().contains(ReadFlags::ATTRIB) && name.as_deref() == Some("a.sock");
            assert!(!changed, "the mode was changed when the name was there already");
        }
        drop(listener);
        // The removal changes the number of links.
        while reader.next().is_ok() {}
    }
}

/// Issue 13, B13: a file of root's became 0666.
#[test]
fn a_symbolic_link_in_the_place_of_the_socket_changes_nothing_elsewhere() {
    let place = Place::new("symlink");
    let (path, victim) = (place.join("a.sock"), place.join("victim"));
    std::fs::write(&victim, "secret").unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let attacker = std::thread::spawn({
        let (path, victim, over) = (path.clone(), victim.clone(), Arc::clone(&over));
        move || {
            while !over.load(Ordering::Relaxed) {
                let is_socket = std::fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket());
                if is_socket && std::fs::remove_file(&path).is_ok() {
                    let _ = symlink(&victim, &path);
                    std::thread::sleep(Duration::from_millis(1));
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
    });
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        drop(Listener::bind(&path, Access::Everyone));
    }
    over.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    assert_eq!(std::fs::metadata(&victim).unwrap().mode() & 0o7777, 0o600);
}

/// Puts something where the lock belongs.
type Make = fn(&Path);

/// Issue 13, B13. `O_NOFOLLOW` of the lock is D's: without it the link is followed and the bind succeeds.
#[test]
fn a_lock_that_is_no_regular_file_is_an_error_at_once() {
    let place = Place::new("lock");
    let (path, lock) = (place.join("a.sock"), place.join("a.sock.lock"));
    let make: [(&str, Make); 4] = [
        ("fifo", |lock| {
            rustix::fs::mknodat(rustix::fs::CWD, lock, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap()
        }),
        ("link", |lock| symlink(lock.with_file_name("target"), lock).unwrap()),
        ("socket", |lock| drop(UnixListener::bind(lock).unwrap())),
        ("directory", |lock| std::fs::create_dir(lock).unwrap()),
    ];
    for (what, make) in make {
        make(&lock);
        let error = bind(&path).expect_err(what);
        says(error, &["a.sock.lock", "no regular file"]);
        assert_eq!(place.names(), ["a.sock.lock"], "{what}");
        let _ = std::fs::remove_file(&lock).or_else(|_| std::fs::remove_dir(&lock));
    }
    // A link to a regular file is not followed either.
    std::fs::write(place.join("target"), "").unwrap();
    symlink(place.join("target"), &lock).unwrap();
    says(bind(&path).unwrap_err(), &["a.sock.lock", "no regular file"]);
}

/// Issue 13, B13: a lock appeared beside /etc/passwd.
#[test]
fn a_bind_that_fails_leaves_nothing() {
    let place = Place::new("nothing");
    let file = place.join("passwd");
    std::fs::write(&file, "").unwrap();
    says(bind(&file).unwrap_err(), &["passwd", "not a socket"]);
    symlink(&file, place.join("link")).unwrap();
    says(bind(&place.join("link")).unwrap_err(), &["link", "not a socket"]);
    let taken = place.join("taken");
    let theirs = UnixListener::bind(&taken).unwrap();
    says(bind(&taken).unwrap_err(), &["taken", "another process listens on it"]);
    let datagrams = UnixDatagram::bind(place.join("datagrams")).unwrap();
    says(bind(&place.join("datagrams")).unwrap_err(), &["datagrams", "another process listens on it"]);
    says(bind(&place.join("no/such")).unwrap_err(), &["no/such", "No such file or directory"]);
    assert_eq!(place.names(), ["datagrams", "link", "passwd", "taken"]);
    drop((theirs, datagrams));
    // Now they are stale.
    drop(bind(&taken).unwrap());
    drop(bind(&place.join("datagrams")).unwrap());
}

/// A lock that somebody made for a failed bind, and removed, excludes nobody from anything.
#[test]
fn binds_that_race_leave_one_listener() {
    let place = Place::new("race");
    let path = place.join("a.sock");
    for _ in 0..20 {
        let racing: Vec<_> = (0..4)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || Listener::bind(&path, Access::Owner).ok())
            })
            .collect();
        let bound: Vec<Listener> = racing.into_iter().filter_map(|one| one.join().unwrap()).collect();
        assert_eq!(bound.len(), 1);
        assert!(path.exists());
    }
}

/// Issue 13, B13: a filter refuses a thread of its own what sets the umask, as containers do. Then the mode may be set afterwards, where
/// nobody else can put another file into the place of the socket.
#[cfg(target_arch = "x86_64")]
#[test]
fn where_a_thread_gets_no_umask_of_its_own_the_mode_is_set_in_a_safe_directory_only() {
    let place = Place::new("filter");
    for call in ["unshare", "fchmod", "umask"] {
        has_passed(again("files::as_one_under_a_filter", &place.0).env("STREAM_NAMES_CALL", call).status().unwrap());
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
#[ignore = "the child of another test"]
fn as_one_under_a_filter() {
    let (place, call) = (place_of_child(), std::env::var("STREAM_NAMES_CALL").unwrap());
    rustix::process::umask(Mode::from_raw_mode(0o027));
    super::filter::refuse(&call, libc::EPERM);
    let path = place.join("a.sock");
    for (access, mode) in [(Access::Owner, 0o600), (Access::Everyone, 0o666), (Access::Mode(0o660), 0o660)] {
        let listener = Listener::bind(&path, access).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{call}");
        drop(listener);
    }
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o777)).unwrap();
    drop(Listener::bind(&path, Access::Owner).unwrap());
    let everyone = Listener::bind(&path, Access::Everyone);
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o700)).unwrap();
    if call == "fchmod" {
        return drop(everyone.unwrap());
    }
    says(everyone.unwrap_err(), &["a.sock", "mode 0666", "others can write to"]);
    assert!(!path.exists());
}
