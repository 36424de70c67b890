//! Who may have how much.
//!
//! Everything a client can make the server keep is counted before it is made: connections, channels, bytes of windows, bytes of large
//! messages. A count goes down when the thing is gone, not when its end was asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ServerConfig;

/// One process gets at most this fraction (one quarter) of each total, so that one client cannot starve the others.
const SHARES: u64 = 4;

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

/// The counts of a server.
#[derive(Debug)]
pub(super) struct Quotas {
    totals: Usage,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: Usage,
    by_process: HashMap<u32, Usage>,
}

/// A share of the quotas, given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    quotas: Arc<Quotas>,
    process: u32,
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

    /// Takes all of `wanted` for `process` (0: one that is not visible from here, all of which share) or nothing.
    pub(super) fn lease(self: &Arc<Self>, process: u32, wanted: &[(Kind, u64)]) -> Option<Lease> {
        let mut used = self.lock();
        let mut taken = [0; KINDS];
        let mine = used.by_process.get(&process).copied().unwrap_or_default();
        for &(kind, amount) in wanted {
            let (index, total) = (kind as usize, self.totals[kind as usize]);
            let share = (total / SHARES).max(1);
            let fits = |used: u64, limit: u64| used.checked_add(amount).is_some_and(|sum| sum <= limit);
            if !fits(used.all[index], total) || !fits(mine[index], share) {
                return None;
            }
            taken[index] += amount;
        }
        add(&mut used.all, &taken);
        add(used.by_process.entry(process).or_default(), &taken);
        drop(used);
        Some(Lease { quotas: Arc::clone(self), process, taken })
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut used = self.quotas.lock();
        let subtract = |usage: &mut Usage| {
            for (used, taken) in usage.iter_mut().zip(&self.taken) {
                *used -= taken;
            }
        };
        subtract(&mut used.all);
        if let Some(mine) = used.by_process.get_mut(&self.process) {
            subtract(mine);
            if *mine == [0; KINDS] {
                used.by_process.remove(&self.process);
            }
        }
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

    #[test]
    fn one_process_gets_a_quarter_and_gives_it_back() {
        let quotas = Quotas::new(&ServerConfig::new().channels_total(8));
        let two = [(Kind::Channel, 2)];
        let first = quotas.lease(1, &two).unwrap();
        assert!(quotas.lease(1, &[(Kind::Channel, 1)]).is_none());
        let others: Vec<_> = (2..5).map(|process| quotas.lease(process, &two).unwrap()).collect();
        assert!(quotas.lease(9, &[(Kind::Channel, 1)]).is_none(), "the total is used up");
        drop(first);
        assert!(quotas.lease(9, &two).is_some());
        drop(others);
        assert!(quotas.lock().by_process.is_empty());
        assert_eq!(quotas.lock().all, [0; KINDS]);
    }

    #[test]
    fn what_does_not_fit_whole_takes_nothing() {
        let quotas = Quotas::new(&ServerConfig::new().window_bytes_total(100));
        assert!(quotas.lease(1, &[(Kind::Channel, 1), (Kind::WindowBytes, 26)]).is_none());
        assert!(quotas.lease(1, &[(Kind::Channel, u64::MAX)]).is_none());
        assert_eq!(quotas.lock().all, [0; KINDS]);
    }
}
