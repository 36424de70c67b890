//! One call: from a request's bytes to its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::context::Context;
use super::outcome::Outcome;
use super::reply::{Answered, Chunks, Reply, Way};
use crate::rpc::message::hello::Agreement;
use crate::rpc::message::request;
use crate::rpc::router::{Method, Route, Router};
use crate::rpc::{Code, Status};
use crate::sys::thread::forget_panic;

/// What a call on a transport is limited to.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallLimits {
    pub(super) agreement: Agreement,
    /// The largest message that this server takes or sends, in bytes.
    own_maximum: u32,
    /// The most payload bytes of a message that cannot be cut.
    most: u32,
}

impl CallLimits {
    pub(super) fn new(agreement: Agreement, own_maximum: u32, most: u32) -> Self {
        Self { agreement, own_maximum, most }
    }

    /// The most payload bytes of an answer.
    #[inline]
    fn answer(self) -> u64 {
        let own = u64::from(self.own_maximum);
        self.agreement.maximum().map_or(own, |maximum| maximum.min(own))
    }

    /// The most payload bytes of a chunk, or of an error.
    #[inline]
    pub(super) fn max_chunk(self) -> u32 {
        // An answer has at most 32 bits.
        (self.answer() as u32).min(self.most)
    }
}

/// A request that is here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) tag: u16,
    pub(super) payload: &'a [u8],
    /// When it came, if that is known.
    pub(super) began: Option<Instant>,
}

/// Finds the method of a request and runs it. What it left behind is then in `outcome`.
#[inline(always)]
pub(super) fn answer(
    router: &Router,
    limits: CallLimits,
    request: Request<'_>,
    context: &mut Context<'_>,
    way: Way<'_>,
    outcome: &mut Outcome,
) {
    let prepared = prepare(router, limits.agreement, request, context);
    let ran = prepared.and_then(|(route, request)| run(route, context, request, way, limits.answer(), outcome));
    if let Err(status) = ran {
        outcome.refuse(status);
    }
}

/// The method of a request, and what of its payload is for the method.
#[inline(always)]
fn prepare<'a>(
    router: &'a Router,
    agreement: Agreement,
    Request { tag, payload, began }: Request<'a>,
    context: &mut Context<'_>,
) -> Result<(&'a Route, &'a [u8]), Box<Status>> {
    if context.received.as_ref().is_some_and(|fds| fds.lost()) {
        return Err(request::lost_descriptors().into());
    }
    let route = match router.find(tag) {
        Some(route) if context.received.is_some() && !route.takes_fds => return Err(request::takes_none(tag).into()),
        Some(route) => route,
        None => return Err(request::unknown(tag).into()),
    };
    let (left, request) = request::split(payload, agreement.is_version1())?;
    context.due = left.due(|| began.unwrap_or_else(Instant::now));
    Ok((route, request))
}

/// Runs the method. A panic is an error of this call and nothing more.
#[inline]
fn run(
    route: &Route,
    context: &mut Context<'_>,
    request: &[u8],
    way: Way<'_>,
    maximum: u64,
    outcome: &mut Outcome,
) -> Result<(), Box<Status>> {
    let method = AssertUnwindSafe(|| match &route.method {
        Method::Unary(method) => boxed(method(context, request, Reply { way, maximum, outcome })),
        Method::Streaming(method) => {
            let chunks = Chunks::new(way, context, outcome);
            boxed(method(context, request, chunks))
        }
    });
    catch_unwind(method).unwrap_or_else(|thrown| {
        forget_panic(thrown);
        Err(Box::new(panicked(route)))
    })
}

#[inline(always)]
fn boxed(answered: Result<Answered, Status>) -> Result<(), Box<Status>> {
    match answered {
        Ok(_) => Ok(()),
        Err(status) => Err(Box::new(status)),
    }
}

#[cold]
fn panicked(route: &Route) -> Status {
    Status::new(Code::Unknown, format!("the handler of method {:#06x} panicked", route.tag))
}
