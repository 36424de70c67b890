//! How a client is set up.

use crate::endpoint::WaitPolicy;
use crate::rpc::message::number;

/// Choices of a [`Client`](super::Client), as a builder: each method takes the configuration and returns it changed; `get_` in front of
/// its name reads the choice.
///
/// ```
/// use flipcall::rpc::{ClientConfig, WaitPolicy};
///
/// let config = ClientConfig::new().channels(4).policy(WaitPolicy::Park).reconnect(true);
/// assert_eq!(config.get_channels(), 4);
/// assert_eq!(config.get_window(), 256 << 10);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ClientConfig {
    pub(super) maximum: u32,
    pub(super) window: u32,
    pub(super) channels: usize,
    pub(super) policy: WaitPolicy,
    pub(super) reconnect: bool,
    pub(super) base_only: bool,
    pub(super) extensions: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            maximum: number::DEFAULT_MAXIMUM,
            window: number::DEFAULT_WINDOW,
            // As many as a server gives one connection by default.
            channels: 64,
            policy: WaitPolicy::default(),
            reconnect: false,
            base_only: false,
            extensions: true,
        }
    }
}

impl ClientConfig {
    /// The defaults: windows of 256 KiB, up to 64 channels, answers of up to 64 MiB, policy `Adaptive`, extensions on offer, no
    /// reconnecting.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest answer in bytes. Less than 4,096 counts as 4,096, which every error fits.
    pub fn max_message(mut self, bytes: u32) -> Self {
        self.maximum = bytes.max(number::LEAST_MAXIMUM as u32);
        self
    }

    /// The largest answer in bytes.
    #[must_use]
    pub fn get_max_message(&self) -> u32 {
        self.maximum
    }

    /// The size of the window that each channel asks for, in bytes. The server rounds it up to whole pages and may give less. More than
    /// 16 MiB counts as 16 MiB. 0: the channels are sockets without a window.
    pub fn window(mut self, bytes: u32) -> Self {
        self.window = bytes.min(number::MOST_WINDOW);
        self
    }

    /// The size of the window that each channel asks for, in bytes.
    #[must_use]
    pub fn get_window(&self) -> u32 {
        self.window
    }

    /// The most channels, and so the most calls at a time. Streams count, and so do calls that missed their deadline, for 1 s or until their
    /// answer comes. A further call waits for a channel, see [`Client::call`](super::Client::call). Services that call each other need one for
    /// each level. 0 counts as 1.
    pub fn channels(mut self, count: usize) -> Self {
        self.channels = count.max(1);
        self
    }

    /// The most channels.
    #[must_use]
    pub fn get_channels(&self) -> usize {
        self.channels
    }

    /// How calls wait for their answers. While a payload that does not fit the window is transferred, the server is at work, and waits
    /// adapt whatever the policy.
    pub fn policy(mut self, policy: WaitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How calls wait for their answers.
    #[must_use]
    pub fn get_policy(&self) -> WaitPolicy {
        self.policy
    }

    /// Whether a call that finds the connection gone connects anew, to the path of before. A call that may have run is never repeated:
    /// it fails, and the next one connects. Only a client of [`connect`](super::Client::connect) has a path. A client of
    /// [`from_socket`](super::Client::from_socket) or [`spawn`](super::Client::spawn) stays without its server.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Whether a call that finds the connection gone connects anew.
    #[must_use]
    pub fn get_reconnect(&self) -> bool {
        self.reconnect
    }

    /// Whether the client offers the extensions of version 1, as it does by default. With a server that knows `parts`, a payload that
    /// does not fit the window goes through it in fragments, else over the channel's socket.
    pub fn extensions(mut self, offer: bool) -> Self {
        self.extensions = offer;
        self
    }

    /// Whether the client offers the extensions of version 1.
    #[must_use]
    pub fn get_extensions(&self) -> bool {
        self.extensions
    }

    /// Does not ask for version 1: there are no windows and no descriptors, and the server does not learn the deadlines.
    pub fn base_protocol(mut self) -> Self {
        self.base_only = true;
        self
    }

    /// Whether the client speaks the base protocol and nothing else.
    #[must_use]
    pub fn is_base_protocol(&self) -> bool {
        self.base_only
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_clamped() {
        let config = ClientConfig::new().max_message(0).window(u32::MAX).channels(0);
        assert_eq!((config.get_max_message(), config.get_window(), config.get_channels()), (4096, 16 << 20, 1));
        assert_eq!(config.window(0).get_window(), 0);
    }
}
