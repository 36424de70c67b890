//! How an endpoint waits for its peer.

/// How an endpoint waits for control.
///
/// Spinning costs a CPU for as long as it lasts: an endpoint whose peer takes 100 µs to answer burns a whole core with
/// [`Spin`](Self::Spin), and about that with [`Adaptive`](Self::Adaptive) too, in exchange for an answer that is seen within a cache-line
/// transfer. Where more endpoints wait than there are CPUs, use `Adaptive`, which backs off by itself, or [`Park`](Self::Park).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WaitPolicy {
    /// Never sleep. For two endpoints on two CPUs of their own. The CPU is yielded every 50 µs, so that two endpoints on one CPU
    /// crawl but do not hang.
    Spin,
    /// Learn from past answers whether to spin (and how long), to yield the CPU once, or to sleep. Close to the better of
    /// the other two for any peer.
    #[default]
    Adaptive,
    /// Sleep at once. The least CPU time, the highest latency.
    Park,
}
