//! Senders of fragments against receivers: every size of window that matters, every length around its limits.

use super::fragment::{FragmentReceiver, FragmentSender, FragmentStep, are_better, fragment_size};
use super::head::WindowHead;
use super::number::{BULK, FLAG_FRAGMENT, FRAGMENT_HEAD, LEAST_FRAGMENT, MOST_WINDOW, RESPONSE, WINDOW_HEAD};
use super::outgoing::Uneven;
use crate::rpc::CallViolation;

const PAGE: u32 = 4096;
const MESSAGE: WindowHead = WindowHead { tag: RESPONSE, fds: 3, flags: 0 };

/// Capacities of windows of so many pages.
fn capacities() -> impl Iterator<Item = u32> {
    [1, 2, 3, 15, 16, 17, 64, 4096].into_iter().map(|pages| pages * PAGE - 16)
}

/// Lengths of payloads that do not fit a window of this capacity.
fn lengths(capacity: u32, many: u64) -> impl Iterator<Item = u64> {
    let first = u64::from(capacity) - WINDOW_HEAD as u64 + 1;
    (first..first + 300).chain((0..many).map(move |step| first * 2 + step * 77_777))
}

/// Moves a payload of `length` bytes, which comes in pieces of `piece` bytes, from a sender to a receiver. How many fragments it took.
fn transfer(capacity: u32, length: u64, piece: u64) -> Result<u32, Uneven> {
    let mut sender = FragmentSender::new(MESSAGE, length, capacity);
    let mut receiver: Option<FragmentReceiver> = None;
    let (mut left, mut at, mut count) = (length, 0, 0);
    let mut arrive = |fragment: super::fragment::Fragment| {
        assert!(fragment.datagram <= capacity);
        match &mut receiver {
            Some(receiver) => receiver.next(fragment.datagram, &fragment.head).unwrap(),
            None => {
                let number = super::fragment::number(&fragment.head).unwrap();
                assert_eq!(
                    WindowHead::parse(*fragment.head.first_chunk().unwrap()),
                    WindowHead { flags: FLAG_FRAGMENT, ..MESSAGE }
                );
                receiver = Some(FragmentReceiver::begin(number, u64::MAX, fragment.datagram).unwrap());
            }
        }
        let current = receiver.as_ref().unwrap().current();
        assert_eq!((current.start, current.len()), (at, fragment.datagram as usize - FRAGMENT_HEAD));
        at = current.end;
        count += 1;
        receiver.as_ref().unwrap().is_complete()
    };
    while left > 0 {
        let mut waiting = piece.min(left) as usize;
        left -= waiting as u64;
        while waiting > 0 {
            match sender.step(waiting)? {
                FragmentStep::Fill { at, count } => {
                    assert!(count > 0 && at as usize + count <= capacity as usize);
                    sender.filled(count);
                    waiting -= count;
                }
                FragmentStep::HandOver(fragment) => {
                    assert!(!arrive(fragment), "the last fragment is not handed over to be asked for more");
                    sender.handed_over();
                    assert!(sender.is_begun());
                }
            }
        }
    }
    assert!(arrive(sender.finish()?));
    assert_eq!(at as u64, length);
    Ok(count)
}

#[test]
fn what_a_sender_cuts_a_receiver_takes() {
    for capacity in capacities() {
        for length in lengths(capacity, 20) {
            for piece in [977, u64::from(capacity), u64::MAX] {
                let room = u64::from(capacity) - FRAGMENT_HEAD as u64;
                let fewest = length.div_ceil(room);
                assert_eq!(transfer(capacity, length, piece).map(u64::from), Ok(fewest), "{capacity} {length}");
            }
        }
    }
}

#[test]
fn fragments_are_of_one_size_and_no_stubs() {
    for capacity in capacities() {
        for length in lengths(capacity, 300) {
            let size = fragment_size(capacity, length);
            assert!(size + FRAGMENT_HEAD as u32 <= capacity && size >= LEAST_FRAGMENT, "{capacity} {length}");
            assert!(u64::from(size) < length, "{capacity} {length}: one fragment is a message");
        }
    }
}

#[test]
fn small_windows_carry_few_fragments_and_large_ones_any_number() {
    for (kib, most) in [(4, 3), (12, 3), (16, 8), (60, 8)] {
        let capacity = (kib << 10) - 16;
        let length = most * u64::from(capacity - FRAGMENT_HEAD as u32);
        assert!(are_better(capacity, length) && !are_better(capacity, length + 1), "{kib} KiB");
    }
    assert!(are_better((64 << 10) - 16, u64::MAX) && are_better(MOST_WINDOW - 16, u64::MAX));
}

