//! Which processes may connect to a socket file.

/// The permissions of a socket file: a process that may write to it may connect.
///
/// The bits are set as they are told, whatever the umask of the process.
///
/// ```
/// use flipcall::stream::Access;
/// assert_eq!(Access::default().mode(), 0o600);
/// assert_eq!(Access::Mode(0o660).mode(), 0o660);
/// assert_eq!(Access::Everyone.mode(), 0o666);
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// The user of this process alone: 0600.
    #[default]
    Owner,
    /// These permission bits, as `chmod` takes them: 0660 is the user and the group.
    Mode(u32),
    /// Every process that reaches the path: 0666.
    Everyone,
}

impl Access {
    /// The permission bits of the file.
    #[must_use]
    pub const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Mode(bits) => bits,
            Self::Everyone => 0o666,
        }
    }
}
