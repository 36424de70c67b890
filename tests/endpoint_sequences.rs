//! Sequences of operations on both ends of a window against an oracle: a byte string that either end writes to in its turn.
//!
//! One thread plays both ends, with waits that try once, and looks at the window itself after every flip. The client only ever writes
//! odd bytes and the server even ones other than 0, so that a byte tells who wrote it.

mod page;

use flipcall::ErrorKind;
use flipcall::endpoint::Waiting;
use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options};
use flipcall::window::HEADER_LEN;
use page::{AT_ONCE, Page, failed, waiting};
use proptest::prelude::*;
use std::io::{Read, Write};

/// Bytes of the window.
const WINDOW: u32 = 4096;
/// Bytes of the longest datagram.
const CAPACITY: u32 = WINDOW - HEADER_LEN;

/// What the end that holds control does.
#[derive(Debug, Clone)]
enum Operation {
    /// Copies bytes to an offset, which may be out of range.
    Write { offset: u32, count: u32, seed: u8 },
    /// Writes through a cursor, begins anew, writes again.
    Rewind { first: u32, second: u32, seed: u8 },
    /// Copies bytes out, which may be out of range.
    Read { offset: u32, count: u32 },
    /// Reads all of it through a cursor, in pieces.
    Cursor { piece: u32 },
    /// Hands control over, with a length that may be out of range.
    Flip { length: u32 },
}

/// Offsets and lengths: small ones, those around the capacity, and any.
fn numbers() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..64u32, 2 => CAPACITY - 3..CAPACITY + 3, 2 => 0..CAPACITY, 1 => u32::MAX - 3..=u32::MAX]
}

fn operations() -> impl Strategy<Value = Operation> {
    let sizes = || prop_oneof![4 => 0..64u32, 1 => 0..2 * CAPACITY];
    prop_oneof![
        2 => (numbers(), sizes(), any::<u8>()).prop_map(|(offset, count, seed)| Operation::Write { offset, count, seed }),
        1 => (sizes(), sizes(), any::<u8>()).prop_map(|(first, second, seed)| Operation::Rewind { first, second, seed }),
        1 => (numbers(), sizes()).prop_map(|(offset, count)| Operation::Read { offset, count }),
        1 => (1..100u32).prop_map(|piece| Operation::Cursor { piece }),
        3 => numbers().prop_map(|length| Operation::Flip { length }),
    ]
}

/// What is known about one end without looking into it.
struct Turn {
    /// 1 for the client, 0 for the server: the lowest bit of each byte that it writes.
    parity: u8,
    /// The positions that it wrote since it got control.
    fresh: Vec<bool>,
    keeps_stale_bytes: bool,
}

impl Turn {
    /// `count` bytes that this end may write.
    fn bytes(&self, count: u32, seed: u8) -> Vec<u8> {
        let own = |at: u32| (at as u8).wrapping_mul(2).wrapping_add(seed << 1) | self.parity;
        (0..count).map(|at| if own(at) == 0 { 2 } else { own(at) }).collect()
    }

    fn owns(&self, byte: u8) -> bool {
        byte != 0 && byte & 1 == self.parity
    }
}

/// Both ends, control, and what must be in the window.
struct Pair {
    page: Page,
    /// The end that holds control.
    active: Endpoint,
    /// The other one, waiting for it.
    waiting: Waiting,
    turn: Turn,
    next: Turn,
    /// What the bytes behind the header must be.
    memory: Vec<u8>,
    /// The datagram that came with control.
    received: Vec<u8>,
}

