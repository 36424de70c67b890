//! Why calls bring no value.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::rpc::message::answer::NoValue;
use crate::rpc::{CallError, CallViolation};

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
    TimedOut,
}

impl From<NoValue> for Failure {
    fn from(failed: NoValue) -> Self {
        match failed {
            NoValue::Status(status) => Self::Call(status.into()),
            NoValue::Violation(violation) => Self::Lost(violation.into()),
        }
    }
}

/// What it means that a request is over the `maximum` of the server, in bytes.
#[cold]
pub(super) fn too_large(maximum: u64) -> Failure {
    let what = format!("the request is larger than the server takes (limit {maximum} bytes, its `max_message`)");
    Failure::Call(Error::invalid(what).into())
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
    if error.kind() == ErrorKind::Timeout { Failure::TimedOut } else { Failure::Lost(error) }
}

#[cold]
pub(super) fn expired() -> CallError {
    Error::new(ErrorKind::Timeout, "the deadline passed before the call was sent").into()
}

/// A response whose fields do not decode: that call fails, the channel is in order.
#[cold]
pub(super) fn malformed(tag: u16) -> Failure {
    Failure::Call(Error::from(CallViolation::Malformed(tag)).into())
}
