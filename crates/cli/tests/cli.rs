//! The command line as its users see it: `doctor`, and `bench` with its files, its errors and its end.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No step of any test here takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn flipcall(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipcall"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    flipcall(arguments).output().expect("the command starts")
}

/// A path for one test's output, and nothing there.
fn scratch(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn bench_writes_every_field_of_its_rows() {
    if usable_cpus() < 2 {
        return skip("two CPUs for bare-spin");
    }
    let path = scratch("fields.json");
    let file = path.to_str().expect("the path is UTF-8");
    let output =
        output(&["bench", "--rounds", "1", "--payload", "0", "--transports", "bare-spin,window-spin", "--json", file]);
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&path).expect("the file was written");
    let document: Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(document["machine"].is_object());
    let rows = document["rows"].as_array().expect("rows is an array");
    // bare-spin makes no sense on a shared CPU; there window-spin is compared with bare-futex, which is measured with it.
    let names: Vec<&str> = rows.iter().filter_map(|row| row["transport"].as_str()).collect();
    assert_eq!(names, ["bare-spin", "window-spin", "bare-futex", "window-spin"]);
    for row in rows {
        check_row(row);
    }
    assert_eq!(rows[1]["limit"], "bare-spin");
    assert_eq!(rows[3]["limit"], "bare-futex");
    assert_eq!(rows[0]["ratio_to_limit"], 1.0);
    let table = String::from_utf8(output.stdout).expect("it prints UTF-8");
    for word in ["p50", "p90", "p99", "p99.9", "mean", "calls/s", "×", "window-spin"] {
        assert!(table.contains(word), "no {word} in:\n{table}");
    }
}

fn check_row(row: &Value) {
    assert_eq!((&row["payload"], &row["rounds"]), (&Value::from(0), &Value::from(1)), "{row}");
    assert_eq!(row["cpus"].as_array().map(Vec::len), Some(2), "{row}");
    let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {row}"));
    let times = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"].map(number);
    assert!(times[0] > 0.0 && times.is_sorted(), "{row}");
    assert!(number("mean_ns") > 0.0 && number("ratio_to_limit") > 0.0, "{row}");
    assert!((number("calls_per_s") * number("mean_ns") / 1e9 - 1.0).abs() < 1e-6, "{row}");
}

#[test]
fn a_report_is_one_page_with_charts() {
    let path = scratch("report.html");
    let file = path.to_str().expect("the path is UTF-8");
    let output = output(&[
        "bench",
        "--rounds",
        "1",
        "--payload",
        "48",
        "--cpus",
        "0,0",
        "--transports",
        "pipe",
        "--report",
        file,
    ]);
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(&path).expect("the file was written");
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(page.contains("<svg") && page.contains("<rect") && page.contains(">pipe<"));
    for outside in ["http://", "https://", "<script", "<link", "src="] {
        assert!(!page.contains(outside), "the page refers to something outside: {outside}");
    }
}

#[test]
fn every_transport_carries_every_kind_of_payload() {
    let output = output(&["bench", "--rounds", "1", "--payload", "1,5000", "--calls", "3"]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).expect("it prints UTF-8");
    for name in ["bare-futex", "window-spin", "window-adaptive", "window-park", "pipe", "eventfd", "unix-stream"] {
        assert!(table.lines().any(|line| line.starts_with(name)), "no {name} in:\n{table}");
    }
}

#[test]
fn a_transport_that_there_is_not_is_named_in_the_error() {
    for (name, said) in [("rpc-pigeon", "there is no such transport"), ("pigeon", "there is no such transport")] {
        let output = output(&["bench", "--transports", name]);
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).expect("it prints UTF-8");
        assert!(error.contains(said) && error.contains(name), "{error}");
    }
}

#[test]
fn a_choice_that_leaves_nothing_is_an_error() {
    let output = output(&["bench", "--transports", "bare-spin", "--cpus", "0,0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none of these transports"));
}

#[test]
fn a_result_that_cannot_be_written_is_told_at_once() {
    for option in ["--json", "--report"] {
        let bench = ["bench", "--rounds", "1", "--payload", "0", "--cpus", "0,0", "--transports", "pipe"];
        let output = output(&[&bench[..], &[option, "/proc/no/such/file"]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty(), "it was measured first: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("/proc/no/such/file: "), "{output:?}");
    }
}

#[test]
fn an_interrupt_leaves_no_process_behind() {
    // A spinner with its hogs is the worst of them: nobody of them ever sleeps.
    let arguments =
        ["bench", "--rounds", "10000", "--payload", "0", "--cpus", "0,0", "--hog", "--transports", "window-spin"];
    let mut bench = flipcall(&arguments).stdout(Stdio::null()).spawn().expect("the command starts");
    let children = wait_until("the bench has two children", || {
        let children = children_of(&bench);
        (children.len() >= 2).then_some(children)
    });
    // Long enough that the first batch runs.
    std::thread::sleep(Duration::from_millis(200));
    kill_process(Pid::from_child(&bench), Signal::INT).expect("it is running");
    let status = bench.wait().expect("it is our child");
    let children = Leftovers(children);
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status:?}");
    wait_until("the children are gone", || children.0.iter().all(|child| !child.runs()).then_some(()));
}

#[test]
fn a_bench_whose_peer_dies_ends_with_an_error() {
    let arguments = ["bench", "--rounds", "10000", "--payload", "0", "--cpus", "0,0", "--transports", "bare-futex"];
    let mut bench =
        flipcall(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts");
    let peer = wait_until("the bench has a peer", || children_of(&bench).pop());
    std::thread::sleep(Duration::from_millis(200));
    kill_process(peer.pid(), Signal::KILL).expect("it is running");
    let status = wait_until("the bench ends", || bench.try_wait().expect("it is our child"));
    assert_eq!(status.code(), Some(1), "{status:?}");
}

/// A process, told from a later one with the same number by its start time.
struct Process {
    pid: u32,
    started: String,
}

impl Process {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid).expect("a pid is positive")).expect("a pid is not 0")
    }

    fn runs(&self) -> bool {
        stat(self.pid).is_some_and(|fields| fields[0] != "Z" && fields[19] == self.started)
    }
}

/// Processes that a failed test does not leave behind, whatever it was that failed.
struct Leftovers(Vec<Process>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for left in self.0.iter().filter(|process| process.runs()) {
            let _ = kill_process(left.pid(), Signal::KILL);
        }
    }
}

/// The fields of /proc/PID/stat from the state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

fn children_of(parent: &Child) -> Vec<Process> {
    let path = format!("/proc/{0}/task/{0}/children", parent.id());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pids = text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    pids.filter_map(|pid| Some(Process { pid, started: stat(pid)?.swap_remove(19) })).collect()
}

fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says why a test does not run here, or fails where everything has to.
fn skip(missing: &str) {
    assert!(std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none(), "this machine lacks {missing}");
    // Past the test harness, which keeps what a passing test prints to itself.
    let _ = writeln!(std::io::stderr(), "skipped: this machine lacks {missing}");
}
