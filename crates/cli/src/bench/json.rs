//! The result for programs.

use serde_json::{Value, json};

use super::measure::Row;

/// What the figures were measured on.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) kernel: String,
    pub(super) usable_cpus: Vec<usize>,
    /// What one reading of the clock costs.
    pub(super) clock_ns: f64,
}

/// An object with `machine` and `rows`.
pub(super) fn document(machine: &Machine, rows: &[Row]) -> Value {
    json!({
        "machine": {
            "cpu": machine.cpu,
            "kernel": machine.kernel,
            "usable_cpus": machine.usable_cpus,
            "clock_ns": machine.clock_ns,
            "version": env!("CARGO_PKG_VERSION"),
        },
        "rows": rows.iter().map(row).collect::<Vec<Value>>(),
    })
}

fn row(row: &Row) -> Value {
    json!({
        "transport": row.transport.name(),
        "payload": row.payload,
        "cpus": row.cpus,
        "think_us": u64::try_from(row.think.as_micros()).unwrap_or(u64::MAX),
        "rounds": row.rounds,
        "p50_ns": row.percentiles.p50,
        "p90_ns": row.percentiles.p90,
        "p99_ns": row.percentiles.p99,
        "p999_ns": row.percentiles.p999,
        "max_ns": row.percentiles.max,
        "mean_ns": row.mean_ns,
        "calls_per_s": row.calls_per_s(),
        "limit": row.limit.name(),
        "ratio_to_limit": row.ratio,
    })
}
