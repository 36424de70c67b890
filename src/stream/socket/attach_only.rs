//! What a socket carries whose messages travel another way: attachments alone, and frames that the caller makes itself.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::attachments::Attachments;
use super::frame_socket::FrameSocket;
use super::outbox::try_send_slices;
use super::readiness;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::stream::frame::attach::attach_frame;
use crate::stream::frame::decoder;
use crate::sys::peer_socket::PeerSocket;

impl FrameSocket {
    /// Sends an ATTACH frame alone, for a message that travels another way.
    ///
    /// # Errors
    /// As [`send_with_fds`](Self::send_with_fds).
    pub fn send_attach(&mut self, fds: &[BorrowedFd<'_>], deadline: impl Into<Deadline>) -> Result<()> {
        let attach = attach_frame(fds.len())?;
        self.write(&mut [IoSlice::new(&attach)], fds, deadline.into())
    }

    /// Takes an ATTACH frame that came alone, for a message that travelled another way: the counterpart of
    /// [`send_attach`](Self::send_attach). It must be here already, nothing is waited for.
    pub(crate) fn take_attach(&mut self) -> Result<Attachments> {
        self.check()?;
        loop {
            if let Err(error) = self.inbox.ready_header() {
                return Err(self.poison(error));
            }
            if let Some(attachments) = self.inbox.take_pending() {
                return Ok(attachments);
            }
            if !self.fill(&mut Deadline::after(Duration::ZERO))? {
                return Err(self.poison(decoder::end_inside_frame()));
            }
        }
    }

    /// Sends what the socket takes of `slices`, after waiting for room for `slice` and until `due` at most: for a caller that makes its
    /// frames itself. 0: it took nothing. A caller that gives up inside a frame has to shut the socket down.
    pub(crate) fn send_some(&mut self, slices: &[IoSlice<'_>], slice: Duration, due: Instant) -> Result<usize> {
        self.check()?;
        let mut idle = None;
        loop {
            match try_send_slices(&*self.socket, slices) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) if readiness::lingers(self.linger, &mut idle) => {}
                Err(Errno::AGAIN) => {
                    // A transfer that never waits reads no clock.
                    let until = due.min(Instant::now() + slice);
                    if !readiness::wait(&*self.socket, PollFlags::OUT, Some(until))? {
                        return Ok(0);
                    }
                }
                Err(errno) => {
                    return Err(self.poison(readiness::transfer_error("cannot send to the socket", errno)));
                }
            }
        }
    }

    /// The socket itself, to be watched for hang-ups.
    pub(crate) fn shared(&self) -> Arc<PeerSocket> {
        Arc::clone(&self.socket)
    }
}
