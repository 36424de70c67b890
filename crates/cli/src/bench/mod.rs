//! `flipcall bench`: two real processes, every transport, one table.
//!
//! - [`plan`] what is measured, from the command line
//! - [`transports`] the two halves of every transport
//! - [`peer`] the second process, [`session`] this end of it
//! - [`measure`] calibration, interleaved rounds, timed runs; [`statistics`] what becomes of the times
//! - [`table`], [`json`], [`report`] the result for a terminal, a program, a browser

mod json;
mod measure;
pub(crate) mod peer;
mod plan;
mod report;
mod session;
mod statistics;
mod table;
mod transports;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cpus::usable_cpus;
use crate::outcome::Outcome;
use crate::output::say;
use json::Machine;

pub(crate) use plan::Arguments;

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    // Asked before anything is pinned.
    let machine = Machine {
        cpu: cpu_model(),
        kernel: first_line("/proc/sys/kernel/osrelease"),
        usable_cpus: usable_cpus()?,
        clock_ns: measure::clock_cost(),
    };
    let groups = arguments.groups()?;
    // A minute is too long to learn that a path is wrong.
    for path in [&arguments.json, &arguments.report].into_iter().flatten() {
        std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|error| unwritable(path, &error))?;
    }
    let progress = progress_bar(groups.iter().map(|group| measure::turns(group, arguments)).sum())?;
    let mut rows = Vec::new();
    for group in &groups {
        progress.set_message(format!("{} bytes, CPUs {}", group.payload, table::cpus(group.cpus)));
        rows.extend(measure::measure(group, arguments, &|turns| progress.inc(turns))?);
    }
    progress.finish_and_clear();
    if let Some(path) = &arguments.json {
        write(path, &format!("{:#}\n", json::document(&machine, &rows)))?;
    }
    if let Some(path) = &arguments.report {
        write(path, &report::page(&machine, &rows))?;
    }
    // Last: nobody may read it.
    say(table::render(&rows, machine.clock_ns))
}

/// On standard error, if that is a terminal.
fn progress_bar(turns: u64) -> Result<ProgressBar, Box<dyn std::error::Error>> {
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {msg} {eta} left")?;
    Ok(ProgressBar::new(turns).with_style(style))
}

fn write(path: &std::path::Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|error| unwritable(path, &error).into())
}

fn unwritable(path: &std::path::Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// The first line of a file of the kernel, `unknown` if it cannot be read.
pub(crate) fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':'])).to_owned()
}
