//! Issue 13, D: what a listener may touch of the files around it.

use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use flipcall::stream::{Access, Listener};

/// A directory of a test's own, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("flipcall-files-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whoever may write to the directory could have any file of ours made or opened.
#[test]
fn a_lock_file_that_is_a_symlink_is_not_followed() {
    let directory = Directory::new("symlink");
    let (path, victim) = (directory.0.join("socket"), directory.0.join("victim"));
    symlink(&victim, directory.0.join("socket.lock")).unwrap();
    let refused = || {
        let error = format!("{:#}", Listener::bind(&path, Access::Owner).unwrap_err());
        assert!(error.contains("socket.lock") && error.contains("no regular file"), "{error}");
    };
    refused();
    assert!(!victim.exists(), "the file that the link names was made");
    std::fs::write(&victim, "as before").unwrap();
    refused();
    assert_eq!(std::fs::read(&victim).unwrap(), b"as before");
}

#[test]
fn a_listener_does_not_remove_somebody_elses_socket() {
    let directory = Directory::new("identity");
    let path = directory.0.join("socket");
    let ours = Listener::bind(&path, Access::Owner).unwrap();
    std::fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    drop(ours);
    UnixStream::connect(&path).unwrap();
    drop(theirs);
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let directory = Directory::new("alive");
    let path = directory.0.join("socket");
    let theirs = UnixListener::bind(&path).unwrap();
    let error = Listener::bind(&path, Access::Owner).unwrap_err();
    assert!(format!("{error:#}").contains("another process listens on it"), "{error:#}");
    UnixStream::connect(&path).unwrap();
    drop(theirs);
}
