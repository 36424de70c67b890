//! Waits for children that nobody waits for any more, and tells those who want to know of an end: one thread for the whole process.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use crate::sys::fork::PerProcess;
use crate::sys::lift::lift;
use crate::sys::lock::lock;
use crate::sys::{poll, thread};

/// How often a child is looked at that has ended and cannot be reaped, since another process traces it.
const AGAIN: Duration = Duration::from_millis(100);

static REAPER: PerProcess<Reaper> = PerProcess::new();

struct Reaper {
    jobs: Mutex<Jobs>,
    /// Makes the thread see a new job.
    wake: OwnedFd,
}

#[derive(Default)]
struct Jobs {
    fresh: Vec<Job>,
    running: bool,
}

/// What is to be done once a process has ended.
struct Job {
    pidfd: OwnedFd,
    /// Whether it is done; it is tried again if not.
    step: Box<dyn FnMut() -> bool + Send>,
}

/// Runs `action` on the thread once the process has ended.
pub(super) fn when_ended(pidfd: OwnedFd, action: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let mut action = Some(action);
    let step = move || {
        action.take().into_iter().for_each(|action| action());
        true
    };
    add(Job { pidfd, step: Box::new(step) })
}

/// Reaps a child once it can be. Without a thread it stays a zombie until this process ends.
pub(super) fn reap(mut child: Child, pidfd: OwnedFd) {
    // A child that somebody else reaped is an error, and done.
    let step = move || !matches!(child.try_wait(), Ok(None));
    let _ = add(Job { pidfd, step: Box::new(step) });
}

fn add(job: Job) -> std::io::Result<()> {
    let reaper = REAPER.get_or_try_init(|| {
        let wake = lift(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        Ok(Reaper { jobs: Mutex::default(), wake })
    })?;
    let mut jobs = lock(&reaper.jobs);
    if !jobs.running {
        thread::spawn("flipcall-reap", || reaper.run())?;
        jobs.running = true;
    }
    jobs.fresh.push(job);
    // It fails only when the counter is full, and then the thread wakes as well.
    let _ = rustix::io::write(&reaper.wake, &1u64.to_ne_bytes());
    Ok(())
}

impl Reaper {
    fn run(&self) {
        let mut jobs: Vec<Job> = Vec::new();
        let mut again = None;
        loop {
            let ready = ready(&self.wake, &jobs, again);
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            let mut ready = ready.into_iter();
            let mut is_left = false;
            jobs.retain_mut(|job| {
                if !ready.next().unwrap_or(false) {
                    return true;
                }
                let done = (job.step)();
                is_left |= !done;
                !done
            });
            again = is_left.then(|| Instant::now() + AGAIN);
            jobs.append(&mut lock(&self.jobs).fresh);
        }
    }
}

/// Waits for a new job, the end of a process, or the time; which processes have ended. One that has ended and could not be reaped would
/// wake the thread at once: while there is one, it sleeps.
fn ready(wake: &OwnedFd, jobs: &[Job], again: Option<Instant>) -> Vec<bool> {
    if let Some(again) = again {
        let _ = poll::wait(wake, PollFlags::IN, Some(again));
    }
    let fds = jobs.iter().map(|job| job.pidfd.as_fd()).chain([wake.as_fd()]);
    let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let until = again.map(|_| Instant::now());
    if poll::wait_any(&mut fds, until).is_err() {
        // A filter refuses it: whether a process has ended is then asked of the process.
        std::thread::sleep(AGAIN);
        return vec![false; jobs.len()];
    }
    fds.iter().take(jobs.len()).map(|fd| !fd.revents().is_empty()).collect()
}
