//! The answer to a call that missed its deadline: it is looked for, thrown away, and seen by nobody.

use std::time::Duration;

use super::channel::{Channel, Transport};
use super::failure::Failure;
use crate::deadline::Deadline;
use crate::error::ErrorKind;
use crate::rpc::message::answer::{NoValue, overdue};
use crate::rpc::transport::{InlineMessage, WindowTransport};

/// What became of the answer to a call that missed its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// It came: the channel is in order.
    Came,
    /// It may still come.
    Outstanding,
    /// The channel is over, or has to be.
    Unusable,
}

/// No wait at all.
const AT_ONCE: Deadline = Deadline::after(Duration::ZERO);

impl Channel {
    /// Looks for the answer to a call that missed its deadline, without waiting for anything. In a window it has to be there whole: of one
    /// that has to be asked for, no more is wanted.
    pub(super) fn poll_overdue(&mut self) -> Overdue {
        let maximum = u64::from(self.session.own_maximum);
        if let Transport::Window(window) = &mut self.transport {
            return poll_window(window, maximum);
        }
        match self.receive(AT_ONCE, &mut |tag, _, _| overdue(tag).map_err(|violation| NoValue::from(violation).into()))
        {
            Ok(()) => Overdue::Came,
            Err(Failure::TimedOut) => Overdue::Outstanding,
            Err(_) => Overdue::Unusable,
        }
    }
}

fn poll_window(window: &mut WindowTransport, maximum: u64) -> Overdue {
    let datagram = match window.wait(AT_ONCE) {
        Ok(datagram) => datagram,
        Err(error) if error.kind() == ErrorKind::Timeout => return Overdue::Outstanding,
        Err(_) => return Overdue::Unusable,
    };
    let mut inline = InlineMessage::new();
    let tag = window.take_inline(datagram, &mut inline).or_else(|| window.take_whole(datagram, &inline, maximum));
    match tag.map(overdue) {
        Some(Ok(())) => Overdue::Came,
        Some(Err(_)) | None => Overdue::Unusable,
    }
}
