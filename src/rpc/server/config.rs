//! How a server is set up.

use std::time::Duration;

use crate::WaitPolicy;
use crate::rpc::wire;

/// Limits and choices of a [`Server`](super::Server).
///
/// What is counted in total is shared out: one connecting process gets at most a quarter of each total.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub(super) maximum: u32,
    pub(super) window: u32,
    pub(super) connections: u32,
    pub(super) channels: u32,
    pub(super) channels_total: u32,
    pub(super) window_bytes: u64,
    pub(super) window_bytes_total: u64,
    pub(super) large_bytes: u64,
    pub(super) policy: WaitPolicy,
    pub(super) version1: bool,
    pub(super) extensions: bool,
    pub(super) mode: Option<u32>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            maximum: wire::DEFAULT_MAXIMUM,
            window: wire::DEFAULT_MOST_WINDOW,
            // Two threads and up to four descriptors each: within a descriptor table of 4,096, the usual hard limit.
            connections: 512,
            channels: 64,
            channels_total: 512,
            window_bytes: 64 << 20,
            window_bytes_total: 256 << 20,
            // Eight of the largest messages at a time, two of one process.
            large_bytes: 512 << 20,
            policy: WaitPolicy::default(),
            version1: true,
            extensions: true,
            mode: Some(0o600),
        }
    }
}

/// How long [`ServerHandle::close`](super::ServerHandle::close) leaves the last answers in their windows: shutting a window down
/// overtakes an answer that the client has not taken yet.
pub(super) const LAST_ANSWER: Duration = Duration::from_millis(100);

impl ServerConfig {
    /// The defaults: 512 connections, 64 channels and 64 MiB of windows for each, 512 channels and 256 MiB in all, windows of up
    /// to 1 MiB each, messages of up to 64 MiB, requests of over 1 MiB up to 512 MiB in all, which is 128 MiB of one process.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest message in bytes, 4,096 at least.
    pub fn max_message(mut self, bytes: u32) -> Self {
        self.maximum = bytes.max(wire::LEAST_MAXIMUM as u32);
        self
    }

    /// The largest window that a client is given, in bytes, at most 16 MiB. 0: only socket channels.
    pub fn max_window(mut self, bytes: u32) -> Self {
        self.window = bytes.min(wire::MOST_WINDOW);
        self
    }

    /// The most connections at a time; the next one is closed as soon as it is accepted.
    pub fn connections(mut self, count: u32) -> Self {
        self.connections = count;
        self
    }

    /// The most channels at a time, of one connection and in all.
    pub fn channels(mut self, each: u32, total: u32) -> Self {
        (self.channels, self.channels_total) = (each, total);
        self
    }

    /// The most bytes of windows at a time, of one connection and in all.
    pub fn window_bytes(mut self, each: u64, total: u64) -> Self {
        (self.window_bytes, self.window_bytes_total) = (each, total);
        self
    }

    /// The most bytes of requests over 1 MiB at a time, in all; one connecting process gets a quarter. What is over it is read and
    /// thrown away, and answered with [`NoResource`](crate::rpc::Code::NoResource): it did not run, and may be repeated.
    pub fn large_requests(mut self, bytes: u64) -> Self {
        self.large_bytes = bytes;
        self
    }

    /// How workers wait for the next call. Inside the transfer of a payload that does not fit the window, where the client is at work,
    /// waits adapt whatever the policy.
    pub fn policy(mut self, policy: WaitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether the extensions of version 1 are accepted, which they are by default: payloads that do not fit a window go through it in
    /// fragments, if the client offers that, else over the channel's socket.
    pub fn extensions(mut self, accept: bool) -> Self {
        self.extensions = accept;
        self
    }

    /// Answers HELLO like a server that does not know it: no deadlines, no descriptors, no windows.
    pub fn base_protocol(mut self) -> Self {
        self.version1 = false;
        self
    }

    /// The permission bits of the socket file, 0o600 by default: who may write to it may connect. `None`: everybody, whatever the
    /// process's mask.
    pub fn mode(mut self, mode: Option<u32>) -> Self {
        self.mode = mode;
        self
    }
}
