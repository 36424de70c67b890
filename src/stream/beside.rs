//! A socket beside another way that messages travel: its descriptors, and its hang-up.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::closer::Attachments;
use super::framed::FrameSocket;
use crate::{Deadline, Result};

impl FrameSocket {
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
