//! `flipcall endpoint`: one raw endpoint on an inherited memfd, for tests of two processes and of other implementations.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options, WaitPolicy};
use flipcall::window::{Seals, Window};
use flipcall::{Deadline, ErrorKind};
use rustix::fs::FileType;

use crate::cpus::pin;
use crate::outcome::Outcome;
use crate::output::{complain, say};
use crate::sys::inherited;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which end of the window this is
    #[arg(value_enum)]
    side: Side,
    /// The inherited descriptor of the memfd
    #[arg(long, value_name = "N")]
    fd: i32,
    /// Bytes from the start of the file to the window
    #[arg(long, value_name = "O")]
    offset: u64,
    /// Bytes of the window
    #[arg(long, value_name = "L")]
    length: u32,
    /// Calls that the client makes
    #[arg(long, value_name = "N", default_value_t = 1)]
    calls: u64,
    /// Bytes of each datagram that the client sends
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    payload: u32,
    /// Milliseconds that one wait may take; none by default
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
    /// How to wait for the peer
    #[arg(long, value_enum, default_value_t = Policy::Adaptive)]
    policy: Policy,
    /// Offer and accept no extension
    #[arg(long)]
    base: bool,
    /// Demand that the file is sealed against growing and further seals as well
    #[arg(long)]
    strict: bool,
    /// The CPU to run on
    #[arg(long, value_name = "C")]
    cpu: Option<usize>,
    /// An inherited socket or pidfd whose hang-up means that the peer died
    #[arg(long, value_name = "N")]
    watch_fd: Option<i32>,
    /// Print the endpoint's counters to standard error at the end
    #[arg(long)]
    counters: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Side {
    Client,
    Server,
}

/// A wait policy as the command line names it.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Policy {
    Spin,
    Adaptive,
    Park,
}

impl From<Policy> for WaitPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Spin => Self::Spin,
            Policy::Adaptive => Self::Adaptive,
            Policy::Park => Self::Park,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if let Some(cpu) = arguments.cpu {
        pin(cpu)?;
    }
    let seals = if arguments.strict { Seals::Strict } else { Seals::Compatible };
    let window = Window::receive(inherited().take(arguments.fd)?, arguments.offset, arguments.length, seals)?;
    let deadline = arguments.deadline_ms.map_or(Deadline::NEVER, |ms| Deadline::after(Duration::from_millis(ms)));
    match arguments.side {
        Side::Client => call(arguments, Connector::new(window, options(arguments)?)?, deadline),
        Side::Server => serve(arguments, Acceptor::new(window, options(arguments)?)?, deadline),
    }
}

fn options(arguments: &Arguments) -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options::new().policy(arguments.policy.into());
    if arguments.base {
        options = options.base_protocol();
    }
    if let Some(number) = arguments.watch_fd {
        let fd = inherited().take(number)?;
        options = match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Socket => options.watch_socket(fd),
            _ => options.watch_process(fd),
        };
    }
    Ok(options)
}

/// Makes the calls and checks every byte of every answer.
fn call(arguments: &Arguments, client: Connector, deadline: Deadline) -> Outcome {
    let handle = client.shutdown_handle();
    let mut endpoint = client.connect(deadline).map_err(flipcall::Error::from)?;
    let size = usize::try_from(arguments.payload)?;
    let (mut request, mut answer) = (vec![0u8; size], vec![0u8; size]);
    let start = Instant::now();
    for number in 0..arguments.calls {
        fill(&mut request, number);
        let length = endpoint.write_datagram(&request)?;
        let got = endpoint.send_recv(length, deadline).map_err(flipcall::Error::from)?;
        if got != length {
            return Err(format!("mismatch: call {number} of {length} bytes was answered by {got}").into());
        }
        endpoint.read_at(0, &mut answer)?;
        verify(&request, &answer, number)?;
    }
    let elapsed = start.elapsed();
    let per_call = elapsed.as_nanos() / u128::from(arguments.calls.max(1));
    let (calls, bytes) = (arguments.calls, u128::from(arguments.calls) * u128::from(arguments.payload));
    let said = say(format_args!("calls={calls} bytes={bytes} ns_per_call={per_call}\n"));
    drop(endpoint);
    report(arguments, &handle);
    said
}

/// A datagram that differs from its neighbours at every byte.
fn fill(request: &mut [u8], number: u64) {
    let mut byte = number as u8;
    for slot in request {
        *slot = byte;
        byte = byte.wrapping_add(1);
    }
}

fn verify(request: &[u8], answer: &[u8], number: u64) -> Outcome {
    let wrong = request.iter().zip(answer).position(|(sent, got)| sent.wrapping_add(1) != *got);
    match wrong {
        Some(at) => Err(format!("mismatch: byte {at} of answer {number} is {:#04x}", answer[at]).into()),
        None => Ok(()),
    }
}

/// Adds 1 to every byte of each datagram and sends it back, until the peer shuts down.
fn serve(arguments: &Arguments, server: Acceptor, deadline: Deadline) -> Outcome {
    let handle = server.shutdown_handle();
    let ended = server.recv_first(deadline).map_err(flipcall::Error::from).and_then(|(mut endpoint, first)| {
        let mut datagram = vec![0u8; endpoint.capacity() as usize];
        answer_calls(&mut endpoint, first, &mut datagram, deadline)
    });
    report(arguments, &handle);
    match ended {
        Err(error) if error.kind() == ErrorKind::PeerShutdown => Ok(()),
        Err(error) => Err(error.into()),
        Ok(never) => match never {},
    }
}

fn answer_calls(
    endpoint: &mut Endpoint,
    first: u32,
    datagram: &mut [u8],
    deadline: Deadline,
) -> flipcall::Result<std::convert::Infallible> {
    let mut length = first;
    loop {
        let datagram = &mut datagram[..length as usize];
        endpoint.read_at(0, datagram)?;
        datagram.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        endpoint.write_at(0, datagram)?;
        length = endpoint.send_recv(length, deadline)?;
    }
}

fn report(arguments: &Arguments, handle: &flipcall::endpoint::ShutdownHandle) {
    if arguments.counters {
        complain(format_args!("{:?}", handle.counters()));
    }
}
