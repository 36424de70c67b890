//! Frames out of bytes, without any input or output.
//!
//! The [`FrameDecoder`] is the one place where frames are cut out of a byte stream; the blocking socket, the event-loop reader and the mux
//! are shells around it, and a program can feed it from anything else:
//!
//! ```
//! use flipcall::stream::FrameDecoder;
//!
//! let mut decoder = FrameDecoder::new(64 * 1024);
//! decoder.push(&[0, 7, 0, 0]);
//! assert!(decoder.next_frame()?.is_none());
//! decoder.push(&[0, 2, b'h', b'i']);
//! let frame = decoder.next_frame()?.unwrap();
//! assert_eq!((frame.tag, frame.payload), (7, &b"hi"[..]));
//! # Ok::<(), flipcall::Error>(())
//! ```

use super::header::Header;
use super::violation::FrameViolation;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that are read at once where no longer frame is expected: many small frames for one system call.
pub(in crate::stream) const READ_AHEAD: usize = 16 * 1024;

/// A buffer that grew beyond this many bytes is given back once it is empty, so that one long message does not pin memory on every
/// connection. Twice the 1 MiB frames that bulk transfers consist of.
const RETAINED: usize = 2 * 1024 * 1024;

/// What payloads are aligned to, in bytes.
pub(super) const CACHE_LINE: usize = 64;

/// A frame, borrowed from the buffer of its decoder.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame<'a> {
    /// Message type or channel id.
    pub tag: u16,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

impl std::fmt::Debug for Frame<'_> {
    /// Without the bytes of the payload.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("tag", &self.tag).field("length", &self.payload.len()).finish()
    }
}

/// Cuts frames out of a stream of bytes, however it is cut.
///
/// Memory grows with the bytes that came (at most twice as many, and at least 16 KiB or the size of the frame before), not with the
/// length that a header announces; a frame over the maximum is refused as soon as its header is there.
pub struct FrameDecoder {
    pub(super) buffer: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
    maximum: u32,
    /// Bytes of the last frame and the next header: where frames come in one size, one read brings a whole one.
    pub(super) expected: usize,
    /// Where `start` lies in the stream.
    position: u64,
}

impl std::fmt::Debug for FrameDecoder {
    /// Without the bytes that came.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameDecoder")
            .field("maximum", &self.maximum)
            .field("position", &self.position)
            .field("buffered", &self.buffered().len())
            .finish_non_exhaustive()
    }
}

