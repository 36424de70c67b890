//! The lock file beside a socket file.

use std::os::unix::fs::symlink;

use flipcall::stream::{Access, Listener};

/// Issue 13, D. Whoever may write to the directory could have any file of ours created or opened.
#[test]
fn a_lock_file_that_is_a_symlink_is_not_followed() {
    let directory = std::env::temp_dir().join(format!("flipcall-lock-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (path, victim) = (directory.join("socket"), directory.join("victim"));
    symlink(&victim, directory.join("socket.lock")).unwrap();
    let bound = Listener::bind(&path, Access::Owner);
    assert!(!victim.exists(), "the file that the link names was made");
    if let Err(error) = bound {
        assert!(format!("{error:#}").contains("socket"), "{error:#}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
