//! The cores of the protocols eat and produce bytes, and say what is to be done next; somebody else moves the bytes.

use crate::scan::{Source, code_of, first_names, line_of};
use crate::{Faults, expect_none, rust};

/// What the core of the protocol may not touch: it eats and produces bytes, and somebody else moves them.
const INPUT_AND_OUTPUT: [&str; 12] =
    ["endpoint", "stream", "window", "control", "sys", "rustix", "libc", "net", "fs", "thread", "sync", "process"];

/// Uses of input, output, clocks, locks or threads.
fn does_io(source: &Source) -> Faults {
    let code = code_of(&source.text);
    let code = &code[..code.find("mod tests {").unwrap_or(code.len())];
    // Frames do no input or output themselves, and who may see a name says nothing about what it does.
    let code = code.replace("crate::stream::frame::", "crate::frame::").replace("(in crate::stream", "(in stream");
    let names = ["crate::", "std::", "super::super::"].into_iter().flat_map(|prefix| first_names(&code, prefix));
    let found = names.filter(|(name, _)| INPUT_AND_OUTPUT.contains(&name.as_str()));
    let mut faults: Faults = found.map(|(name, line)| format!("{}:{line}: uses {name}", source.path)).collect();
    let clocks =
        code.match_indices("::now").map(|(at, _)| format!("{}:{}: reads a clock", source.path, line_of(&code, at)));
    faults.extend(clocks);
    faults
}

/// Folders whose files do no input or output.
const PURE: [&str; 3] = ["src/rpc/message/", "src/stream/frame/", "src/stream/mux/protocol/"];

#[test]
fn the_cores_of_the_protocols_do_no_io() {
    let core = |source: &&Source| PURE.iter().any(|folder| source.path.starts_with(folder));
    // A scan that finds no file of a core would find no fault either.
    assert!(PURE.iter().all(|folder| rust().iter().any(|source| source.path.starts_with(folder))));
    expect_none(rust().iter().filter(core).flat_map(does_io).collect());
}

#[test]
fn io_in_the_core_can_be_seen() {
    let faults = |text: &str| does_io(&Source { path: "src/rpc/message/a.rs".into(), text: text.into() }).len();
    assert_eq!(faults("use crate::error::Error;\nuse std::time::Instant;\nuse super::head::Head;"), 0);
    assert_eq!(faults("use crate::{endpoint::Endpoint, stream};"), 2);
    assert_eq!(faults("use crate::stream::frame::header::Header; pub(in crate::stream) fn f() {}"), 0);
    assert_eq!(faults("use crate::stream::socket::readiness;"), 1);
    assert_eq!(faults("use std::sync::Mutex;\nfn f() { std::thread::yield_now(); Instant::now(); }"), 3);
}
