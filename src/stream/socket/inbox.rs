//! Bytes and descriptors from a socket to messages, without waiting: what the blocking socket and the event-loop reader share.

use std::io::IoSliceMut;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::attachments::{Attachments, close_hangs, exhausted};
use super::readiness;
use crate::error::{Error, Result};
use crate::stream::frame::attach::{ATTACH, AttachRule};
use crate::stream::frame::decoder::{self, FrameDecoder};
use crate::stream::frame::header::Header;
use crate::stream::frame::violation::FrameViolation;
use crate::sys::foreign::Account;
use crate::sys::receive::{ReceiveError, receive};
use crate::sys::socket::set_pass_rights;

/// A message: a frame and the file descriptors that its ATTACH announced.
#[non_exhaustive]
pub struct Message<'a> {
    /// Message type or channel id.
    pub tag: u16,
    /// The bytes after the header, borrowed until the socket is used again.
    pub payload: &'a [u8],
    /// The descriptors that came with it; what is not taken is closed when this is dropped.
    pub attachments: Attachments,
}

impl std::fmt::Debug for Message<'_> {
    /// Without the bytes of the payload.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("tag", &self.tag)
            .field("length", &self.payload.len())
            .field("attachments", &self.attachments)
            .finish()
    }
}

/// What one attempt to receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// At least one byte.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The peer sends no more, and between frames that is fine.
    End,
}

/// How a receive may wait in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all.
    No,
    /// For as long as the socket's own timeout allows.
    Slice,
    /// For one byte. A receive of more waits until as much is there as `SO_RCVLOWAT` says, which others may have set: a frame that has
    /// begun would not be noticed.
    FirstByte,
}

pub(super) struct Inbox {
    decoder: FrameDecoder,
    /// `None`: no descriptor may come, and those that do are closed.
    rule: Option<AttachRule>,
    account: Arc<Account>,
    /// The announcement of the ATTACH frame just taken: it belongs to the next frame.
    pending: Option<Attachments>,
    /// When the current frame was first seen incomplete.
    begun: Option<Instant>,
    patience: Duration,
}

impl Inbox {
    pub(super) fn new(maximum: u32, patience: Duration) -> Self {
        let (decoder, account) = (FrameDecoder::new(maximum), Arc::default());
        Self { decoder, rule: None, account, pending: None, begun: None, patience }
    }

    pub(super) fn decoder(&mut self) -> &mut FrameDecoder {
        &mut self.decoder
    }

    /// Whether the last frame was a long one, so that the next may be as well.
    pub(super) fn expects_long(&self) -> bool {
        self.decoder.expects_long()
    }

    pub(super) fn max_frame(&self) -> u32 {
        self.decoder.maximum()
    }

    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Allows or forbids descriptors from the next frame on, here and (where the kernel can) at the sender.
    pub(super) fn set_attachments(&mut self, socket: BorrowedFd<'_>, allowed: bool) -> Result<()> {
        set_pass_rights(socket, allowed)
            .map_err(|error| Error::system("cannot set SO_PASSRIGHTS on the socket", error))?;
        match (allowed, &mut self.rule) {
            (true, None) => {
                // What was read ahead came without descriptors, and is validated as such: once its frames are taken, the rule must
                // know them.
                let mut rule = AttachRule::from_position(self.decoder.position());
                let verdict = rule.validate(&self.decoder, &mut Vec::new());
                self.rule = Some(rule);
                verdict?;
            }
            (false, Some(rule)) => {
                let mut refused = Vec::new();
                rule.surrender(&mut refused);
                self.account.close(refused);
                self.rule = None;
            }
            _ => {}
        }
        Ok(())
    }

