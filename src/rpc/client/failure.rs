//! Why calls bring no value.

use std::time::Duration;

use crate::rpc::codec::from_bytes;
use crate::rpc::line::TooLarge;
use crate::rpc::wire::{ERROR, RESPONSE};
use crate::rpc::{CallError, CallViolation, Status};
use crate::{Deadline, Error, ErrorKind};

/// Why a call brought no value, and what that means for its channel.
#[derive(Debug)]
pub(super) enum Failure {
    /// The call is over, the channel is as good as before.
    Call(CallError),
    /// The channel is gone; the server never saw the call.
    Unsent(Error),
    /// The channel is gone; whether the call ran is not known.
    Lost(Error),
    /// The deadline passed; the answer may still come.
    Late,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Call(status.into())
    }
}

#[cold]
pub(super) fn too_large(error: TooLarge) -> Failure {
    Failure::Call(Error::from(error).into())
}

/// Why a transfer ended: a server that ends it at the call's own deadline may be noticed before that passed here.
#[cold]
pub(super) fn ended(error: Error, deadline: Deadline) -> Error {
    let is_end = matches!(error.kind(), ErrorKind::PeerShutdown | ErrorKind::PeerGone);
    if is_end && deadline.left() == Some(Duration::ZERO) {
        return Error::new(ErrorKind::Timeout, "the deadline passed before the server had all of the request");
    }
    error
}

/// What it means that no answer came for a request that was sent.
#[cold]
pub(super) fn unanswered(error: Error) -> Failure {
    if error.kind() == ErrorKind::Timeout { Failure::Late } else { Failure::Lost(error) }
}

#[cold]
pub(super) fn expired() -> Failure {
    Failure::Call(Error::new(ErrorKind::Timeout, "the deadline passed before the call was sent").into())
}

/// What a message that is no response means for a call.
#[cold]
pub(super) fn no_response(tag: u16, payload: &[u8], has_fds: bool) -> Failure {
    match tag {
        _ if has_fds => Failure::Lost(CallViolation::Descriptors(0).into()),
        ERROR => match from_bytes::<Status>(payload) {
            Ok(status) => Failure::Call(status.into()),
            Err(_) => Failure::Lost(CallViolation::Malformed(tag).into()),
        },
        RESPONSE => Failure::Lost(CallViolation::Malformed(tag).into()),
        _ => Failure::Lost(CallViolation::Unexpected(tag).into()),
    }
}

/// A response whose fields do not decode: that call fails, the channel is in order.
#[cold]
pub(super) fn malformed(tag: u16) -> Failure {
    Failure::Call(Error::from(CallViolation::Malformed(tag)).into())
}
