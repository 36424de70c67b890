//! A window seen from outside: its file is read and written directly, past every endpoint. This is what a peer sees and can do.
#![allow(dead_code, reason = "each test uses its part")]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use flipcall::endpoint::Interrupted;
use flipcall::window::{Allocator, HEADER_LEN, Seals, Window};
use flipcall::{Error, Result};

/// A wait that tries once and never sleeps.
pub const AT_ONCE: Duration = Duration::ZERO;
/// The offer of a client that speaks every extension, byte by byte.
pub const OFFER: &[u8] = b"{\"flipcall\":{\"version\":1,\"extensions\":[\"park\"]}}\n";
/// The handshake datagram of one that speaks none.
pub const BASE: &[u8] = b"{}\n";

/// A file with one window at its start.
pub struct Page {
    pub allocator: Allocator,
    file: File,
    length: u32,
}

impl Page {
    /// A window of `length` bytes, a multiple of the page size.
    pub fn new(length: u32) -> Self {
        let allocator = Allocator::with_size(u64::from(length)).unwrap();
        assert_eq!(allocator.allocate(length).unwrap().offset(), 0);
        let file = File::from(allocator.fd().try_clone_to_owned().unwrap());
        Self { allocator, file, length }
    }

    /// One more mapping of the window.
    pub fn window(&self) -> Window {
        let fd = self.allocator.fd().as_fd().try_clone_to_owned().unwrap();
        Window::receive(fd, 0, self.length, Seals::Strict).unwrap()
    }

    /// State, length and the two park words.
    pub fn words(&self) -> [u32; 4] {
        let mut bytes = [0; HEADER_LEN as usize];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        std::array::from_fn(|word| u32::from_ne_bytes(bytes[4 * word..4 * word + 4].try_into().unwrap()))
    }

    /// Overwrites header word 0 to 3.
    pub fn set_word(&self, word: u64, value: u32) {
        self.file.write_all_at(&value.to_ne_bytes(), 4 * word).unwrap();
    }

    /// The first `count` bytes behind the header.
    pub fn datagram(&self, count: u32) -> Vec<u8> {
        let mut bytes = vec![0; count as usize];
        self.file.read_exact_at(&mut bytes, u64::from(HEADER_LEN)).unwrap();
        bytes
    }

    /// Every byte behind the header.
    pub fn everything(&self) -> Vec<u8> {
        self.datagram(self.length - HEADER_LEN)
    }

    /// Overwrites bytes behind the header. Returns their number.
    pub fn set_datagram(&self, offset: u32, bytes: &[u8]) -> u32 {
        self.file.write_all_at(bytes, u64::from(HEADER_LEN + offset)).unwrap();
        u32::try_from(bytes.len()).unwrap()
    }

    /// Flips by hand: a datagram, its length, then the state.
    pub fn flip(&self, datagram: &[u8], state: u32) {
        let length = self.set_datagram(0, datagram);
        self.set_word(1, length);
        self.set_word(0, state);
    }
}

/// What a call that missed its deadline left.
#[track_caller]
pub fn waiting<T, S>(result: Result<T, Interrupted<S>>) -> S {
    match result {
        Err(Interrupted::TimedOut(state)) => state,
        Err(Interrupted::Failed(error)) => panic!("instead of a timeout: {error}"),
        Ok(_) => panic!("instead of a timeout: an answer"),
    }
}

/// What a call that failed for another reason than its deadline says.
#[track_caller]
pub fn failed<T, S>(result: Result<T, Interrupted<S>>) -> Error {
    match result {
        Err(Interrupted::Failed(error)) => error,
        Err(Interrupted::TimedOut(_)) => panic!("a timeout"),
        Ok(_) => panic!("an answer"),
    }
}
