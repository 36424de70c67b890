//! The CPUs that this process may run on.

use crate::outcome::{Fallible, Outcome};

/// The CPUs that this process may run on.
pub(crate) fn usable_cpus() -> Fallible<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Makes every later thread and this one run on one CPU.
pub(crate) fn pin(cpu: usize) -> Outcome {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(format!("there is no CPU {cpu}").into());
    }
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(|errno| format!("CPU {cpu} cannot be used: {errno}"))?;
    Ok(())
}
