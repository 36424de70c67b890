//! Two honest sides, one id, four uses, every order of events: the proof that the state table needs no luck.
//!
//! A node of the search is both tables, the two queues between them, and what the two programs hold. From each node every step is
//! taken that a program may take (open, cancel, accept, refuse, send, consume, end, reset) and every delivery of a queued frame. What
//! must hold in every node:
//!
//! - no frame is a violation;
//! - data comes in the use that it was sent in;
//! - where nothing is under way, both sides see the id in matching states and count the same credit, and a side that holds nothing
//!   unconsumed has granted enough for a whole frame: so a program that waits, waits for the other program, and nobody is stuck.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::control::Reason;
use super::state::{Event, FRAME_COST, Key, State, StateTable, Terms};
use crate::stream::frame::decoder::FrameDecoder;
use crate::stream::frame::header::Header;

const USES: u8 = 4;
const MAX_FRAME: u32 = 1;
/// One whole data frame.
const CREDIT: u32 = MAX_FRAME + FRAME_COST as u32;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Handle {
    key: Key,
    number: u8,
    sent: u8,
    unread: u8,
    /// The program has ended or given up its direction.
    done: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Side {
    table: StateTable,
    /// Frames on their way to this side.
    queue: VecDeque<Vec<u8>>,
    handle: Option<Handle>,
    /// How many uses this side has seen.
    uses: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Node([Side; 2]);

#[derive(Debug, Clone, Copy)]
enum Step {
    Deliver,
    Open,
    Accept,
    Refuse,
    Data,
    Consume,
    End,
    Reset,
}

const STEPS: [Step; 8] =
    [Step::Deliver, Step::Open, Step::Accept, Step::Refuse, Step::Data, Step::Consume, Step::End, Step::Reset];

impl Node {
    fn start() -> Self {
        let side = |initiator| {
            let terms = Terms { initiator, max_frame: MAX_FRAME, max_channels: 1, credit: CREDIT };
            Side { table: StateTable::new(terms), queue: VecDeque::new(), handle: None, uses: 0 }
        };
        let mut node = Self([side(true), side(false)]);
        for me in [0, 1] {
            node.flush(me);
        }
        for me in [0, 1] {
            assert!(node.step(me, Step::Deliver), "HELLO");
        }
        node
    }

    /// Sends what the table of `me` has due to the other side's queue, frame by frame.
    fn flush(&mut self, me: usize) {
        let mut bytes = Vec::new();
        self.0[me].table.take_outgoing(&mut bytes);
        let mut decoder = FrameDecoder::new(u32::MAX);
        decoder.push(&bytes);
        while let Some(frame) = decoder.next_frame().unwrap() {
            let header = Header { tag: frame.tag, length: frame.payload.len() as u32 };
            self.0[1 - me].queue.push_back([&header.encode(), frame.payload].concat());
        }
    }

    /// Takes a step if it is possible.
    fn step(&mut self, me: usize, step: Step) -> bool {
        let side = &mut self.0[me];
        let state = side.handle.as_ref().and_then(|handle| side.table.state(handle.key));
        let mut data = None;
        match (step, &mut side.handle) {
            (Step::Deliver, _) => match side.queue.pop_front() {
                Some(frame) => side.deliver(&frame),
                None => return false,
            },
            (Step::Open, handle @ None) if me == 0 && side.uses < USES => {
                side.uses += 1;
                let Some(key) = side.table.open(&side.uses.to_string()).filter(|key| key.id == 1) else { return false };
                *handle = Some(Handle { key, number: side.uses, sent: 0, unread: 0, done: false });
            }
            (Step::Accept, Some(handle)) if state == Some(State::Offered) => assert!(side.table.accept(handle.key)),
            (Step::Refuse, handle @ Some(_)) if state == Some(State::Offered) => {
                side.table.refuse(handle.take().unwrap().key, Reason::NO_SUCH_NAME);
            }
            (Step::Data, Some(handle)) if handle.sent < 2 && !handle.done => {
                if !side.table.spend(handle.key, 1) {
                    return false;
                }
                handle.sent += 1;
                data = Some([&Header { tag: handle.key.id, length: 1 }.encode()[..], &[handle.number]].concat());
            }
            (Step::Consume, Some(handle)) if handle.unread > 0 => {
                handle.unread -= 1;
                side.table.consume(handle.key, 1);
            }
            (Step::End, Some(handle)) if !handle.done && matches!(state, Some(State::Open { .. })) => {
                handle.done = true;
                side.table.end(handle.key);
            }
            // A handle is given up once; then its unread data goes as well.
            (Step::Reset, handle @ Some(_)) if state != Some(State::Offered) => {
                let handle = handle.take().unwrap();
                for _ in 0..handle.unread {
                    side.table.consume(handle.key, 1);
                }
                side.table.reset(handle.key, Reason::CANCELLED);
            }
            _ => return false,
        }
        self.flush(me);
        self.0[1 - me].queue.extend(data);
        true
    }

    /// What must hold where nothing is under way.
    fn check_quiet(&self) {
        let [a, b] = &self.0;
        let id_state = |side: &Side| side.table.id_state(1);
        match (id_state(a), id_state(b)) {
            (None, None) | (Some((State::Opening { .. }, ..)), Some((State::Offered, ..))) => {}
            (
                Some((State::Open { ended, peer_ended }, credit, granted, held)),
                Some((State::Open { ended: b_ended, peer_ended: b_peer_ended }, b_credit, b_granted, b_held)),
            ) => {
                assert_eq!((ended, peer_ended), (b_peer_ended, b_ended));
                for (credit, granted, held, ended) in
                    [(credit, b_granted, b_held, ended), (b_credit, granted, held, b_ended)]
                {
                    assert_eq!(credit, granted, "both count the same credit");
                    assert!(ended || held > 0 || granted >= u64::from(CREDIT), "nobody starves");
                }
            }
            states => panic!("states that do not match: {states:?}"),
        }
    }
}

impl Side {
    fn deliver(&mut self, frame: &[u8]) {
        let header = Header::at_front(frame).unwrap();
        match self.table.receive(header.tag, &frame[Header::SIZE..]).expect("no violation between honest sides") {
            Event::Nothing | Event::Hello | Event::Credit(_) | Event::Ended(_) => {}
            Event::Offered(key, name) => {
                self.uses += 1;
                assert_eq!(name, self.uses.to_string());
                // A program that still holds the former use gives it up to take the new one.
                if let Some(old) = self.handle.take() {
                    assert_eq!(self.table.state(old.key), None);
                    (0..old.unread).for_each(|_| self.table.consume(old.key, 1));
                }
                self.handle = Some(Handle { key, number: self.uses, sent: 0, unread: 0, done: false });
            }
            Event::Accepted(key) => assert_eq!(self.handle.as_ref().map(|handle| handle.key), Some(key)),
            Event::Data(key) => {
                let handle = self.handle.as_mut().filter(|handle| handle.key == key);
                match handle {
                    Some(handle) => {
                        assert_eq!(frame[Header::SIZE], handle.number, "data of another use");
                        handle.unread += 1;
                    }
                    None => self.table.consume(key, 1),
                }
            }
            Event::Refused(key, _) | Event::Reset(key, _) => {
                if let Some(handle) = self.handle.take_if(|handle| handle.key == key) {
                    (0..handle.unread).for_each(|_| self.table.consume(handle.key, 1));
                }
            }
            Event::Goodbye(..) => panic!("nobody said goodbye"),
        }
    }
}

#[test]
fn every_order_of_events_between_two_honest_sides_is_fine() {
    let mut seen = HashSet::new();
    let mut stack = vec![Node::start()];
    let (mut steps, mut finished) = (0u64, 0u64);
    while let Some(node) = stack.pop() {
        if node.0.iter().all(|side| side.queue.is_empty()) {
            node.check_quiet();
            finished += u64::from(node.0.iter().all(|side| side.uses == USES && side.table.id_state(1).is_none()));
        }
        for me in [0, 1] {
            for step in STEPS {
                let mut next = node.clone();
                if next.step(me, step) {
                    steps += 1;
                    let mut hasher = DefaultHasher::new();
                    next.hash(&mut hasher);
                    if seen.insert(hasher.finish()) {
                        stack.push(next);
                    }
                }
            }
        }
    }
    assert!(finished > 0, "all four uses can come and go");
    println!("{} states, {steps} steps, {finished} of them after all uses", seen.len());
}
