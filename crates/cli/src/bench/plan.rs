//! What is measured: the command line turned into groups of rows.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::transports::Transport;
use crate::cpus::usable_cpus;
use crate::outcome::Fallible;

/// The most payload bytes: every transport of a group has memory of its own for it.
const MOST_PAYLOAD: u64 = 64 << 20;
/// Payloads of the default table: a null call, what shares a cache line with the header, a page, and what takes many.
const PAYLOADS: [u32; 4] = [0, 48, 4096, 65_536];

/// Measure calls between two processes, over every transport.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Transports to measure; each one's limit is measured with it [default: all but rpc-bulk]
    ///
    /// bare-spin, bare-copy, bare-futex: the limits, one word in shared memory and no protocol. bare-copy and bare-futex copy the
    /// payload in and out on both sides. window-spin, window-adaptive, window-park: a packet window. pipe, eventfd, unix-stream,
    /// unix-seqpacket: what the kernel offers. rpc-window, rpc-socket: typed calls. rpc-bulk: those of a peer without
    /// extensions, whose payloads above the window's length go over the socket.
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = Transport::parse)]
    transports: Vec<Transport>,
    /// Bytes that a call carries there and back [default: 0,48,4096,65536]
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = RangedU64ValueParser::<u32>::new().range(..=MOST_PAYLOAD))]
    payload: Vec<u32>,
    /// CPUs of the caller and the answerer; may be given more than once [default: two different ones, and one for both]
    #[arg(long, value_name = "A,B", value_parser = cpu_pair)]
    cpus: Vec<[usize; 2]>,
    /// Rounds, in each of which every row has a turn; a ratio is the median over the rounds
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rounds: u32,
    /// Calls of a row's turn [default: as many as take 4 ms]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) calls: Option<u64>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<std::path::PathBuf>,
    /// Write the result as one HTML page with charts
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<std::path::PathBuf>,
    /// Microseconds that the answerer works before it answers [default: 0]
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    think_us: Vec<u64>,
    /// Keep a busy process on each CPU that is measured
    #[arg(long)]
    pub(super) hog: bool,
    /// Compare with the fastest of these transports instead of each row's limit
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = Transport::parse)]
    pub(super) against: Vec<Transport>,
}

/// Rows that are measured together, in turns.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) payload: u32,
    pub(super) cpus: [usize; 2],
    pub(super) think: Duration,
    pub(super) transports: Vec<Transport>,
}

impl Group {
    pub(super) fn shares_cpu(&self) -> bool {
        self.cpus[0] == self.cpus[1]
    }
}

fn cpu_pair(text: &str) -> Result<[usize; 2], &'static str> {
    let pair = text.split_once(',').and_then(|(first, second)| Some([first.parse().ok()?, second.parse().ok()?]));
    pair.ok_or("two CPU numbers with a comma between them are needed")
}

impl Arguments {
    /// The groups, in the order of the table.
    pub(super) fn groups(&self) -> Fallible<Vec<Group>> {
        let payloads = if self.payload.is_empty() { &PAYLOADS[..] } else { &self.payload };
        let thinks = if self.think_us.is_empty() { &[0][..] } else { &self.think_us };
        let mut groups = Vec::new();
        for cpus in self.cpu_pairs()? {
            for &payload in payloads {
                for &think in thinks {
                    let transports = self.transports_for(payload, cpus[0] == cpus[1]);
                    groups.push(Group { payload, cpus, think: Duration::from_micros(think), transports });
                }
            }
        }
        groups.retain(|group| !group.transports.is_empty());
        if groups.is_empty() {
            return Err("none of these transports can carry such a payload on these CPUs".into());
        }
        Ok(groups)
    }

    fn cpu_pairs(&self) -> Fallible<Vec<[usize; 2]>> {
        if !self.cpus.is_empty() {
            return Ok(self.cpus.clone());
        }
        Ok(match usable_cpus()?[..] {
            [] => return Err("this process may run on no CPU".into()),
            [only] => vec![[only, only]],
            [first, second, ..] => vec![[first, second], [first, first]],
        })
    }

    /// The transports asked for that can run, and what they are compared with.
    fn transports_for(&self, payload: u32, shares_cpu: bool) -> Vec<Transport> {
        let is_chosen = |transport: &Transport| match &self.transports[..] {
            [] => transport.is_default(),
            chosen => chosen.contains(transport),
        };
        let can_run = |transport: &Transport| transport.can_run(payload, shares_cpu);
        let mut wanted: Vec<Transport> = Transport::ALL.into_iter().filter(is_chosen).filter(can_run).collect();
        let limits: Vec<Transport> = match self.against.is_empty() {
            true => wanted.iter().map(|transport| transport.limit(payload, shares_cpu)).collect(),
            false => self.against.clone(),
        };
        if !wanted.is_empty() {
            wanted.extend(limits.into_iter().filter(|limit| limit.can_run(payload, shares_cpu)));
        }
        Transport::ALL.into_iter().filter(|transport| wanted.contains(transport)).collect()
    }
}
