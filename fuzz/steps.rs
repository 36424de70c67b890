//! What a peer of typed calls can put into a channel's window and onto the socket beside it, told by bytes.
//!
//! The peer keeps the rules of the window itself, which other inputs break. Each step is a byte that says what it does, and what that
//! takes; a step repeats a byte as often as it says, so that a short input describes a long datagram.

use std::io::{ErrorKind as Io, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flipcall::ErrorKind;
use flipcall::endpoint::{Endpoint, Interrupted};
use flipcall::stream::{ATTACH, send_with_fd};

use super::page::AT_ONCE;
use super::{CAPACITY, Input, Ours};

/// The largest message of either side: more than one frame of bulk.
pub const MAXIMUM: u32 = 3 << 20;
/// Nobody waits as long as that for a peer that is still there.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long the peer waits for a side that may be waiting for it, before it hangs up.
const STALL: Duration = Duration::from_millis(50);

const BULK: u16 = 0xFFF3;
const CONTINUE: u16 = 0xFFF4;
const FLAG_BULK: u8 = 1;
const FLAG_PARTS: u8 = 2;

/// One end of a channel, in the hands of somebody who keeps no rule of its messages.
pub struct Hostile {
    /// Gone once the window was shut down, which is noticed when control is wanted next: so what a step finds is no matter of time.
    control: Option<Ours>,
    is_over: bool,
    socket: UnixStream,
    /// Bytes that a first part and those after it have brought.
    brought: u64,
    /// Bytes of bulk that were announced and not sent.
    owed: u64,
}

impl Hostile {
    pub fn new(endpoint: Endpoint, socket: UnixStream) -> Self {
        // A side that does not read now may never do so.
        socket.set_write_timeout(Some(STALL)).expect("it is not zero");
        Self { control: Some(Ours::Active(endpoint)), is_over: false, socket, brought: 0, owed: 0 }
    }

    /// Takes steps until the input or the channel has ended, and waits for what comes of the last.
    pub fn play(&mut self, input: &mut Input<'_>) {
        while !self.is_over && !input.is_empty() {
            self.step(input);
        }
        self.control = self.take_control().map(Ours::Active);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = Step(input.byte());
        match step.0 % 8 {
            0 => {
                let count = input.number();
                self.flip(input.take(count.min(CAPACITY)));
            }
            1 => {
                let mut datagram = step.head(input, 0);
                let size = input.number().min(CAPACITY);
                fill(input, &mut datagram, size);
                self.flip(&datagram);
            }
            2 => {
                let mut datagram = step.head(input, FLAG_BULK);
                let length = step.length(input);
                datagram.extend(length.to_ne_bytes());
                self.flip(&datagram);
                self.owed = length;
            }
            3 => {
                let mut datagram = step.head(input, FLAG_PARTS);
                datagram.extend([0; 4]);
                datagram.extend(step.length(input).to_ne_bytes());
                self.brought = 0;
                self.part(input, datagram);
            }
            4 => {
                let head = [BULK.to_ne_bytes(), [0, FLAG_PARTS], [0; 2], [0; 2]].concat();
                let mut datagram = if step.has(LITERAL) { input.take(8).to_vec() } else { head };
                let offset = if step.has(ODD) { step.length(input) } else { self.brought };
                datagram.extend(offset.to_ne_bytes());
                self.part(input, datagram);
            }
            5 => self.frame(input, step),
            6 => self.on_socket(input, step),
            _ => self.flip(&[CONTINUE.to_ne_bytes(), [0; 2]].concat()),
        }
    }

    fn part(&mut self, input: &mut Input<'_>, mut datagram: Vec<u8>) {
        let (front, size) = (datagram.len(), input.number().min(CAPACITY));
        fill(input, &mut datagram, size);
        self.brought += (datagram.len().min(CAPACITY as usize) - front) as u64;
        self.flip(&datagram);
    }

    /// A frame of bulk on the socket, or one that is not.
    fn frame(&mut self, input: &mut Input<'_>, step: Step) {
        let tag = if step.has(ODD) { tag(input) } else { BULK };
        let mut payload = Vec::new();
        let size = input.number().min(MAXIMUM);
        fill(input, &mut payload, size);
        let length = if step.has(WIDE) { input.number() } else { size };
        self.owed = self.owed.saturating_sub(u64::from(size));
        self.write(&[&tag.to_be_bytes()[..], &length.to_be_bytes(), &payload].concat());
    }

    /// Everything else that can be done with the socket.
    fn on_socket(&mut self, input: &mut Input<'_>, step: Step) {
        let count = input.byte();
        if step.has(LITERAL) {
            return self.write(input.take(u32::from(count)));
        }
        if step.has(WIDE) {
            return drop(self.socket.shutdown(Shutdown::Write));
        }
        let tag = if step.has(ODD) { tag(input) } else { ATTACH };
        let message = [&tag.to_be_bytes()[..], &1u32.to_be_bytes(), &[count]].concat();
        // A side that has hung up does not take it.
        drop(send_with_fd(&self.socket, &message, std::io::stderr(), STALL));
    }

    /// What is not taken goes nowhere: the other side has hung up, or will see that this one has.
    fn write(&mut self, bytes: &[u8]) {
        if self.socket.write_all(bytes).is_err() {
            drop(self.socket.shutdown(Shutdown::Both));
        }
    }

    /// Hands control over with a datagram.
    fn flip(&mut self, datagram: &[u8]) {
        let Some(mut endpoint) = self.take_control() else { return };
        let datagram = &datagram[..datagram.len().min(CAPACITY as usize)];
        let length = endpoint.write_datagram(datagram).expect("control is here");
        self.owed = 0;
        self.control = match endpoint.send_recv(length, AT_ONCE) {
            Ok(_) => Some(Ours::Active(endpoint)),
            Err(Interrupted::TimedOut(waiting)) => Some(Ours::Waiting(waiting)),
            Err(Interrupted::Failed(error)) => was_shut_down(&error),
        };
    }

    /// Waits for control: the other side gives it back, or shuts the window down, but it never keeps it.
    fn take_control(&mut self) -> Option<Endpoint> {
        let taken = self.wait();
        self.is_over = taken.is_none();
        taken
    }

    fn wait(&mut self) -> Option<Endpoint> {
        let waiting = match self.control.take()? {
            Ours::Active(endpoint) => return Some(endpoint),
            Ours::Waiting(waiting) => waiting,
        };
        if self.owed > 0 {
            drop(self.socket.shutdown(Shutdown::Write));
        }
        let resumed = match waiting.resume(STALL) {
            Err(Interrupted::TimedOut(waiting)) => {
                drop(self.socket.shutdown(Shutdown::Both));
                waiting.resume(PATIENCE)
            }
            resumed => resumed,
        };
        // What came beside a datagram does not matter, only that it was taken.
        self.drain();
        match resumed {
            Ok((endpoint, _)) => Some(endpoint),
            Err(Interrupted::Failed(error)) => was_shut_down(&error),
            Err(Interrupted::TimedOut(_)) => panic!("the peer kept control"),
        }
    }

    /// Reads what is there. Descriptors that came with it are closed by the kernel.
    fn drain(&mut self) {
        self.socket.set_nonblocking(true).expect("a socket can be that");
        let mut buffer = [0; 16 << 10];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => break assert!(matches!(error.kind(), Io::WouldBlock | Io::ConnectionReset), "{error}"),
            }
        }
        self.socket.set_nonblocking(false).expect("a socket can be that");
    }
}

