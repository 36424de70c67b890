//! One call: from a request's bytes to its answer, the same for every transport.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::context::Context;
use super::reply::{Answered, Chunks, Reply, StreamState, Way};
use crate::rpc::line::Staged;
use crate::rpc::router::{Method, Route, Router};
use crate::rpc::wire::{self, PREFIX};
use crate::rpc::{Code, Status};

/// What a call left behind.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The answer, if it lies in the window.
    pub(super) staged: Option<Staged>,
    pub(super) stream: StreamState,
    /// The error that is the answer. Boxed: a call that succeeds moves none of its bytes.
    pub(super) refused: Option<Box<Status>>,
}

impl Outcome {
    /// Whether the staged answer is all there is.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.refused.is_none() && self.stream.failed.is_none()
    }
}

/// The route of a request, and whether it may be served.
#[inline]
pub(super) fn find(router: &Router, tag: u16, has_fds: bool) -> Result<&Route, Box<Status>> {
    match router.find(tag) {
        Some(route) if has_fds && !route.takes_fds => Err(takes_none()),
        Some(route) => Ok(route),
        None => Err(Box::new(unknown(tag))),
    }
}

#[cold]
fn takes_none() -> Box<Status> {
    Status::invalid_argument("this method takes no descriptors").into()
}

#[cold]
pub(super) fn unknown(tag: u16) -> Status {
    Status::invalid_argument(format!("unknown message type {tag:#06x}"))
}

/// Splits the deadline from a request of version 1. The clock is read only if there is one, unless the start is known already.
#[inline]
pub(super) fn split_prefix(payload: &[u8], begun: Option<Instant>) -> Result<(Option<Instant>, &[u8]), Box<Status>> {
    let Some((prefix, request)) = payload.split_first_chunk::<PREFIX>() else {
        return Err(Status::invalid_argument("the request is too short for its deadline").into());
    };
    let left = u64::from_be_bytes(*prefix);
    if left == 0 {
        return Ok((None, request));
    }
    Ok((wire::deadline_from(left, begun.unwrap_or_else(Instant::now)), request))
}

/// Runs the method. A panic is an error of this call and nothing more.
#[inline]
pub(super) fn run(
    route: &Route,
    context: &mut Context<'_>,
    request: &[u8],
    way: Way<'_>,
    maximum: u64,
    outcome: &mut Outcome,
) -> Result<(), Box<Status>> {
    let Outcome { staged, stream, .. } = outcome;
    let method = AssertUnwindSafe(|| match &route.method {
        Method::Unary(method) => boxed(method(context, request, Reply { way, maximum, staged })),
        Method::Streaming(method) => {
            let (max_chunk, due) = (context.max_chunk, context.due);
            boxed(method(context, request, Chunks { way, max_chunk, due, state: stream }))
        }
    });
    catch_unwind(method).unwrap_or_else(|_| Err(Box::new(panicked())))
}

#[inline(always)]
fn boxed(answered: Result<Answered, Status>) -> Result<(), Box<Status>> {
    match answered {
        Ok(_) => Ok(()),
        Err(status) => Err(Box::new(status)),
    }
}

#[cold]
fn panicked() -> Status {
    Status::new(Code::Unknown, "the handler panicked")
}

/// The error as it can be sent: one that does not fit is sent without its texts.
pub(super) fn fitting(status: Status, maximum: u64) -> Status {
    // A code and three lengths.
    const FIXED: usize = 13;
    let length = FIXED + status.message.len() + status.op.len() + status.path.len();
    if length as u64 <= maximum { status } else { Status::new(Code::TooLarge, "") }
}
