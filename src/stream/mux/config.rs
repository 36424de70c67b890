//! What a side of a mux announces, grants and tolerates.

use std::time::Duration;

use super::protocol::control::{LARGEST_FRAME, MOST_CHANNELS};
use super::protocol::state::{FRAME_COST, Terms};
use crate::error::{Error, Result};
use crate::stream::socket::frame_socket::DEFAULT_PATIENCE;

/// Which side of the socket this is: the two must differ. The process that spawned the other, or connected, is usually the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens odd ids.
    Initiator,
    /// Opens even ids.
    Acceptor,
}

/// The configuration of one side of a [`Mux`](super::Mux).
///
/// The peer may make this side hold `max_channels × credit` bytes that nobody reads; that product must stay within `budget`.
#[derive(Debug, Clone)]
pub struct MuxConfig {
    /// Which ids this side opens.
    pub role: Role,
    /// The largest data frame accepted, in bytes: 1 to 2^31 − 17. Default 64 KiB.
    pub max_frame: u32,
    /// How many channels the peer may have open here that it opened: 0 to 4,096. Default 128.
    pub max_channels: u16,
    /// What the peer may send on a channel before anything is consumed, in bytes, 16 of them per frame. At least `max_frame` + 16.
    /// Default 512 KiB: long enough that a CREDIT frame is needed only every four frames of the default size.
    pub credit: u32,
    /// The bound on `max_channels × credit`, in bytes. Default 64 MiB.
    pub budget: u64,
    /// How long a frame that has begun may take to come in, and 64 KiB of a write to go out. Default 30 s.
    pub patience: Duration,
    /// How long the peer's HELLO may take. Default 10 s.
    pub handshake: Duration,
}

impl MuxConfig {
    /// The default configuration of a side.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            max_frame: 64 * 1024,
            max_channels: 128,
            credit: 512 * 1024,
            budget: 64 * 1024 * 1024,
            patience: DEFAULT_PATIENCE,
            handshake: Duration::from_secs(10),
        }
    }

    pub(super) fn terms(&self) -> Result<Terms> {
        if !(1..=LARGEST_FRAME).contains(&self.max_frame) {
            return Err(Error::invalid(format!(
                "the maximum frame is 1 to {LARGEST_FRAME} bytes, not {}",
                self.max_frame
            )));
        }
        if self.max_channels > MOST_CHANNELS {
            return Err(Error::invalid(format!("at most {MOST_CHANNELS} channels, not {}", self.max_channels)));
        }
        let least = u64::from(self.max_frame) + FRAME_COST;
        if !(least..=1 << 31).contains(&u64::from(self.credit)) {
            return Err(Error::invalid(format!("the credit is {least} to 2^31 bytes, not {}", self.credit)));
        }
        if u64::from(self.max_channels) * u64::from(self.credit) > self.budget {
            return Err(Error::invalid(format!(
                "{} channels of {} bytes of credit are over the budget of {} bytes",
                self.max_channels, self.credit, self.budget
            )));
        }
        let initiator = self.role == Role::Initiator;
        Ok(Terms { initiator, max_frame: self.max_frame, max_channels: self.max_channels, credit: self.credit })
    }
}
