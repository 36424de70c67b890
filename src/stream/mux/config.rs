//! What a side of a mux announces, grants and tolerates.

use std::time::Duration;

use super::protocol::control::{LARGEST_FRAME, MOST_CHANNELS};
use super::protocol::state::{FRAME_COST, MAX_CREDIT, Terms};
use crate::error::{Error, Result};
use crate::stream::socket::frame_socket::DEFAULT_PATIENCE;

/// Which side of the socket this is: the two must differ. The process that spawned the other, or connected, is usually the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opens odd ids.
    Initiator,
    /// Opens even ids.
    Acceptor,
}

/// The configuration of one side of a [`Mux`](super::Mux), as a builder: each method takes the configuration and returns it changed;
/// `get_` in front of its name reads the choice.
///
/// The peer may make this side hold [`max_channels`](Self::max_channels) × [`credit`](Self::credit) bytes that nobody reads; that product
/// must stay within the [`budget`](Self::budget). [`Mux::new`](super::Mux::new) refuses values out of range.
///
/// ```
/// use flipcall::stream::mux::{MuxConfig, Role};
///
/// let config = MuxConfig::new(Role::Acceptor).max_channels(16).credit(1 << 20);
/// assert_eq!((config.get_max_channels(), config.get_max_frame()), (16, 64 * 1024));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct MuxConfig {
    role: Role,
    max_frame: u32,
    max_channels: u16,
    credit: u32,
    budget: u64,
    patience: Duration,
    handshake: Duration,
}

impl MuxConfig {
    /// The default configuration of a side: data frames of up to 64 KiB, 128 channels of the peer with 512 KiB of credit each within a
    /// budget of 64 MiB, 30 s for a frame that has begun, 10 s for the handshake.
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

    /// Which ids this side opens.
    #[must_use]
    pub fn get_role(&self) -> Role {
        self.role
    }

    /// The largest data frame accepted, in bytes: 1 to 2^31 − 17.
    pub fn max_frame(mut self, bytes: u32) -> Self {
        self.max_frame = bytes;
        self
    }

    /// The largest data frame accepted, in bytes.
    #[must_use]
    pub fn get_max_frame(&self) -> u32 {
        self.max_frame
    }

    /// How many channels the peer may have open here that it opened: 0 to 4,096.
    pub fn max_channels(mut self, count: u16) -> Self {
        self.max_channels = count;
        self
    }

    /// How many channels the peer may have open here that it opened.
    #[must_use]
    pub fn get_max_channels(&self) -> u16 {
        self.max_channels
    }

    /// What the peer may send on a channel before anything is consumed, in bytes, of which each frame costs 16 and its length: at least
    /// the largest frame and 16, at most 2^31. With the default a CREDIT frame is needed only every four frames of the default size.
    pub fn credit(mut self, bytes: u32) -> Self {
        self.credit = bytes;
        self
    }

    /// What the peer may send on a channel before anything is consumed, in bytes.
    #[must_use]
    pub fn get_credit(&self) -> u32 {
        self.credit
    }

    /// The bound on channels × credit, in bytes.
    pub fn budget(mut self, bytes: u64) -> Self {
        self.budget = bytes;
        self
    }

    /// The bound on channels × credit, in bytes.
    #[must_use]
    pub fn get_budget(&self) -> u64 {
        self.budget
    }

    /// How long a frame that has begun may take to come in, and 64 KiB of a write to go out.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long a frame that has begun may take to come in, and 64 KiB of a write to go out.
    #[must_use]
    pub fn get_patience(&self) -> Duration {
        self.patience
    }

    /// How long the peer's HELLO may take.
    pub fn handshake(mut self, patience: Duration) -> Self {
        self.handshake = patience;
        self
    }

    /// How long the peer's HELLO may take.
    #[must_use]
    pub fn get_handshake(&self) -> Duration {
        self.handshake
    }

    /// What this side announces and grants, if it is in range.
    pub(super) fn terms(&self) -> Result<Terms> {
        let Self { role, max_frame, max_channels, credit, budget, .. } = *self;
        if !(1..=LARGEST_FRAME).contains(&max_frame) {
            let limit = format!("max_frame of a mux must be 1 to {LARGEST_FRAME} bytes, not {max_frame}");
            return Err(Error::invalid(limit));
        }
        if max_channels > MOST_CHANNELS {
            return Err(Error::invalid(format!(
                "max_channels of a mux must be at most {MOST_CHANNELS}, not {max_channels}"
            )));
        }
        let least = u64::from(max_frame) + FRAME_COST;
        if !(least..=MAX_CREDIT).contains(&u64::from(credit)) {
            let limit = format!(
                "credit of a mux must be {least} (max_frame and {FRAME_COST}) to {MAX_CREDIT} bytes, not {credit}"
            );
            return Err(Error::invalid(limit));
        }
        let held = u64::from(max_channels) * u64::from(credit);
        if held > budget {
            return Err(Error::invalid(format!(
                "{max_channels} channels with {credit} bytes of credit each can hold {held} bytes, over the budget of {budget} bytes of the mux"
            )));
        }
        Ok(Terms { initiator: role == Role::Initiator, max_frame, max_channels, credit })
    }
}
