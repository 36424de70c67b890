//! The benchmark's end of a peer process: starts it, hands it batches, and takes the times.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flipcall::process::pass_descriptor;
use flipcall::window::Allocator;

use super::peer::{Batch, wait_for_hang_up};
use super::plan::Group;
use super::transports::{self, Caller, Preparing, window_length};
use crate::outcome::Fallible;
use crate::output::complain;

/// Pages between windows for rounding each of them up.
const SLACK: u64 = 64 << 10;

/// A peer process and a caller for each transport of a group.
pub(super) struct Session {
    /// Dropped first: a peer that is still finishing its last batch would complain about a window that is shut down.
    _peer: Reaped,
    callers: Vec<Box<dyn Caller>>,
    think: Duration,
    control: UnixStream,
    ending: Arc<AtomicBool>,
}

impl Session {
    /// Starts a peer that answers on every transport of `group`.
    pub(super) fn start(group: &Group) -> Fallible<Self> {
        let each = u64::from(window_length(group.payload)) + SLACK;
        let memory = Allocator::with_size(each * group.transports.len() as u64)?;
        let (control, theirs) = UnixStream::pair()?;
        let mut command = peer_command(group.cpus[1], &theirs, &memory)?;
        command.arg(format!("--payload={}", group.payload));
        let mut callers = Vec::new();
        for transport in &group.transports {
            let mut link = Preparing { command: &mut command, memory: &memory };
            let prepared = transports::prepare(*transport, &mut link, group.payload)?;
            let numbers: Vec<String> = prepared.numbers.iter().map(u64::to_string).collect();
            command.arg(format!("--link={}={}", transport.name(), numbers.join(",")));
            callers.push(prepared.caller);
        }
        let peer = Reaped(command.spawn()?);
        let ending = Arc::new(AtomicBool::new(false));
        end_if_peer_dies(control.try_clone()?, Arc::clone(&ending));
        Ok(Self { callers, think: group.think, control, ending, _peer: peer })
    }

    /// One turn of a row: what a call took on average, in nanoseconds, without reading the clock in between.
    pub(super) fn batch(&mut self, row: usize, calls: u64) -> Fallible<f64> {
        let caller = self.warm(row, calls)?;
        let start = Instant::now();
        caller.calls(calls)?;
        Ok(start.elapsed().as_nanos() as f64 / calls as f64)
    }

    /// One turn of a row: what each call took, in nanoseconds, a reading of the clock included.
    pub(super) fn timed_batch(&mut self, row: usize, calls: u64) -> Fallible<Vec<u64>> {
        let mut times = Vec::with_capacity(usize::try_from(calls)?);
        self.warm(row, calls)?.timed_calls(calls, &mut times)?;
        Ok(times)
    }

    /// Tells the peer to answer, and makes a few calls before the measured ones.
    fn warm(&mut self, row: usize, calls: u64) -> Fallible<&mut dyn Caller> {
        let warm = (calls / 8).clamp(2, 1000);
        let batch = Batch { link: row as u64, calls: warm + calls, think: self.think };
        batch.send(&mut self.control)?;
        self.control.read_exact(&mut [0])?;
        let caller = &mut self.callers[row];
        caller.begin()?;
        caller.calls(warm)?;
        Ok(&mut **caller)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // The peer reads the end of the socket and ends; `Reaped` sees to the rest.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }
}

/// Processes that keep CPUs busy until dropped.
pub(super) struct Hogs {
    control: Vec<UnixStream>,
    processes: Vec<Reaped>,
}

impl Hogs {
    pub(super) fn start(cpus: [usize; 2]) -> Fallible<Self> {
        let mut hogs = Self { control: Vec::new(), processes: Vec::new() };
        let distinct = if cpus[0] == cpus[1] { &cpus[..1] } else { &cpus[..] };
        let memory = Allocator::with_size(1)?;
        for &cpu in distinct {
            let (control, theirs) = UnixStream::pair()?;
            let mut command = peer_command(cpu, &theirs, &memory)?;
            command.args(["--payload=0", "--hog"]);
            hogs.processes.push(Reaped(command.spawn()?));
            hogs.control.push(control);
        }
        Ok(hogs)
    }
}

fn peer_command(cpu: usize, control: &UnixStream, memory: &Allocator) -> Fallible<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let control = pass_descriptor(&mut command, control)?;
    let memory = pass_descriptor(&mut command, memory.fd())?;
    command.arg("bench-peer").arg(format!("--control={control}")).arg(format!("--memory={memory}"));
    command.arg(format!("--cpu={cpu}"));
    Ok(command)
}

/// A child that is killed and reaped when dropped.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Not reaped yet, so neither call can hit another process.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A bare spinner whose peer died would spin for ever: nothing bounds it. So the benchmark ends when the control socket hangs up before
/// its time.
fn end_if_peer_dies(control: UnixStream, ending: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        wait_for_hang_up(&control);
        if !ending.load(Ordering::Relaxed) {
            complain("flipcall: the peer process ended in the middle of the benchmark");
            std::process::exit(1);
        }
    });
}
