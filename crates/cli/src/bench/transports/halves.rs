//! What every transport is made of: a caller here, an answerer in the peer, and what the two are made from.

use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use flipcall::process::pass_descriptor;
use flipcall::window::{Allocator, Seals, Window};

use crate::outcome::{Fallible, Outcome};
use crate::sys::inherited;
use crate::sys::shared_memory::SharedMemory;

/// The caller's half of a transport, and the numbers from which the peer makes the other one.
pub(in crate::bench) struct Prepared {
    pub(in crate::bench) caller: Box<dyn Caller>,
    pub(in crate::bench) numbers: Vec<u64>,
}

/// Calls.
pub(in crate::bench) trait Caller {
    /// Gets ready for calls; not timed. The peer is answering by now.
    fn begin(&mut self) -> Outcome {
        Ok(())
    }

    /// One call.
    fn call(&mut self) -> Outcome;

    /// `count` calls, without reading the clock.
    fn calls(&mut self, count: u64) -> Outcome {
        (0..count).try_for_each(|_| self.call())
    }

    /// `count` calls with one reading of the clock after each: appends what they took, in nanoseconds.
    fn timed_calls(&mut self, count: u64, times: &mut Vec<u64>) -> Outcome {
        let mut before = Instant::now();
        for _ in 0..count {
            self.call()?;
            let after = Instant::now();
            times.push(u64::try_from((after - before).as_nanos())?);
            before = after;
        }
        Ok(())
    }
}

/// Answers calls.
pub(in crate::bench) trait Answerer {
    /// Answers `count` calls, each after thinking for `think`, and returns.
    fn answer(&mut self, count: u64, think: Duration) -> Outcome;
}

/// Works for `think`, as a server that computes its answer would. Zero reads no clock.
#[inline(always)]
pub(super) fn work(think: Duration) {
    if !think.is_zero() {
        let start = Instant::now();
        while start.elapsed() < think {
            std::hint::spin_loop();
        }
    }
}

/// What the callers are made with: the command that starts the peer, and the memory that both map.
pub(in crate::bench) struct Preparing<'a> {
    pub(in crate::bench) command: &'a mut Command,
    pub(in crate::bench) memory: &'a Allocator,
}

impl Preparing<'_> {
    /// A window for a payload, here and in numbers for the peer.
    pub(super) fn window(&self, payload: u32) -> Fallible<(Window, Vec<u64>)> {
        let descriptor = self.memory.allocate(window_length(payload))?;
        let numbers = vec![descriptor.offset(), u64::from(descriptor.length())];
        Ok((Window::map(&descriptor)?, numbers))
    }

    /// Shared memory as long as that window, without its protocol.
    pub(super) fn memory(&self, payload: u32) -> Fallible<(SharedMemory, Vec<u64>)> {
        let descriptor = self.memory.allocate(window_length(payload))?;
        let (fd, offset, length) = (descriptor.fd(), descriptor.offset(), descriptor.length());
        Ok((SharedMemory::map(fd, offset, length)?, vec![offset, u64::from(length)]))
    }

    pub(super) fn pass(&mut self, fd: impl AsFd) -> Fallible<u64> {
        Ok(u64::try_from(pass_descriptor(self.command, fd)?)?)
    }
}

/// Bytes of a window for a payload, before rounding up to pages.
pub(in crate::bench) fn window_length(payload: u32) -> u32 {
    payload + flipcall::window::HEADER_LEN
}

/// What the answerers are made from.
pub(in crate::bench) struct Inherited<'a> {
    pub(in crate::bench) memory: &'a std::os::fd::OwnedFd,
    pub(in crate::bench) numbers: &'a [u64],
    pub(in crate::bench) payload: u32,
}

impl Inherited<'_> {
    pub(super) fn number(&self, index: usize) -> Fallible<u64> {
        Ok(*self.numbers.get(index).ok_or("the benchmark passed too few numbers to its peer")?)
    }

    /// Offset and length, which stand from `index` on.
    pub(super) fn range(&self, index: usize) -> Fallible<(u64, u32)> {
        Ok((self.number(index)?, u32::try_from(self.number(index + 1)?)?))
    }

    /// The window whose offset and length stand from `index` on.
    pub(super) fn window(&self, index: usize) -> Fallible<Window> {
        let (offset, length) = self.range(index)?;
        Ok(Window::receive(self.memory.try_clone()?, offset, length, Seals::Strict)?)
    }

    /// The shared memory whose offset and length stand from `index` on.
    pub(super) fn memory(&self, index: usize) -> Fallible<SharedMemory> {
        let (offset, length) = self.range(index)?;
        Ok(SharedMemory::map(self.memory.as_fd(), offset, length)?)
    }

    pub(super) fn descriptor(&self, index: usize) -> Fallible<std::os::fd::OwnedFd> {
        Ok(inherited().take(i32::try_from(self.number(index)?)?)?)
    }

    pub(super) fn buffer(&self) -> Vec<u8> {
        vec![0; self.payload as usize]
    }
}

/// What a call carries.
pub(super) fn payload_bytes(length: u32) -> Vec<u8> {
    (0..length).map(|byte| byte as u8).collect()
}
