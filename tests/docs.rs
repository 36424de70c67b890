//! The pages name files, tests and each other; this holds them to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Folders whose files the pages may name. One that is not here, as in a packaged crate, is passed over.
const FOLDERS: [&str; 10] =
    ["src", "tests", "crates", "ci", ".ci", "docs", "examples", "fuzz", "benches", "proptest-regressions"];

type Faults = Vec<String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page: its path, and its text.
fn pages() -> Vec<(PathBuf, String)> {
    let in_folder = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = in_folder(root()).chain(in_folder(&root().join("docs")));
    let mut pages: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.sort();
    pages.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("a page is text"))).collect()
}

fn expect_none(faults: Faults) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What stands between backticks, outside blocks of code.
fn quoted(text: &str) -> Vec<&str> {
    let lines = prose(text);
    lines.iter().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The lines outside blocks of code.
fn prose(text: &str) -> Vec<&str> {
    let mut in_code = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            in_code ^= fence;
            !in_code && !fence
        })
        .collect()
}

/// Whether a text defines a function of this name, in Rust, Python or Go.
fn defines(text: &str, function: &str) -> bool {
    ["fn ", "def ", "func "].iter().any(|keyword| {
        let start = format!("{keyword}{function}");
        text.match_indices(&start).any(|(at, _)| text[at + start.len()..].starts_with(['(', '<']))
    })
}

/// What is wrong with a quotation that names a file of this repository, or a function in one.
fn missing(quotation: &str) -> Option<String> {
    let (path, function) = quotation.split_once("::").map_or((quotation, None), |(path, name)| (path, Some(name)));
    let folder = path.split('/').next().filter(|folder| path.contains('/') && FOLDERS.contains(folder))?;
    // A command and its arguments, a pattern, or a folder that a packaged crate leaves out.
    let path = path.split(' ').next()?;
    if path.contains(['*', '{', '<', '$']) || !root().join(folder).exists() {
        return None;
    }
    if !root().join(path).exists() {
        return Some(format!("{path} does not exist"));
    }
    let function = function?.rsplit("::").next()?;
    let text = fs::read_to_string(root().join(path)).ok()?;
    (!defines(&text, function)).then(|| format!("{path} has no function {function}"))
}

#[test]
fn every_file_and_test_that_a_page_names_exists() {
    let pages = pages();
    let faults = pages.iter().flat_map(|(page, text)| {
        quoted(text).into_iter().filter_map(missing).map(move |fault| format!("{}: {fault}", page.display()))
    });
    expect_none(faults.collect());
}

#[test]
fn a_file_or_test_that_does_not_exist_can_be_seen() {
    assert_eq!(missing("tests/docs.rs::missing"), None);
    assert_eq!(missing("cargo test"), None);
    assert!(missing("tests/nowhere.rs").is_some());
    assert!(missing("tests/docs.rs::nothing").is_some());
    assert_eq!(quoted("a `b` c\n```\n`d`\n```\n`e`"), ["b", "e"]);
}

/// The names under which the headings of a page can be linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

/// The targets of the links of a page.
fn links(text: &str) -> Vec<&str> {
    let lines = prose(text);
    lines.iter().flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next())).collect()
}

/// A path without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(tidied.pop()),
            Component::CurDir => {}
            part => tidied.push(part),
        }
    }
    tidied
}

fn broken(page: &Path, text: &str, link: &str) -> bool {
    if link.contains("://") {
        return false;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = tidy(&page.parent().unwrap_or(root()).join(path));
    let has = |text: &str| anchor.is_none_or(|anchor| anchors(text).contains(anchor));
    match path {
        "" => !has(text),
        _ if target.is_dir() => false,
        _ => !fs::read_to_string(target).is_ok_and(|text| has(&text)),
    }
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut faults = Faults::new();
    for (page, text) in pages() {
        let found = links(&text).into_iter().filter(|link| broken(&page, &text, link));
        faults.extend(found.map(|link| format!("{}: {link}", page.display())));
    }
    expect_none(faults);
}

/// A registry shows that page alone, and knows no folder that its links could lead to.
#[test]
fn the_first_page_links_to_no_file() {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md");
    let found = links(&text).into_iter().filter(|link| !link.contains("://") && !link.starts_with('#'));
    expect_none(found.map(str::to_owned).collect());
}

#[test]
fn the_pages_stand_alone() {
    let pages = pages();
    let marked = pages.iter().filter(|(_, text)| text.contains('\u{a7}'));
    expect_none(marked.map(|(page, _)| format!("{}: a section of another text", page.display())).collect());
    assert!(pages.iter().any(|(page, _)| page.ends_with("docs/wire.md")), "the pages were not found");
}
