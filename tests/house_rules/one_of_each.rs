//! What the library has one of: a way to start a thread, to lock, to poll, and to read the state word.

use crate::scan::{Source, code_of, line_of};

/// What is written in one file only, and where.
const ONE_PLACE: [(&str, &str); 9] = [
    ("thread::Builder", "src/sys/thread.rs"),
    ("std::thread::spawn", "src/sys/thread.rs"),
    ("PoisonError", "src/sys/lock.rs"),
    ("event::poll", "src/sys/poll.rs"),
    ("words.state.load(", "src/control/wait.rs"),
    ("sched_yield(", "nowhere: rustix's panics where a filter refuses the call, std::thread::yield_now does not"),
    ("process::getrlimit", "nowhere: rustix's panics where a filter refuses the call, see src/sys/limits.rs"),
    ("HashMap", "nowhere: it panics where a filter refuses getrandom with EINVAL, a BTreeMap needs no keys"),
    ("set_parent_process_death_signal", "nowhere: it comes when a thread ends"),
];

/// What stands in another place than its own. Tests may do as they like.
fn elsewhere(source: &Source) -> Vec<String> {
    let code = code_of(&source.text);
    let code = &code[..code.find("mod tests {").unwrap_or(code.len())];
    let found = ONE_PLACE.iter().filter(|(_, place)| source.path != *place);
    found
        .flat_map(|(what, place)| code.match_indices(what).map(move |(at, _)| (at, what, place)))
        .map(|(at, what, place)| format!("{}:{}: {what} belongs to {place}", source.path, line_of(code, at)))
        .collect()
}

#[test]
fn there_is_one_of_each() {
    let sources = crate::rust();
    let is_test = |path: &str| ["_oracle.rs", "_tests.rs", "explore.rs"].iter().any(|end| path.ends_with(end));
    let library = sources.iter().filter(|source| source.path.starts_with("src/") && !is_test(&source.path));
    crate::expect_none(library.flat_map(elsewhere).collect());
    // A rule for something that is gone would find nothing either.
    for (what, place) in ONE_PLACE.iter().filter(|(what, place)| place.starts_with("src/") && !what.starts_with("std"))
    {
        assert!(code_of(&crate::read(place)).contains(what), "{place} has no {what}");
    }
}

#[test]
fn a_second_one_can_be_seen() {
    let source = |text: &str| Source { path: "src/rpc/a.rs".into(), text: text.into() };
    assert_eq!(elsewhere(&source("fn f() { std::thread::Builder::new(); }")).len(), 1);
    assert_eq!(elsewhere(&source("// std::thread::Builder\nfn f() { crate::sys::thread::spawn(); }")).len(), 0);
    assert_eq!(elsewhere(&source("mod tests { fn f() { std::thread::spawn(g); } }")).len(), 0);
}