impl FrameDecoder {
    /// A decoder that refuses payloads over `maximum` bytes.
    #[must_use]
    pub fn new(maximum: u32) -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, maximum, expected: 0, position: 0 }
    }

    /// The largest payload accepted, in bytes.
    #[must_use]
    pub fn maximum(&self) -> u32 {
        self.maximum
    }

    /// Changes the largest payload accepted, in bytes, from the next header on.
    pub fn set_maximum(&mut self, maximum: u32) {
        self.maximum = maximum;
    }

    /// The bytes that came and belong to no frame taken yet.
    #[must_use]
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Where [`buffered`](Self::buffered) begins in the stream: the bytes of all frames taken so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the last frame was a long one, so that the next may be as well.
    pub(in crate::stream) fn expects_long(&self) -> bool {
        self.expected > READ_AHEAD
    }

    /// Appends bytes that came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room(self.end - self.start + bytes.len());
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Where the next bytes of the stream go; say how many with [`filled`](Self::filled). Never empty unless a whole frame is waiting.
    ///
    /// The space is sized so that it ends behind the header after the current frame: in a stream of long frames every read brings
    /// one frame and the header of the next, and no payload is ever moved.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            if self.buffer.len() > RETAINED + CACHE_LINE {
                self.buffer = Vec::new();
            }
            let start = self.aligned_start();
            (self.start, self.end) = (start, start);
        }
        let buffered = self.end - self.start;
        let affordable = (2 * buffered).max(self.expected).max(READ_AHEAD);
        let wanted = match Header::at_front(self.buffered()) {
            Some(header) => usize::try_from(header.frame_size()).unwrap_or(usize::MAX).saturating_add(Header::SIZE),
            None => affordable,
        };
        let size = wanted.min(affordable).max(READ_AHEAD).max(buffered);
        self.make_room(size);
        let (from, to) = (self.end, self.start + size);
        &mut self.buffer[from..to]
    }

    /// The first `count` bytes of the last [`space`](Self::space) hold bytes of the stream now.
    ///
    /// # Panics
    /// If `count` is more than that space had.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.end, "more bytes than there was space for");
        self.end += count;
    }

    /// Makes `size` bytes from `start` on fit into the buffer.
    fn make_room(&mut self, size: usize) {
        if self.start + size <= self.buffer.len() {
            return;
        }
        if size + CACHE_LINE > self.buffer.len() {
            self.buffer.resize(size + CACHE_LINE, 0);
        }
        let start = self.aligned_start();
        self.buffer.copy_within(self.start..self.end, start);
        (self.start, self.end) = (start, start + self.end - self.start);
    }

    /// Where in the buffer a frame begins whose payload lies on a cache line: the kernel copies to such an address about a tenth faster.
    fn aligned_start(&self) -> usize {
        if self.buffer.len() < CACHE_LINE {
            return 0;
        }
        let payload = self.buffer.as_ptr().addr() + Header::SIZE;
        payload.next_multiple_of(CACHE_LINE) - payload
    }

    /// The header of the next frame, once it is there.
    ///
    /// # Errors
    /// [`FrameViolation`]: the announced length is over the maximum. The stream cannot be used any more, every later
    /// call returns this error again.
    pub fn header(&self) -> Result<Option<Header>> {
        match Header::at_front(self.buffered()) {
            Some(header) if header.length > self.maximum => {
                Err(FrameViolation::TooLong { announced: header.length, maximum: self.maximum }.into())
            }
            header => Ok(header),
        }
    }

    /// Whether [`next_frame`](Self::next_frame) has a frame to hand out without any more bytes.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    pub fn has_frame(&self) -> Result<bool> {
        Ok(self.header()?.is_some_and(|header| self.buffered().len() as u64 >= header.frame_size()))
    }

    /// Whether some bytes of a frame are there, but not all.
    #[must_use]
    pub fn is_inside_frame(&self) -> bool {
        self.start != self.end && !matches!(self.has_frame(), Ok(true))
    }

    /// The next frame, `None` until all of it is there. The payload stays valid until the decoder is used again.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let Some(header) = self.header()? else { return Ok(None) };
        // A `usize` has at least 32 bits on every Linux target, so a length fits.
        let (body, size) = (self.start + Header::SIZE, Header::SIZE + header.length as usize);
        if self.end - self.start < size {
            return Ok(None);
        }
        self.start += size;
        self.position += size as u64;
        self.expected = (size + Header::SIZE).min(RETAINED);
        Ok(Some(Frame { tag: header.tag, payload: &self.buffer[body..self.start] }))
    }

    /// Takes up to `limit` bytes of the current stream position out, as they are: for a reader that wants a payload elsewhere.
    pub(crate) fn drain(&mut self, limit: usize) -> &[u8] {
        let count = limit.min(self.end - self.start);
        let from = self.start;
        self.start += count;
        self.position += count as u64;
        &self.buffer[from..from + count]
    }
}

