//! What a method left behind when it returned.

use crate::error::Error;
use crate::rpc::Status;
use crate::rpc::transport::{Held, Staged};

/// What a call left behind. Errors are boxed: a call that succeeds moves none of their bytes.
#[derive(Debug, Default)]
pub(super) enum Outcome {
    /// The method did not answer.
    #[default]
    Nothing,
    /// The answer goes out now that the method has returned, with so many descriptors: those that were attached before it.
    Ready(Ready, u8),
    /// A stream ended. The end goes out now, if it is not out already.
    Ended(Option<Staged>),
    /// The answer is going out. It stays at that if encoding it panics.
    Sending,
    /// The answer is out.
    Sent,
    /// The transport is gone.
    Failed(Box<Error>),
    /// The answer is an error.
    Refused(Box<Status>),
}

/// An answer that is encoded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ready {
    /// It lies in the window.
    Staged(Staged),
    /// It does not fit the window, and its payload lies in the window transport.
    Held(Held),
    /// It lies in the socket transport.
    Encoded,
}

impl Outcome {
    /// The method returned an error, or panicked. What is out already stays the answer.
    #[cold]
    pub(super) fn refuse(&mut self, status: Box<Status>) {
        if matches!(self, Self::Nothing | Self::Ready(..) | Self::Ended(Some(_)) | Self::Refused(_)) {
            *self = Self::Refused(status);
        }
    }
}
