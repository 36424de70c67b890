//! What the kernel offers: a pair of pipes, a pair of event counters beside shared memory, a pair of connected sockets.
//!
//! A call without a payload carries one byte: none of them carries an empty message.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::halves::{Answerer, Caller, Inherited, Prepared, Preparing, payload_bytes, work};
use super::kind::Transport;
use crate::outcome::{Fallible, Outcome};
use crate::sys::shared_memory::SharedMemory;

/// Two files, one for each direction; they may be the same socket.
struct Duplex {
    input: File,
    output: File,
    message: Vec<u8>,
}

impl Duplex {
    fn new(input: OwnedFd, output: OwnedFd, mut message: Vec<u8>) -> Self {
        if message.is_empty() {
            message.push(0);
        }
        Self { input: input.into(), output: output.into(), message }
    }
}

impl Caller for Duplex {
    fn call(&mut self) -> Outcome {
        self.output.write_all(&self.message)?;
        Ok(self.input.read_exact(&mut self.message)?)
    }
}

impl Answerer for Duplex {
    fn answer(&mut self, count: u64, think: Duration) -> Outcome {
        for _ in 0..count {
            self.input.read_exact(&mut self.message)?;
            work(think);
            self.output.write_all(&self.message)?;
        }
        Ok(())
    }
}

pub(super) fn pipe(link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
    let (their_input, our_output) = std::io::pipe()?;
    let (our_input, their_output) = std::io::pipe()?;
    let numbers = vec![link.pass(their_input)?, link.pass(their_output)?];
    let caller = Duplex::new(our_input.into(), our_output.into(), payload_bytes(payload));
    Ok(Prepared { caller: Box::new(caller), numbers })
}

pub(super) fn answer_pipe(link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
    Ok(Box::new(Duplex::new(link.descriptor(0)?, link.descriptor(1)?, link.buffer())))
}

pub(super) fn socket(transport: Transport, link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
    let kind = match transport {
        Transport::UnixSeqpacket => SocketType::SEQPACKET,
        _ => SocketType::STREAM,
    };
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    let numbers = vec![link.pass(theirs)?];
    let caller = Duplex::new(ours.try_clone()?, ours, payload_bytes(payload));
    Ok(Prepared { caller: Box::new(caller), numbers })
}

pub(super) fn answer_socket(link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
    let socket = link.descriptor(0)?;
    Ok(Box::new(Duplex::new(socket.try_clone()?, socket, link.buffer())))
}

/// An event counter each way; the payload lies in shared memory.
struct Events {
    input: File,
    output: File,
    memory: SharedMemory,
    payload: Vec<u8>,
    answer: Vec<u8>,
}

impl Events {
    fn signal(&mut self) -> Outcome {
        Ok(self.output.write_all(&1u64.to_ne_bytes())?)
    }

    fn wait(&mut self) -> Outcome {
        Ok(self.input.read_exact(&mut [0; size_of::<u64>()])?)
    }
}

impl Caller for Events {
    fn call(&mut self) -> Outcome {
        self.memory.bytes().copy_in(&self.payload);
        self.signal()?;
        self.wait()?;
        self.memory.bytes().copy_out(&mut self.answer);
        Ok(())
    }
}

impl Answerer for Events {
    fn answer(&mut self, count: u64, think: Duration) -> Outcome {
        for _ in 0..count {
            self.wait()?;
            self.memory.bytes().copy_out(&mut self.answer);
            work(think);
            self.memory.bytes().copy_in(&self.answer);
            self.signal()?;
        }
        Ok(())
    }
}

pub(super) fn eventfd(link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
    let (memory, mut numbers) = link.memory(payload)?;
    let there = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    let back = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    numbers.extend([link.pass(&there)?, link.pass(&back)?]);
    let payload = payload_bytes(payload);
    let caller = Events { input: back.into(), output: there.into(), memory, answer: payload.clone(), payload };
    Ok(Prepared { caller: Box::new(caller), numbers })
}

pub(super) fn answer_eventfd(link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
    Ok(Box::new(Events {
        memory: link.memory(0)?,
        input: link.descriptor(2)?.into(),
        output: link.descriptor(3)?.into(),
        payload: Vec::new(),
        answer: link.buffer(),
    }))
}
