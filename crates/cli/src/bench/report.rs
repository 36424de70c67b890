//! The result for a browser: one HTML page without anything outside it, a chart per group of rows and the table.

use std::fmt::Write;
use std::time::Duration;

use super::json::Machine;
use super::measure::Row;
use super::table::{cpus, duration};

/// Widths and heights of a chart, in pixels.
const LABEL: f64 = 130.0;
const PLOT: f64 = 620.0;
const RATIO: f64 = 150.0;
const ROW_HEIGHT: f64 = 24.0;
const AXIS: f64 = 28.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}\
    h2{font-size:1.1em;margin:2em 0 .3em}svg{width:100%;height:auto}svg text{font-size:12px;fill:#333}\
    .grid{stroke:#ddd}.axis{fill:#777}.range{fill:#9ec5e8}.bare .range{fill:#ccc}.tail{stroke:#5b8db8;stroke-width:1.5}\
    .bare .tail{stroke:#999}.median{fill:#12426b}.bare .median{fill:#555}table{border-collapse:collapse;font-size:13px;width:100%}\
    td,th{padding:.2em .5em;text-align:right;border-bottom:1px solid #eee}td:first-child,th:first-child{text-align:left}";

pub(super) fn page(machine: &Machine, rows: &[Row]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>flipcall bench</title>\
         <style>{STYLE}</style></head><body>\n<h1>Calls between two processes</h1>\n\
         <p>{}, Linux {}, flipcall {}. One bar per transport, on a logarithmic scale: it spans the median to the 99th percentile, \
         the line goes on to the 99.9th. The figure behind it is the ratio to the transport's limit, the median over {} interleaved rounds. \
         Each timed call contains one reading of the clock, {:.0} ns.</p>\n",
        escape(&machine.cpu),
        escape(&machine.kernel),
        env!("CARGO_PKG_VERSION"),
        rows.first().map_or(0, |row| row.rounds),
        machine.clock_ns
    );
    let key = |row: &Row| (row.payload, row.cpus, row.think);
    for group in rows.chunk_by(|a, b| key(a) == key(b)) {
        let _ = writeln!(page, "<h2>{}</h2>", title(&group[0]));
        chart(&mut page, group);
    }
    table(&mut page, rows);
    page.push_str("</body></html>\n");
    page
}

fn title(row: &Row) -> String {
    let where_to = match row.cpus {
        [a, b] if a == b => format!("both on CPU {a}"),
        [a, b] => format!("CPUs {a} and {b}"),
    };
    let think = match row.think {
        Duration::ZERO => String::new(),
        think => format!(", {} µs of work per answer", think.as_micros()),
    };
    format!("{} bytes there and back, {where_to}{think}", row.payload)
}

/// A chart of a group of rows, which is not empty.
fn chart(page: &mut String, rows: &[Row]) {
    let least = rows.iter().map(|row| row.percentiles.p50).min().unwrap_or(1).max(1) as f64;
    let most = rows.iter().map(|row| row.percentiles.p999).max().unwrap_or(1) as f64;
    let (first, last) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let x = |ns: u64| LABEL + (((ns.max(1) as f64).log10() - first) / (last - first)).clamp(0.0, 1.0) * PLOT;
    let height = ROW_HEIGHT * rows.len() as f64 + AXIS;
    let width = LABEL + PLOT + RATIO;
    let _ = writeln!(page, "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">", title(&rows[0]));
    for decade in first as u32..=last as u32 {
        let (at, bottom) = (x(10u64.pow(decade)), height - AXIS);
        let _ = writeln!(page, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{bottom}\"/>");
        let label = duration(10f64.powi(decade as i32));
        let y = height - 10.0;
        let _ = writeln!(page, "<text class=\"axis\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{y}\">{label}</text>");
    }
    for (line, row) in rows.iter().enumerate() {
        bar(page, row, ROW_HEIGHT * line as f64, x);
    }
    page.push_str("</svg>\n");
}

fn bar(page: &mut String, row: &Row, top: f64, x: impl Fn(u64) -> f64) {
    let times = row.percentiles;
    let (median, high, tail) = (x(times.p50), x(times.p99), x(times.p999));
    let (middle, text) = (top + ROW_HEIGHT / 2.0, top + ROW_HEIGHT / 2.0 + 4.0);
    let name = row.transport.name();
    let class = if name.starts_with("bare-") { "bare" } else { "real" };
    let _ = write!(page, "<g class=\"{class}\"><text x=\"0\" y=\"{text}\">{name}</text>");
    let _ = write!(page, "<line class=\"tail\" x1=\"{median:.1}\" x2=\"{tail:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>");
    let (y, thick, wide) = (top + 6.0, ROW_HEIGHT - 12.0, (high - median).max(1.0));
    let _ = write!(page, "<rect class=\"range\" x=\"{median:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"{thick}\"/>");
    let (y, thick) = (top + 4.0, ROW_HEIGHT - 8.0);
    let _ = write!(page, "<rect class=\"median\" x=\"{median:.1}\" y=\"{y}\" width=\"3\" height=\"{thick}\"/>");
    let at = LABEL + PLOT + 8.0;
    let _ = write!(page, "<text x=\"{at}\" y=\"{text}\">{} · {:.2}×</text>", duration(times.p50 as f64), row.ratio);
    page.push_str("</g>\n");
}

fn table(page: &mut String, rows: &[Row]) {
    page.push_str(
        "<h2>All figures</h2>\n<table><tr><th>transport</th><th>bytes</th><th>CPUs</th><th>work</th><th>p50</th><th>p90</th>\
         <th>p99</th><th>p99.9</th><th>max</th><th>mean</th><th>calls/s</th><th>×</th><th>of</th></tr>\n",
    );
    for row in rows {
        let times = row.percentiles;
        let _ = write!(page, "<tr><td>{}</td><td>{}</td>", row.transport.name(), row.payload);
        let _ = write!(page, "<td>{}</td><td>{} µs</td>", cpus(row.cpus), row.think.as_micros());
        for ns in [times.p50, times.p90, times.p99, times.p999, times.max] {
            let _ = write!(page, "<td>{}</td>", duration(ns as f64));
        }
        let _ = write!(page, "<td>{}</td><td>{:.0}</td>", duration(row.mean_ns), row.calls_per_s());
        let _ = writeln!(page, "<td>{:.2}</td><td>{}</td></tr>", row.ratio, row.limit.name());
    }
    page.push_str("</table>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