impl Pair {
    fn connect(keep: [bool; 2]) -> Self {
        let options = |keep: bool| if keep { Options::new().keep_stale_bytes() } else { Options::new() };
        let page = Page::new(WINDOW);
        let client = waiting(Connector::new(page.window(), options(keep[0])).unwrap().connect(AT_ONCE));
        let server = waiting(Acceptor::new(page.window(), options(keep[1])).unwrap().recv_first(AT_ONCE));
        let mut client = client.connect(AT_ONCE).unwrap();
        // The first call carries nothing, and zeroes what is left of the handshake.
        let client = waiting(client.send_recv(0, AT_ONCE));
        let (mut server, 0) = server.recv_first(AT_ONCE).unwrap() else { panic!("a length from nowhere") };
        server.write_at(0, &[2; 100]).unwrap();
        let server = waiting(server.send_recv(100, AT_ONCE));
        let (mut client, 100) = client.resume(AT_ONCE).unwrap() else { panic!("another length") };
        client.write_at(0, &[1; 100]).unwrap();
        let client = waiting(client.send_recv(100, AT_ONCE));
        let (server, 100) = server.resume(AT_ONCE).unwrap() else { panic!("another length") };
        let turn =
            |parity: u8, keeps_stale_bytes| Turn { parity, fresh: vec![false; CAPACITY as usize], keeps_stale_bytes };
        let memory = page.everything();
        let received = memory[..100].to_vec();
        Self { page, active: server, waiting: client, turn: turn(0, keep[1]), next: turn(1, keep[0]), memory, received }
    }

    fn step(mut self, operation: Operation) -> Self {
        match operation {
            Operation::Write { offset, count, seed } => {
                let bytes = self.turn.bytes(count, seed);
                let fits = u64::from(offset) + u64::from(count) <= u64::from(CAPACITY);
                match self.active.write_at(offset, &bytes) {
                    Ok(()) => assert!(fits),
                    Err(error) => assert!(!fits && error.kind() == ErrorKind::InvalidInput && !error.is_fatal()),
                }
                if fits {
                    self.wrote(offset as usize, &bytes);
                }
            }
            Operation::Rewind { first, second, seed } => self.rewind(first, second, seed),
            Operation::Read { offset, count } => {
                let mut bytes = vec![0xEE; count as usize];
                let end = offset as usize + bytes.len();
                match self.active.read_at(offset, &mut bytes) {
                    // Our own writes go to the same bytes, so what is there now counts.
                    Ok(()) => assert_eq!(bytes, self.memory[offset as usize..end]),
                    Err(error) => {
                        assert!(end > self.received.len(), "{error}");
                        assert_eq!(error.kind(), ErrorKind::InvalidInput);
                        assert!(bytes.iter().all(|&byte| byte == 0xEE), "a refused read copies nothing");
                    }
                }
                assert!(end <= self.received.len() || bytes.iter().all(|&byte| byte == 0xEE));
            }
            Operation::Cursor { piece } => self.read_in_pieces(piece as usize),
            Operation::Flip { length } => return self.flip(length),
        }
        self
    }

