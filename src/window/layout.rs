//! Sizes of windows and what makes a range of a file one.

use super::refusal::Refusal;

/// Bytes of the header that precedes the datagram in every window.
pub const HEADER_LEN: u32 = crate::sys::mapping::HEADER_LEN;

/// The shortest window, in bytes, whose datagrams can be `capacity` bytes long. `None`: no window is that long.
///
/// gVisor's `PacketWindowLengthForDataCap`.
///
/// ```
/// use flipcall::window::length_for_capacity;
/// assert_eq!(length_for_capacity(4080), Some(4096));
/// assert_eq!(length_for_capacity(u32::MAX), None);
/// ```
#[doc(alias = "PacketWindowLengthForDataCap")]
#[must_use]
pub const fn length_for_capacity(capacity: u32) -> Option<u32> {
    capacity.checked_add(HEADER_LEN)
}

/// Bytes of a page of this machine.
pub(crate) fn page_size() -> u32 {
    // The kernel's page size is a small power of two on every machine.
    rustix::param::page_size() as u32
}

/// Whether a range of a file can be a window: page aligned, at least a page long, and its end is a number.
pub(crate) fn check_range(offset: u64, length: u32) -> Result<u64, Refusal> {
    let page = page_size();
    if !offset.is_multiple_of(u64::from(page)) {
        return Err(Refusal::Misaligned { offset });
    }
    if length < page {
        return Err(Refusal::TooShort { length });
    }
    // The kernel's file offsets are signed.
    match offset.checked_add(u64::from(length)) {
        Some(end) if i64::try_from(end).is_ok() => Ok(end),
        _ => Err(Refusal::Misaligned { offset }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_at_every_edge() {
        let page = u64::from(page_size());
        assert_eq!(check_range(0, page_size()), Ok(page));
        assert_eq!(check_range(page, page_size() + 1), Ok(2 * page + 1));
        assert_eq!(check_range(1, page_size()), Err(Refusal::Misaligned { offset: 1 }));
        assert_eq!(check_range(0, page_size() - 1), Err(Refusal::TooShort { length: page_size() - 1 }));
        let last = u64::MAX - (page - 1);
        assert!(check_range(last, u32::MAX).is_err());
        assert!(check_range(0, u32::MAX).is_ok());
        // The last offset that the kernel's signed ones reach.
        let most = (1 << 63) - 2 * page;
        assert_eq!(check_range(most, page_size()), Ok((1 << 63) - page));
        assert_eq!(check_range(most + page, page_size()), Err(Refusal::Misaligned { offset: most + page }));
    }
}
