//! What the fuzzers do with their bytes. `tests/corpus.rs` replays the committed corpora through the same functions.
//!
//! Each is a plain function of a byte string that panics if something is wrong. They use the safe public API and one more descriptor
//! of the window's file, which is all that a peer has.

#[path = "calls.rs"]
mod calls;
#[path = "channels.rs"]
mod channels;
#[path = "ended.rs"]
mod ended;
#[path = "messages.rs"]
mod messages;
#[path = "../tests/page/mod.rs"]
mod page;
#[path = "steps.rs"]
mod steps;

pub use calls::rpc;
pub use messages::message;

use std::io::{Read, Write};

use flipcall::endpoint::{Acceptor, Connector, Endpoint, Interrupted, Options};
use flipcall::endpoint::{Greeting, Waiting};
use flipcall::window::HEADER_LEN;
use flipcall::{Error, ErrorKind};
use page::{AT_ONCE, BASE, OFFER, Page, waiting};

/// Bytes of the windows: the shortest.
const WINDOW: u32 = 4096;
const CAPACITY: u32 = WINDOW - HEADER_LEN;

/// Takes the input apart from its front; past the end everything is zero.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A small number most of the time, since most numbers are out of every range.
    fn number(&mut self) -> u32 {
        match self.byte() {
            255 => self.word(),
            254 => CAPACITY - 2 + u32::from(self.byte() % 5),
            small @ 192..=253 => u32::from(small - 192) << 8 | u32::from(self.byte()),
            small => u32::from(small),
        }
    }

    fn take(&mut self, count: u32) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(self.0.len().min(count as usize));
        self.0 = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An error that a peer's bytes may lead to.
fn check(error: &Error) {
    let blamed = matches!(error.kind(), ErrorKind::Violation | ErrorKind::PeerShutdown | ErrorKind::Timeout);
    assert!(blamed, "the peer's bytes led to {error:?}");
}

fn check_interrupted<S>(interrupted: Interrupted<S>) {
    check(&interrupted.into());
}

/// Header words in any state: four words before each of our steps, both as the client and as the server.
pub fn header(data: &[u8]) {
    for is_client in [true, false] {
        let mut input = Input(data);
        let page = Page::new(WINDOW);
        let overwrite = |input: &mut Input<'_>| {
            if !input.is_empty() {
                (0..4).for_each(|word| page.set_word(word, input.word()));
            }
        };
        overwrite(&mut input);
        let connected = if is_client {
            let client = Connector::new(page.window(), Options::new()).unwrap();
            match client.connect(AT_ONCE) {
                Err(Interrupted::TimedOut(client)) => {
                    page.set_datagram(0, BASE);
                    overwrite(&mut input);
                    client.connect(AT_ONCE).map_err(check_interrupted).ok()
                }
                other => other.map_err(check_interrupted).ok(),
            }
        } else {
            page.set_datagram(0, OFFER);
            let server = Acceptor::new(page.window(), Options::new()).unwrap();
            match server.recv_first(AT_ONCE) {
                Err(Interrupted::TimedOut(server)) => {
                    overwrite(&mut input);
                    server.recv_first(AT_ONCE).map(|(endpoint, _)| endpoint).map_err(check_interrupted).ok()
                }
                other => other.map(|(endpoint, _)| endpoint).map_err(check_interrupted).ok(),
            }
        };
        let Some(mut endpoint) = connected else { continue };
        assert!(endpoint.received() <= CAPACITY);
        overwrite(&mut input);
        match endpoint.send_recv(input.number().min(CAPACITY), AT_ONCE) {
            Ok(length) => assert!(length <= CAPACITY),
            Err(interrupted) => check_interrupted(interrupted),
        }
    }
}