    fn wrote(&mut self, offset: usize, bytes: &[u8]) {
        self.memory[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.turn.fresh[offset..offset + bytes.len()].fill(true);
    }

    fn rewind(&mut self, first: u32, second: u32, seed: u8) {
        for (count, seed) in [(first, seed), (second, !seed)] {
            let bytes = self.turn.bytes(count, seed);
            let mut writer = self.active.writer();
            writer.rewind();
            let written = writer.write(&bytes).unwrap();
            assert_eq!(written, bytes.len().min(CAPACITY as usize));
            assert_eq!((writer.written() as usize, writer.remaining()), (written, CAPACITY - written as u32));
            self.wrote(0, &bytes[..written]);
            if seed % 4 == 0 {
                self.overfill(written, seed);
            }
        }
    }

    /// Fills the rest of the window, and a byte more.
    fn overfill(&mut self, from: usize, seed: u8) {
        let bytes = self.turn.bytes(CAPACITY + 1, seed);
        let mut writer = self.active.writer();
        writer.write_all(&self.memory[..from]).unwrap();
        assert_eq!(writer.write_all(&bytes[from..]).unwrap_err().kind(), std::io::ErrorKind::WriteZero);
        self.wrote(from, &bytes[from..CAPACITY as usize]);
    }

    fn read_in_pieces(&self, piece: usize) {
        let mut reader = self.active.reader();
        let mut at = 0;
        loop {
            let mut bytes = vec![0; piece];
            let count = reader.read(&mut bytes).unwrap();
            assert_eq!(count, piece.min(self.received.len() - at));
            assert_eq!(bytes[..count], self.memory[at..at + count]);
            at += count;
            assert_eq!(reader.remaining() as usize, self.received.len() - at);
            if count == 0 {
                return assert!(reader.read_array::<1>().is_none());
            }
        }
    }

    fn flip(mut self, length: u32) -> Self {
        if length > CAPACITY {
            assert_eq!(failed(self.active.send_recv(length, AT_ONCE)).kind(), ErrorKind::InvalidInput);
            return self;
        }
        let waits = waiting(self.active.send_recv(length, AT_ONCE));
        self.pending();
        self.check_window(length as usize);
        // The peer looks before and after the flip, and a wait that missed its deadline goes on.
        let waits = waiting(waits.resume(AT_ONCE));
        let (active, received) = self.waiting.resume(AT_ONCE).unwrap();
        assert_eq!((received, active.received()), (length, length));
        let memory = self.page.everything();
        self.turn.fresh.fill(false);
        Self {
            received: memory[..length as usize].to_vec(),
            memory,
            active,
            waiting: waits,
            turn: self.next,
            next: self.turn,
            page: self.page,
        }
    }

    /// While an answer is pending, the endpoint that it belongs to does nothing.
    fn pending(&mut self) {
        let pending = |kind| assert_eq!(kind, ErrorKind::AnswerPending);
        pending(self.active.write_at(0, b"x").unwrap_err().kind());
        pending(self.active.read_at(0, &mut []).unwrap_err().kind());
        pending(failed(self.active.send_recv(0, AT_ONCE)).kind());
        assert_eq!((self.active.received(), self.active.reader().remaining()), (0, 0));
    }

    /// What the peer finds: the datagram, and behind it nothing that this end ever wrote.
    fn check_window(&self, length: usize) {
        let window = self.page.everything();
        assert_eq!(window[..length], self.memory[..length], "the datagram");
        for (at, &byte) in window.iter().enumerate().skip(length) {
            assert!(byte == 0 || byte == self.memory[at], "byte {at} of {length} is from nowhere: {byte}");
            assert!(byte == 0 || !self.turn.fresh[at], "byte {at} of {length} was written and not sent: {byte}");
            let stale = self.turn.owns(byte) && !self.turn.keeps_stale_bytes;
            assert!(!stale, "byte {at} of {length} is left of an earlier datagram: {byte}");
        }
    }

    /// Ends it, and checks that the end lasts whatever is written to the state word later.
    fn end(mut self, end: &End) {
        let kind = match *end {
            End::Forged(state) => {
                self.page.set_word(0, state);
                match state {
                    2 => ErrorKind::PeerShutdown,
                    _ => ErrorKind::Violation,
                }
            }
            End::Shutdown => {
                self.active.shutdown_handle().shut_down();
                ErrorKind::LocalShutdown
            }
            End::Dropped => {
                drop(self.waiting);
                ErrorKind::PeerShutdown
            }
        };
        let holder = u32::from(self.turn.parity == 0);
        for state in [None, Some(holder), Some(1 - holder), Some(77)] {
            state.into_iter().for_each(|state| self.page.set_word(0, state));
            let error = failed(self.active.send_recv(0, AT_ONCE));
            assert_eq!((error.kind(), error.is_fatal()), (kind, true), "after {end:?}, then {state:?}");
        }
    }
}

/// How a sequence ends.
#[derive(Debug, Clone)]
enum End {
    /// Somebody writes this to the state word.
    Forged(u32),
    /// The end that holds control shuts down.
    Shutdown,
    /// The other one is dropped.
    Dropped,
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        (2..8u32).prop_map(End::Forged),
        any::<u32>().prop_map(|state| End::Forged(state | 2)),
        Just(End::Shutdown),
        Just(End::Dropped)
    ]
}

proptest! {
    #[test]
    fn both_ends_behave_as_the_oracle(
        keep in any::<[bool; 2]>(),
        operations in prop::collection::vec(operations(), 0..40),
        end in ends(),
    ) {
        operations.into_iter().fold(Pair::connect(keep), Pair::step).end(&end);
    }
}
