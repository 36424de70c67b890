//! Which bytes of ours must not be in the window when the pen goes over.

/// Keeps track of how far we wrote.
#[derive(Debug)]
pub(super) struct Stale {
    /// End of what was written since we got the pen.
    written: u32,
    /// End of what may be left of our earlier datagrams.
    high_water: u32,
    /// Whether earlier datagrams count.
    keep_earlier: bool,
}

impl Stale {
    pub(super) fn new(keep_earlier: bool) -> Self {
        Self { written: 0, high_water: 0, keep_earlier }
    }

    /// Bytes up to `end` were written.
    #[inline(always)]
    pub(super) fn wrote(&mut self, end: u32) {
        self.written = self.written.max(end);
    }

    /// A datagram of `length` bytes goes out: where the bytes to zero, which begin at `length`, end.
    #[inline(always)]
    pub(super) fn before_flip(&mut self, length: u32) -> Option<u32> {
        let end = if self.keep_earlier { self.written } else { self.written.max(self.high_water) };
        self.high_water = end.min(length);
        self.written = 0;
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
