//! Writing values.

/// Bytes that are collected before they go to the sink: a small message goes there in one piece. The hot part of a window's cache
/// line (48 bytes behind the header) fits.
const STAGE: usize = 64;

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
/// A message that turns out too long for a window is encoded once more, into a buffer: encoding twice must write the same bytes.
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
    stage: [u8; STAGE],
    staged: usize,
    /// Bytes that went to the sink already.
    flushed: u64,
    sink: &'a mut dyn Sink,
    /// A length or a count did not fit its 32 bits.
    unencodable: bool,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(sink: &'a mut dyn Sink) -> Self {
        Self { stage: [0; STAGE], staged: 0, flushed: 0, sink, unencodable: false }
    }

    /// Sends the rest to the sink; the number of bytes written, `None` if some length was over 32 bits.
    #[inline]
    pub(crate) fn finish(mut self) -> Option<u64> {
        self.flush();
        (!self.unencodable).then_some(self.flushed)
    }

    #[inline]
    fn flush(&mut self) {
        self.sink.take(&self.stage[..self.staged]);
        self.flushed += self.staged as u64;
        self.staged = 0;
    }

    /// Bytes as they are, without a length in front.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        if bytes.len() > STAGE - self.staged {
            return self.long(bytes);
        }
        self.stage[self.staged..self.staged + bytes.len()].copy_from_slice(bytes);
        self.staged += bytes.len();
    }

    #[inline(never)]
    fn long(&mut self, bytes: &[u8]) {
        self.flush();
        if bytes.len() > STAGE / 2 {
            self.sink.take(bytes);
            self.flushed += bytes.len() as u64;
        } else {
            self.stage[..bytes.len()].copy_from_slice(bytes);
            self.staged = bytes.len();
        }
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    /// Two bytes.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// Four bytes.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// Eight bytes.
    #[inline]
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    /// Four bytes, two's complement.
    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// Eight bytes, two's complement.
    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// One byte, 0 or 1.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// The number of items that follow. A number over 32 bits makes the message fail as too large.
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
pub fn to_bytes<T: Encode + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes);
    value.encode(&mut encoder);
    let _ = encoder.finish();
    bytes
}
