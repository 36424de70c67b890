//! Sockets by name: what lies in the place of a socket, of its lock, or around it, as root and as an ordinary user.
//!
//! A test that needs a process of its own starts this program again with one of the ignored tests, whose name says its part.

mod descriptors;
mod files;
#[cfg(target_arch = "x86_64")]
#[path = "../confinement/filter.rs"]
#[allow(dead_code, reason = "it knows more filters than are wanted here")]
mod filter;
mod names;
mod users;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells a child of the test which directory is meant.
const PLACE: &str = "STREAM_NAMES_PLACE";

/// A directory of a test's own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("flipcall-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// This program again, as the other process.
fn again(part: &str, place: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", part, "--ignored", "--nocapture"]).env(PLACE, place);
    command
}

fn place_of_child() -> PathBuf {
    std::env::var_os(PLACE).unwrap().into()
}

fn has_passed(status: ExitStatus) {
    assert!(status.success(), "{status}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The whole text of an error, which has to contain `parts`.
fn says(error: flipcall::Error, parts: &[&str]) {
    let text = format!("{error:#}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}
