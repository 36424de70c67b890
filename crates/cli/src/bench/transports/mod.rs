//! The ways in which two processes can call each other, each in two halves: the caller in the benchmark's process, and the answerer in
//! its peer. Every call carries the payload there and back, and each side copies it in and out.

mod bare;
mod kernel;
mod rpc;
mod window;

use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use flipcall::process::pass_descriptor;
use flipcall::window::{Allocator, Seals, Window};

use crate::Outcome;
use crate::sys::inherited;
use crate::sys::shared_memory::SharedMemory;

/// A fallible result of the command line.
pub(super) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// The most payload bytes of a row that carries each call in one datagram of a socket: default socket buffers hold 208 KiB, which counts
/// the kernel's bookkeeping too.
pub(super) const MOST_SEQPACKET: u32 = 128 << 10;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    BareSpin,
    BareFutex,
    BareCopy,
    WindowAdaptive,
    WindowSpin,
    WindowPark,
    Pipe,
    Eventfd,
    UnixStream,
    UnixSeqpacket,
    RpcWindow,
    RpcBulk,
    RpcSocket,
}

impl Transport {
    /// All of them, in the order of the table.
    pub(super) const ALL: [Self; 13] = [
        Self::BareSpin,
        Self::BareCopy,
        Self::BareFutex,
        Self::WindowSpin,
        Self::WindowAdaptive,
        Self::WindowPark,
        Self::Pipe,
        Self::Eventfd,
        Self::UnixStream,
        Self::UnixSeqpacket,
        Self::RpcWindow,
        Self::RpcBulk,
        Self::RpcSocket,
    ];

    /// Whether it is measured unless others are asked for: `rpc-bulk` differs from `rpc-window` above the window's length alone.
    pub(super) fn is_default(self) -> bool {
        self != Self::RpcBulk
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BareSpin => "bare-spin",
            Self::BareFutex => "bare-futex",
            Self::BareCopy => "bare-copy",
            Self::WindowAdaptive => "window-adaptive",
            Self::WindowSpin => "window-spin",
            Self::WindowPark => "window-park",
            Self::Pipe => "pipe",
            Self::Eventfd => "eventfd",
            Self::UnixStream => "unix-stream",
            Self::UnixSeqpacket => "unix-seqpacket",
            Self::RpcWindow => "rpc-window",
            Self::RpcBulk => "rpc-bulk",
            Self::RpcSocket => "rpc-socket",
        }
    }

    /// Reads a name from the command line.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|transport| transport.name() == name);
        found.ok_or_else(|| {
            format!("there is no such transport; there are {}", Self::ALL.map(Self::name).join(", "))
        })
    }

    /// Whether the row makes sense. A bare spinner on a shared CPU would wait for a time slice per flip, `bare-spin` carries no bytes, and
    /// `bare-copy` is `bare-spin` without them.
    pub(super) fn can_run(self, payload: u32, shares_cpu: bool) -> bool {
        match self {
            Self::BareSpin => !shares_cpu && payload == 0,
            Self::BareCopy => !shares_cpu && payload > 0,
            Self::UnixSeqpacket => payload <= MOST_SEQPACKET,
            _ => true,
        }
    }

    /// Whether the caller spins before it sleeps.
    fn spins(self) -> bool {
        matches!(self, Self::WindowSpin | Self::WindowAdaptive | Self::RpcWindow | Self::RpcBulk)
    }

    /// The row that this one is compared with: the least that a caller can do that waits in the same way. Where both sides share a
    /// CPU nobody can answer a spinner, so every row is compared with the one that sleeps.
    pub(super) fn limit(self, payload: u32, shares_cpu: bool) -> Self {
        match self {
            Self::BareSpin | Self::BareCopy => self,
            Self::RpcSocket => Self::UnixStream,
            _ if shares_cpu || !self.spins() => Self::BareFutex,
            _ if payload == 0 => Self::BareSpin,
            _ => Self::BareCopy,
        }
    }

    /// Makes the caller's half, and whatever `command` has to inherit for the other one.
    pub(super) fn prepare(self, link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
        match self {
            Self::BareSpin | Self::BareCopy => bare::spin(link, payload),
            Self::BareFutex => bare::futex(link, payload),
            Self::WindowAdaptive | Self::WindowSpin | Self::WindowPark => window::prepare(self, link, payload),
            Self::Pipe => kernel::pipe(link, payload),
            Self::Eventfd => kernel::eventfd(link, payload),
            Self::UnixStream | Self::UnixSeqpacket => kernel::socket(self, link, payload),
            Self::RpcWindow | Self::RpcBulk | Self::RpcSocket => rpc::prepare(self, link, payload),
        }
    }

    /// Makes the answerer's half from the numbers of [`Prepared`].
    pub(super) fn answerer(self, link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
        match self {
            Self::BareSpin | Self::BareCopy => bare::answer_spin(link),
            Self::BareFutex => bare::answer_futex(link),
            Self::WindowAdaptive | Self::WindowSpin | Self::WindowPark => window::answer(self, link),
            Self::Pipe => kernel::answer_pipe(link),
            Self::Eventfd => kernel::answer_eventfd(link),
            Self::UnixStream | Self::UnixSeqpacket => kernel::answer_socket(link),
            Self::RpcWindow | Self::RpcBulk | Self::RpcSocket => rpc::answer(link),
        }
    }
}