/// A handshake datagram, parsed as it is and received through a window by both sides.
pub fn handshake(data: &[u8]) {
    let parsed = Greeting::parse(data);
    if let Ok(greeting) = &parsed {
        assert!(data.len() <= 4096 && data.starts_with(b"{") && data.ends_with(b"}\n"));
        // Saying it again in our own words keeps what we know of it.
        assert_eq!(Greeting::parse(greeting.encode()).unwrap().park(), greeting.park());
    }
    let length = u32::try_from(data.len().min(8000)).unwrap();
    let page = Page::new(8192);
    page.flip(&data[..length as usize], 1);
    let served = Acceptor::new(page.window(), Options::new()).unwrap().recv_first(AT_ONCE);
    match &parsed {
        Ok(_) => drop(waiting(served)),
        Err(_) => assert_eq!(page::failed(served).kind(), ErrorKind::Violation),
    }

    let page = Page::new(8192);
    let client = waiting(Connector::new(page.window(), Options::new()).unwrap().connect(AT_ONCE));
    page.flip(&data[..length as usize], 0);
    let connected = client.connect(AT_ONCE);
    match &parsed {
        Ok(greeting) if !greeting.names_unknown() => assert_eq!(connected.unwrap().elides_wakes(), greeting.park()),
        _ => assert_eq!(page::failed(connected).kind(), ErrorKind::Violation),
    }
}

/// What we hold of a connection.
enum Ours {
    Active(Endpoint),
    Waiting(Waiting),
}

/// Our operations and a peer's writes, in any order. Once it failed for good, it fails in the same way for ever.
pub fn state(data: &[u8]) {
    let mut input = Input(data);
    let page = Page::new(WINDOW);
    let client = waiting(Connector::new(page.window(), Options::new()).unwrap().connect(AT_ONCE));
    page.flip(if input.byte() % 2 == 0 { OFFER } else { BASE }, 0);
    let mut ours = Ours::Active(client.connect(AT_ONCE).unwrap());
    let mut poisoned = None;
    while !input.is_empty() {
        ours = match (input.byte() % 8, ours) {
            (0, ours) => {
                page.set_word(u64::from(input.byte() % 4), input.word());
                ours
            }
            (1, ours) => {
                let (offset, count) = (input.number() % CAPACITY, u32::from(input.byte()));
                page.set_datagram(offset, input.take(count.min(CAPACITY - offset)));
                ours
            }
            (2, ours) => {
                page.set_word(0, u32::from(input.byte() % 3));
                ours
            }
            (3, Ours::Active(mut endpoint)) => {
                let (offset, count) = (input.number(), u32::from(input.byte()));
                let bytes = input.take(count);
                let fits = u64::from(offset) + bytes.len() as u64 <= u64::from(CAPACITY);
                assert_eq!(endpoint.write_at(offset, bytes).is_ok(), fits && poisoned.is_none());
                Ours::Active(endpoint)
            }
            (4, Ours::Active(endpoint)) => {
                let (offset, mut bytes) = (input.number(), vec![0; input.number().min(CAPACITY) as usize]);
                let fits = u64::from(offset) + bytes.len() as u64 <= u64::from(endpoint.received());
                assert_eq!(endpoint.read_at(offset, &mut bytes).is_ok(), fits);
                Ours::Active(endpoint)
            }
            (_, Ours::Active(endpoint)) => match call(endpoint, input.number(), &mut poisoned) {
                Some(ours) => ours,
                None => return,
            },
            (_, Ours::Waiting(waits)) => match waits.resume(AT_ONCE) {
                Ok((endpoint, length)) => {
                    assert!(length <= CAPACITY && length == endpoint.received());
                    Ours::Active(endpoint)
                }
                Err(Interrupted::TimedOut(waits)) => Ours::Waiting(waits),
                Err(Interrupted::Failed(error)) => return check(&error),
            },
        };
    }
}

