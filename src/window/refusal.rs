//! Why a received window is refused.

use std::fmt;

/// Which check a received window failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The offset is not a multiple of the page size, or the range ends beyond any file.
    Misaligned {
        /// Bytes from the start of the file.
        offset: u64,
    },
    /// The window is shorter than a page.
    TooShort {
        /// Bytes of the window.
        length: u32,
    },
    /// The descriptor was opened with O_PATH and gives no access to any file.
    PathOnly,
    /// The file knows no seals: it is no memfd, or one of those that cannot be sealed.
    NotSealable,
    /// A seal that must be there is missing; the first of them in the order SHRINK, GROW, SEAL.
    MissingSeal(&'static str),
    /// A seal that forbids writing is there already, so the window cannot be mapped for both sides.
    WriteSealed(&'static str),
    /// The descriptor is not open for reading and writing.
    NotReadWrite,
    /// It is not a regular file.
    NotRegular,
    /// The file ends before the window does.
    FileTooSmall {
        /// Bytes of the file.
        size: u64,
        /// Bytes it takes to hold the window.
        needed: u64,
    },
    /// The file does not live in ordinary shared memory, such as a memfd with huge pages.
    NotTmpfs,
    /// The kernel would not answer one of the checks. That is no fault of the peer's: [`Window::receive`](super::Window::receive) reports it
    /// as an error of the system, with that as its source.
    Unanswered {
        /// The system call.
        call: &'static str,
        /// Its `errno`.
        errno: i32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { offset } => {
                write!(f, "offset {offset} is not page-aligned, or past the largest file offset")
            }
            Self::TooShort { length } => write!(f, "a window of {length} bytes is shorter than a page"),
            Self::PathOnly => f.write_str("the descriptor was opened with O_PATH"),
            Self::NotSealable => f.write_str("the file cannot be sealed: it is not a memfd"),
            Self::MissingSeal(seal) => write!(f, "the seal {seal} is missing"),
            Self::WriteSealed(seal) => write!(f, "the seal {seal} forbids a writable mapping"),
            Self::NotReadWrite => f.write_str("the descriptor is not open for reading and writing"),
            Self::NotRegular => f.write_str("the file is not a regular one"),
            Self::FileTooSmall { size, needed } => {
                write!(f, "the file has {size} bytes, the window ends at {needed}")
            }
            Self::NotTmpfs => f.write_str("the file is not in ordinary shared memory (tmpfs)"),
            Self::Unanswered { call, errno } => {
                write!(f, "{call} failed: {}", std::io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for Refusal {}
