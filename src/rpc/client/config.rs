//! How a client is set up.

use crate::WaitPolicy;
use crate::rpc::wire;

/// Choices of a [`Client`](super::Client).
#[derive(Debug, Clone)]
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
            maximum: wire::DEFAULT_MAXIMUM,
            window: wire::DEFAULT_WINDOW,
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
    /// The defaults: windows of 256 KiB, up to 64 channels, answers of up to 64 MiB, no reconnecting.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest answer in bytes, 4,096 at least.
    pub fn max_message(mut self, bytes: u32) -> Self {
        self.maximum = bytes.max(wire::LEAST_MAXIMUM as u32);
        self
    }

    /// The window that a channel asks for, in bytes; the server may give another. 0: channels are sockets alone.
    pub fn window(mut self, bytes: u32) -> Self {
        self.window = bytes;
        self
    }

    /// The most channels, that is calls at a time, 1 at least. A call past it waits for a channel.
    pub fn channels(mut self, count: usize) -> Self {
        self.channels = count.max(1);
        self
    }

    /// How to wait for answers. Inside the transfer of a payload that does not fit the window, where the server is at work, waits adapt
    /// whatever the policy.
    pub fn policy(mut self, policy: WaitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Connects anew, to the same path, when a call finds the connection gone. A call that may have run is never repeated: it fails,
    /// and the next one connects. Only a client of [`connect`](super::Client::connect) has a path; one of `from_socket` or `spawn`
    /// stays without its server.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Whether the extensions of version 1 are offered, which they are by default: with a server that knows `parts`, payloads that do not
    /// fit a window go through it in fragments, else over the channel's socket.
    pub fn extensions(mut self, offer: bool) -> Self {
        self.extensions = offer;
        self
    }

    /// Does not ask for version 1: no windows, no descriptors, and the server does not learn the deadlines.
    pub fn base_protocol(mut self) -> Self {
        self.base_only = true;
        self
    }
}
