//! Frames over anything that can be read and written.

use std::io::{self, IoSlice, Read, Write};

use super::frame::decoder::{Frame, FrameDecoder, end_inside_frame};
use super::frame::header::Header;
use crate::error::{Error, Result};

/// Reads the next frame from anything that can be read: a vsock or TCP stream, a pipe, a file. `None` is an end of file between frames.
///
/// A reader without a deadline of its own makes this wait for ever; on a socket of this host use
/// [`FrameSocket`](crate::stream::FrameSocket).
///
/// # Errors
/// [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone) at an end of file inside a frame, [`ErrorKind::Violation`](crate::ErrorKind::Violation) for a frame over the maximum,
/// [`ErrorKind::System`](crate::ErrorKind::System) if reading failed.
pub fn read_frame<'a>(reader: &mut impl Read, decoder: &'a mut FrameDecoder) -> Result<Option<Frame<'a>>> {
    while !decoder.has_frame()? {
        match reader.read(decoder.space()) {
            Ok(0) if decoder.is_inside_frame() => return Err(end_inside_frame()),
            Ok(0) => return Ok(None),
            Ok(count) => decoder.filled(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::system("cannot read a frame", error)),
        }
    }
    decoder.next_frame()
}

/// Writes a frame to anything that can be written, header and payload in one call where the writer takes both.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a payload of 4 GiB or more, [`ErrorKind::System`](crate::ErrorKind::System) if writing failed; part of the frame may have
/// been written then.
pub fn write_frame(writer: &mut impl Write, tag: u16, payload: &[u8]) -> Result<()> {
    let header = Header::of_payload(tag, payload.len())?.encode();
    let mut slices = [IoSlice::new(&header), IoSlice::new(payload)];
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match writer.write_vectored(rest) {
            Ok(0) => return Err(Error::system("cannot write a frame", io::ErrorKind::WriteZero)),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::system("cannot write a frame", error)),
        }
        // An empty payload leaves an empty slice behind; `advance_slices` keeps it.
        if rest.iter().all(|slice| slice.is_empty()) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn encode(frames: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, payload) in frames {
            write_frame(&mut bytes, *tag, payload).unwrap();
        }
        bytes
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits = text.trim_matches('-');
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_committed_vectors_decode_and_encode() {
        let lines = include_str!("../../tests/vectors/frames.txt").lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let [tag, payload, frame] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (tag, payload, bytes) = (u16::from_str_radix(tag, 16).unwrap(), unhex(payload), unhex(frame));
            assert_eq!(encode(&[(tag, payload.clone())]), bytes);
            let mut decoder = FrameDecoder::new(100);
            decoder.push(&bytes);
            assert_eq!(decoder.next_frame().unwrap(), Some(Frame { tag, payload: &payload }));
        }
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error_and_between_frames_none() {
        let whole = encode(&[(1, vec![7; 10])]);
        for cut in 0..=whole.len() {
            let mut decoder = FrameDecoder::new(100);
            let mut reader = &whole[..cut];
            let result = read_frame(&mut reader, &mut decoder).map(|frame| frame.is_some());
            match cut {
                0 => assert!(!result.unwrap()),
                16 => assert!(result.unwrap()),
                _ => assert_eq!(result.unwrap_err().kind(), ErrorKind::PeerGone),
            }
        }
    }
}