/// The error for an end of file inside a frame.
#[cold]
pub(in crate::stream) fn end_inside_frame() -> Error {
    Error::new(ErrorKind::PeerGone, "the peer closed the socket in the middle of a frame")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(frames: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, payload) in frames {
            bytes.extend(Header { tag: *tag, length: payload.len() as u32 }.encode());
            bytes.extend(payload);
        }
        bytes
    }

    /// Feeds `bytes` in pieces of the given sizes, through `space` and `push` in turn.
    fn decode(decoder: &mut FrameDecoder, mut bytes: &[u8], cuts: &[usize]) -> Result<Vec<(u16, Vec<u8>)>> {
        let mut frames = Vec::new();
        let mut cuts = cuts.iter().cycle();
        let mut pushing = false;
        while !bytes.is_empty() {
            let cut = (*cuts.next().unwrap()).min(bytes.len());
            let count = if pushing {
                decoder.push(&bytes[..cut]);
                cut
            } else {
                let space = decoder.space();
                let count = cut.min(space.len());
                space[..count].copy_from_slice(&bytes[..count]);
                decoder.filled(count);
                count
            };
            assert!(count > 0, "a decoder without a whole frame always has space");
            pushing = !pushing;
            bytes = &bytes[count..];
            while let Some(frame) = decoder.next_frame()? {
                frames.push((frame.tag, frame.payload.to_vec()));
            }
        }
        Ok(frames)
    }

    fn frames() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
        let size = prop_oneof![4 => 0usize..40, 1 => 1000usize..40_000];
        let frame = (any::<u16>(), size, any::<u8>()).prop_map(|(tag, size, byte)| (tag, vec![byte; size]));
        prop::collection::vec(frame, 0..12)
    }

    proptest! {
        #[test]
        fn frames_cut_anywhere_decode_to_the_same_frames(
            frames in frames(),
            cuts in prop::collection::vec(1usize..30_000, 1..8),
        ) {
            let mut decoder = FrameDecoder::new(64 * 1024);
            prop_assert_eq!(&decode(&mut decoder, &encode(&frames), &cuts).unwrap(), &frames);
            prop_assert!(!decoder.is_inside_frame());
            prop_assert_eq!(decoder.position(), encode(&frames).len() as u64);
        }

        #[test]
        fn any_bytes_decode_or_err_within_the_memory_that_came(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec(1usize..200, 1..8),
            maximum in prop_oneof![Just(0u32), Just(100), Just(u32::MAX)],
        ) {
            let mut decoder = FrameDecoder::new(maximum);
            let _ = decode(&mut decoder, &bytes, &cuts);
            prop_assert!(decoder.buffer.len() <= READ_AHEAD.max(2 * bytes.len()) + Header::SIZE + CACHE_LINE);
        }
    }

    #[test]
    fn a_long_frame_is_refused_by_its_header_alone() {
        let mut decoder = FrameDecoder::new(1000);
        decoder.push(&Header { tag: 1, length: 1001 }.encode());
        assert_eq!(decoder.next_frame().unwrap_err().kind(), ErrorKind::Violation);
        assert_eq!(decoder.header().unwrap_err().kind(), ErrorKind::Violation);
        assert!(decoder.buffer.len() < 100 + CACHE_LINE);
    }

    #[test]
    fn an_announced_length_alone_costs_no_memory() {
        let mut decoder = FrameDecoder::new(u32::MAX);
        decoder.push(&Header { tag: 1, length: u32::MAX }.encode());
        assert!(decoder.space().len() <= READ_AHEAD);
        assert_eq!(decoder.buffer.len(), READ_AHEAD + CACHE_LINE);
    }

    #[test]
    fn long_frames_are_never_moved() {
        let frame = encode(&[(1, vec![5; 60_000])]);
        let mut decoder = FrameDecoder::new(64 * 1024);
        decoder.push(&frame);
        assert!(decoder.next_frame().unwrap().is_some());
        // From now on one read takes a frame and the next header.
        for _ in 0..3 {
            let space = decoder.space();
            let count = space.len();
            assert!(count >= 60_000, "{count}");
            decoder.filled(0);
            decoder.push(&frame);
            assert!(decoder.next_frame().unwrap().is_some());
        }
    }

    #[test]
    fn memory_of_a_long_message_is_given_back() {
        let mut decoder = FrameDecoder::new(u32::MAX);
        decoder.push(&encode(&[(1, vec![5; 3 * RETAINED])]));
        assert!(decoder.next_frame().unwrap().is_some());
        decoder.space();
        assert!(decoder.buffer.len() <= RETAINED + CACHE_LINE);
    }
}
