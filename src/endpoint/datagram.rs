//! Cursors over the datagram.

use std::io;

use super::active::Endpoint;

impl Endpoint {
    /// A cursor over the received datagram. It is empty while an answer is pending.
    #[doc(alias = "NewReader")]
    #[must_use]
    pub fn reader(&self) -> DatagramReader<'_> {
        DatagramReader { endpoint: self, at: 0, end: self.received() }
    }

    /// A cursor that writes the next datagram from its start.
    #[doc(alias = "NewWriter")]
    pub fn writer(&mut self) -> DatagramWriter<'_> {
        DatagramWriter { endpoint: self, at: 0 }
    }
}

/// Reads the datagram that came with control, front to back, each byte once. gVisor's `DatagramReader`.
#[derive(Debug)]
pub struct DatagramReader<'a> {
    endpoint: &'a Endpoint,
    at: u32,
    end: u32,
}

impl DatagramReader<'_> {
    /// Bytes that were not read yet.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.end - self.at
    }

    /// The next `N` bytes, or `None` if fewer remain; then none is read.
    ///
    /// ```
    /// # fn read(endpoint: &flipcall::endpoint::Endpoint) -> Option<u32> {
    /// let mut reader = endpoint.reader();
    /// let count = u32::from_ne_bytes(reader.read_array()?);
    /// # Some(count) }
    /// ```
    pub fn read_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        if N > self.remaining() as usize {
            return None;
        }
        self.endpoint.read_at(self.at, &mut bytes).ok()?;
        self.at += N as u32;
        Some(bytes)
    }
}

impl io::Read for DatagramReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = to.len().min(self.remaining() as usize);
        self.endpoint.read_at(self.at, &mut to[..count])?;
        self.at += count as u32;
        Ok(count)
    }
}

/// Writes the next datagram, front to back. gVisor's `DatagramWriter`.
///
/// Once the window is full, a write takes what fits, and `write_all` fails with
/// [`WriteZero`](io::ErrorKind::WriteZero).
#[derive(Debug)]
pub struct DatagramWriter<'a> {
    endpoint: &'a mut Endpoint,
    at: u32,
}

impl DatagramWriter<'_> {
    /// Bytes written: the length to flip.
    #[must_use]
    pub fn written(&self) -> u32 {
        self.at
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.endpoint.capacity() - self.at
    }

    /// Begins anew. What was written before and is not written over is zeroed before the flip.
    pub fn rewind(&mut self) {
        self.at = 0;
    }
}

impl io::Write for DatagramWriter<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let count = from.len().min(self.remaining() as usize);
        self.endpoint.write_at(self.at, &from[..count])?;
        self.at += count as u32;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
