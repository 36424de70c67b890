//! Control frames: the frames of id 0 in credit mode.
//!
//! ```text
//! op 0 HELLO   u8 version = 1, u32 max frame, u16 max channels
//! op 1 OPEN    u16 id, u32 credit, u16 length, name
//! op 2 ACCEPT  u16 id, u32 credit
//! op 3 REFUSE  u16 id, u8 reason
//! op 4 CREDIT  u16 id, u32 add
//! op 5 END     u16 id
//! op 6 RESET   u16 id, u8 reason
//! op 7 GOODBYE u8 reason, u16 length, text (UTF-8, at most 255 bytes)
//! ```
//!
//! Big endian, the operation in the first byte, and the length exact: a byte too many or too few is a violation.

use std::fmt;

use crate::stream::frame::header::Header;
use crate::stream::frame::violation::MuxViolation;

/// The version of the credit protocol.
const VERSION: u8 = 1;

/// The longest name and the longest text of a GOODBYE, in bytes.
pub(in crate::stream::mux) const MAX_TEXT: usize = 255;

/// The longest control frame, without its header: an OPEN with the longest name.
pub(in crate::stream::mux) const MAX_CONTROL: usize = 9 + MAX_TEXT;

/// The largest data frame that a HELLO may announce: with its cost of 16 it still fits into the largest sum of credit.
pub(in crate::stream::mux) const LARGEST_FRAME: u32 = (1 << 31) - 17;

/// The most channels that a HELLO may allow.
pub(in crate::stream::mux) const MOST_CHANNELS: u16 = 4096;

/// Why a channel was refused or reset, or a mux ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u8);

impl Reason {
    /// The side that says it is closing.
    pub const CLOSING: Self = Self(0);
    /// The other side broke the protocol.
    pub const VIOLATION: Self = Self(1);
    /// The other side did not take what was sent to it.
    pub const TOO_SLOW: Self = Self(2);
    /// There is no service of this name.
    pub const NO_SUCH_NAME: Self = Self(3);
    /// More channels than were allowed.
    pub const TOO_MANY: Self = Self(4);
    /// Nobody wants the channel any more.
    pub const CANCELLED: Self = Self(5);
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CLOSING => f.write_str("closing"),
            Self::VIOLATION => f.write_str("the protocol was broken"),
            Self::TOO_SLOW => f.write_str("too slow"),
            Self::NO_SUCH_NAME => f.write_str("no such name"),
            Self::TOO_MANY => f.write_str("too many channels"),
            Self::CANCELLED => f.write_str("cancelled"),
            Self(other) => write!(f, "reason {other}"),
        }
    }
}

/// A control frame, its text borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stream::mux) enum Control<'a> {
    Hello { max_frame: u32, max_channels: u16 },
    Open { id: u16, credit: u32, name: &'a str },
    Accept { id: u16, credit: u32 },
    Refuse { id: u16, reason: Reason },
    Credit { id: u16, add: u32 },
    End { id: u16 },
    Reset { id: u16, reason: Reason },
    Goodbye { reason: Reason, text: &'a str },
}

impl<'a> Control<'a> {
    /// Reads the payload of a frame of id 0.
    pub(in crate::stream::mux) fn decode(payload: &'a [u8]) -> Result<Self, MuxViolation> {
        let malformed = MuxViolation::Malformed;
        match *payload {
            [0, version, a, b, c, d, e, f] => {
                let (max_frame, max_channels) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
                let in_range = (1..=LARGEST_FRAME).contains(&max_frame) && max_channels <= MOST_CHANNELS;
                if version != VERSION || !in_range {
                    return Err(MuxViolation::BadHello);
                }
                Ok(Self::Hello { max_frame, max_channels })
            }
            [1, a, b, c, d, e, f, g, h, ref name @ ..] => {
                let (id, credit) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
                let name = text(u16::from_be_bytes([g, h]), name)?;
                if name.is_empty() { Err(malformed) } else { Ok(Self::Open { id, credit, name }) }
            }
            [2, a, b, c, d, e, f] => {
                Ok(Self::Accept { id: u16::from_be_bytes([a, b]), credit: u32::from_be_bytes([c, d, e, f]) })
            }
            [3, a, b, reason] => Ok(Self::Refuse { id: u16::from_be_bytes([a, b]), reason: Reason(reason) }),
            [4, a, b, c, d, e, f] => {
                Ok(Self::Credit { id: u16::from_be_bytes([a, b]), add: u32::from_be_bytes([c, d, e, f]) })
            }
            [5, a, b] => Ok(Self::End { id: u16::from_be_bytes([a, b]) }),
            [6, a, b, reason] => Ok(Self::Reset { id: u16::from_be_bytes([a, b]), reason: Reason(reason) }),
            [7, reason, a, b, ref bytes @ ..] => {
                Ok(Self::Goodbye { reason: Reason(reason), text: text(u16::from_be_bytes([a, b]), bytes)? })
            }
            _ => Err(malformed),
        }
    }

    /// Appends the whole frame, header included, to `out`.
    pub(in crate::stream::mux) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; Header::SIZE]);
        match *self {
            Self::Hello { max_frame, max_channels } => {
                out.extend([0, VERSION]);
                out.extend(max_frame.to_be_bytes());
                out.extend(max_channels.to_be_bytes());
            }
            Self::Open { id, credit, name } => {
                put_id(out, 1, id);
                out.extend(credit.to_be_bytes());
                put_text(out, name);
            }
            Self::Accept { id, credit } => {
                put_id(out, 2, id);
                out.extend(credit.to_be_bytes());
            }
            Self::Refuse { id, reason } => {
                put_id(out, 3, id);
                out.push(reason.0);
            }
            Self::Credit { id, add } => {
                put_id(out, 4, id);
                out.extend(add.to_be_bytes());
            }
            Self::End { id } => put_id(out, 5, id),
            Self::Reset { id, reason } => {
                put_id(out, 6, id);
                out.push(reason.0);
            }
            Self::Goodbye { reason, text } => {
                out.extend([7, reason.0]);
                put_text(out, text);
            }
        }
        let length = (out.len() - start - Header::SIZE) as u32;
        out[start..start + Header::SIZE].copy_from_slice(&Header { tag: 0, length }.encode());
    }
}

