//! Sealed shared-memory files of our own.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::Resource;

use super::lift::lift;
use super::limits;
use crate::error::{Error, Result};

/// What every file of ours is sealed with before a peer sees it: its size is fixed, and so are its seals.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// What a file is sealed with that its peer has yet to seal further: its size is fixed.
const SEALS_BEFORE_MAP: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// What is added once both sides have mapped it: no new writable mapping, no write, no hole, no further seal.
const SEALS_AFTER_MAP: SealFlags = SealFlags::FUTURE_WRITE.union(SealFlags::SEAL);

/// A new file of `size` zero bytes, close-on-exec, not executable, sealed against shrinking, growing and further seals. It is
/// sparse: a page costs memory once it is touched.
pub(crate) fn create(name: &str, size: u64) -> Result<OwnedFd> {
    create_sealed(name, size, SEALS)
}

/// As [`create`], but more seals can be added, see [`seal_after_map`].
pub(crate) fn create_open(name: &str, size: u64) -> Result<OwnedFd> {
    create_sealed(name, size, SEALS_BEFORE_MAP)
}

/// Forbids everything but the mappings that exist. `false`: somebody sealed the file before us without that.
pub(crate) fn seal_after_map(fd: &OwnedFd) -> Result<bool> {
    match rustix::fs::fcntl_add_seals(fd, SEALS_AFTER_MAP) {
        Ok(()) => Ok(true),
        // The peer sealed it already, or has sealed it differently.
        Err(Errno::PERM) => rustix::fs::fcntl_get_seals(fd)
            .map(|seals| seals.contains(SealFlags::FUTURE_WRITE))
            .map_err(|errno| Error::system("cannot read the seals of a memfd", errno)),
        Err(errno) => Err(Error::system("cannot seal a memfd", errno)),
    }
}

fn create_sealed(name: &str, size: u64, seals: SealFlags) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        result => result,
    };
    let fd = fd.map_err(std::io::Error::from).and_then(lift);
    let fd = fd.map_err(|error| Error::system("cannot create a memfd", error))?;
    // Past the limit the kernel does not only fail, it also sends SIGXFSZ, which kills.
    // Where the limit cannot be read, no limit is the kernel's default.
    let limit = limits::get(Resource::Fsize).ok().and_then(|limits| limits.current);
    if limit.is_some_and(|limit| size > limit) {
        return Err(cannot_size(size, Errno::FBIG));
    }
    rustix::fs::ftruncate(&fd, size).map_err(|errno| cannot_size(size, errno))?;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(|errno| Error::system("cannot seal a memfd", errno))?;
    Ok(fd)
}

fn cannot_size(size: u64, errno: Errno) -> Error {
    Error::system(format!("cannot make a memfd of {size} bytes"), errno)
}

/// Where the kernel does not overcommit, touching a page of a sparse file for the first time can raise SIGBUS: there the range
/// gets its pages at once.
pub(crate) fn reserve(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
    if !overcommit_is_strict()? {
        return Ok(());
    }
    rustix::fs::fallocate(fd, FallocateFlags::empty(), offset, length)
        .map_err(|errno| Error::system(format!("cannot reserve {length} bytes of memory for a window"), errno))
}

/// Whether `vm.overcommit_memory` is 2. Where it is hidden it counts as not: then `fallocate` would most likely be denied as well. Without
/// a descriptor that is left to read it with nobody can know, and a wrong guess would end in SIGBUS: that is an error.
fn overcommit_is_strict() -> Result<bool> {
    match std::fs::read("/proc/sys/vm/overcommit_memory") {
        Ok(mode) => Ok(mode.trim_ascii() == b"2"),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
                Err(Error::system("cannot read vm.overcommit_memory", error))
            }
            _ => Ok(false),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 13, D: a peer that could make our memory executable would have a place for its code that no filter of files sees.
    #[test]
    fn no_file_of_ours_can_be_executed() {
        // Linux 6.3 has it.
        const SEAL_EXEC: u32 = 0x20;
        if matches!(rustix::fs::memfd_create("probe", MemfdFlags::NOEXEC_SEAL), Err(Errno::INVAL)) {
            return;
        }
        for file in [create("test", 4096), create_open("test", 4096)] {
            let file = file.unwrap();
            assert!(rustix::fs::fcntl_get_seals(&file).unwrap().bits() & SEAL_EXEC != 0, "F_SEAL_EXEC");
            assert_eq!(rustix::fs::fstat(&file).unwrap().st_mode & 0o111, 0, "no execute bit");
            let executable = rustix::fs::Mode::from_raw_mode(0o777);
            assert_eq!(rustix::fs::fchmod(&file, executable), Err(Errno::PERM));
        }
    }
}
