//! From the number of a method to the code that answers it.
//!
//! ```
//! use flipcall::rpc::{Router, Status};
//!
//! let mut router = Router::new();
//! router.unary(0x0002, |_context, (a, b): (u64, u64)| {
//!     a.checked_add(b).ok_or_else(|| Status::invalid_argument("overflow"))
//! });
//! # let _ = router;
//! ```

use super::codec::{DecodeOwned, Encode, from_bytes};
use super::message::number;
use super::server::{Answered, Chunks, Context, Reply};
use super::status::Status;

/// A method that answers once.
type Unary = dyn Fn(&mut Context<'_>, &[u8], Reply<'_>) -> Result<Answered, Status> + Send + Sync;
/// A method that answers with chunks and an end.
type Streaming = dyn Fn(&mut Context<'_>, &[u8], Chunks<'_>) -> Result<Answered, Status> + Send + Sync;

/// How a message type is served.
pub(super) enum Method {
    Unary(Box<Unary>),
    Streaming(Box<Streaming>),
}

pub(super) struct Route {
    pub(super) tag: u16,
    pub(super) method: Method,
    /// Whether its requests may carry descriptors.
    pub(super) takes_fds: bool,
}

/// The methods of a server by their numbers, `0x0001` to `0xFEFF`, which are the message types on the wire. A call of any other number is
/// answered with [`Code::InvalidArgument`](super::Code::InvalidArgument) and a text that names it.
///
/// A method runs on the thread of the channel that it was called through, so several may run at the same time. A method that panics is
/// answered with [`Code::Unknown`](super::Code::Unknown), and its channel goes on.
#[derive(Default)]
pub struct Router {
    /// Sorted by tag.
    routes: Vec<Route>,
}

impl Router {
    /// A router without methods.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a method with a function from request to answer. A request that does not decode is answered with
    /// [`Code::InvalidArgument`](super::Code::InvalidArgument).
    ///
    /// # Panics
    /// If the number is 0 or over `0xFEFF`, or is served already.
    pub fn unary<Q: DecodeOwned, R: Encode>(
        &mut self,
        tag: u16,
        method: impl Fn(&mut Context<'_>, Q) -> Result<R, Status> + Send + Sync + 'static,
    ) -> &mut Self {
        self.raw(tag, move |context, request, reply| {
            let answer = method(context, from_bytes(request)?)?;
            reply.send_now(context, &answer)
        })
    }

    /// Serves a method with a function that gets the request's bytes and answers by itself. It may borrow from the request, and answer with
    /// something that borrows.
    ///
    /// # Panics
    /// As [`unary`](Self::unary).
    pub fn raw(
        &mut self,
        tag: u16,
        method: impl Fn(&mut Context<'_>, &[u8], Reply<'_>) -> Result<Answered, Status> + Send + Sync + 'static,
    ) -> &mut Self {
        self.add(tag, Method::Unary(Box::new(method)), false)
    }

    /// As [`raw`](Self::raw), for requests that may carry descriptors, which [`Context::take_fd`] hands out. Every other method answers such
    /// a request with [`Code::InvalidArgument`](super::Code::InvalidArgument).
    ///
    /// # Panics
    /// As [`unary`](Self::unary).
    pub fn raw_with_fds(
        &mut self,
        tag: u16,
        method: impl Fn(&mut Context<'_>, &[u8], Reply<'_>) -> Result<Answered, Status> + Send + Sync + 'static,
    ) -> &mut Self {
        self.add(tag, Method::Unary(Box::new(method)), true)
    }

    /// Serves a method with a function that answers in chunks; [`Client::stream`](super::Client::stream) calls it.
    ///
    /// # Panics
    /// As [`unary`](Self::unary).
    ///
    /// ```
    /// # use flipcall::rpc::{Client, Router, Server, codec::from_bytes};
    /// # use std::{os::unix::net::UnixStream, time::Duration};
    /// let mut router = Router::new();
    /// router.streaming(3, |context, request, mut chunks| {
    ///     let sectors: u32 = from_bytes(request)?;
    ///     for sector in 0..sectors {
    ///         context.check()?;
    ///         chunks.send(&sector)?;
    ///     }
    ///     chunks.end(&"all read")
    /// });
    /// # let server = Server::new(router, Default::default());
    /// # let (ours, theirs) = UnixStream::pair()?;
    /// # std::thread::spawn(move || server.serve_one(theirs));
    /// # let client = Client::from_socket(ours, Default::default())?;
    ///
    /// let mut stream = client.stream(3, &2u32, Duration::from_secs(5))?;
    /// for chunk in &mut stream {
    ///     let sector: u32 = from_bytes(&chunk?)?;
    ///     assert!(sector < 2);
    /// }
    /// assert_eq!(stream.end::<String>()?, "all read");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn streaming(
        &mut self,
        tag: u16,
        method: impl Fn(&mut Context<'_>, &[u8], Chunks<'_>) -> Result<Answered, Status> + Send + Sync + 'static,
    ) -> &mut Self {
        self.add(tag, Method::Streaming(Box::new(method)), false)
    }

    fn add(&mut self, tag: u16, method: Method, takes_fds: bool) -> &mut Self {
        assert!(
            number::SERVICE_TYPES.contains(&tag),
            "no method can have the number {tag:#06x}: methods go from 0x0001 to 0xfeff"
        );
        match self.routes.binary_search_by_key(&tag, |route| route.tag) {
            Ok(_) => panic!("the router has a method {tag:#06x} already"),
            Err(at) => self.routes.insert(at, Route { tag, method, takes_fds }),
        }
        self
    }

    #[inline]
    pub(super) fn find(&self, tag: u16) -> Option<&Route> {
        let at = self.routes.binary_search_by_key(&tag, |route| route.tag).ok()?;
        Some(&self.routes[at])
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|route| format_args!("{:#06x}", route.tag).to_string())).finish()
    }
}
