//! Which processes may connect to a socket file.

/// The permissions of a socket file: a process that may write to it may connect.
///
/// The bits are set as they are told, whatever the umask of the process. An abstract name has no file: there the listener holds the
/// connecting process's user and group to the same bits.
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

    /// Whether a process of this user and group may connect to what user `owner` and group `group` listen on.
    pub(super) fn admits(self, (uid, gid): (u32, u32), (owner, group): (u32, u32)) -> bool {
        let write = if uid == owner {
            0o200
        } else if gid == group {
            0o020
        } else {
            0o002
        };
        uid == 0 || self.mode() & write != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_count_as_for_a_file() {
        let us = (1000, 1000);
        for (access, who, may) in [
            (Access::Owner, (1000, 5), true),
            (Access::Owner, (0, 0), true),
            (Access::Owner, (1001, 1000), false),
            (Access::Mode(0o660), (1001, 1000), true),
            (Access::Mode(0o660), (1001, 1001), false),
            (Access::Mode(0o060), (1000, 1000), false),
            (Access::Everyone, (1001, 1001), true),
        ] {
            assert_eq!(access.admits(who, us), may, "{access:?} {who:?}");
        }
    }
}
