//! The lock beside a socket file: who holds it makes or removes the socket file.
//!
//! Whoever makes a lock for nothing removes it again. So a lock counts only if it is still the file of its name once it is held.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use crate::sys::lift::lift;

/// How long another process may hold the lock beside the socket file, which it does for a bind or a removal only.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the lock is left alone between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    name: PathBuf,
    /// Holds the lock.
    _file: File,
    /// Nobody had made the file before.
    made: bool,
}

/// What failed, in words that name the lock's file, and why.
type Failure = (String, io::Error);

impl Lock {
    /// Takes the lock beside `path`.
    pub(super) fn take(path: &Path) -> Result<Self, Failure> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let name = PathBuf::from(name);
        let give_up = Instant::now() + PATIENCE;
        loop {
            let (file, made) = open_file(&name)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_named(&file, &name) => return Ok(Self { name, _file: file, made }),
                // Its maker has removed it: there may be another one.
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) if Instant::now() < give_up => std::thread::sleep(PAUSE),
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {
                    let text = format!("another process has held it for {} s", PATIENCE.as_secs());
                    return Err(failure("lock", &name, io::Error::new(io::ErrorKind::WouldBlock, text)));
                }
                Err(errno) => return Err(failure("lock", &name, errno.into())),
            }
        }
    }

    /// Releases the lock, and removes its file if there was none before.
    pub(super) fn leave_no_trace(self) {
        if self.made {
            let _ = fs::remove_file(&self.name);
        }
    }
}

fn failure(doing: &str, name: &Path, error: io::Error) -> Failure {
    (format!("cannot {doing} its lock {}", name.display()), error)
}

/// Whether `file` is what `name` names.
fn is_named(file: &File, name: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::symlink_metadata(name)) {
        (Ok(held), Ok(named)) => identity(held) == identity(named),
        _ => false,
    }
}

/// Opens the file, or makes it. Whatever somebody has put there, this neither waits for it nor follows it.
fn open_file(name: &Path) -> Result<(File, bool), Failure> {
    let careful = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let open_as = |flags| {
        let file = openat(CWD, name, careful | flags, Mode::from_raw_mode(0o600))?;
        lift(file).map(File::from).map_err(|_| Errno::MFILE)
    };
    let opened = match open_as(OFlags::RDWR) {
        // To make it is another request: in a sticky directory that would be refused if the file is another user's.
        Err(Errno::NOENT) => match open_as(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
            Ok(file) => return Ok((file, true)),
            Err(Errno::EXIST) => open_as(OFlags::RDWR),
            other => other,
        },
        // To read is enough to lock.
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => open_as(OFlags::RDONLY),
        other => other,
    };
    match opened {
        Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => Ok((file, false)),
        Ok(_) | Err(Errno::NXIO | Errno::LOOP | Errno::ISDIR) => {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no regular file");
            Err(failure("use", name, error))
        }
        Err(errno) => Err(failure("open", name, errno.into())),
    }
}
