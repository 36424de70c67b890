//! A socket beside another way that messages travel: its descriptors, and its hang-up.

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::attach::MAX_ATTACHMENTS;
use super::closer::Attachments;
use super::framed::{FrameSocket, attach_frame};
use crate::{Deadline, Error, Result};

impl FrameSocket {
    /// Sends an ATTACH frame alone, for a message that travels another way.
    ///
    /// # Errors
    /// As [`send_with_fds`](Self::send_with_fds).
    pub fn send_attach(&mut self, fds: &[BorrowedFd<'_>], deadline: impl Into<Deadline>) -> Result<()> {
        if fds.is_empty() || fds.len() > MAX_ATTACHMENTS {
            return Err(Error::invalid(format!(
                "a message carries 1 to {MAX_ATTACHMENTS} descriptors, not {}",
                fds.len()
            )));
        }
        let attach = attach_frame(fds);
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
                return Err(self.poison(super::decode::end_inside_frame()));
            }
        }
    }

    /// The socket itself, to be watched for hang-ups.
    pub(crate) fn shared(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }
}