/// The only way in which a window that is used by the rules ends.
fn was_shut_down<T>(error: &flipcall::Error) -> Option<T> {
    assert_eq!(error.kind(), ErrorKind::PeerShutdown, "{error:?}");
    None
}

/// Bits of a step: its message has other descriptors, flags, type or offset than belong there.
const ODD: u8 = 1 << 3;
/// A length is beyond 32 bits, or not the length that follows.
const WIDE: u8 = 1 << 4;
/// Bytes are given one by one.
const LITERAL: u8 = 1 << 5;

/// The first byte of a step: what it is, in three bits, and how it is told.
#[derive(Clone, Copy)]
struct Step(u8);

impl Step {
    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// The header of a message in a window.
    fn head(self, input: &mut Input<'_>, flags: u8) -> Vec<u8> {
        let tag = tag(input).to_ne_bytes();
        let more = if self.has(ODD) { [input.byte(), input.byte()] } else { [0, flags] };
        [tag, more].concat()
    }

    fn length(self, input: &mut Input<'_>) -> u64 {
        let length = u64::from(input.number());
        if self.has(WIDE) { length | length << 32 } else { length }
    }
}

/// Adds `size` bytes: those that are given, then a byte as often as it takes.
fn fill(input: &mut Input<'_>, bytes: &mut Vec<u8>, size: u32) {
    let end = bytes.len() + size as usize;
    let given = u32::from(input.byte());
    bytes.extend(input.take(given.min(size)));
    bytes.resize(end, input.byte());
}

/// A message's type: one of the service's few, or one of the protocol's.
fn tag(input: &mut Input<'_>) -> u16 {
    match input.byte() {
        service @ ..0x80 => u16::from(service),
        answer @ 0x80..0xF0 => 0xFF00 | u16::from(answer & 0x0F),
        other => 0xFF00 | u16::from(other),
    }
}
