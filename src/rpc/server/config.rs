//! How a server is set up.

use std::time::Duration;

use crate::endpoint::WaitPolicy;
use crate::rpc::message::number;
use crate::stream::Access;

/// Limits and choices of a [`Server`](super::Server), as a builder: each method takes the configuration and returns it changed; `get_` in
/// front of its name reads the choice.
///
/// What is limited in total is shared out: one connecting process gets at most a quarter of each total, rounded down, but one connection
/// or channel at least; and all processes of one user get at most half, since a program that forks has as many processes as it likes. So a
/// server with [`channels_total`](Self::channels_total) 512 gives one process 128 and one user 256. Processes that the server cannot see,
/// because they are in another PID namespace, have their users' shares alone. A client past a limit of connections is told so.
///
/// ```
/// use flipcall::rpc::ServerConfig;
///
/// let config = ServerConfig::new().channels_per_connection(8).channels_total(64).window_bytes_total(64 << 20);
/// assert_eq!((config.get_channels_per_connection(), config.get_channels_total()), (8, 64));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
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
    pub(super) access: Access,
    pub(super) patience: Duration,
    pub(super) end_with_process: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            maximum: number::DEFAULT_MAXIMUM,
            window: number::DEFAULT_MOST_WINDOW,
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
            access: Access::Owner,
            patience: number::TRANSFER,
            end_with_process: true,
        }
    }
}

/// How long [`ServerHandle::close`](super::ServerHandle::close) leaves the last answers in their windows: shutting a window down
/// overtakes an answer that the client has not taken yet.
pub(super) const LAST_ANSWER: Duration = Duration::from_millis(100);

