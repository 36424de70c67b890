//! One group of rows: calibration, interleaved rounds of untimed batches, and a timed run of each row.

use std::time::{Duration, Instant};

use super::plan::{Arguments, Group};
use super::session::{Hogs, Session};
use super::statistics::{Percentiles, mean, median};
use super::transports::Transport;
use crate::cpus::pin;
use crate::outcome::Fallible;

/// What one turn of a row takes: about a scheduler's time slice, so that on a busy machine most turns are not disturbed at all.
const TURN: Duration = Duration::from_millis(4);
/// What the timed run of a row takes.
const TIMED_RUN: Duration = Duration::from_millis(250);
/// A calibration ends with the first batch that took this long.
const CALIBRATION: Duration = Duration::from_millis(1);
/// The fewest calls of a turn.
const LEAST_CALLS: u64 = 8;
/// The fewest and the most calls of a timed run: the 99.9th percentile of fewer says nothing, and more take memory.
const TIMED_CALLS: (u64, u64) = (100, 1_000_000);

/// A row of the result.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) transport: Transport,
    pub(super) payload: u32,
    pub(super) cpus: [usize; 2],
    pub(super) think: Duration,
    pub(super) rounds: u32,
    /// From the timed run: a reading of the clock is in each call.
    pub(super) percentiles: Percentiles,
    /// From the untimed batches.
    pub(super) mean_ns: f64,
    pub(super) limit: Transport,
    /// The median over the rounds.
    pub(super) ratio: f64,
}

impl Row {
    pub(super) fn calls_per_s(&self) -> f64 {
        1e9 / self.mean_ns
    }
}

/// Turns that a group has, for the progress bar.
pub(super) fn turns(group: &Group, arguments: &Arguments) -> u64 {
    (u64::from(arguments.rounds) + timed_turns()) * group.transports.len() as u64
}

fn timed_turns() -> u64 {
    (TIMED_RUN.as_nanos() / TURN.as_nanos()) as u64
}

pub(super) fn measure(group: &Group, arguments: &Arguments, progress: &dyn Fn(u64)) -> Fallible<Vec<Row>> {
    pin(group.cpus[0])?;
    let _hogs = arguments.hog.then(|| Hogs::start(group.cpus)).transpose()?;
    let mut session = Session::start(group)?;
    let count = group.transports.len();
    let mut estimates = Vec::with_capacity(count);
    for row in 0..count {
        estimates.push(calibrate(&mut session, row)?);
    }
    let calls = |row: usize, duration: Duration| (duration.as_nanos() as f64 / estimates[row]) as u64;
    let mut means = vec![Vec::with_capacity(arguments.rounds as usize); count];
    for round in 0..arguments.rounds as usize {
        for turn in 0..count {
            // Each round begins with another row, so that no row always comes right after the same other one.
            let row = (round + turn) % count;
            let calls = arguments.calls.unwrap_or_else(|| calls(row, TURN).max(LEAST_CALLS));
            means[row].push(session.batch(row, calls)?);
            progress(1);
        }
    }
    let mut percentiles = Vec::with_capacity(count);
    for row in 0..count {
        let times = session.timed_batch(row, calls(row, TIMED_RUN).clamp(TIMED_CALLS.0, TIMED_CALLS.1))?;
        percentiles.push(Percentiles::of(times));
        progress(timed_turns());
    }
    Ok(rows(group, arguments, &means, percentiles))
}

/// About what a call of a row takes, in nanoseconds.
fn calibrate(session: &mut Session, row: usize) -> Fallible<f64> {
    let mut calls = LEAST_CALLS;
    loop {
        let each = session.batch(row, calls)?;
        if each * calls as f64 >= CALIBRATION.as_nanos() as f64 {
            return Ok(each);
        }
        calls *= 2;
    }
}

fn rows(group: &Group, arguments: &Arguments, means: &[Vec<f64>], percentiles: Vec<Percentiles>) -> Vec<Row> {
    let position = |wanted: Transport| group.transports.iter().position(|&transport| transport == wanted);
    let fastest = arguments.against.iter().copied().filter_map(position);
    let against = fastest.min_by(|&a, &b| median(means[a].clone()).total_cmp(&median(means[b].clone())));
    let mut rows = Vec::with_capacity(means.len());
    for (row, percentiles) in percentiles.into_iter().enumerate() {
        let transport = group.transports[row];
        // A limit is measured whenever a row that needs it is.
        let limit = against.or_else(|| position(transport.limit(group.payload, group.shares_cpu()))).unwrap_or(row);
        let ratios = means[row].iter().zip(&means[limit]).map(|(ours, least)| ours / least).collect();
        rows.push(Row {
            transport,
            payload: group.payload,
            cpus: group.cpus,
            think: group.think,
            rounds: arguments.rounds,
            percentiles,
            mean_ns: mean(&means[row]),
            limit: group.transports[limit],
            ratio: median(ratios),
        });
    }
    rows
}

/// What one reading of the clock costs, in nanoseconds: it is part of every timed call.
pub(super) fn clock_cost() -> f64 {
    const READINGS: u32 = 10_000;
    let batches = (0..9).map(|_| {
        let start = Instant::now();
        let mut last = start;
        for _ in 0..READINGS {
            last = std::hint::black_box(Instant::now());
        }
        (last - start).as_nanos() as f64 / f64::from(READINGS)
    });
    median(batches.collect())
}
