//! What a descriptor from a peer must be before it is mapped.
//!
//! A mapping of a file that its owner can shrink is a trap: the next access raises SIGBUS. Seals rule that out, so they are checked
//! first, and nothing else touches the descriptor before: on a file that the peer's own FUSE server serves, even fstat and close
//! can block where no signal helps.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, SealFlags};
use rustix::io::Errno;

use super::layout::check_range;
use super::refusal::Refusal;

/// How strictly a received file must be sealed. There is no default: what a peer must do is decided where it is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seals {
    /// It cannot shrink: what gVisor's own allocator guarantees, and all that a mapping's safety needs.
    Compatible,
    /// It can neither shrink nor grow, nor be sealed any further: what our own allocator guarantees. A peer cannot make the file
    /// take more memory than the windows in it.
    Strict,
    /// It can neither shrink nor grow; further seals are added once both sides have mapped it.
    AfterMap,
}

impl Seals {
    fn required(self) -> SealFlags {
        match self {
            Self::Compatible => SealFlags::SHRINK,
            Self::AfterMap => SealFlags::SHRINK | SealFlags::GROW,
            Self::Strict => SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        }
    }
}

/// The magic number of tmpfs, where memfds of ordinary pages live.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Checks a descriptor from a peer, in the order that keeps every step from blocking.
pub(super) fn check(fd: &OwnedFd, offset: u64, length: u32, seals: Seals) -> Result<(), Refusal> {
    let needed = check_range(offset, length)?;
    check_seals(fd, seals)?;
    let flags = rustix::fs::fcntl_getfl(fd).map_err(unanswered("fcntl(F_GETFL)"))?;
    if flags & OFlags::ACCMODE != OFlags::RDWR {
        return Err(Refusal::NotReadWrite);
    }
    let stat = rustix::fs::fstat(fd).map_err(unanswered("fstat"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refusal::NotRegular);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size < needed {
        return Err(Refusal::FileTooSmall { size, needed });
    }
    let kind = rustix::fs::fstatfs(fd).map_err(unanswered("fstatfs"))?;
    if kind.f_type as u64 != TMPFS_MAGIC {
        return Err(Refusal::NotTmpfs);
    }
    Ok(())
}

fn check_seals(fd: &OwnedFd, seals: Seals) -> Result<(), Refusal> {
    let found = rustix::fs::fcntl_get_seals(fd).map_err(|errno| match errno {
        Errno::BADF => Refusal::PathOnly,
        // A filter that refuses the call would refuse any other request, too.
        Errno::INVAL => rustix::io::fcntl_getfd(fd).map_or_else(unanswered("fcntl"), |_| Refusal::NotSealable),
        errno => unanswered("fcntl(F_GET_SEALS)")(errno),
    })?;
    for (seal, name) in [(SealFlags::WRITE, "F_SEAL_WRITE"), (SealFlags::FUTURE_WRITE, "F_SEAL_FUTURE_WRITE")] {
        if found.contains(seal) {
            return Err(Refusal::WriteSealed(name));
        }
    }
    let names =
        [(SealFlags::SHRINK, "F_SEAL_SHRINK"), (SealFlags::GROW, "F_SEAL_GROW"), (SealFlags::SEAL, "F_SEAL_SEAL")];
    let missing = seals.required() - found;
    match names.into_iter().find(|(seal, _)| missing.contains(*seal)) {
        Some((_, name)) => Err(Refusal::MissingSeal(name)),
        None => Ok(()),
    }
}

/// Whether a seal forbids a writable mapping by now.
pub(super) fn is_write_sealed(fd: &OwnedFd) -> bool {
    let seals = SealFlags::WRITE | SealFlags::FUTURE_WRITE;
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|found| found.intersects(seals))
}

fn unanswered(call: &'static str) -> impl FnOnce(Errno) -> Refusal {
    move |errno| Refusal::Unanswered { call, errno: errno.raw_os_error() }
}
