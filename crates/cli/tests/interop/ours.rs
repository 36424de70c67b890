//! Our endpoint in this process, doing what the programs do.

use std::time::Instant;

use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options, ShutdownHandle};
use flipcall::window::{Seals, Window};
use flipcall::{Deadline, Error};

use crate::place::Place;
use crate::process::{PATIENCE, Side};

/// An endpoint that has not shaken hands yet.
pub(crate) enum Ours {
    Client(Connector),
    Server(Acceptor),
}

impl Ours {
    pub(crate) fn new(side: Side, place: &Place, options: Options) -> Self {
        Self::over(side, place.receive(Seals::Compatible).expect("an acceptable window"), options)
    }

    pub(crate) fn over(side: Side, window: Window, options: Options) -> Self {
        match side {
            Side::Client => Self::Client(Connector::new(window, options).expect("a client")),
            Side::Server => Self::Server(Acceptor::new(window, options).expect("a server")),
        }
    }

    pub(crate) fn handle(&self) -> ShutdownHandle {
        match self {
            Self::Client(client) => client.shutdown_handle(),
            Self::Server(server) => server.shutdown_handle(),
        }
    }

    /// Shakes hands and plays its part until `until` calls are done; then returns the connection, or until an error comes.
    /// A client's datagrams have 48 bytes, all of which are checked.
    pub(crate) fn run(self, until: u64) -> Result<Endpoint, Error> {
        match self {
            Self::Client(client) => {
                let mut endpoint = client.connect(Deadline::after(PATIENCE))?;
                for number in 0..until {
                    call(&mut endpoint, number as u8)?;
                }
                Ok(endpoint)
            }
            Self::Server(server) => {
                let (mut endpoint, mut length) = server.recv_first(Deadline::after(PATIENCE))?;
                for _ in 0..until {
                    length = answer(&mut endpoint, length)?;
                }
                Ok(endpoint)
            }
        }
    }
}

/// Waits until an endpoint has flipped so often.
pub(crate) fn await_flips(handle: &ShutdownHandle, flips: u64) {
    let began = Instant::now();
    while handle.counters().flips < flips {
        assert!(began.elapsed() < PATIENCE, "{:?}", handle.counters());
        std::thread::yield_now();
    }
}

/// One call of 48 bytes, its answer checked.
pub(crate) fn call(endpoint: &mut Endpoint, seed: u8) -> Result<(), Error> {
    let request: [u8; 48] = std::array::from_fn(|at| seed.wrapping_add(at as u8));
    let length = endpoint.write_datagram(&request)?;
    assert_eq!(endpoint.send_recv(length, Deadline::after(PATIENCE))?, length);
    let mut answer = [0; 48];
    endpoint.read_at(0, &mut answer)?;
    assert_eq!(answer, request.map(|byte| byte.wrapping_add(1)));
    Ok(())
}

/// Answers the call that is in the window, and returns the length of the next one.
pub(crate) fn answer(endpoint: &mut Endpoint, length: u32) -> Result<u32, Error> {
    let mut datagram = vec![0; length as usize];
    endpoint.read_at(0, &mut datagram)?;
    datagram.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
    let length = endpoint.write_datagram(&datagram)?;
    Ok(endpoint.send_recv(length, Deadline::after(PATIENCE))?)
}
