//! Whole calls, both ends, over a wire that is a queue of byte strings: any request, any answer, any window.

use proptest::prelude::*;

use super::answer::{NoValue, response};
use super::arrival::{Arrival, Whereabouts};
use super::bulk::{self, BulkSender, BulkStep};
use super::fragment::{FragmentSender, FragmentStep, are_better};
use super::head::{WindowHead, expect_continue};
use super::hello::{Greeting, Hello, Terms};
use super::number::{BULK, ERROR, FRAGMENT_HEAD, HELLO, RESPONSE, WINDOW_HEAD};
use super::outgoing::{Outgoing, room};
use super::prefix::{Prefix, TimeLeft};
use super::request::{self, Addressee};
use crate::rpc::codec::{Raw, to_bytes};
use crate::rpc::{Code, Status};

/// Where a message is between the two sides.
struct Wire {
    window: Vec<u8>,
    datagram: u32,
    socket: Vec<(u16, Vec<u8>)>,
    fragments: bool,
}

impl Wire {
    fn new(capacity: usize, fragments: bool) -> Self {
        Self { window: vec![0; capacity], datagram: 0, socket: Vec::new(), fragments }
    }

    fn flip(&mut self, front: &[u8], rest: &[u8]) {
        self.window[..front.len()].copy_from_slice(front);
        self.window[front.len()..front.len() + rest.len()].copy_from_slice(rest);
        self.datagram = (front.len() + rest.len()) as u32;
    }

    fn front(&self) -> &[u8] {
        &self.window[..Arrival::FRONT.min(self.datagram as usize)]
    }

    /// Carries a message over; what arrives: its type and payload.
    fn carry(&mut self, message: &Outgoing<'_>, maximum: u64) -> (u16, Vec<u8>) {
        let mut payload = Vec::new();
        message.encode_to(&mut payload).unwrap();
        let capacity = self.window.len() as u32;
        if payload.len() as u32 <= room(capacity) {
            self.flip(&message.head().encode(), &payload);
            return self.receive(maximum, &mut std::iter::empty());
        }
        let length = payload.len() as u64;
        if self.fragments && are_better(capacity, length) {
            return self.carry_fragments(message.head(), &payload, maximum);
        }
        self.flip(&bulk::announcement(message.head(), length), &[]);
        let (mut sender, mut rest) = (BulkSender::new(length), &payload[..]);
        while !rest.is_empty() {
            match sender.step(rest.len()).unwrap() {
                BulkStep::Header(_) => self.socket.push((BULK, Vec::new())),
                BulkStep::Payload(count) => {
                    self.socket.last_mut().unwrap().1.extend(&rest[..count]);
                    rest = &rest[count..];
                }
            }
        }
        sender.finish().unwrap();
        self.receive(maximum, &mut std::iter::empty())
    }

    fn carry_fragments(&mut self, head: WindowHead, payload: &[u8], maximum: u64) -> (u16, Vec<u8>) {
        let mut sender = FragmentSender::new(head, payload.len() as u64, self.window.len() as u32);
        let (mut datagrams, mut rest, mut filled) = (Vec::new(), payload, Vec::new());
        while !rest.is_empty() {
            match sender.step(rest.len()).unwrap() {
                FragmentStep::Fill { at, count } => {
                    assert_eq!(at as usize, FRAGMENT_HEAD + filled.len());
                    filled.extend(&rest[..count]);
                    rest = &rest[count..];
                    sender.filled(count);
                }
                FragmentStep::HandOver(fragment) => {
                    datagrams.push((fragment, std::mem::take(&mut filled)));
                    sender.handed_over();
                }
            }
        }
        datagrams.push((sender.finish().unwrap(), filled));
        let mut datagrams = datagrams.into_iter().map(|(fragment, bytes)| {
            assert_eq!(fragment.datagram as usize, FRAGMENT_HEAD + bytes.len());
            (fragment.head, bytes)
        });
        let (head, bytes) = datagrams.next().unwrap();
        self.flip(&head, &bytes);
        self.receive(maximum, &mut datagrams)
    }

