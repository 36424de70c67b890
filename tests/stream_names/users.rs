//! Files and directories of other users.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;

use flipcall::stream::{Access, Listener};

use super::{Place, again, has_passed, is_root, place_of_child, says};

/// An ordinary user.
const NOBODY: u32 = 65534;

/// Two directories: one of root's that everybody may write to and that is sticky, one of root's that nobody else may write to, and one of
/// the ordinary user's.
fn directories() -> Place {
    let place = Place::new("users");
    for (name, mode, owner) in [("sticky", 0o1777, 0), ("closed", 0o755, 0), ("own", 0o755, NOBODY)] {
        let path = place.join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
    }
    place
}

fn file(path: &Path, mode: u32, owner: u32) {
    std::fs::write(path, "").unwrap();
    of(path, mode, owner);
}

/// A socket file that nobody listens on.
fn stale(path: &Path, mode: u32, owner: u32) {
    drop(UnixListener::bind(path).unwrap());
    of(path, mode, owner);
}

fn of(path: &Path, mode: u32, owner: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
}

/// Issue 13, B13.
#[test]
fn as_an_ordinary_user_each_works_or_names_the_file_and_the_errno() {
    if !is_root() {
        return;
    }
    let place = directories();
    file(&place.join("sticky/locked.lock"), 0o600, 0);
    file(&place.join("sticky/readable.lock"), 0o644, 0);
    stale(&place.join("sticky/stale"), 0o666, 0);
    stale(&place.join("sticky/secret"), 0o600, 0);
    stale(&place.join("own/stale"), 0o666, 0);
    stale(&place.join("own/secret"), 0o600, 0);
    has_passed(again("users::as_nobody", &place.0).uid(NOBODY).gid(NOBODY).status().unwrap());
}

#[test]
#[ignore = "the child of another test"]
fn as_nobody() {
    let place = place_of_child();
    let bind = |name: &str| Listener::bind(place.join(name), Access::Everyone);
    let denied = "Permission denied (os error 13)";
    says(bind("sticky/locked").unwrap_err(), &["sticky/locked.lock", denied]);
    drop(bind("sticky/readable").unwrap());
    says(bind("sticky/stale").unwrap_err(), &["sticky/stale", "remove the stale socket", "user 0", "os error 1"]);
    says(bind("sticky/secret").unwrap_err(), &["sticky/secret", "user 0", denied]);
    drop(bind("own/stale").unwrap());
    says(bind("own/secret").unwrap_err(), &["own/secret", "user 0", denied]);
    says(bind("closed/a").unwrap_err(), &["closed/a.lock", denied]);
    drop(bind("own/a").unwrap());
    drop(bind("sticky/a").unwrap());
    for left in ["sticky/stale.lock", "sticky/secret.lock", "own/secret.lock", "own/stale"] {
        assert!(!place.join(left).exists(), "{left}");
    }
}

/// Issue 13, B13: to make a file that is another user's is refused in a sticky directory, even to root, where the system is set so.
#[test]
fn as_root_another_users_lock_and_stale_socket_are_no_obstacle() {
    if !is_root() {
        return;
    }
    let place = directories();
    file(&place.join("sticky/a.lock"), 0o600, NOBODY);
    stale(&place.join("sticky/a"), 0o600, NOBODY);
    for _ in 0..2 {
        drop(Listener::bind(place.join("sticky/a"), Access::Everyone).unwrap());
    }
    assert!(!place.join("sticky/a").exists());
    drop(Listener::bind(place.join("own/b"), Access::Everyone).unwrap());
}
