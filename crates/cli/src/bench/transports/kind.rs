//! The transports that the benchmark knows, by name, and what each is compared with.

/// The most payload bytes of a row that carries each call in one datagram of a socket: default socket buffers hold 208 KiB, which counts
/// the kernel's bookkeeping too.
pub(in crate::bench) const MOST_SEQPACKET: u32 = 128 << 10;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Transport {
    BareSpin,
    BareFutex,
    BareCopy,
    WindowAdaptive,
    WindowSpin,
    WindowPark,
    Pipe,
    Eventfd,
    UnixStream,
    UnixSeqpacket,
    RpcWindow,
    RpcBulk,
    RpcSocket,
}

impl Transport {
    /// All of them, in the order of the table.
    pub(in crate::bench) const ALL: [Self; 13] = [
        Self::BareSpin,
        Self::BareCopy,
        Self::BareFutex,
        Self::WindowSpin,
        Self::WindowAdaptive,
        Self::WindowPark,
        Self::Pipe,
        Self::Eventfd,
        Self::UnixStream,
        Self::UnixSeqpacket,
        Self::RpcWindow,
        Self::RpcBulk,
        Self::RpcSocket,
    ];

    /// Whether it is measured unless others are asked for: `rpc-bulk` differs from `rpc-window` above the window's length alone.
    pub(in crate::bench) fn is_default(self) -> bool {
        self != Self::RpcBulk
    }

    pub(in crate::bench) fn name(self) -> &'static str {
        match self {
            Self::BareSpin => "bare-spin",
            Self::BareFutex => "bare-futex",
            Self::BareCopy => "bare-copy",
            Self::WindowAdaptive => "window-adaptive",
            Self::WindowSpin => "window-spin",
            Self::WindowPark => "window-park",
            Self::Pipe => "pipe",
            Self::Eventfd => "eventfd",
            Self::UnixStream => "unix-stream",
            Self::UnixSeqpacket => "unix-seqpacket",
            Self::RpcWindow => "rpc-window",
            Self::RpcBulk => "rpc-bulk",
            Self::RpcSocket => "rpc-socket",
        }
    }

    /// Reads a name from the command line.
    pub(in crate::bench) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|transport| transport.name() == name);
        found.ok_or_else(|| format!("there is no such transport; there are {}", Self::ALL.map(Self::name).join(", ")))
    }

    /// Whether the row makes sense. A bare spinner on a shared CPU would wait for a time slice per flip, `bare-spin` carries no bytes, and
    /// `bare-copy` is `bare-spin` without them.
    pub(in crate::bench) fn can_run(self, payload: u32, shares_cpu: bool) -> bool {
        match self {
            Self::BareSpin => !shares_cpu && payload == 0,
            Self::BareCopy => !shares_cpu && payload > 0,
            Self::UnixSeqpacket => payload <= MOST_SEQPACKET,
            _ => true,
        }
    }

    /// Whether the caller spins before it sleeps.
    fn spins(self) -> bool {
        matches!(self, Self::WindowSpin | Self::WindowAdaptive | Self::RpcWindow | Self::RpcBulk)
    }

    /// The row that this one is compared with: the least that a caller can do that waits in the same way. Where both sides share a
    /// CPU nobody can answer a spinner, so every row is compared with the one that sleeps.
    pub(in crate::bench) fn limit(self, payload: u32, shares_cpu: bool) -> Self {
        match self {
            Self::BareSpin | Self::BareCopy => self,
            Self::RpcSocket => Self::UnixStream,
            _ if shares_cpu || !self.spins() => Self::BareFutex,
            _ if payload == 0 => Self::BareSpin,
            _ => Self::BareCopy,
        }
    }
}
