//! OPEN: how a channel is opened over a base connection.

use super::number::{MOST_WINDOW, OPEN, PREFIX};
use crate::rpc::codec::from_bytes;
use crate::rpc::{CallViolation, Status};

crate::message! {
    /// OPEN: how many bytes of window are asked for, 0 for a socket alone.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Open {
        /// Bytes of window.
        pub window: u32,
    }

    /// The answer to OPEN, behind the zero byte: where in its file the window lies, 0 and 0 for a socket alone.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Opened {
        /// Where the window begins, in bytes.
        pub offset: u64,
        /// Bytes of the window.
        pub length: u32,
    }
}

impl Open {
    /// The request, without the time that its call has left.
    ///
    /// # Errors
    /// The answer to one that is malformed, or has descriptors.
    pub fn parse(payload: &[u8], has_fds: bool) -> Result<Self, Status> {
        let request = payload.get(PREFIX..).filter(|_| !has_fds).and_then(|open| from_bytes(open).ok());
        request.ok_or_else(|| {
            Status::invalid_argument("OPEN has 12 bytes, a deadline and the bytes of a window, and no descriptors")
        })
    }

    /// The window that a client gets: whole pages, within the `most` that is configured.
    pub fn granted(self, most: u32, page: u32) -> u32 {
        let rounded = self.window.min(most).checked_next_multiple_of(page).unwrap_or(most);
        if self.window == 0 { 0 } else { rounded.min(most - most % page) }
    }
}

/// Why a channel that a server opened cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// Its window is over the most that a window may have: so many bytes.
    Window(u32),
    /// It came without its descriptors.
    NoDescriptors,
    /// It came with others than the memfd and the socket.
    Violation(CallViolation),
}

impl Opened {
    /// The answer's fields.
    ///
    /// # Errors
    /// They do not decode.
    pub fn parse(fields: &[u8]) -> Result<Self, CallViolation> {
        from_bytes(fields).map_err(|_| CallViolation::Malformed(OPEN))
    }

    /// Whether the channel has a window.
    pub fn has_window(self) -> bool {
        self.length != 0
    }

    /// Checks what came with the answer: so many descriptors, `None` if it had none at all.
    ///
    /// # Errors
    /// Why the channel cannot be used.
    pub fn check(self, fds: Option<usize>) -> Result<(), Unusable> {
        let Some(fds) = fds else { return Err(Unusable::NoDescriptors) };
        if self.length > MOST_WINDOW {
            return Err(Unusable::Window(self.length));
        }
        let expected = if self.has_window() { 2 } else { 1 };
        // At most 16, so 8 bits.
        if fds == expected { Ok(()) } else { Err(Unusable::Violation(CallViolation::Descriptors(fds as u8))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::codec::to_bytes;

    #[test]
    fn a_window_is_whole_pages_within_the_maximum() {
        let page = 4096;
        let granted = |window, most| Open { window }.granted(most, page);
        assert_eq!(granted(0, 1 << 20), 0);
        assert_eq!(granted(1, 1 << 20), page);
        assert_eq!(granted(page + 1, 1 << 20), 2 * page);
        assert_eq!(granted(u32::MAX, 1 << 20), 1 << 20);
        assert_eq!(granted(u32::MAX, u32::MAX), u32::MAX - u32::MAX % page);
        assert_eq!(granted(7, 0), 0);
    }

    #[test]
    fn a_request_is_a_deadline_and_four_bytes_and_no_descriptors() {
        let request = to_bytes(&(7u64, Open { window: 5 }));
        assert_eq!(Open::parse(&request, false), Ok(Open { window: 5 }));
        assert!(Open::parse(&request, true).is_err());
        assert!((0..request.len()).all(|length| Open::parse(&request[..length], false).is_err()));
        assert!(Open::parse(&[&request[..], &[0]].concat(), false).is_err());
    }

    #[test]
    fn an_answer_has_the_descriptors_that_its_window_needs() {
        let with = Opened { offset: 0, length: 4096 };
        let without = Opened { offset: 0, length: 0 };
        for fds in 0..=16 {
            let wrong = Err(Unusable::Violation(CallViolation::Descriptors(fds as u8)));
            assert_eq!(with.check(Some(fds)), if fds == 2 { Ok(()) } else { wrong });
            assert_eq!(without.check(Some(fds)), if fds == 1 { Ok(()) } else { wrong });
        }
        assert_eq!(with.check(None), Err(Unusable::NoDescriptors));
        let huge = Opened { offset: 0, length: MOST_WINDOW + 1 };
        assert_eq!(huge.check(Some(2)), Err(Unusable::Window(MOST_WINDOW + 1)));
        assert_eq!(Opened::parse(&[0; 11]), Err(CallViolation::Malformed(OPEN)));
        assert_eq!(Opened::parse(&to_bytes(&with)), Ok(with));
    }
}
