//! The protocol of typed calls without input and output: types that eat and produce bytes, and say what is to be done next.
//!
//! Nothing here knows a socket, a window, a clock or a thread; instants are passed in. So every rule can be tried by enumeration, and a
//! fuzzer needs no second process. `transport` moves the bytes that these types ask for.
//!
//! | file | what it knows |
//! |---|---|
//! | [`number`] | numbers of the protocol: types, flags, limits, times |
//! | [`head`] | the four bytes in front of a message in a window |
//! | [`arrival`] | what a datagram is that came with control: whole, in fragments, or announced as bulk |
//! | [`fragment`] | a payload that goes through its window piece by piece, both sides |
//! | [`bulk`] | a payload that follows on the socket, both sides |
//! | [`prefix`] | what stands in front of a value: the status byte, the time that a call has left |
//! | [`transfer`] | when a transfer of a long payload has to be over |
//! | [`hello`], [`open`] | how a connection begins, how a channel is opened, both sides |
//! | [`outgoing`] | a message to be sent |
//! | [`request`] | what a server makes of a request |
//! | [`answer`] | what a client makes of an answer, streams included |
//! | [`stream`] | whose turn it is in a streamed answer, the server's side |
//!
//! Public for the fuzzers and for tests alone: it is no part of the interface, and changes with any version.

pub mod answer;
pub mod arrival;
pub mod bulk;
pub mod fragment;
pub mod head;
pub mod hello;
pub mod number;
pub mod open;
pub mod outgoing;
pub mod prefix;
pub mod request;
pub mod stream;
pub mod transfer;

#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
mod fragment_tests;