fn text(length: u16, bytes: &[u8]) -> Result<&str, MuxViolation> {
    if usize::from(length) != bytes.len() || bytes.len() > MAX_TEXT {
        return Err(MuxViolation::Malformed);
    }
    std::str::from_utf8(bytes).map_err(|_| MuxViolation::Malformed)
}

fn put_id(out: &mut Vec<u8>, operation: u8, id: u16) {
    out.push(operation);
    out.extend(id.to_be_bytes());
}

/// Appends `text`, cut to the allowed length at a character boundary.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    out.extend((end as u16).to_be_bytes());
    out.extend(&text.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(control: Control<'_>) {
        let mut bytes = Vec::new();
        control.encode(&mut bytes);
        let header = Header::at_front(&bytes).unwrap();
        assert_eq!((header.tag, header.frame_size()), (0, bytes.len() as u64));
        assert!(bytes.len() <= Header::SIZE + MAX_CONTROL);
        assert_eq!(Control::decode(&bytes[Header::SIZE..]), Ok(control));
        // No other length is accepted, whatever is cut off or added.
        for end in Header::SIZE..bytes.len() {
            assert!(Control::decode(&bytes[Header::SIZE..end]).is_err());
        }
        bytes.push(0);
        assert!(Control::decode(&bytes[Header::SIZE..]).is_err());
    }

    proptest! {
        #[test]
        fn every_control_frame_round_trips(id: u16, number: u32, reason: u8, name in "\\PC{1,60}") {
            let reason = Reason(reason);
            let max_frame = number.clamp(1, LARGEST_FRAME);
            round_trip(Control::Hello { max_frame, max_channels: id.min(MOST_CHANNELS) });
            round_trip(Control::Open { id, credit: number, name: &name });
            round_trip(Control::Accept { id, credit: number });
            round_trip(Control::Refuse { id, reason });
            round_trip(Control::Credit { id, add: number });
            round_trip(Control::End { id });
            round_trip(Control::Reset { id, reason });
            round_trip(Control::Goodbye { reason, text: &name });
            round_trip(Control::Goodbye { reason, text: "" });
        }

        #[test]
        fn any_bytes_decode_or_err(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Control::decode(&payload);
        }
    }

    /// A control frame from its words.
    fn parse(words: &str) -> Control<'_> {
        let (operation, rest) = words.split_once(' ').unwrap();
        let number = |index: usize| rest.split(' ').nth(index).unwrap().parse::<u32>().unwrap();
        let (id, reason) = (number(0) as u16, || Reason(number(1) as u8));
        match operation {
            "HELLO" => Control::Hello { max_frame: number(0), max_channels: number(1) as u16 },
            "OPEN" => Control::Open { id, credit: number(1), name: rest.splitn(3, ' ').nth(2).unwrap() },
            "ACCEPT" => Control::Accept { id, credit: number(1) },
            "REFUSE" => Control::Refuse { id, reason: reason() },
            "CREDIT" => Control::Credit { id, add: number(1) },
            "END" => Control::End { id },
            "RESET" => Control::Reset { id, reason: reason() },
            _ => Control::Goodbye { reason: Reason(id as u8), text: rest.split_once(' ').map_or("", |(_, text)| text) },
        }
    }

    #[test]
    fn the_committed_vectors_decode_and_encode() {
        let lines = include_str!("../../../../tests/vectors/mux.txt").lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let (words, hex) = line.split_once(" | ").unwrap();
            let unhex = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(unhex).collect();
            let mut encoded = Vec::new();
            parse(words).encode(&mut encoded);
            assert_eq!(encoded, bytes, "{words}");
            assert_eq!(Control::decode(&bytes[Header::SIZE..]), Ok(parse(words)));
        }
    }

    #[test]
    fn values_out_of_range_are_violations() {
        for payload in [
            &[0, 2, 0, 0, 0, 1, 0, 1][..],         // version 2
            &[0, 1, 0, 0, 0, 0, 0, 1],             // max frame 0
            &[0, 1, 0x7F, 0xFF, 0xFF, 0xF0, 0, 1], // max frame 2^31 - 16
            &[0, 1, 0, 0, 0, 1, 0x10, 1],          // 4,097 channels
        ] {
            assert_eq!(Control::decode(payload), Err(MuxViolation::BadHello), "{payload:?}");
        }
        assert!(Control::decode(&[0, 1, 0x7F, 0xFF, 0xFF, 0xEF, 0x10, 0]).is_ok());
        assert!(Control::decode(&[1, 0, 1, 0, 0, 0, 17, 0, 0]).is_err(), "an empty name");
        assert!(Control::decode(&[1, 0, 1, 0, 0, 0, 17, 0, 1, 0xFF]).is_err(), "a name that is no UTF-8");
        assert!(Control::decode(&[]).is_err());
        assert!(Control::decode(&[8]).is_err());
        let mut long = vec![7, 0, 1, 0];
        long.extend([b'x'; 256]);
        assert!(Control::decode(&long).is_err(), "a text of 256 bytes");
    }
}