#[test]
fn a_payload_of_another_length_than_announced_never_leaves_whole() {
    let mut sender = FragmentSender::new(MESSAGE, 5000, PAGE - 16);
    assert_eq!(sender.step(5001), Err(Uneven));
    let FragmentStep::Fill { count, .. } = sender.step(5000).unwrap() else { panic!("it is empty") };
    sender.filled(count);
    assert_eq!(sender.finish(), Err(Uneven));
    assert!(!sender.is_begun());
    assert!(matches!(sender.step(5000 - count), Ok(FragmentStep::HandOver(_))));
    sender.handed_over();
    sender.filled(5000 - count);
    assert_eq!(sender.step(1), Err(Uneven));
    assert!(sender.finish().is_ok());
}

/// The head of a later fragment.
fn later(tag: u16, fds: u8, flags: u8, zero: u8, offset: u64) -> Vec<u8> {
    let mut head = WindowHead { tag, fds, flags }.encode().to_vec();
    head.extend([0, 0, 0, zero]);
    head.extend(offset.to_ne_bytes());
    head
}

#[test]
fn only_the_fragment_that_is_due_is_taken() {
    let begun = FragmentReceiver::begin(6000, 6000, FRAGMENT_HEAD as u32 + 2048).unwrap();
    let next = |datagram, head: &[u8]| begun.clone().next(datagram, head).err();
    let good = later(BULK, 0, FLAG_FRAGMENT, 0, 2048);
    let sized = |bytes: u32| FRAGMENT_HEAD as u32 + bytes;
    assert_eq!(next(sized(2048), &good), None);
    assert_eq!(next(sized(6000 - 2048), &good), None);
    for bytes in [0, 1, 2047, 6000 - 2047, 6000, u32::MAX - 16] {
        assert_eq!(next(sized(bytes), &good), Some(CallViolation::Fragment(2048)), "{bytes}");
    }
    for length in 0..FRAGMENT_HEAD {
        assert_eq!(next(length as u32, &good[..length]), Some(CallViolation::Datagram(length as u32)));
    }
    let cases = [
        (later(RESPONSE, 0, FLAG_FRAGMENT, 0, 2048), CallViolation::Unexpected(RESPONSE)),
        (later(BULK, 1, FLAG_FRAGMENT, 0, 2048), CallViolation::Descriptors(1)),
        (later(BULK, 0, 1, 0, 2048), CallViolation::Flags(1)),
        (later(BULK, 0, FLAG_FRAGMENT, 1, 2048), CallViolation::Fragment(2048)),
        (later(BULK, 0, FLAG_FRAGMENT, 0, 0), CallViolation::Fragment(0)),
        (later(BULK, 0, FLAG_FRAGMENT, 0, 2049), CallViolation::Fragment(2049)),
    ];
    for (head, violation) in cases {
        assert_eq!(next(sized(2048), &head), Some(violation));
    }
    // The last may be short, and nothing comes behind it.
    let mut receiver = begun;
    receiver.next(sized(3951), &good).unwrap();
    assert!(!receiver.is_complete());
    receiver.next(sized(1), &later(BULK, 0, FLAG_FRAGMENT, 0, 5999)).unwrap();
    assert!(receiver.is_complete());
    for bytes in [0, 1, 2048] {
        let behind = receiver.next(sized(bytes), &later(BULK, 0, FLAG_FRAGMENT, 0, 6000));
        assert_eq!(behind, Err(CallViolation::Fragment(6000)));
    }
}

#[test]
fn a_payload_begins_with_a_fragment_of_some_length() {
    let begin =
        |length, maximum, bytes: u32| FragmentReceiver::begin(length, maximum, FRAGMENT_HEAD as u32 + bytes).err();
    assert_eq!(begin(6000, 6000, 2048), None);
    assert_eq!(begin(6000, 6000, 2047), Some(CallViolation::Fragment(0)));
    assert_eq!(begin(6000, 5999, 2048), Some(CallViolation::TooLarge(6000)));
    assert_eq!(begin(0, 6000, 2048), Some(CallViolation::Bulk(0)));
    assert_eq!(begin(2048, 6000, 2048), None, "the first may be the last");
    assert_eq!(begin(2048, 6000, 2049), Some(CallViolation::Fragment(0)));
}
