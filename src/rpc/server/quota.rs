//! Who may have how much.
//!
//! Everything a client can make the server keep is counted before it is made: connections, channels, bytes of windows, bytes of large
//! messages. A count goes down when the thing is gone, not when its end was asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::config::ServerConfig;
use crate::rpc::status::{Code, Status};
use crate::stream::Peer;
use crate::sys::lock::lock;

/// One process gets at most this fraction (one quarter) of each total, so that one client cannot starve the others.
const PROCESS_SHARES: u64 = 4;

/// All processes of one user get at most this fraction (one half): a program that forks has as many processes as it likes.
const USER_SHARES: u64 = 2;

/// Messages over this many bytes draw on the budget of large messages.
pub(super) const LARGE: u64 = 1 << 20;

/// Something that is counted: the index into a usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Channel,
    WindowBytes,
    LargeBytes,
}

/// The kinds, in the order of their indices.
const KINDS: usize = 4;

type Usage = [u64; KINDS];

/// What a limit is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// One connection.
    Connection,
    /// All connections of one process.
    Process,
    /// All connections of all processes of one user.
    User,
    /// All of the server.
    Server,
}

/// A limit that a request would go past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exhausted {
    pub(super) kind: Kind,
    pub(super) scope: Scope,
    /// The most that is there for all of the scope.
    pub(super) limit: u64,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Kind::Connection => "connections",
            Kind::Channel => "channels",
            Kind::WindowBytes => "bytes of windows",
            Kind::LargeBytes => "large requests in flight",
        };
        let scope = match self.scope {
            Scope::Connection => "on this connection",
            Scope::Process => "from this process",
            Scope::User => "from this user",
            Scope::Server => "at this server",
        };
        let limit = Amount { kind: self.kind, number: self.limit };
        write!(f, "too many {what} {scope} (limit {limit}); retry later")
    }
}

/// A limit with its unit.
struct Amount {
    kind: Kind,
    number: u64,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match (self.kind, self.number) {
            (Kind::Connection | Kind::Channel, count) => write!(f, "{count}"),
            (_, bytes) if bytes >= MIB && bytes % MIB == 0 => write!(f, "{} MiB", bytes / MIB),
            (_, bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

impl From<Exhausted> for Status {
    #[cold]
    fn from(exhausted: Exhausted) -> Self {
        Self::new(Code::NoResource, exhausted.to_string())
    }
}

/// The counts of a server.
#[derive(Debug)]
pub(super) struct Quotas {
    totals: Usage,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: Usage,
    by_process: BTreeMap<u32, Usage>,
    by_user: BTreeMap<u32, Usage>,
}

/// Whose share something counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    /// `None`: a process that is not visible from here. All such processes are anybody, and have their users' shares alone.
    process: Option<u32>,
    user: u32,
}

impl Holder {
    pub(super) fn new(peer: &Peer) -> Self {
        Self { process: (peer.pid != 0).then_some(peer.pid), user: peer.uid }
    }
}

/// A share of the quotas, given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    quotas: Arc<Quotas>,
    holder: Holder,
    taken: Usage,
}

impl Quotas {
    pub(super) fn new(config: &ServerConfig) -> Arc<Self> {
        let totals = [
            u64::from(config.connections),
            u64::from(config.channels_total),
            config.window_bytes_total,
            config.large_bytes,
        ];
        Arc::new(Self { totals, used: Mutex::default() })
    }

