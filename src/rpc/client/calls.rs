//! Calls on whatever channel can be had: what becomes of the call, and of its channel.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::channel::{Channel, Read};
use super::checkout::Checkout;
use super::failure::{Failure, expired};
use super::pool::Slot;
use super::quarantine;
use super::request::Request;
use super::shared::Shared;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::rpc::codec::{DecodeError, Encode};
use crate::rpc::{CallError, trace};
use crate::stream::Attachments;

/// How often a call that never left this process looks for another channel before it fails.
const ATTEMPTS: u32 = 4;

impl Shared {
    /// One call: on the thread's preferred channel if that is idle.
    #[inline]
    pub(super) fn exchange<T, F>(
        self: &Arc<Self>,
        request: &Request<'_, T>,
        mut deadline: Deadline,
        read: &mut F,
    ) -> Result<(), CallError>
    where
        T: Encode + ?Sized,
        F: FnMut(&[u8], Option<Box<Attachments>>) -> Result<(), DecodeError>,
    {
        self.origin.check()?;
        let Some(mut slot) = self.pool.preferred() else {
            self.pool.count();
            return self.exchange_elsewhere(&request.erased(), deadline, read);
        };
        let Some(channel) = slot.as_mut() else { unreachable!("a preferred slot holds a channel") };
        match channel.call(request, &mut deadline, read) {
            Ok(()) => {
                drop(slot);
                self.pool.released();
                Ok(())
            }
            Err(failure) => self.failed(slot, *failure, &request.erased(), deadline, read),
        }
    }

    /// What becomes of a call that failed on the thread's preferred channel.
    #[cold]
    fn failed(
        self: &Arc<Self>,
        mut slot: Slot<'_>,
        failure: Failure,
        request: &Request<'_>,
        deadline: Deadline,
        read: Read<'_>,
    ) -> Result<(), CallError> {
        let Failure::Unsent(error) = failure else {
            let error = self.conclude(Checkout::Slot(slot), request.tag, failure);
            return Err(self.explained(error));
        };
        trace::poisoned(&error);
        *slot = None;
        drop(slot);
        self.exchange_elsewhere(request, deadline, read)
    }

    /// A call on another channel.
    #[cold]
    fn exchange_elsewhere(
        self: &Arc<Self>,
        request: &Request<'_>,
        mut deadline: Deadline,
        read: Read<'_>,
    ) -> Result<(), CallError> {
        // What the wait for a channel takes is not there for the call.
        deadline.resolve();
        let checkout = self.attempt(request.tag, deadline, &mut |channel| {
            let called = channel.call(request, &mut deadline, &mut |fields: &[u8], fds| read(fields, fds));
            called.map_err(|failure| *failure)
        });
        self.return_channel(checkout.map_err(|error| self.explained(error))?);
        Ok(())
    }

    /// Sends the request of a stream: the channel on which its answer comes.
    pub(super) fn begin_stream(
        self: &Arc<Self>,
        request: &Request<'_>,
        deadline: Deadline,
    ) -> Result<Box<Channel>, CallError> {
        self.origin.check()?;
        let checkout = self.attempt(request.tag, deadline, &mut |channel| channel.send(request, deadline));
        checkout.map_err(|error| self.explained(error))?.into_channel().ok_or_else(unanswered)
    }

    /// Tries one channel after the other until the request has left this process. The channel is in order then.
    fn attempt(
        self: &Arc<Self>,
        tag: u16,
        deadline: Deadline,
        call: &mut dyn FnMut(&mut Channel) -> Result<(), Failure>,
    ) -> Result<Checkout<'_>, CallError> {
        if deadline.left() == Some(Duration::ZERO) {
            return Err(expired());
        }
        let mut attempt = 1;
        loop {
            let mut checkout = self.check_out(deadline)?;
            let channel = checkout.channel().ok_or_else(unanswered)?;
            match call(channel) {
                Ok(()) => return Ok(checkout),
                Err(Failure::Unsent(error)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    self.discard(checkout, &error);
                }
                Err(failure) => return Err(self.conclude(checkout, tag, failure)),
            }
        }
    }

    /// What a failed call means for its channel and its caller.
    #[cold]
    fn conclude(self: &Arc<Self>, checkout: Checkout<'_>, tag: u16, failure: Failure) -> CallError {
        match failure {
            Failure::Call(error) => {
                self.return_channel(checkout);
                error
            }
            Failure::Unsent(error) | Failure::Lost(error) => {
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
                self.discard(checkout, &error);
                error.into()
            }
            Failure::TimedOut => {
                self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
                if let Some(channel) = checkout.into_channel() {
                    // In the base protocol it is all that there is, unless another can be had.
                    let is_all = channel.base_guard.is_some() && self.way_back().is_none();
                    let patience = if is_all { quarantine::BASE_PATIENCE } else { quarantine::PATIENCE };
                    quarantine::set_aside(self, channel, tag, patience);
                }
                Error::new(ErrorKind::Timeout, format!("method {tag:#06x} did not answer by its deadline")).into()
            }
        }
    }
}

/// An exchange that succeeds has read an answer.
#[cold]
pub(super) fn unanswered() -> CallError {
    Error::new(ErrorKind::Violation, "a call ended without an answer").into()
}
