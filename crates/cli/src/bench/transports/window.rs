//! Calls through a packet window, with each wait policy.

use std::time::Duration;

use flipcall::endpoint::{Acceptor, Connector, Endpoint, Interrupted, Options, WaitPolicy, Waiting};
use flipcall::{Deadline, Error};

use super::halves::{Answerer, Caller, Inherited, Prepared, Preparing, payload_bytes, work};
use super::kind::Transport;
use crate::outcome::{Fallible, Outcome};

/// What every wait is bounded by, as in a real program: the rows pay for their deadlines.
const DEADLINE: Deadline = Deadline::after(Duration::from_secs(10));

/// Stale bytes are left in the window: with payloads of one length there are none, and the limits know no such thing.
fn options(transport: Transport) -> Options {
    let policy = match transport {
        Transport::WindowSpin => WaitPolicy::Spin,
        Transport::WindowPark => WaitPolicy::Park,
        _ => WaitPolicy::Adaptive,
    };
    Options::new().policy(policy).keep_stale_bytes()
}

struct WindowCaller {
    client: Option<Connector>,
    endpoint: Option<Endpoint>,
    payload: Vec<u8>,
    answer: Vec<u8>,
}

pub(super) fn prepare(transport: Transport, link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
    let (window, numbers) = link.window(payload)?;
    let payload = payload_bytes(payload);
    let caller = WindowCaller {
        client: Some(Connector::new(window, options(transport))?),
        endpoint: None,
        answer: payload.clone(),
        payload,
    };
    Ok(Prepared { caller: Box::new(caller), numbers })
}

impl Caller for WindowCaller {
    fn begin(&mut self) -> Outcome {
        if let Some(client) = self.client.take() {
            self.endpoint = Some(client.connect(DEADLINE).map_err(Error::from)?);
        }
        Ok(())
    }

    // Inlined, as a program's own loop is: what it takes to get to the call is none of its cost.
    #[inline(always)]
    fn call(&mut self) -> Outcome {
        let Some(endpoint) = &mut self.endpoint else { return Err("a call before the handshake".into()) };
        let length = endpoint.write_datagram(&self.payload)?;
        let length = endpoint.send_recv(length, DEADLINE).map_err(Error::from)?;
        endpoint.read_at(0, &mut self.answer[..length as usize])?;
        Ok(())
    }
}

/// The other end, between two batches.
enum Pause {
    /// The client has not connected yet.
    Unconnected(Acceptor),
    /// The last answer is out, the next call has not come.
    Answered(Waiting),
}

struct WindowAnswerer {
    pause: Option<Pause>,
    buffer: Vec<u8>,
}

pub(super) fn answer(transport: Transport, link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
    let server = Acceptor::new(link.window(0)?, options(transport))?;
    Ok(Box::new(WindowAnswerer { pause: Some(Pause::Unconnected(server)), buffer: link.buffer() }))
}

impl WindowAnswerer {
    /// Takes the payload out, thinks, and writes the answer.
    #[inline(always)]
    fn echo(&mut self, endpoint: &mut Endpoint, length: u32, think: Duration) -> flipcall::Result<u32> {
        let buffer = &mut self.buffer[..length as usize];
        endpoint.read_at(0, buffer)?;
        work(think);
        endpoint.write_datagram(buffer)
    }
}

impl Answerer for WindowAnswerer {
    fn answer(&mut self, count: u64, think: Duration) -> Outcome {
        let (mut endpoint, mut length) = match self.pause.take() {
            Some(Pause::Unconnected(server)) => server.recv_first(DEADLINE).map_err(Error::from)?,
            Some(Pause::Answered(waiting)) => waiting.resume(DEADLINE).map_err(Error::from)?,
            None => return Err("an earlier batch failed".into()),
        };
        for _ in 1..count {
            length = self.echo(&mut endpoint, length, think)?;
            length = endpoint.send_recv(length, DEADLINE).map_err(Error::from)?;
        }
        length = self.echo(&mut endpoint, length, think)?;
        // The next call comes with the next batch: the wait is broken off at once, and resumed then.
        match endpoint.send_recv(length, Duration::ZERO) {
            Err(Interrupted::TimedOut(waiting)) => self.pause = Some(Pause::Answered(waiting)),
            Err(Interrupted::Failed(error)) => return Err(error.into()),
            Ok(_) => return Err("a call came that was not announced".into()),
        }
        Ok(())
    }
}
