//! Typed services without a code generation step.

/// Makes a typed client, a server trait and its registration out of a list of methods.
///
/// `service Name with NameClient` makes two things:
///
/// - the trait `Name`, whose methods answer calls; its function `route` adds them to a [`Router`](crate::rpc::Router);
/// - the struct `NameClient`, whose methods make calls, each with a deadline as its last argument. Its name is spelled out, because a macro
///   of this kind cannot make one up.
///
/// Each method has a number from `0x0001` to `0xFEFF`, which is its message type on the wire; two services in one router must not share
/// one. Arguments, at most eight, are encoded one after the other. In the server, arguments of types that borrow (`&str`, `&[u8]`) are
/// borrowed from the request. Documentation comments carry over to both. `new`, `client` and `route` are taken: a method cannot have one
/// of these names.
///
/// Methods that stream or take descriptors are added to the router by hand ([`Router::streaming`](crate::rpc::Router::streaming),
/// [`Router::raw_with_fds`](crate::rpc::Router::raw_with_fds)), and called through [`Client`](crate::rpc::Client) itself.
///
/// ```
/// use flipcall::rpc::{Client, Context, Router, Server, Status};
/// use std::os::unix::net::UnixStream;
/// use std::{collections::HashMap, sync::{Arc, Mutex}, time::Duration};
///
/// flipcall::service! {
///     /// A store of values.
///     pub service Store with StoreClient {
///         /// The value of a key.
///         0x0101 => fn get(key: &str) -> Vec<u8>;
///         /// Sets a value.
///         0x0102 => fn set(key: &str, value: &[u8]) -> ();
///     }
/// }
///
/// #[derive(Default)]
/// struct InMemory(Mutex<HashMap<String, Vec<u8>>>);
///
/// impl Store for InMemory {
///     fn get(&self, _: &mut Context<'_>, key: &str) -> Result<Vec<u8>, Status> {
///         self.0.lock().unwrap().get(key).cloned().ok_or_else(|| Status::invalid_argument("no such key"))
///     }
///     fn set(&self, _: &mut Context<'_>, key: &str, value: &[u8]) -> Result<(), Status> {
///         self.0.lock().unwrap().insert(key.into(), value.into());
///         Ok(())
///     }
/// }
///
/// let mut router = Router::new();
/// Arc::new(InMemory::default()).route(&mut router);
/// let server = Server::new(router, Default::default());
/// let (ours, theirs) = UnixStream::pair()?;
/// std::thread::spawn(move || server.serve_one(theirs));
///
/// let store = StoreClient::new(Client::from_socket(ours, Default::default())?);
/// let patience = Duration::from_secs(5);
/// store.set("answer", b"42", patience)?;
/// assert_eq!(store.get("answer", patience)?, b"42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! service {
    ($(#[$attribute:meta])* $visible:vis service $name:ident with $client:ident {
        $($(#[$note:meta])* $tag:literal => fn $method:ident($($argument:ident: $kind:ty),* $(,)?) -> $answer:ty;)*
    }) => {
        $(#[$attribute])*
        $visible trait $name: ::std::marker::Send + ::std::marker::Sync + 'static {
            $(
                $(#[$note])*
                #[allow(clippy::missing_errors_doc, reason = "what a method answers with is its author's to say")]
                fn $method(
                    &self,
                    context: &mut $crate::rpc::Context<'_>,
                    $($argument: $kind),*
                ) -> ::std::result::Result<$answer, $crate::rpc::Status>;
            )*

            /// Adds all methods to a router.
            ///
            /// # Panics
            /// If the router has a method of one of these numbers already, or a number is 0 or over `0xFEFF`.
            fn route(self: ::std::sync::Arc<Self>, router: &mut $crate::rpc::Router)
            where
                Self: ::std::marker::Sized,
            {
                $({
                    let service = ::std::sync::Arc::clone(&self);
                    router.raw($tag, move |context, request, reply| {
                        let ($($argument,)*): ($($kind,)*) = $crate::rpc::codec::from_bytes(request)?;
                        let answer = service.$method(context, $($argument),*)?;
                        reply.send_now(context, &answer)
                    });
                })*
            }
        }

        $(#[$attribute])*
        #[derive(Debug, Clone)]
        $visible struct $client($crate::rpc::Client);

        impl $client {
            /// Calls the service over `client`.
            #[must_use]
            $visible fn new(client: $crate::rpc::Client) -> Self {
                Self(client)
            }

            /// The client that the calls go through.
            #[must_use]
            $visible fn client(&self) -> &$crate::rpc::Client {
                &self.0
            }

            $(
                $(#[$note])*
                #[allow(clippy::missing_errors_doc, reason = "what a method answers with is its author's to say")]
                $visible fn $method(
                    &self,
                    $($argument: $kind,)*
                    deadline: impl ::std::convert::Into<$crate::Deadline>,
                ) -> ::std::result::Result<$answer, $crate::rpc::CallError> {
                    self.0.call($tag, &($(&$argument,)*), deadline)
                }
            )*
        }
    };
}
