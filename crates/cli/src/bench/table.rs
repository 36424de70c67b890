//! The result on a terminal.

use std::fmt::Write;

use super::measure::Row;

/// One line per row, a blank line between groups.
pub(super) fn render(rows: &[Row], clock_ns: f64) -> String {
    let thinks = rows.iter().any(|row| !row.think.is_zero());
    let think = |text: &str| if thinks { format!("{text:>8}") } else { String::new() };
    let mut table = format!(
        "{:<16}{:>8}{:>7}{}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}{:>8}  {}\n",
        "transport",
        "payload",
        "CPUs",
        think("think"),
        "p50",
        "p90",
        "p99",
        "p99.9",
        "mean",
        "calls/s",
        "×",
        "of"
    );
    let mut last = None;
    for row in rows {
        let group = (row.payload, row.cpus, row.think);
        if last.replace(group).is_some_and(|last| last != group) {
            table.push('\n');
        }
        let times = row.percentiles;
        let _ = write!(table, "{:<16}{:>8}{:>7}", row.transport.name(), row.payload, cpus(row.cpus));
        let _ = write!(table, "{}", think(&format!("{} µs", row.think.as_micros())));
        for ns in [times.p50, times.p90, times.p99, times.p999] {
            let _ = write!(table, "{:>10}", duration(ns as f64));
        }
        let _ = write!(table, "{:>10}{:>12.0}", duration(row.mean_ns), row.calls_per_s());
        let _ = writeln!(table, "{:>8.2}  {}", row.ratio, row.limit.name());
    }
    let _ = write!(
        table,
        "\nCPUs: the caller's and the answerer's. ×: this row's time by that of the row it names, the smaller the better; less than 1\n\
         beats that row, as yielding beats a futex on one CPU.\n\
         × is the median over {} interleaved rounds; it, the mean and calls/s are from batches in which nobody reads the clock.\n\
         Percentiles are from a run of their own with one reading per call, which costs {clock_ns:.0} ns of each.\n",
        rows.first().map_or(0, |row| row.rounds)
    );
    table
}

/// A pair of CPUs, such as `0-1`.
pub(super) fn cpus(cpus: [usize; 2]) -> String {
    format!("{}-{}", cpus[0], cpus[1])
}

/// Nanoseconds with three digits and a unit.
pub(super) fn duration(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns => (ns / 1e6, "ms"),
    };
    let decimals = match value {
        _ if unit == "ns" => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let shown = [12.4, 999.0, 1234.0, 45_678.0, 123_456.0, 7_000_000.0].map(duration);
        assert_eq!(shown, ["12 ns", "999 ns", "1.23 µs", "45.7 µs", "123 µs", "7.00 ms"]);
    }
}