    /// Takes all of `wanted` for `holder`, or nothing and says what there is too little of.
    pub(super) fn lease(self: &Arc<Self>, holder: Holder, wanted: &[(Kind, u64)]) -> Result<Lease, Exhausted> {
        let mut used = self.lock();
        let of_process = holder.process.and_then(|process| used.by_process.get(&process)).copied().unwrap_or_default();
        let of_user = used.by_user.get(&holder.user).copied().unwrap_or_default();
        let mut taken = [0; KINDS];
        for &(kind, amount) in wanted {
            let (index, total) = (kind as usize, self.totals[kind as usize]);
            let share = |shares: u64| (total / shares).max(1);
            let within = |scope, used: u64, limit: u64| match used.checked_add(amount) {
                Some(sum) if sum <= limit => Ok(()),
                _ => Err(Exhausted { kind, scope, limit }),
            };
            within(Scope::Server, used.all[index], total)?;
            within(Scope::User, of_user[index], share(USER_SHARES))?;
            if holder.process.is_some() {
                within(Scope::Process, of_process[index], share(PROCESS_SHARES))?;
            }
            taken[index] += amount;
        }
        add(&mut used.all, &taken);
        add(used.by_user.entry(holder.user).or_default(), &taken);
        if let Some(process) = holder.process {
            add(used.by_process.entry(process).or_default(), &taken);
        }
        drop(used);
        Ok(Lease { quotas: Arc::clone(self), holder, taken })
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        lock(&self.used)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let used = &mut *self.quotas.lock();
        subtract(&mut used.all, &self.taken);
        give_back(&mut used.by_user, self.holder.user, &self.taken);
        if let Some(process) = self.holder.process {
            give_back(&mut used.by_process, process, &self.taken);
        }
    }
}

/// Takes `taken` off what `key` has, which is forgotten once it has nothing.
fn give_back(usages: &mut BTreeMap<u32, Usage>, key: u32, taken: &Usage) {
    if let Some(usage) = usages.get_mut(&key) {
        subtract(usage, taken);
        if *usage == [0; KINDS] {
            usages.remove(&key);
        }
    }
}

fn subtract(usage: &mut Usage, taken: &Usage) {
    for (used, taken) in usage.iter_mut().zip(taken) {
        *used -= taken;
    }
}

fn add(usage: &mut Usage, taken: &Usage) {
    for (used, taken) in usage.iter_mut().zip(taken) {
        *used += taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(process: u32, user: u32) -> Holder {
        Holder { process: (process != 0).then_some(process), user }
    }

    #[test]
    fn one_process_gets_a_quarter_and_gives_it_back() {
        let quotas = Quotas::new(&ServerConfig::new().channels_total(8));
        let two = [(Kind::Channel, 2)];
        let first = quotas.lease(holder(1, 1), &two).unwrap();
        let refused = quotas.lease(holder(1, 1), &[(Kind::Channel, 1)]).unwrap_err();
        assert_eq!(refused, Exhausted { kind: Kind::Channel, scope: Scope::Process, limit: 2 });
        let others: Vec<_> = (2..5).map(|process| quotas.lease(holder(process, process), &two).unwrap()).collect();
        let refused = quotas.lease(holder(9, 9), &[(Kind::Channel, 1)]).unwrap_err();
        assert_eq!(refused, Exhausted { kind: Kind::Channel, scope: Scope::Server, limit: 8 }, "the total is used up");
        drop(first);
        assert!(quotas.lease(holder(9, 9), &two).is_ok());
        drop(others);
        assert!(quotas.lock().by_process.is_empty() && quotas.lock().by_user.is_empty());
        assert_eq!(quotas.lock().all, [0; KINDS]);
    }

    /// Issue 13, B14: a program that forks has many processes and is one user.
    #[test]
    fn one_user_gets_a_half_however_many_processes_it_has() {
        let quotas = Quotas::new(&ServerConfig::new().connections(8));
        let one = [(Kind::Connection, 1)];
        let _held: Vec<_> = (1..5).map(|process| quotas.lease(holder(process, 7), &one).unwrap()).collect();
        let refused = quotas.lease(holder(5, 7), &one).unwrap_err();
        assert_eq!(refused, Exhausted { kind: Kind::Connection, scope: Scope::User, limit: 4 });
        assert!(quotas.lease(holder(5, 8), &one).is_ok(), "another user has a share of its own");
    }

    /// Issue 13, B14: process 0 is every process of another PID namespace.
    #[test]
    fn processes_that_cannot_be_seen_do_not_share_the_quarter_of_one_process() {
        let quotas = Quotas::new(&ServerConfig::new().connections(8));
        let one = [(Kind::Connection, 1)];
        let _first: Vec<_> = (0..4).map(|_| quotas.lease(holder(0, 7), &one).unwrap()).collect();
        assert_eq!(quotas.lease(holder(0, 7), &one).unwrap_err().scope, Scope::User);
        assert!(quotas.lease(holder(0, 8), &one).is_ok());
        assert!(quotas.lock().by_process.is_empty());
    }

    #[test]
    fn what_does_not_fit_whole_takes_nothing() {
        let quotas = Quotas::new(&ServerConfig::new().window_bytes_total(100));
        assert!(quotas.lease(holder(1, 1), &[(Kind::Channel, 1), (Kind::WindowBytes, 26)]).is_err());
        assert!(quotas.lease(holder(1, 1), &[(Kind::Channel, u64::MAX)]).is_err());
        assert_eq!(quotas.lock().all, [0; KINDS]);
    }

    #[test]
    fn a_refusal_names_the_limit_and_its_value() {
        let text = |kind, scope, limit| Exhausted { kind, scope, limit }.to_string();
        let large = text(Kind::LargeBytes, Scope::Process, 128 << 20);
        assert_eq!(large, "too many large requests in flight from this process (limit 128 MiB); retry later");
        let channels = text(Kind::Channel, Scope::Connection, 64);
        assert_eq!(channels, "too many channels on this connection (limit 64); retry later");
        let windows = text(Kind::WindowBytes, Scope::Server, 4096);
        assert_eq!(windows, "too many bytes of windows at this server (limit 4096 bytes); retry later");
    }
}
