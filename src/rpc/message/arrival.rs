//! What a datagram is that came with control of a window.

use super::bulk::BulkReceiver;
use super::fragment::{FragmentReceiver, number};
use super::head::WindowHead;
use super::number::{
    BULK_DATAGRAM, CHUNK, CONTINUE, END, ERROR, FLAG_BULK, FLAG_FRAGMENT, FRAGMENT_HEAD, MOST_DESCRIPTORS, WINDOW_HEAD,
};
use crate::rpc::CallViolation;

/// A message that came, as its first bytes announce it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The message's type.
    pub tag: u16,
    /// Descriptors that came on the socket.
    pub fds: u8,
    /// Where its payload is.
    pub payload: Whereabouts,
}

/// Where a payload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the datagram, behind the head: so many bytes.
    Here(u32),
    /// Its first fragment is in the datagram, behind the fragment's head.
    Fragments(FragmentReceiver),
    /// It follows on the socket.
    Bulk(BulkReceiver),
}

impl Whereabouts {
    /// Bytes of the whole payload.
    pub fn length(&self) -> u64 {
        match self {
            Self::Here(length) => u64::from(*length),
            Self::Fragments(fragments) => fragments.length() as u64,
            Self::Bulk(bulk) => bulk.length() as u64,
        }
    }
}

impl Arrival {
    /// Bytes of a datagram that [`parse`](Self::parse) reads, if it has as many.
    pub const FRONT: usize = FRAGMENT_HEAD;

    /// Takes the front of a datagram apart. `front` are its first bytes: 16 of them, or all if it has fewer. A message is refused if its
    /// payload is over `maximum` bytes, in the window or not: how large the window is may have been the peer's choice. `fragments`:
    /// whether both sides agreed on them.
    ///
    /// # Errors
    /// The rule that the message breaks.
    pub fn parse(front: &[u8], datagram: u32, maximum: u64, fragments: bool) -> Result<Self, CallViolation> {
        let Some(head) = front.first_chunk().map(|head| WindowHead::parse(*head)) else {
            return Err(CallViolation::Datagram(datagram));
        };
        let WindowHead { tag, fds, flags } = head;
        check(head, fragments)?;
        let payload = match flags {
            FLAG_BULK => match front.split_at(WINDOW_HEAD).1.try_into() {
                Ok(length) if datagram as usize == BULK_DATAGRAM => {
                    Whereabouts::Bulk(BulkReceiver::new(u64::from_ne_bytes(length), maximum)?)
                }
                _ => return Err(CallViolation::Datagram(datagram)),
            },
            FLAG_FRAGMENT => {
                let length = front.first_chunk().and_then(number).ok_or(CallViolation::Fragment(0))?;
                Whereabouts::Fragments(FragmentReceiver::begin(length, maximum, datagram)?)
            }
            _ => Whereabouts::Here(Self::whole(datagram, maximum)?),
        };
        Ok(Self { tag, fds, payload })
    }

    /// Payload bytes of a message that is in its datagram whole.
    ///
    /// # Errors
    /// They are over `maximum`.
    pub fn whole(datagram: u32, maximum: u64) -> Result<u32, CallViolation> {
        let length = datagram.checked_sub(WINDOW_HEAD as u32).ok_or(CallViolation::Datagram(datagram))?;
        if u64::from(length) <= maximum { Ok(length) } else { Err(CallViolation::TooLarge(u64::from(length))) }
    }

    /// Whether the front of a datagram says that it is a fragment, by the rules or not: then the rest of it belongs elsewhere.
    pub fn may_be_fragment(front: &[u8; FRAGMENT_HEAD]) -> bool {
        let [_, _, _, flags, ..] = *front;
        flags & FLAG_FRAGMENT != 0
    }
}

/// Whether a message of this type may have these descriptors and flags.
fn check(head: WindowHead, fragments: bool) -> Result<(), CallViolation> {
    let WindowHead { tag, fds, flags } = head;
    let is_known = match flags {
        0 => true,
        FLAG_BULK => !is_plain(tag),
        FLAG_FRAGMENT => !is_plain(tag) && fragments,
        _ => false,
    };
    if !is_known {
        return Err(CallViolation::Flags(flags));
    }
    if fds > MOST_DESCRIPTORS || (fds > 0 && is_plain(tag)) {
        return Err(CallViolation::Descriptors(fds));
    }
    Ok(())
}

