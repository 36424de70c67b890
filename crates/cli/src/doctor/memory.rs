//! What the kernel offers for shared memory.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::finding::{Finding, finding, found};
use crate::sys::probe;

fn sealed_memfd(flags: MemfdFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::memfd_create("flipcall-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags)
}

fn seal(seals: SealFlags) -> Result<(), Errno> {
    sealed_memfd(MemfdFlags::empty()).and_then(|fd| rustix::fs::fcntl_add_seals(&fd, seals))
}

pub(super) fn seals() -> Finding {
    found(
        seal(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL),
        "windows can be shared safely with a peer that is not trusted",
        "windows cannot be made, and typed calls go over sockets",
    )
}

pub(super) fn seal_after_map() -> Finding {
    found(
        seal(SealFlags::FUTURE_WRITE),
        "no hole can be punched into a typed channel's file once both sides have mapped it",
        "typed calls go over sockets; Linux 5.1 has F_SEAL_FUTURE_WRITE",
    )
}

pub(super) fn noexec() -> Finding {
    found(
        sealed_memfd(MemfdFlags::NOEXEC_SEAL).map(drop),
        "the shared memory can never be executed as a program",
        "windows work, but a peer may execute its window's file; Linux 6.3 has the flag",
    )
}

pub(super) fn wipe_on_fork() -> Finding {
    match probe::wipe_on_fork() {
        Ok(()) => finding("yes", "a forked child never uses its parent's connections, however it was forked"),
        Err(errno) => finding(
            format!("no ({errno})"),
            "a child of fork() never uses its parent's connections; one of a bare clone goes unnoticed",
        ),
    }
}