/// One call. `None` once there is nothing left to do with the endpoint.
fn call(mut endpoint: Endpoint, length: u32, poisoned: &mut Option<ErrorKind>) -> Option<Ours> {
    match endpoint.send_recv(length, AT_ONCE) {
        Ok(received) => assert!(length <= CAPACITY && received <= CAPACITY && poisoned.is_none()),
        Err(Interrupted::TimedOut(waits)) => {
            assert!(poisoned.is_none(), "poisoned, it flipped");
            return Some(Ours::Waiting(waits));
        }
        Err(Interrupted::Failed(error)) => match *poisoned {
            Some(kind) => assert_eq!(error.kind(), kind),
            None if error.kind() == ErrorKind::InvalidInput => assert!(length > CAPACITY),
            None => {
                check(&error);
                *poisoned = Some(error.kind());
            }
        },
    }
    Some(Ours::Active(endpoint))
}

/// Cursors over a received datagram and over the next one, against a byte string.
pub fn cursors(data: &[u8]) {
    let mut input = Input(data);
    let page = Page::new(WINDOW);
    let client = waiting(Connector::new(page.window(), Options::new()).unwrap().connect(AT_ONCE));
    page.flip(BASE, 0);
    let mut endpoint = client.connect(AT_ONCE).unwrap();
    let Err(Interrupted::TimedOut(waits)) = endpoint.send_recv(0, AT_ONCE) else { panic!("nobody answered") };
    let count = input.number().min(CAPACITY);
    let mut datagram = input.take(count).to_vec();
    datagram.resize(count as usize, 0xA5);
    page.flip(&datagram, 0);
    let (mut endpoint, _) = waits.resume(AT_ONCE).unwrap();

    let reads = u32::from(input.byte());
    read_all(&mut Input(input.take(reads)), &endpoint, &datagram);

    let mut written: Vec<u8> = Vec::new();
    let mut writer = endpoint.writer();
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => {
                writer.rewind();
                written.clear();
            }
            1 => {
                let bytes = vec![input.byte(); input.number().min(2 * CAPACITY) as usize];
                let took = writer.write(&bytes).unwrap();
                assert_eq!(took, bytes.len().min(CAPACITY as usize - written.len()));
                written.extend(&bytes[..took]);
            }
            _ => {
                let count = u32::from(input.byte());
                let bytes = input.take(count);
                let fits = bytes.len() <= CAPACITY as usize - written.len();
                assert_eq!(writer.write_all(bytes).is_ok(), fits);
                written.extend(&bytes[..bytes.len().min(CAPACITY as usize - written.len())]);
            }
        }
        assert_eq!(
            (writer.written() as usize, writer.remaining() as usize),
            (written.len(), CAPACITY as usize - written.len())
        );
    }
    let length = writer.written();
    drop(endpoint.send_recv(length, AT_ONCE));
    let window = page.everything();
    assert_eq!(window[..written.len()], written);
    // What was written before a rewind is gone; behind it there is at most the datagram that came.
    for (at, &byte) in window.iter().enumerate().skip(written.len()) {
        assert!(byte == 0 || datagram.get(at) == Some(&byte) || BASE.get(at) == Some(&byte), "byte {at} went out");
    }
}

/// Reads a datagram in whatever pieces the input says.
fn read_all(input: &mut Input<'_>, endpoint: &Endpoint, datagram: &[u8]) {
    let mut reader = endpoint.reader();
    let mut left = datagram;
    while !input.is_empty() {
        let array = match input.byte() % 8 {
            0 => reader.read_array::<0>().map(Vec::from),
            1 => reader.read_array::<1>().map(Vec::from),
            2 => reader.read_array::<4>().map(Vec::from),
            3 => reader.read_array::<8>().map(Vec::from),
            4 => reader.read_array::<300>().map(Vec::from),
            _ => {
                let mut bytes = vec![0; input.number().min(2 * CAPACITY) as usize];
                let count = reader.read(&mut bytes).unwrap();
                assert_eq!(count, bytes.len().min(left.len()));
                bytes.truncate(count);
                Some(bytes)
            }
        };
        if let Some(bytes) = array {
            assert_eq!(bytes, left[..bytes.len()]);
            left = &left[bytes.len()..];
        }
        assert_eq!(reader.remaining() as usize, left.len());
    }
}