/// The longest patience: a year from now is a time that every clock has.
const MOST_PATIENCE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl ServerConfig {
    /// The defaults: 512 connections, 64 channels and 64 MiB of windows for each, 512 channels and 256 MiB of windows in all, windows of
    /// up to 1 MiB each, messages of up to 64 MiB, 512 MiB in all for requests over 1 MiB, policy `Adaptive`, a socket file that only
    /// this user may connect to.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest message in bytes. Less than 4,096 counts as 4,096, which every error fits.
    pub fn max_message(mut self, bytes: u32) -> Self {
        self.maximum = bytes.max(number::LEAST_MAXIMUM as u32);
        self
    }

    /// The largest message in bytes.
    #[must_use]
    pub fn get_max_message(&self) -> u32 {
        self.maximum
    }

    /// The largest window that a client is given, in bytes. More than 16 MiB counts as 16 MiB. 0: channels are sockets without a window.
    pub fn max_window(mut self, bytes: u32) -> Self {
        self.window = bytes.min(number::MOST_WINDOW);
        self
    }

    /// The largest window that a client is given, in bytes.
    #[must_use]
    pub fn get_max_window(&self) -> u32 {
        self.window
    }

    /// The most connections at a time, in all. The next one is told so, and closed, as soon as it is accepted.
    pub fn connections(mut self, count: u32) -> Self {
        self.connections = count;
        self
    }

    /// The most connections at a time, in all.
    #[must_use]
    pub fn get_connections(&self) -> u32 {
        self.connections
    }

    /// The most channels of one connection at a time. A client that is refused one goes on with those that it has, or with its
    /// connection alone.
    pub fn channels_per_connection(mut self, count: u32) -> Self {
        self.channels = count;
        self
    }

    /// The most channels of one connection at a time.
    #[must_use]
    pub fn get_channels_per_connection(&self) -> u32 {
        self.channels
    }

    /// The most channels at a time, in all.
    pub fn channels_total(mut self, count: u32) -> Self {
        self.channels_total = count;
        self
    }

    /// The most channels at a time, in all.
    #[must_use]
    pub fn get_channels_total(&self) -> u32 {
        self.channels_total
    }

    /// The most bytes of windows of one connection at a time.
    pub fn window_bytes_per_connection(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// The most bytes of windows of one connection at a time.
    #[must_use]
    pub fn get_window_bytes_per_connection(&self) -> u64 {
        self.window_bytes
    }

    /// The most bytes of windows at a time, in all. Under four times the size of a window no process gets a window: use
    /// [`max_window(0)`](Self::max_window) if that is meant.
    pub fn window_bytes_total(mut self, bytes: u64) -> Self {
        self.window_bytes_total = bytes;
        self
    }

    /// The most bytes of windows at a time, in all.
    #[must_use]
    pub fn get_window_bytes_total(&self) -> u64 {
        self.window_bytes_total
    }

    /// The most bytes of large requests (over 1 MiB) at a time, in all: while they are received and served. A request over it is read and
    /// thrown away, and answered with [`NoResource`](crate::rpc::Code::NoResource): it did not run, and may be repeated.
    pub fn large_request_bytes_total(mut self, bytes: u64) -> Self {
        self.large_bytes = bytes;
        self
    }

    /// The most bytes of requests over 1 MiB at a time, in all.
    #[must_use]
    pub fn get_large_request_bytes_total(&self) -> u64 {
        self.large_bytes
    }

    /// How workers wait for the next call. While a payload that does not fit the window is transferred, the client is at work, and waits
    /// adapt whatever the policy.
    pub fn policy(mut self, policy: WaitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How workers wait for the next call.
    #[must_use]
    pub fn get_policy(&self) -> WaitPolicy {
        self.policy
    }

    /// Whether the server accepts the extensions of version 1, as it does by default. With a client that offers `parts`, a payload that
    /// does not fit the window goes through it in fragments, else over the channel's socket.
    pub fn extensions(mut self, accept: bool) -> Self {
        self.extensions = accept;
        self
    }

    /// Whether the server accepts the extensions of version 1.
    #[must_use]
    pub fn get_extensions(&self) -> bool {
        self.extensions
    }

    /// Answers HELLO as a server does that does not know it: there are no deadlines, no descriptors and no windows.
    pub fn base_protocol(mut self) -> Self {
        self.version1 = false;
        self
    }

    /// Whether the server speaks the base protocol and nothing else.
    #[must_use]
    pub fn is_base_protocol(&self) -> bool {
        !self.version1
    }

    /// How long the server waits for a client inside a call, 30 s by default: until the rest of a request is here that has begun, until a
    /// part of an answer is taken, and until the next chunk of a stream is asked for. Then it ends the channel. A client that may be stopped
    /// for longer, in a debugger say, needs more. Less than 1 ms counts as 1 ms, more than a year as a year.
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time.clamp(Duration::from_millis(1), MOST_PATIENCE);
        self
    }

    /// How long the server waits for a client inside a call.
    #[must_use]
    pub fn get_patience(&self) -> Duration {
        self.patience
    }

    /// Whether a connection to a socket file ends with the process that connected, as it does by default, even if another process holds the
    /// socket. `false` is for clients that hand their connections on and end. Then a client may leave connections behind that do not hang
    /// up, in a queue that nobody reads, until they fill their share of the server.
    pub fn end_with_process(mut self, end: bool) -> Self {
        self.end_with_process = end;
        self
    }

    /// Whether a connection ends with the process that connected.
    #[must_use]
    pub fn get_end_with_process(&self) -> bool {
        self.end_with_process
    }

    /// Who may connect to the socket file that [`Server::bind`](super::Server::bind) makes: by default this user alone.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Who may connect to the socket file.
    #[must_use]
    pub fn get_access(&self) -> Access {
        self.access
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_clamped() {
        let config = ServerConfig::new().max_message(0).max_window(u32::MAX);
        assert_eq!((config.get_max_message(), config.get_max_window()), (4096, 16 << 20));
        assert_eq!(config.clone().patience(Duration::ZERO).get_patience(), Duration::from_millis(1));
        assert_eq!(config.patience(Duration::MAX).get_patience(), MOST_PATIENCE);
    }
}
