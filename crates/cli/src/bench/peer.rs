//! The second process: what it is told, and what it does.
//!
//! The benchmark starts its own executable as `flipcall bench-peer`. A command on the control socket names a transport and a number of
//! calls; the peer says that it is ready, answers that many, and reads the next command. It ends with the benchmark, however that
//! ends: the kernel kills it with its parent, and a hang-up of the control socket ends it as well.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use super::transports::{self, Answerer, Inherited, Transport};
use crate::cpus::pin;
use crate::outcome::{Fallible, Outcome};
use crate::sys::inherited;

/// What the peer is started with.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The inherited control socket
    #[arg(long)]
    control: i32,
    /// The inherited memfd
    #[arg(long)]
    memory: i32,
    #[arg(long)]
    payload: u32,
    #[arg(long)]
    cpu: usize,
    /// A transport and the numbers from which its half here is made
    #[arg(long, value_name = "NAME=N,N…")]
    link: Vec<String>,
    /// Answer nothing, only keep the CPU busy
    #[arg(long)]
    hog: bool,
}

/// A batch to be answered.
pub(super) struct Batch {
    /// Which of the links, counted from 0.
    pub(super) link: u64,
    pub(super) calls: u64,
    pub(super) think: Duration,
}

/// Says that the peer is about to answer.
pub(super) const READY: u8 = 1;

impl Batch {
    const BYTES: usize = 3 * size_of::<u64>();

    pub(super) fn send(&self, control: &mut UnixStream) -> Outcome {
        let mut bytes = [0; Self::BYTES];
        let words = [self.link, self.calls, u64::try_from(self.think.as_nanos())?];
        for (place, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(control.write_all(&bytes)?)
    }

    /// The next batch; `None` once the benchmark is through.
    fn receive(control: &mut UnixStream) -> Fallible<Option<Self>> {
        let mut bytes = [0; Self::BYTES];
        match control.read_exact(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let mut words = bytes.as_chunks::<{ size_of::<u64>() }>().0.iter().map(|word| u64::from_ne_bytes(*word));
        let mut next = || words.next().unwrap_or_default();
        Ok(Some(Self { link: next(), calls: next(), think: Duration::from_nanos(next()) }))
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut control = UnixStream::from(inherited().take(arguments.control)?);
    // A parent that died before the signal was asked for shows as a hang-up.
    end_with(control.try_clone()?);
    pin(arguments.cpu)?;
    if arguments.hog {
        loop {
            std::hint::spin_loop();
        }
    }
    let memory = inherited().take(arguments.memory)?;
    let mut answerers = Vec::new();
    for link in &arguments.link {
        answerers.push(answerer(link, &memory, arguments.payload)?);
    }
    while let Some(batch) = Batch::receive(&mut control)? {
        let answerer = usize::try_from(batch.link).ok().and_then(|link| answerers.get_mut(link));
        let answerer = answerer.ok_or("the benchmark named a transport that it did not link")?;
        control.write_all(&[READY])?;
        answerer.answer(batch.calls, batch.think)?;
    }
    Ok(())
}

fn answerer(link: &str, memory: &std::os::fd::OwnedFd, payload: u32) -> Fallible<Box<dyn Answerer>> {
    let (name, numbers) = link.split_once('=').ok_or("a link is NAME=N,N…")?;
    let numbers = numbers.split(',').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    transports::answerer(Transport::parse(name)?, &Inherited { memory, numbers: &numbers, payload })
}

/// Ends this process when the other end of `control` is closed, whatever its other threads are doing.
fn end_with(control: UnixStream) {
    std::thread::spawn(move || {
        wait_for_hang_up(&control);
        // Only a spinner gets here: a peer that reads the socket sees its end and returns.
        std::thread::sleep(Duration::from_millis(100));
        std::process::exit(1)
    });
}

/// Returns once the other end of a socket is closed.
pub(super) fn wait_for_hang_up(socket: impl AsFd) {
    // No event is asked for, so only a hang-up or an error ends the wait; a signal does not.
    while !matches!(poll(&mut [PollFd::new(&socket, PollFlags::empty())], None), Ok(1..)) {}
}
