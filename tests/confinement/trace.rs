//! What strace sees of a role, by phase.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The system calls of each phase: before the first call, after it, at the end.
pub type Calls = [BTreeSet<String>; 3];

/// Reads the output of `strace -f`. Only threads of the process that names its phases count.
pub fn read(path: &Path) -> Calls {
    let text = std::fs::read_to_string(path).expect("a trace");
    let (mut threads, mut phase, mut calls) = (BTreeSet::new(), None, Calls::default());
    let mut starts_thread = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, event)) = line.split_once(' ') else { continue };
        let event = event.trim_start();
        if let Some(mark) = event.split("\"/phase/").nth(1).and_then(|rest| rest.split('"').next()) {
            phase = ["begins", "called", "ends"].iter().position(|name| *name == mark);
            threads.insert(thread.to_owned());
            continue;
        }
        if event.starts_with("clone3(") {
            starts_thread.insert(thread.to_owned(), event.contains("CLONE_THREAD"));
        }
        if event.contains("clone3") && starts_thread.get(thread) == Some(&true) && threads.contains(thread) {
            threads.extend(event.rsplit(" = ").next().filter(|_| event.contains(" = ")).map(str::to_owned));
        }
        let name: String = event.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        if let Some(phase) = phase
            && threads.contains(thread)
            && event[name.len()..].starts_with('(')
            && name != crate::OF_THE_TESTS
        {
            calls[phase].insert(name);
        }
    }
    calls
}
