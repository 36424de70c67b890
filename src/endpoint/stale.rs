//! Which bytes of ours must not be in the window when control goes over.

/// Keeps track of how far we wrote.
#[derive(Debug)]
pub(super) struct Stale {
    /// End of what may be left of us in the window: what was written since we got control and, where that counts, before.
    end: u32,
    /// All ones where earlier datagrams count, 0 where they do not: what of `end` outlives a flip, without a branch in every call.
    earlier: u32,
}

impl Stale {
    pub(super) fn new(keep_earlier: bool) -> Self {
        Self { end: 0, earlier: if keep_earlier { 0 } else { u32::MAX } }
    }

    /// Bytes up to `end` were written.
    #[inline(always)]
    pub(super) fn wrote(&mut self, end: u32) {
        self.end = self.end.max(end);
    }

    /// A datagram of `length` bytes goes out: where the bytes to zero, which begin at `length`, end.
    #[inline(always)]
    pub(super) fn before_flip(&mut self, length: u32) -> Option<u32> {
        let end = self.end;
        self.end = end.min(length) & self.earlier;
        (end > length).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewound_encode_never_goes_out() {
        for keep in [false, true] {
            let mut stale = Stale::new(keep);
            stale.wrote(100);
            assert_eq!(stale.before_flip(10), Some(100));
            assert_eq!(stale.before_flip(0), (!keep).then_some(10));
            assert_eq!(stale.before_flip(0), None);
        }
    }

    #[test]
    fn an_earlier_longer_datagram_is_zeroed_once() {
        let mut stale = Stale::new(false);
        stale.wrote(100);
        assert_eq!(stale.before_flip(100), None);
        stale.wrote(10);
        assert_eq!(stale.before_flip(10), Some(100));
        stale.wrote(10);
        assert_eq!(stale.before_flip(10), None);
        stale.wrote(20);
        assert_eq!(stale.before_flip(50), None);
        assert_eq!(stale.before_flip(0), Some(20));
    }
}
