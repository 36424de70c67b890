//! The end of a connection, and the process at the other end.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::net::Shutdown;

use super::frame_socket::FrameSocket;
use super::peer::Peer;
use super::readiness;
use crate::error::{Error, Result};
use crate::sys::fork::Origin;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket::unreceived;

/// Shuts a [`FrameSocket`] down from any thread: a thread that waits in it returns at once.
#[derive(Debug, Clone)]
#[must_use = "the socket is shut down only when it is told to"]
pub struct SocketShutdown(Arc<PeerSocket>, Origin);

impl SocketShutdown {
    /// Ends both directions. Idempotent. In a child that was forked since it does nothing: the connection is the parent's.
    pub fn shutdown(&self) {
        if self.1.is_here() {
            // The only failure is that the connection is over already.
            let _ = rustix::net::shutdown(&*self.0, Shutdown::Both);
        }
    }
}

impl FrameSocket {
    /// Ends our direction: the peer reads what was sent and then the end of the stream. Its direction stays open.
    ///
    /// # Errors
    /// [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone) if the connection is over already.
    pub fn finish(&mut self) -> Result<()> {
        self.origin.check()?;
        rustix::net::shutdown(&*self.socket, Shutdown::Write)
            .map_err(|error| readiness::transfer_error("cannot end this direction of the socket", error))?;
        self.finished = true;
        Ok(())
    }

    /// A handle that can shut the socket down from another thread.
    pub fn shutdown_handle(&self) -> SocketShutdown {
        SocketShutdown(Arc::clone(&self.socket), self.origin)
    }

    /// Whether the peer is gone: both directions have hung up. A peer that only ended its own direction is not.
    ///
    /// # Errors
    /// [`ErrorKind::System`](crate::ErrorKind::System) if the socket cannot be polled.
    pub fn has_hung_up(&self) -> Result<bool> {
        self.origin.check()?;
        readiness::has_hung_up(self.socket.as_fd())
    }

    /// Whether part of a message is here that was not taken, or all of it.
    pub(crate) fn has_begun_message(&self) -> bool {
        self.inbox.is_inside_message()
    }

    /// Whether the peer has received everything that was sent, descriptors included.
    ///
    /// # Errors
    /// [`ErrorKind::System`](crate::ErrorKind::System) if the socket cannot tell.
    pub fn is_drained(&self) -> Result<bool> {
        self.origin.check()?;
        let left = unreceived(self.socket.as_fd());
        left.map(|left| left == 0)
            .map_err(|error| Error::system("cannot ask what the peer has not received (ioctl SIOCOUTQ)", error))
    }

    /// The process at the other end.
    ///
    /// # Errors
    /// As [`Peer::of`].
    pub fn peer(&self) -> Result<Peer> {
        self.origin.check()?;
        Peer::of(&*self.socket)
    }
}
