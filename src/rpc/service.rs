//! Typed services without a code generation step.

/// Makes a typed client, a server trait and its registration out of a list of methods.
///
/// `service Name with NameClient` makes the struct `NameClient`, whose methods call, and the trait `Name`, whose methods answer,
/// with a function `route` that adds them to a [`Router`](crate::rpc::Router). (The client's name is spelled out, because a
/// macro of this kind cannot make one up.) Arguments are one payload, one after the other, at most eight; types that borrow
/// (`&str`, `&[u8]`) are borrowed from the request in the server. Documentation comments carry over to both. Methods that stream or
/// take descriptors are added to the router by hand ([`Router::streaming`](crate::rpc::Router::streaming)), and called through a clone
/// of the client that `NameClient::new` was given.
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
            /// If one of the message types is served already.
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
            $visible fn new(client: $crate::rpc::Client) -> Self {
                Self(client)
            }

            /// The client underneath.
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