/// Whether messages of this type are all in the window, without descriptors.
fn is_plain(tag: u16) -> bool {
    matches!(tag, ERROR | CHUNK | END | CONTINUE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::message::number::{BULK, LEAST_FRAGMENT, RESPONSE};

    const FRAGMENT: u32 = FRAGMENT_HEAD as u32 + LEAST_FRAGMENT;

    /// The front of a datagram, and what it is.
    fn parse(
        head: WindowHead,
        tail: [u8; 12],
        datagram: u32,
        maximum: u64,
        fragments: bool,
    ) -> Result<Arrival, CallViolation> {
        let front = [&head.encode()[..], &tail].concat();
        Arrival::parse(&front[..FRAGMENT_HEAD.min(datagram as usize)], datagram, maximum, fragments)
    }

    /// The tail of a head with a number where bulk has it, and of one where a fragment has it.
    fn bulk(length: u64) -> [u8; 12] {
        [&length.to_ne_bytes()[..], &[0; 4]].concat().try_into().unwrap()
    }

    fn first(length: u64) -> [u8; 12] {
        [&[0; 4], &length.to_ne_bytes()[..]].concat().try_into().unwrap()
    }

    /// The rules once more, as the documentation of the wire tells them.
    fn oracle(head: WindowHead, number: u64, datagram: u32, maximum: u64, fragments: bool) -> Result<u64, ()> {
        let WindowHead { tag, fds, flags } = head;
        let plain = [ERROR, CHUNK, END, CONTINUE].contains(&tag);
        let is_message = datagram >= 4 && fds <= 16 && (!plain || (fds, flags) == (0, 0));
        let length = match flags {
            0 => u64::from(datagram.saturating_sub(4)),
            1 if datagram == 12 && number > 0 => number,
            2 if fragments && datagram >= 2064 && number > 0 => {
                let here = u64::from(datagram) - 16;
                if here > number {
                    return Err(());
                }
                number
            }
            _ => return Err(()),
        };
        if is_message && length <= maximum { Ok(length) } else { Err(()) }
    }

    #[test]
    fn every_head_size_and_maximum_is_what_the_rules_say() {
        let tags = [0, 1, 0xFEFF, RESPONSE, ERROR, CHUNK, END, BULK, CONTINUE, 0xFFF0, 0xFFFF];
        let sizes: Vec<u32> = (0..40).chain(FRAGMENT - 3..FRAGMENT + 4).chain([4080, 262_128, 16 << 20]).collect();
        let mut accepted = 0;
        for (tag, fds, flags) in tags.iter().flat_map(|&tag| {
            [0, 1, 16, 17, 255]
                .into_iter()
                .flat_map(move |fds| (0..=5).chain([0x80, 0xFF]).map(move |flags| (tag, fds, flags)))
        }) {
            let head = WindowHead { tag, fds, flags };
            for &datagram in &sizes {
                for number in [0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 1 << 20, u64::MAX] {
                    for maximum in [4096, 1 << 20, u64::MAX] {
                        for fragments in [false, true] {
                            let tail = if flags == FLAG_BULK { bulk(number) } else { first(number) };
                            let parsed = parse(head, tail, datagram, maximum, fragments);
                            let expected = oracle(head, number, datagram, maximum, fragments);
                            assert_eq!(
                                parsed.as_ref().map(|arrival| arrival.payload.length()).map_err(|_| ()),
                                expected,
                                "{head:?} {datagram} {number} {maximum} {fragments}: {parsed:?}"
                            );
                            if let Ok(arrival) = parsed {
                                assert_eq!((arrival.tag, arrival.fds), (tag, fds));
                                accepted += 1;
                            }
                        }
                    }
                }
            }
        }
        assert!(accepted > 10_000, "{accepted}");
    }

    #[test]
    fn what_is_plain_and_may_be_no_fragment_is_whole() {
        for flags in 0..=u8::MAX {
            for (tag, fds) in [(1, 0), (RESPONSE, 0), (CHUNK, 0), (1, 3)] {
                let head = WindowHead { tag, fds, flags };
                for datagram in [4, 16, FRAGMENT - 1, FRAGMENT, 4080, 9000] {
                    let parsed = parse(head, first(5000), datagram, 8000, true);
                    let front = [&head.encode()[..], &[0; 12]].concat().try_into().unwrap();
                    let whole = Arrival::whole(datagram, 8000);
                    if head.is_plain() {
                        let expected = whole.map(|length| Arrival { tag, fds: 0, payload: Whereabouts::Here(length) });
                        assert_eq!(parsed, expected);
                    }
                    if matches!(parsed, Ok(Arrival { payload: Whereabouts::Fragments(_), .. })) {
                        assert!(Arrival::may_be_fragment(&front));
                    }
                }
            }
        }
        assert_eq!(Arrival::whole(3, 8000), Err(CallViolation::Datagram(3)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let head = |tag, fds, flags| WindowHead { tag, fds, flags };
        let whole = |head, datagram| parse(head, [0; 12], datagram, 4096, true).unwrap_err();
        assert_eq!(whole(head(1, 0, 0), 3), CallViolation::Datagram(3));
        assert_eq!(whole(head(1, 17, 0), 4), CallViolation::Descriptors(17));
        assert_eq!(whole(head(ERROR, 1, 0), 4), CallViolation::Descriptors(1));
        assert_eq!(whole(head(CONTINUE, 0, 1), 12), CallViolation::Flags(1));
        assert_eq!(whole(head(1, 0, 3), 4), CallViolation::Flags(3));
        assert_eq!(whole(head(1, 0, 0), 5000), CallViolation::TooLarge(4996));
        assert_eq!(whole(head(1, 0, 1), 11), CallViolation::Datagram(11));
        assert_eq!(whole(head(1, 0, 1), 12), CallViolation::Bulk(0));
        assert_eq!(whole(head(1, 0, 2), FRAGMENT - 1), CallViolation::Fragment(0));
        assert_eq!(whole(head(1, 0, 2), FRAGMENT), CallViolation::Bulk(0));
        let not_agreed = parse(head(1, 0, 2), first(4096), FRAGMENT, 4096, false);
        assert_eq!(not_agreed, Err(CallViolation::Flags(2)));
        let not_zero = parse(head(1, 0, 2), bulk(4096), FRAGMENT, 4096, true);
        assert_eq!(not_zero, Err(CallViolation::Fragment(0)));
        let too_long = parse(head(1, 0, 2), first(2047), FRAGMENT, 4096, true);
        assert_eq!(too_long, Err(CallViolation::Fragment(0)));
        assert_eq!(parse(head(1, 0, 1), bulk(4097), 12, 4096, true), Err(CallViolation::TooLarge(4097)));
    }
}