    /// The receiver's side; `more` are the fragments that it may ask for.
    fn receive(&mut self, maximum: u64, more: &mut dyn Iterator<Item = ([u8; 16], Vec<u8>)>) -> (u16, Vec<u8>) {
        let arrival = Arrival::parse(self.front(), self.datagram, maximum, self.fragments).unwrap();
        let payload = match arrival.payload {
            Whereabouts::Here(length) => self.window[WINDOW_HEAD..WINDOW_HEAD + length as usize].to_vec(),
            Whereabouts::Bulk(mut frames) => {
                let mut payload = Vec::new();
                for (tag, frame) in std::mem::take(&mut self.socket) {
                    frames.accept(tag, frame.len(), false).unwrap();
                    payload.extend(frame);
                }
                assert!(frames.is_complete());
                payload
            }
            Whereabouts::Fragments(mut fragments) => {
                let mut payload = vec![0; fragments.length()];
                loop {
                    let place = fragments.current();
                    let count = place.len();
                    payload[place].copy_from_slice(&self.window[FRAGMENT_HEAD..FRAGMENT_HEAD + count]);
                    if fragments.is_complete() {
                        break payload;
                    }
                    expect_continue(WINDOW_HEAD as u32, &WindowHead::CONTINUE.encode()).unwrap();
                    let (head, bytes) = more.next().unwrap();
                    self.flip(&head, &bytes);
                    fragments.next(self.datagram, self.front()).unwrap();
                }
            }
        };
        assert!(more.next().is_none() && self.socket.is_empty(), "something is left over");
        (arrival.tag, payload)
    }
}

proptest! {
    #[test]
    fn a_call_arrives_and_its_answer_comes_back(
        pages in 1usize..8,
        fragments: bool,
        left in prop_oneof![Just(0), 1u64..1 << 50],
        asked in 0usize..100_000,
        answered in 0usize..100_000,
        fails in 0u8..4,
    ) {
        let mut wire = Wire::new(pages * 4096 - 16, fragments);
        let maximum = 1 << 20;
        // HELLO comes first, over the socket.
        let offer = Hello::new(maximum as u32, fragments);
        let mut greeting = Greeting::Expected;
        let terms = Terms { version1: true, extensions: true, maximum: maximum as u32 };
        prop_assert_eq!(Addressee::of(HELLO, true, greeting.agreement().is_version1()), Addressee::Hello);
        let hello = greeting.hello(terms, &to_bytes(&offer)).unwrap();
        let agreement = offer.answered(RESPONSE, false, &[vec![0], to_bytes(&hello)].concat()).unwrap();
        prop_assert_eq!((agreement, agreement.fragments()), (greeting.agreement(), fragments));

        let bytes: Vec<u8> = (0..asked).map(|at| (at % 251) as u8).collect();
        let call = Outgoing { tag: 7, prefix: Prefix::Left(left), value: &Raw(&bytes), fds: 0 };
        let (tag, payload) = wire.carry(&call.erased(), maximum);
        prop_assert!(tag == 7 && !request::is_forbidden(tag));
        let (time, fields) = request::split(&payload, true).unwrap();
        prop_assert_eq!(fields, &bytes[..]);
        prop_assert_eq!(time == TimeLeft::FOREVER, left == 0);

        let (value, status) = (vec![9; answered], Status::new(Code::Io, "disk"));
        let raw = Raw(&value);
        let answer: Outgoing<'_> = match fails {
            0 => Outgoing { tag: ERROR, prefix: Prefix::None, value: &status, fds: 0 },
            _ => Outgoing { tag: RESPONSE, prefix: Prefix::Ok, value: &raw, fds: 0 },
        };
        let (tag, payload) = wire.carry(&answer, maximum);
        match (response(tag, false, &payload), fails) {
            (Ok(fields), 1..) => prop_assert_eq!(fields, &value[..]),
            (Err(NoValue::Status(came)), 0) => prop_assert_eq!(came, status),
            (other, _) => prop_assert!(false, "{:?}", other),
        }
    }
}
