//! The file of a listening socket: it has its mode before it has its name, it is made and removed under a lock, and no symbolic link in its
//! place is followed.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};

use super::address::address;
use super::lock_file::Lock;
use crate::error::{Error, Result};
use crate::sys::lift::lift;
use crate::sys::socket::set_pass_rights;
use crate::sys::{thread, umask};

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// The bits of a mode.
const MODE: u32 = 0o7777;

/// The file of a socket that listens.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// An error that names the path to listen on, and what failed.
pub(super) fn cannot_listen(path: &Path, what: &str) -> impl FnOnce(io::Error) -> Error {
    let what = format!("cannot listen on {}{}{what}", path.display(), if what.is_empty() { "" } else { ": " });
    move |error| Error::system(what, error)
}

/// A socket that can be bound.
pub(super) fn unbound() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = lift(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)?;
    set_pass_rights(socket.as_fd(), false)?;
    Ok(socket)
}

/// Makes a bound socket listen.
pub(super) fn begin_listening(socket: &OwnedFd) -> io::Result<()> {
    Ok(listen(socket, BACKLOG)?)
}

impl SocketFile {
    /// A socket that listens on the absolute `path`, whose file has `mode`. A failure leaves nothing.
    pub(super) fn listen(path: &Path, mode: u32) -> Result<(OwnedFd, Self)> {
        // Before a lock is made beside something that is none of ours.
        stale_candidate(path)?;
        let lock = Lock::take(path).map_err(|(what, error)| cannot_listen(path, &what)(error))?;
        let listening = Self::listen_locked(path, mode & MODE);
        if listening.is_err() {
            lock.leave_no_trace();
        }
        listening
    }

    fn listen_locked(path: &Path, mode: u32) -> Result<(OwnedFd, Self)> {
        if let Some(found) = stale_candidate(path)? {
            remove_stale(path, &found)?;
        }
        let bound = unbound().and_then(|socket| bind_with_mode(socket, path, mode));
        let (socket, listens) = bound.map_err(cannot_listen(path, ""))?;
        let found = fs::symlink_metadata(path).map_err(cannot_listen(path, "its file is gone already"))?;
        let file = Self { path: path.to_owned(), identity: identity(&found) };
        let corrected = if found.mode() & MODE == mode { Ok(()) } else { file.correct_mode(mode) };
        let listening = corrected
            .and_then(|()| if listens { Ok(()) } else { begin_listening(&socket).map_err(cannot_listen(path, "")) });
        match listening {
            Ok(()) => Ok((socket, file)),
            Err(error) => {
                file.remove_if_ours();
                Err(error)
            }
        }
    }

    /// Sets the mode where the file did not get it at once. That is safe where nobody else can put another file into its place.
    fn correct_mode(&self, mode: u32) -> Result<()> {
        let what = format!("cannot give its file the mode {mode:04o}");
        let failed = || cannot_listen(&self.path, &what);
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let around = fs::metadata(directory).map_err(failed())?;
        let file = openat(CWD, &self.path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let file = file.map_err(|errno| failed()(errno.into()))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let us = rustix::process::geteuid().as_raw();
        let is_safe = [0, us].contains(&around.uid()) && (around.mode() & 0o022 == 0 || around.mode() & 0o1000 != 0);
        let is_ours = fs::metadata(&path)
            .is_ok_and(|found| found.file_type().is_socket() && found.uid() == us && identity(&found) == self.identity);
        if !is_safe || !is_ours {
            let text = format!("the umask takes bits off it, and others can write to {}", directory.display());
            return Err(failed()(io::Error::other(text)));
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed())
    }

    /// Removes the file, if it is still the one that was made.
    pub(super) fn remove(&self) {
        // What cannot be removed is found stale by the next service.
        if let Ok(lock) = Lock::take(&self.path) {
            self.remove_if_ours();
            lock.leave_no_trace();
        }
    }

    fn remove_if_ours(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Binds with the mode in place when the name appears: on a thread with a umask of its own, which makes the socket listen as well (`true`).
/// Where that is refused, the mode has less than it should until it is corrected, never more.
fn bind_with_mode(socket: OwnedFd, path: &Path, mode: u32) -> io::Result<(OwnedFd, bool)> {
    // The kernel gives the file what its socket has, less the umask.
    let _ = rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode));
    let to = address(path)?;
    let again = socket.try_clone()?;
    let own = thread::spawn("flipcall-bind", move || {
        umask::set_for_this_thread(!mode & 0o777).ok()?;
        Some(bind(&again, &to.address).map(|()| begin_listening(&again).is_ok()))
    });
    match own.ok().and_then(|thread| thread.join().ok().flatten()) {
        Some(bound) => Ok((socket, bound?)),
        None => {
            bind(&socket, &address(path)?.address)?;
            Ok((socket, false))
        }
    }
}

/// A socket file that is there already.
///
/// # Errors
/// What is there is no socket.
fn stale_candidate(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_listen(path, "")(error)),
        Ok(found) if found.file_type().is_socket() => Ok(Some(found)),
        Ok(_) => {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket");
            Err(cannot_listen(path, "")(error))
        }
    }
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path, found: &Metadata) -> Result<()> {
    let probe = unbound().map_err(cannot_listen(path, ""))?;
    let to = address(path).map_err(cannot_listen(path, ""))?;
    match connect(&probe, &to.address) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => {
            let what = format!("cannot remove the stale socket that user {} left there", found.uid());
            fs::remove_file(path).map_err(cannot_listen(path, &what))
        }
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(cannot_listen(path, "")(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it")))
        }
        Err(errno) => {
            let what = format!("cannot tell whether another process listens on the socket of user {}", found.uid());
            Err(cannot_listen(path, &what)(errno.into()))
        }
    }
}
