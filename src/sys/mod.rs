//! Layer 0: what the hardware and the kernel offer, behind functions that are safe to call.
//!
//! This is the only layer with unsafe code. Each file opens the door for itself with one `allow`, and each block carries its proof.
//!
//! - [`sync`] atomics, fences and the two-word futex sleep; the one file that knows `cfg(loom)`
//! - [`cancel`] the process-private word through which local events reach a sleeper
//! - [`bytes`] copies to and from memory that the peer can change meanwhile
//! - [`mapping`] a mapped window: bounds-checked bytes and four header words
//! - [`inline`] copies of a datagram that lies in the first cache line
//! - [`memfd`] sealed shared-memory files
//! - [`memory`] freed memory back to the kernel
//! - [`fork`] tells whether this process was forked since
//! - [`stack`] how deep the stack is
//! - [`socket`] the socket options and requests that no safe wrapper has
//! - [`sigpipe`] keeps SIGPIPE away from the program
//! - [`receive`] the one receive of sockets at which a peer sits
//! - [`socket_kind`] what kind of socket a descriptor is
//! - [`thread`] starts threads that take no signals of the program
//! - [`limits`] the resource limits of this process
//! - [`lock`] a mutex without poison
//! - [`poll`] waits for descriptors until a point in time
//! - [`foreign`] closes descriptors that a peer sent, which may block
//! - [`peer_socket`] a socket whose last close may close such descriptors
//! - [`try_lock`] a lock that nobody waits for
//! - [`umask`] a umask for one thread
//! - [`inherit`] descriptors that a child inherits under chosen numbers, and how it comes to own them
//! - [`child`] starts children, without a fork where the kernel can
//! - [`carry`] carries the pipes of a new child between two descriptor tables
//! - [`lift`] keeps descriptors away from the numbers of the standard streams

pub(crate) mod bytes;
pub(crate) mod cancel;
mod carry;
pub(crate) mod child;
pub(crate) mod foreign;
pub(crate) mod fork;
pub(crate) mod inherit;
pub(crate) mod inline;
pub(crate) mod lift;
pub(crate) mod limits;
pub(crate) mod lock;
pub(crate) mod mapping;
pub(crate) mod memfd;
pub(crate) mod memory;
pub(crate) mod peer_socket;
pub(crate) mod poll;
pub(crate) mod receive;
pub(crate) mod sigpipe;
pub(crate) mod socket;
pub(crate) mod socket_kind;
pub(crate) mod stack;
pub(crate) mod sync;
pub(crate) mod thread;
pub(crate) mod try_lock;
pub(crate) mod umask;