    /// One receive.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>, wait: Wait) -> Result<Fill> {
        let (mut fds, patient) = (Vec::new(), wait != Wait::No);
        let space = self.decoder.space();
        let space = if wait == Wait::FirstByte { &mut space[..1] } else { space };
        let received = match receive(socket, &mut [IoSliceMut::new(space)], &mut fds, patient) {
            Ok(received) => received,
            Err(ReceiveError::Exhausted) => return Err(exhausted()),
            Err(ReceiveError::System(error)) => return self.not_received(&error, patient),
        };
        let count = received.bytes;
        let start = self.decoder.position() + self.decoder.buffered().len() as u64;
        self.decoder.filled(count);
        match &mut self.rule {
            None => self.account.close(fds),
            Some(rule) => {
                rule.read_brought(start, start + count as u64, fds, received.truncated);
                let mut refused = Vec::new();
                let verdict = rule.validate(&self.decoder, &mut refused);
                self.account.close(refused);
                verdict?;
            }
        }
        if count > 0 { Ok(Fill::Bytes) } else { self.end() }
    }

    fn not_received(&self, error: &std::io::Error, patient: bool) -> Result<Fill> {
        match Errno::from_io_error(error) {
            Some(Errno::AGAIN) => Ok(Fill::Nothing),
            // A signal ended a wait: its time counts, or signals in a row would put a deadline off for ever.
            Some(Errno::INTR) if patient => Ok(Fill::Nothing),
            Some(Errno::INTR) => Ok(Fill::Bytes),
            Some(Errno::CONNRESET) => self.end(),
            errno => Err(readiness::transfer_error("cannot receive from the socket", errno.unwrap_or(Errno::IO))),
        }
    }

    fn end(&self) -> Result<Fill> {
        if self.is_inside_message() { Err(decoder::end_inside_frame()) } else { Ok(Fill::End) }
    }

    /// Whether part of a message is here that was not taken, or all of it.
    pub(super) fn is_inside_message(&self) -> bool {
        self.pending.is_some() || !self.decoder.buffered().is_empty()
    }

    /// Whether the next message is here whole. Takes ATTACH frames in on the way.
    pub(super) fn ready(&mut self) -> Result<bool> {
        Ok(self.ready_header()?.is_some_and(|header| self.decoder.buffered().len() as u64 >= header.frame_size()))
    }

    /// The header of the next message, once it is here. Takes ATTACH frames in on the way.
    pub(super) fn ready_header(&mut self) -> Result<Option<Header>> {
        loop {
            let header = self.decoder.header()?;
            let is_attach = header.is_some_and(|header| header.tag == ATTACH);
            let (true, Some(rule)) = (is_attach, &mut self.rule) else { return Ok(header) };
            if self.decoder.next_frame()?.is_none() {
                return Ok(None);
            }
            let announced = rule.take();
            let lost = announced.is_none();
            self.pending = Some(Attachments::new(announced.unwrap_or_default(), lost, &self.account));
        }
    }

    /// What an ATTACH announced whose message travels another way.
    pub(super) fn take_pending(&mut self) -> Option<Attachments> {
        let pending = self.pending.take()?;
        if let Some(rule) = &mut self.rule {
            rule.stands_alone();
        }
        Some(pending)
    }

    /// The message that [`ready`](Self::ready) found.
    pub(super) fn take(&mut self) -> Result<Option<Message<'_>>> {
        self.begun = None;
        let attachments = self.pending.take();
        let attachments = attachments.unwrap_or_else(|| Attachments::new(Vec::new(), false, &self.account));
        let frame = self.decoder.next_frame()?;
        Ok(frame.map(|frame| Message { tag: frame.tag, payload: frame.payload, attachments }))
    }

    /// Throws payload bytes of the current frame away as they come; `left` counts down.
    pub(super) fn discard(&mut self, left: &mut usize) {
        *left -= self.decoder.drain(*left).len();
        if *left == 0 {
            self.begun = None;
            self.pending = None;
        }
    }

    /// When the frame that has begun must be complete, `None` between frames. The clock starts with the first question, which every
    /// receiver asks as soon as it finds a frame incomplete.
    pub(super) fn frame_due(&mut self) -> Option<Instant> {
        if !self.is_inside_message() {
            self.begun = None;
            return None;
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        begun.checked_add(self.patience)
    }

    /// An error once this connection may not go on: a frame that takes too long, a received descriptor whose close hangs.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.account.is_stuck() {
            return Err(close_hangs());
        }
        match self.frame_due() {
            Some(due) if Instant::now() >= due => Err(FrameViolation::TooSlow.into()),
            _ => Ok(()),
        }
    }

    /// Whether [`check`](Self::check) should be asked again within [`STUCK_AFTER`](crate::sys::foreign::STUCK_AFTER).
    pub(super) fn is_closing(&self) -> bool {
        self.account.is_closing()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut left: Vec<OwnedFd> = Vec::new();
        if let Some(mut rule) = mem::take(&mut self.rule) {
            rule.surrender(&mut left);
        }
        self.account.close(left);
    }
}
