//! Writing values.

/// Words that are collected before they go to the sink: a message that fits them goes there in one go.
const STAGE_WORDS: usize = 8;
/// [`STAGE_WORDS`] in bytes.
const STAGE: usize = STAGE_WORDS * 8;

/// Where encoded bytes go. Sealed: a window, a buffer.
pub(crate) trait Sink {
    /// Takes the next bytes. A sink that is full forgets them; the encoder knows how many there were.
    fn take(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn take(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A value that can be written into a message.
///
/// A message that turns out too long for a window is encoded once more, fragment by fragment or straight into the socket beside it. Encoding
/// must write the same bytes each time. If it writes more or fewer the second time, its call fails, and the call's channel may end. The
/// second time may take as long as the peer takes to read, up to 30 s: hold no lock in it that others wait for.
pub trait Encode {
    /// Writes the value.
    fn encode(&self, encoder: &mut Encoder<'_>);
}

/// Writes the primitives of the wire format.
///
/// ```
/// use flipcall::rpc::codec::{Encode, Encoder, to_bytes};
///
/// struct Point { x: i32, y: i32 }
/// impl Encode for Point {
///     fn encode(&self, encoder: &mut Encoder<'_>) {
///         encoder.i32(self.x);
///         encoder.i32(self.y);
///     }
/// }
/// assert_eq!(to_bytes(&Point { x: 1, y: -1 }), [0, 0, 0, 1, 255, 255, 255, 255]);
/// ```
pub struct Encoder<'a> {
    /// What is staged, little endian: byte `n` of it is byte `n % 8` of word `n / 8`, counted from the low end; the rest is zero. In words,
    /// because they go to a window as words: a wide load has to wait for the small stores that it covers.
    words: [u64; STAGE_WORDS],
    staged: usize,
    /// Bytes that went to the sink already.
    flushed: u64,
    sink: &'a mut dyn Sink,
    /// A length or a count did not fit its 32 bits.
    unencodable: bool,
}

impl<'a> Encoder<'a> {
    #[inline(always)]
    pub(crate) fn new(sink: &'a mut dyn Sink) -> Self {
        Self { words: [0; STAGE_WORDS], staged: 0, flushed: 0, sink, unencodable: false }
    }

    /// Sends the rest to the sink; the number of bytes written, `None` if some length was over 32 bits.
    pub(crate) fn finish(mut self) -> Option<u64> {
        self.flush();
        (!self.unencodable).then_some(self.flushed)
    }

    /// All of the message, as words in the order of memory, and its length in bytes: if it fits so many words, and nothing of it went
    /// to the sink.
    #[inline(always)]
    pub(crate) fn as_words<const N: usize>(&self) -> Option<([u64; N], usize)> {
        const { assert!(N <= STAGE_WORDS) };
        let is_whole = self.flushed == 0 && self.staged <= N * 8 && !self.unencodable;
        is_whole.then(|| (std::array::from_fn(|at| self.words[at].to_le()), self.staged))
    }

    fn flush(&mut self) {
        let mut bytes = [0; STAGE];
        for (to, word) in bytes.chunks_exact_mut(8).zip(&self.words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.sink.take(&bytes[..self.staged]);
        self.flushed += self.staged as u64;
        (self.words, self.staged) = ([0; STAGE_WORDS], 0);
    }

    /// The `count` low bytes of `value`, at most 8, the lowest first; the others are zero.
    #[inline(always)]
    fn put(&mut self, value: u64, count: usize) {
        if count > STAGE - self.staged {
            self.flush_for(count);
        }
        let (word, shift) = (self.staged / 8, self.staged % 8 * 8);
        self.words[word % STAGE_WORDS] |= value << shift;
        if shift + count * 8 > 64 {
            self.words[(word + 1) % STAGE_WORDS] = value >> (64 - shift);
        }
        self.staged += count;
    }

    /// Makes room for a value.
    #[cold]
    #[inline(never)]
    fn flush_for(&mut self, _count: usize) {
        self.flush();
    }

    /// Bytes as they are, without a length in front.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        if bytes.len() > STAGE - self.staged {
            return self.long(bytes);
        }
        self.put_all(bytes);
    }

    #[inline(always)]
    fn put_all(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.put(u64::from_le_bytes(*word), 8);
        }
        if !rest.is_empty() {
            self.put(rest.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)), rest.len());
        }
    }

    #[inline(never)]
    fn long(&mut self, bytes: &[u8]) {
        self.flush();
        if bytes.len() > STAGE / 2 {
            self.sink.take(bytes);
            self.flushed += bytes.len() as u64;
        } else {
            self.put_all(bytes);
        }
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.put(u64::from(value), 1);
    }

    /// Two bytes.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.put(u64::from(value.swap_bytes()), 2);
    }

    /// Four bytes.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.put(u64::from(value.swap_bytes()), 4);
    }

    /// Eight bytes.
    #[inline]
    pub fn u64(&mut self, value: u64) {
        self.put(value.swap_bytes(), 8);
    }

    /// Four bytes, two's complement.
    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.u32(value as u32);
    }

    /// Eight bytes, two's complement.
    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.u64(value as u64);
    }

    /// One byte, 0 or 1.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// The number of items that follow. A number over 32 bits makes the call fail: its message is too large.
    #[inline]
    pub fn count(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or_else(|_| {
            self.unencodable = true;
            0
        });
        self.u32(count);
    }

    /// A length and the bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// A length and the UTF-8 bytes.
    #[inline]
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A count and the strings.
    pub fn strs<S: AsRef<str>>(&mut self, strings: &[S]) {
        self.count(strings.len());
        for string in strings {
            self.str(string.as_ref());
        }
    }
}

impl std::fmt::Debug for Encoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("written", &(self.flushed + self.staged as u64)).finish_non_exhaustive()
    }
}

/// The bytes of a value.
///
/// A string or list with a length over 32 bits has no encoding: its length is written as 0 here, and a call with it fails.
#[must_use]
pub fn to_bytes<T: Encode + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes);
    value.encode(&mut encoder);
    let _ = encoder.finish();
    bytes
}
