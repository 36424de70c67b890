//! From a window to a connection: the handshake of both sides.

use super::active::Endpoint;
use super::core::Core;
use super::greeting::{self, Greeting, LONGEST};
use super::handle::ShutdownHandle;
use super::interrupted::Interrupted;
use super::options::Options;
use crate::control::{Counters, Expect, Side};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::window::Window;

/// The end of a window that speaks first, before it has connected.
///
/// A window has one client and one server, in its whole life: a second client of the same window breaks into the conversation of the
/// first, and a window that was shut down, as dropping either end does, stays so. To connect again, allocate another window.
#[derive(Debug)]
pub struct Connector {
    core: Box<Core>,
    /// Whether the offer is out.
    greeted: bool,
}

/// The end of a window that is called, before the first call came.
#[derive(Debug)]
pub struct Acceptor {
    core: Box<Core>,
    /// Whether the client's offer was answered.
    greeted: bool,
}

impl Connector {
    /// The client's end of a window.
    ///
    /// # Errors
    /// [`System`](crate::ErrorKind::System) if what the options have watched cannot be; [`InvalidInput`](crate::ErrorKind::InvalidInput)
    /// if it could not show the end of the peer.
    #[doc(alias = "NewEndpoint")]
    #[doc(alias = "Init")]
    pub fn new(window: Window, options: Options) -> Result<Self> {
        Ok(Self { core: Core::new(window, Side::Client, options)?, greeted: false })
    }

    /// Shakes hands; returns once the server has answered. The client then holds control.
    ///
    /// # Errors
    /// At the deadline, [`Interrupted::TimedOut`] gives the client back and connecting can go on. Everything else is
    /// [`Interrupted::Failed`]: a shutdown by either side, a dead peer, or a handshake that breaks the protocol.
    #[doc(alias = "Connect")]
    pub fn connect(mut self, deadline: impl Into<Deadline>) -> Result<Endpoint, Interrupted<Self>> {
        let mut deadline = deadline.into();
        let _ = deadline.resolve();
        match self.shake_hands(deadline) {
            Ok(()) => Ok(Endpoint::new(self.core)),
            Err(error) => Err(Interrupted::by(error, self)),
        }
    }

    fn shake_hands(&mut self, deadline: Deadline) -> Result<()> {
        let offer = if self.core.extends { Greeting::with_park() } else { Greeting::default() };
        if !self.greeted {
            send(&mut self.core, offer)?;
            self.greeted = true;
        }
        let length = self.core.wait(Expect::Answer, deadline)?;
        let accepted = receive(&mut self.core, length)?;
        if accepted.names_unknown() || (accepted.park() && !offer.park()) {
            return Err(self.core.bad_handshake("it accepts an extension that was not offered"));
        }
        if accepted.park() {
            self.core.transfer.enable_park();
        }
        // The handshake is no datagram of the user's.
        self.core.received = 0;
        Ok(())
    }

    /// A handle that ends the attempt from anywhere, and the connection later.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.core.shared.handle()
    }

    /// What the endpoint did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.shared.counters.snapshot()
    }
}

impl Acceptor {
    /// The server's end of a window.
    ///
    /// # Errors
    /// [`System`](crate::ErrorKind::System) if what the options have watched cannot be; [`InvalidInput`](crate::ErrorKind::InvalidInput)
    /// if it could not show the end of the peer.
    #[doc(alias = "NewEndpoint")]
    #[doc(alias = "Init")]
    pub fn new(window: Window, options: Options) -> Result<Self> {
        Ok(Self { core: Core::new(window, Side::Server, options)?, greeted: false })
    }

    /// Shakes hands and waits for the first call: returns the connection, of which the server now has control, and the length of the
    /// first datagram in bytes.
    ///
    /// # Errors
    /// At the deadline, [`Interrupted::TimedOut`] gives the server back and waiting can go on. Everything else is
    /// [`Interrupted::Failed`]: a shutdown by either side, a dead peer, or a handshake that breaks the protocol.
    #[doc(alias = "RecvFirst")]
    pub fn recv_first(mut self, deadline: impl Into<Deadline>) -> Result<(Endpoint, u32), Interrupted<Self>> {
        let mut deadline = deadline.into();
        let _ = deadline.resolve();
        match self.first_datagram(deadline) {
            Ok(length) => Ok((Endpoint::new(self.core), length)),
            Err(error) => Err(Interrupted::by(error, self)),
        }
    }

    /// Shakes hands and leaves the wait for the first call to [`Endpoint::wait`].
    pub(crate) fn greet(mut self, deadline: Deadline) -> Result<Endpoint> {
        self.shake_hands(deadline)?;
        Ok(Endpoint::new(self.core))
    }

    fn first_datagram(&mut self, deadline: Deadline) -> Result<u32> {
        self.shake_hands(deadline)?;
        self.core.wait(Expect::Answer, deadline)
    }

    fn shake_hands(&mut self, deadline: Deadline) -> Result<()> {
        if !self.greeted {
            let length = self.core.wait(Expect::Answer, deadline)?;
            let offer = receive(&mut self.core, length)?;
            let park = self.core.extends && offer.park();
            send(&mut self.core, if park { Greeting::with_park() } else { Greeting::default() })?;
            self.greeted = true;
            if park {
                self.core.transfer.enable_park();
            }
        }
        Ok(())
    }

    /// A handle that ends the wait from anywhere, and the connection later.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.core.shared.handle()
    }

    /// What the endpoint did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.shared.counters.snapshot()
    }
}

/// Sends a handshake datagram. The wake that goes with it is never elided, because `park` is enabled later.
fn send(core: &mut Core, greeting: Greeting) -> Result<()> {
    let datagram = greeting.encode();
    core.write(0, datagram)?;
    core.flip(datagram.len() as u32)
}

/// Reads the handshake datagram that just came: one copy, which is then validated.
fn receive(core: &mut Core, length: u32) -> Result<Greeting, Error> {
    if length > LONGEST {
        return Err(core.bad_handshake("it has more than 4,096 bytes"));
    }
    let mut datagram = vec![0; length as usize];
    core.read(0, &mut datagram)?;
    greeting::parse(&datagram).map_err(|fault| core.bad_handshake(fault))
}
