//! A payload is handed over with the buffer that it came in, instead of being copied out of it.

use std::ops::Range;

use super::decoder::FrameDecoder;

impl FrameDecoder {
    /// Hands over the buffer, in which the payload of the frame that was taken last fills the returned range, and goes on with `other`,
    /// whose bytes mean nothing. `length` is that payload's.
    pub(in crate::stream) fn swap_buffer(&mut self, length: usize, other: &mut Vec<u8>) -> Range<usize> {
        let next = self.start..self.end;
        if !next.is_empty() {
            // What else it holds stays: shortened, it would have to be zeroed again as it grows.
            if other.len() < next.len() {
                other.resize(next.len(), 0);
            }
            other[..next.len()].copy_from_slice(&self.buffer[next.clone()]);
        }
        std::mem::swap(&mut self.buffer, other);
        (self.start, self.end) = (0, next.len());
        next.start - length..next.start
    }

    /// Releases the buffer if it is over `most` bytes, and expects no frame that is as long as the last one. What is in it stays.
    pub(in crate::stream) fn release_buffer(&mut self, most: usize) {
        if self.buffer.len() > most {
            self.expected = 0;
            self.swap_buffer(0, &mut Vec::new());
        }
    }

    /// Bytes of the buffer.
    pub(in crate::stream) fn buffer_size(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::read_write::write_frame;

    #[test]
    fn what_follows_a_payload_whose_buffer_was_swapped_is_not_lost() {
        let payloads = [vec![1u8; 100_000], vec![2; 3], vec![3; 70_000], Vec::new(), vec![4; 100_000]];
        let mut stream = Vec::new();
        payloads.iter().for_each(|payload| write_frame(&mut stream, 1, payload).unwrap());
        for step in [1, 1000, 65_536, stream.len()] {
            let (mut decoder, mut other, mut taken) = (FrameDecoder::new(1 << 20), vec![9; 50], Vec::new());
            for bytes in stream.chunks(step) {
                decoder.push(bytes);
                while let Some(length) = decoder.next_frame().unwrap().map(|frame| frame.payload.len()) {
                    let range = decoder.swap_buffer(length, &mut other);
                    taken.push(other[range].to_vec());
                }
            }
            assert!(taken == payloads, "in steps of {step}");
            assert_eq!(decoder.position(), stream.len() as u64);
        }
    }

    #[test]
    fn swapped_buffers_are_large_enough_in_the_end() {
        let payload = [5; 100_000];
        let mut frame = Vec::new();
        write_frame(&mut frame, 1, &payload).unwrap();
        let (mut decoder, mut other) = (FrameDecoder::new(1 << 20), Vec::new());
        let mut capacities = Vec::new();
        for _ in 0..6 {
            let mut left = &frame[..];
            while !left.is_empty() {
                let space = decoder.space();
                let count = space.len().min(left.len());
                space[..count].copy_from_slice(&left[..count]);
                decoder.filled(count);
                left = &left[count..];
            }
            let length = decoder.next_frame().unwrap().unwrap().payload.len();
            let range = decoder.swap_buffer(length, &mut other);
            assert!(other[range] == payload);
            capacities.push(other.capacity());
        }
        assert_eq!(capacities[2..4], capacities[4..6], "no buffer is made anew for messages of one size");
    }
}
