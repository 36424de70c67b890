//! What a process holds and uses, as the kernel counts it.

use std::time::{Duration, Instant};

/// Descriptors and mapped windows of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    pub descriptors: usize,
    pub windows: usize,
}

impl Holdings {
    /// What the process `pid` (or `self`) holds now.
    pub fn of(pid: &str) -> Self {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("procfs").count();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("procfs");
        Self { descriptors, windows: maps.lines().filter(|line| line.contains("/memfd:")).count() }
    }

    /// Waits until this process holds no more than that: some descriptors are closed by a thread of their own, and one of an earlier test
    /// may have been counted.
    pub fn comes_back(self, what: &str) {
        let start = Instant::now();
        loop {
            let now = Self::of("self");
            if now.descriptors <= self.descriptors && now.windows <= self.windows {
                return;
            }
            assert!(start.elapsed() < super::AGES, "{what} left {now:?} where there was {self:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// CPU time that the process `pid` (or `self`) has used so far, all threads together; of another process those that still live.
pub fn cpu_time(pid: &str) -> Duration {
    if pid == "self" {
        return clock(rustix::time::ClockId::ProcessCPUTime);
    }
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("procfs");
    let nanos = tasks.filter_map(|task| {
        let line = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// CPU time that the calling thread has used so far.
pub fn thread_cpu_time() -> Duration {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

fn clock(clock: rustix::time::ClockId) -> Duration {
    Duration::try_from(rustix::time::clock_gettime(clock)).expect("a clock counts forwards")
}

/// Bytes of memory that the process `pid` (or `self`) has in use.
pub fn resident(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") * 1024
}