/// The caller's half of a transport, and the numbers from which the peer makes the other one.
pub(super) struct Prepared {
    pub(super) caller: Box<dyn Caller>,
    pub(super) numbers: Vec<u64>,
}

/// Calls.
pub(super) trait Caller {
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
pub(super) trait Answerer {
    /// Answers `count` calls, each after thinking for `think`, and returns.
    fn answer(&mut self, count: u64, think: Duration) -> Outcome;
}

/// Works for `think`, as a server that computes its answer would. Zero reads no clock.
#[inline(always)]
fn work(think: Duration) {
    if !think.is_zero() {
        let start = Instant::now();
        while start.elapsed() < think {
            std::hint::spin_loop();
        }
    }
}

/// What the callers are made with: the command that starts the peer, and the memory that both map.
pub(super) struct Preparing<'a> {
    pub(super) command: &'a mut Command,
    pub(super) memory: &'a Allocator,
}

impl Preparing<'_> {
    /// A window for a payload, here and in numbers for the peer.
    fn window(&self, payload: u32) -> Fallible<(Window, Vec<u64>)> {
        let descriptor = self.memory.allocate(window_length(payload))?;
        let numbers = vec![descriptor.offset(), u64::from(descriptor.length())];
        Ok((Window::map(&descriptor)?, numbers))
    }

    /// Shared memory as long as that window, without its protocol.
    fn memory(&self, payload: u32) -> Fallible<(SharedMemory, Vec<u64>)> {
        let descriptor = self.memory.allocate(window_length(payload))?;
        let (fd, offset, length) = (descriptor.fd(), descriptor.offset(), descriptor.length());
        Ok((SharedMemory::map(fd, offset, length)?, vec![offset, u64::from(length)]))
    }

    fn pass(&mut self, fd: impl AsFd) -> Fallible<u64> {
        Ok(u64::try_from(pass_descriptor(self.command, fd)?)?)
    }
}

/// Bytes of a window for a payload, before rounding up to pages.
pub(super) fn window_length(payload: u32) -> u32 {
    payload + flipcall::window::HEADER_LEN
}

/// What the answerers are made from.
pub(super) struct Inherited<'a> {
    pub(super) memory: &'a std::os::fd::OwnedFd,
    pub(super) numbers: &'a [u64],
    pub(super) payload: u32,
}

impl Inherited<'_> {
    fn number(&self, index: usize) -> Fallible<u64> {
        Ok(*self.numbers.get(index).ok_or("the benchmark passed too few numbers to its peer")?)
    }

    /// Offset and length, which stand from `index` on.
    fn range(&self, index: usize) -> Fallible<(u64, u32)> {
        Ok((self.number(index)?, u32::try_from(self.number(index + 1)?)?))
    }

    /// The window whose offset and length stand from `index` on.
    fn window(&self, index: usize) -> Fallible<Window> {
        let (offset, length) = self.range(index)?;
        Ok(Window::receive(self.memory.try_clone()?, offset, length, Seals::Strict)?)
    }

    /// The shared memory whose offset and length stand from `index` on.
    fn memory(&self, index: usize) -> Fallible<SharedMemory> {
        let (offset, length) = self.range(index)?;
        Ok(SharedMemory::map(self.memory.as_fd(), offset, length)?)
    }

    fn descriptor(&self, index: usize) -> Fallible<std::os::fd::OwnedFd> {
        Ok(inherited().take(i32::try_from(self.number(index)?)?)?)
    }

    fn buffer(&self) -> Vec<u8> {
        vec![0; self.payload as usize]
    }
}

/// What a call carries.
fn payload_bytes(length: u32) -> Vec<u8> {
    (0..length).map(|byte| byte as u8).collect()
}
