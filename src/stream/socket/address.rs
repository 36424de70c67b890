//! Names of sockets: paths, and abstract names.
//!
//! A path is made absolute as soon as it is given, because the working directory may change. `@name` is an abstract name, which is in no
//! directory; a file of that name is `./@name`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::net::SocketAddrUnix;

use crate::error::{Error, Result};

/// The most bytes that the name of a unix socket can have: the kernel's 108, of which one ends a path or begins an abstract name.
const LONGEST: usize = 107;

/// The bytes of an abstract name, without the `@`.
fn abstract_name(name: &Path) -> Option<&[u8]> {
    name.as_os_str().as_bytes().strip_prefix(b"@")
}

/// Whether a name is in no directory.
pub(super) fn is_abstract(name: &Path) -> bool {
    abstract_name(name).is_some()
}

/// The name as it stays valid: an absolute path, or an abstract name.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput): no socket can have this name.
pub(crate) fn resolve(name: &Path) -> Result<PathBuf> {
    let bytes = name.as_os_str().as_bytes();
    let length = bytes.len() - usize::from(is_abstract(name));
    let wrong = |what: String| {
        Error::invalid(format!("{:?} is no name for a unix socket: {what} (limit: 1 to {LONGEST} bytes, none 0)", name))
    };
    if length == 0 {
        return Err(wrong("it is empty".into()));
    }
    if length > LONGEST {
        return Err(wrong(format!("it has {length} bytes")));
    }
    if bytes.contains(&0) {
        return Err(wrong("it has a byte that is 0".into()));
    }
    if is_abstract(name) {
        return Ok(name.to_owned());
    }
    if name.file_name().is_none() || bytes.ends_with(b"/") {
        return Err(wrong("it names a directory".into()));
    }
    std::path::absolute(name)
        .map_err(|error| Error::system(format!("cannot tell in which directory {} is", name.display()), error))
}

/// An address for the kernel, and what has to stay open as long as it is used.
pub(super) struct Address {
    pub(super) address: SocketAddrUnix,
    _directory: Option<File>,
}

/// The address of a resolved name. A path that became too long when it was made absolute goes through a descriptor of its directory.
pub(super) fn address(resolved: &Path) -> io::Result<Address> {
    if let Some(name) = abstract_name(resolved) {
        return Ok(Address { address: SocketAddrUnix::new_abstract_name(name)?, _directory: None });
    }
    if resolved.as_os_str().len() <= LONGEST {
        return Ok(Address { address: SocketAddrUnix::new(resolved)?, _directory: None });
    }
    let directory = resolved.parent().unwrap_or(Path::new("/"));
    let flags = (OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).bits();
    let directory = File::options().read(true).custom_flags(flags as _).open(directory)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    let short = short.join(resolved.file_name().unwrap_or(OsStr::new("")));
    Ok(Address { address: SocketAddrUnix::new(short)?, _directory: Some(directory) })
}
