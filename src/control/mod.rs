//! Who holds control: the state word, how control is transferred, and how long and how to wait for it.
//!
//! - `state` the pure table: what each of the 2^32 values of the word means to each side
//! - [`WaitPolicy`] and `adaptive` how to wait: spin, park, or learn which is cheaper
//! - `pace` when to poll for the next answer
//! - `transfer` flip and wait, with the argument for their memory order
//! - `watchdog` notices the death of peers, and with `unread` what they leave on a socket that nobody reads
//! - [`Counters`] what an endpoint did so far

mod adaptive;
mod counters;
#[cfg(test)]
mod models;
mod pace;
mod policy;
mod state;
#[cfg(test)]
mod state_oracle;
mod stop;
mod transfer;
mod unread;
mod wait;
mod watchdog;

pub use counters::Counters;
pub use policy::WaitPolicy;
pub use state::StateViolation;

pub(crate) use counters::CounterCells;
pub(crate) use state::Side;
pub(crate) use stop::Stop;
pub(crate) use transfer::{Expect, Transfer, shut_down};
pub(crate) use watchdog::Watched;
