//! What a call asks.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::failure::{Failure, expired};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::rpc::codec::Encode;
use crate::rpc::message::number::MOST_DESCRIPTORS;

/// What is asked.
pub(super) struct Request<'a, T: ?Sized = dyn Encode + 'a> {
    pub(super) tag: u16,
    pub(super) value: &'a T,
    pub(super) fds: &'a [BorrowedFd<'a>],
}

impl<T: Encode + ?Sized> Request<'_, T> {
    /// The request for code that does not know the type.
    pub(super) fn erased(&self) -> Request<'_> {
        Request { tag: self.tag, value: &self.value, fds: self.fds }
    }
}

/// The nanoseconds that go in front of a request. An expired call is not sent.
#[inline]
pub(super) fn nanos_left(deadline: &Deadline) -> Result<u64, Failure> {
    match deadline.left() {
        None => Ok(0),
        Some(Duration::ZERO) => Err(Failure::Call(expired())),
        Some(left) => Ok(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)),
    }
}

#[cold]
pub(super) fn too_many_descriptors(count: usize) -> Failure {
    let what = match count > usize::from(MOST_DESCRIPTORS) {
        true => format!("a call with {count} descriptors, over the limit of {MOST_DESCRIPTORS}"),
        false => format!("a call with {count} descriptors to a server of the base protocol, which takes none"),
    };
    Failure::Call(Error::invalid(what).into())
}
