//! The rules of the house, checked by machine: who may use whom, where unsafe code lives, how long a thing may get.
//!
//! A plain scan of the text is enough for these, so it needs no parser among the dependencies. Each rule is a function of a text, tried on
//! a text that breaks it as well.

#[path = "house_rules/circles.rs"]
mod circles;
#[path = "house_rules/glossary.rs"]
mod glossary;
#[path = "house_rules/one_of_each.rs"]
mod one_of_each;
#[path = "house_rules/order.rs"]
mod order;
#[path = "house_rules/pure.rs"]
mod pure;
#[path = "house_rules/scan.rs"]
mod scan;
#[path = "house_rules/test_names.rs"]
mod test_names;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use scan::{Source, branches, code_of, entries, first_names, functions, line_of, sources, words};

/// Each top module and those that it may use besides itself: the layers under it.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("deadline", &["error"]),
    ("sys", &["error", "deadline"]),
    ("process", &["error", "deadline", "sys"]),
    ("window", &["error", "deadline", "sys"]),
    ("control", &["error", "deadline", "sys", "window"]),
    ("endpoint", &["error", "deadline", "sys", "process", "window", "control"]),
    ("stream", &["error", "deadline", "sys"]),
    ("rpc", &["error", "deadline", "sys", "process", "window", "control", "endpoint", "stream"]),
];
/// Macros of a layer: an exported one lives at the root, under its own name.
const MACROS: [(&str, &str); 2] = [("rpc", "message"), ("rpc", "service")];
/// Lines of a file: past it, it is two files.
const LONGEST_FILE: usize = 400;
/// Lines of a function: past it, nobody sees the whole of it.
const LONGEST_FUNCTION: usize = 70;
/// Names that say nothing about what is inside.
const NAMELESS: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];

type Faults = Vec<String>;

fn expect_none(faults: Faults) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn rust() -> Vec<Source> {
    let found = sources(&[".rs"]);
    // A scan that finds nothing would find no fault either.
    for known in ["src/lib.rs", "src/sys/mapping.rs", "crates/cli/src/main.rs", "tests/house_rules.rs"] {
        assert!(found.iter().any(|source| source.path == known), "{known} was not looked at");
    }
    found
}

/// Where a file of a package's own code lies below the package's `src`: the library's, or that of a member in `crates`.
fn below_src(path: &str) -> Option<&str> {
    let package = match path.strip_prefix("crates/") {
        Some(member) => member.split_once('/')?.1,
        None => path,
    };
    package.strip_prefix("src/")
}

fn in_src(source: &&Source) -> bool {
    below_src(&source.path).is_some()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// The module under which each name that the root re-exports lives.
fn exports(root: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (at, _) in root.match_indices("pub use ") {
        let path = &root[at + "pub use ".len()..];
        let path = &path[..path.find(';').unwrap()];
        let (module, names) = path.split_once("::").unwrap();
        let names = names.trim().trim_start_matches('{').trim_end_matches('}');
        found.extend(branches(names).into_iter().map(|name| (name, module.to_string())));
    }
    found
}

/// Paths of `module` that lead to a layer which is not under it.
fn climbs(path: &str, module: &str, code: &str, exports: &BTreeMap<String, String>) -> Faults {
    let Some((_, under)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: module {module} has no place among the layers")];
    };
    let mut faults = Vec::new();
    for (name, line) in first_names(code, "crate::") {
        let used = exports.get(&name).map_or(name.as_str(), String::as_str);
        if used != module && !under.contains(&used) && !MACROS.contains(&(module, used)) {
            faults.push(format!("{path}:{line}: {module} uses {used}"));
        }
    }
    // `super` could leave the module as well.
    let depth = path.trim_end_matches("/mod.rs").matches('/').count();
    let inline = code.find("mod tests {").unwrap_or(code.len());
    for at in words(code, "super").filter(|&at| !code[..at].ends_with("super::")) {
        let steps = code[at..].split("::").take_while(|step| *step == "super").count();
        if steps >= depth + usize::from(at > inline) {
            faults.push(format!("{path}:{}: {module} is left by super::", line_of(code, at)));
        }
    }
    faults
}

#[test]
fn each_layer_uses_only_the_layers_under_it() {
    let exports = exports(&code_of(&read("src/lib.rs")));
    let layers = |source: &&Source| source.path.starts_with("src/") && source.path != "src/lib.rs";
    let mut faults = Vec::new();
    for source in rust().iter().filter(layers) {
        let module = source.path["src/".len()..].split(['/', '.']).next().unwrap();
        faults.extend(climbs(&source.path, module, &code_of(&source.text), &exports));
    }
    expect_none(faults);
}

#[test]
fn the_layers_can_be_seen_to_be_broken() {
    let exports = exports("pub use control::{Counters, WaitPolicy};\npub use error::Error;\n");
    let faults = |path, module, code| climbs(path, module, code, &exports).len();
    assert_eq!(faults("src/sys/a.rs", "sys", "use crate::window::Window;"), 1);
    assert_eq!(faults("src/window/a.rs", "window", "use crate::{Error, control::{Side, Flip}, WaitPolicy};"), 2);
    assert_eq!(
        faults("src/endpoint/a.rs", "endpoint", "use crate::{Error, WaitPolicy}; fn f() { crate::sys::x() }"),
        0
    );
    assert_eq!(faults("src/endpoint/a.rs", "endpoint", "use crate::stream::Frame;"), 1);
    assert_eq!(faults("src/stream/a.rs", "stream", "use crate::window::Window;"), 1);
    assert_eq!(faults("src/sys/a.rs", "sys", "use super::super::window::Window;"), 1);
    assert_eq!(faults("src/sys/mod.rs", "sys", "use super::window::Window;"), 1);
    assert_eq!(faults("src/sys/a.rs", "sys", "use super::b; mod tests { use super::*; }"), 0);
    assert_eq!(faults("src/new/a.rs", "new", ""), 1);
}

#[test]
fn no_files_need_each_other() {
    let sources = rust();
    let mut faults = Faults::new();
    for root in ["src/", "crates/cli/src/"] {
        let graph = circles::Graph::of(&sources, root);
        // A scan that finds no import would find no circle either.
        assert!(graph.edges.values().map(|needed| needed.len()).sum::<usize>() > 20, "{root}");
        faults.extend(graph.circles().iter().map(|circle| format!("a circle: {}", circle.join(" "))));
    }
    expect_none(faults);
}

/// Unsafe code outside layer 0, or outside the room of that name that a member may have.
fn unsafe_code(source: &Source) -> Faults {
    let code = code_of(&source.text);
    let allowed = below_src(&source.path).is_none_or(|path| path.starts_with("sys/"));
    let (keyword, lint) = (words(&code, "unsafe"), words(&code, "unsafe_code"));
    let found = keyword.chain(lint).filter(|_| !allowed);
    found.map(|at| format!("{}:{}: unsafe outside src/sys", source.path, line_of(&code, at))).collect()
}

/// Unsafe blocks without a proof above them, and unsafe functions that do not say what they ask for.
fn unproven(source: &Source) -> Faults {
    let code = code_of(&source.text);
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    let mut faults = Vec::new();
    for at in words(&code, "unsafe") {
        let rest = code[at + "unsafe".len()..].trim_start();
        if rest.strip_prefix("extern").unwrap_or(rest).trim_start().starts_with("fn(") {
            // The type of a function: its caller proves.
            continue;
        }
        let declares = ["fn", "trait"].iter().any(|word| rest.starts_with(word));
        let wanted = if declares { "# Safety" } else { "SAFETY:" };
        let line = line_of(&code, at);
        if !proven(&lines[..line - 1], wanted) {
            faults.push(format!("{}:{line}: unsafe without {wanted}", source.path));
        }
    }
    faults
}

/// Whether the comment above the statement that follows `lines` has the word that is wanted.
fn proven(lines: &[&str], wanted: &str) -> bool {
    let comment = |line: &&&str| line.starts_with("//");
    let ends = |line: &&str| line.ends_with([';', '{', '}']) && !line.starts_with("#[");
    let statement = lines.iter().rev().take_while(|line| !comment(line) && !ends(line)).count();
    lines[..lines.len() - statement].iter().rev().take_while(comment).any(|line| line.contains(wanted))
}

#[test]
fn unsafe_code_lives_in_layer_0_and_is_proven() {
    let sources = rust();
    expect_none(sources.iter().flat_map(unsafe_code).collect());
    expect_none(sources.iter().flat_map(unproven).collect());
}

#[test]
fn unsafe_code_can_be_seen_to_break_the_rule() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    assert_eq!(unsafe_code(&source("src/window/a.rs", "fn f() { unsafe { g() } }")).len(), 1);
    assert_eq!(unsafe_code(&source("src/window/a.rs", "#![allow(unsafe_code)]")).len(), 1);
    assert_eq!(unsafe_code(&source("src/window/a.rs", "// unsafe\nconst A: &str = \"unsafe\";")).len(), 0);
    assert_eq!(unsafe_code(&source("src/sys/a.rs", "unsafe { g() }")).len(), 0);
    assert_eq!(unsafe_code(&source("crates/cli/src/sys/a.rs", "unsafe { g() }")).len(), 0);
    assert_eq!(unsafe_code(&source("crates/cli/src/bench/a.rs", "unsafe { g() }")).len(), 1);
    let proof = "// SAFETY: it is.\nlet a =\n    unsafe { g() };";
    assert_eq!(unproven(&source("src/sys/a.rs", proof)).len(), 0);
    assert_eq!(unproven(&source("src/sys/a.rs", "// SAFETY: it is.\nlet a = 1;\nunsafe { g() };")).len(), 1);
    assert_eq!(unproven(&source("src/sys/a.rs", "/// # Safety\n/// Never.\n#[inline]\nunsafe fn g() {}")).len(), 0);
    assert_eq!(unproven(&source("src/sys/a.rs", "/// Safe.\nunsafe fn g() {}")).len(), 1);
    assert_eq!(unproven(&source("src/sys/a.rs", "type G = unsafe extern \"C\" fn(u8);")).len(), 0);
    assert_eq!(unproven(&source("src/sys/a.rs", "/// Safe.\nunsafe extern \"C\" fn g() {}")).len(), 1);
}

#[test]
fn nothing_is_too_long() {
    let sources = rust();
    let mut faults = Faults::new();
    for source in &sources {
        let lines = source.text.lines().count();
        if lines > LONGEST_FILE {
            faults.push(format!("{}: {lines} lines", source.path));
        }
    }
    for source in sources.iter().filter(in_src) {
        let long = functions(&code_of(&source.text)).into_iter().filter(|&(.., lines)| lines > LONGEST_FUNCTION);
        faults.extend(long.map(|(name, line, lines)| format!("{}:{line}: {name} has {lines} lines", source.path)));
    }
    expect_none(faults);
}

#[test]
fn the_length_of_a_function_is_measured_between_its_braces() {
    let code = code_of(
        "fn a();\nfn b<'a>(c: char) -> u8 {\n    if c == '{' {\n        // }\n    }\n    r#\"}\"#.len()\n}\nfn c() {}\n",
    );
    assert_eq!(functions(&code), [("b".into(), 2, 6), ("c".into(), 8, 1)]);
}

#[test]
fn retired_words_stay_retired() {
    let retired = glossary::retired(&read("DESIGN.md"));
    assert!(retired.len() > 20, "the glossary was not read: {retired:?}");
    let mut faults: Faults =
        rust().iter().filter(in_src).flat_map(|source| glossary::named(source, &retired)).collect();
    // This rule spells them out itself.
    let all = sources(&[".rs", ".sh", ".md", ".toml", ".go", ".py"]);
    let all = all.iter().filter(|source| !source.path.starts_with("tests/house_rules/glossary"));
    faults.extend(all.flat_map(glossary::written));
    expect_none(faults);
}

#[test]
fn nothing_is_left_for_later() {
    let later = ["TO_DO", "FIX_ME", "X_XX"].map(|word| word.replace('_', ""));
    let unfinished = ["to_do", "un_implemented"].map(|word| format!("{}!", word.replace('_', "")));
    let mut faults = Faults::new();
    for source in sources(&[".rs", ".sh", ".md", ".toml", ".go", ".py"]) {
        let mut fault = |at| faults.push(format!("{}:{}: left for later", source.path, line_of(&source.text, at)));
        later.iter().for_each(|word| words(&source.text, word).for_each(&mut fault));
        unfinished.iter().for_each(|word| source.text.match_indices(word).for_each(|(at, _)| fault(at)));
    }
    expect_none(faults);
}

#[test]
fn one_file_knows_about_models() {
    let mut faults = Faults::new();
    for source in rust().iter().filter(|source| source.path != "src/sys/sync.rs") {
        let code = code_of(&source.text);
        let knows = |line: &str| words(line, "loom").next().is_some() && line.contains("cfg");
        let lines = code.lines().enumerate().filter(|(_, line)| knows(line));
        faults.extend(lines.map(|(number, _)| format!("{}:{}: knows cfg(loom)", source.path, number + 1)));
    }
    expect_none(faults);
}

#[test]
fn every_module_has_a_name_and_says_what_it_is_for() {
    let mut faults = Faults::new();
    for source in rust() {
        let nameless = |name: &str| NAMELESS.contains(&name);
        let stem = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs").rsplit('/').next().unwrap();
        if nameless(stem) || source.path.split('/').any(nameless) {
            faults.push(format!("{}: the name says nothing", source.path));
        }
        if !source.text.starts_with("//! ") {
            faults.push(format!("{}: does not open with what it is for", source.path));
        }
    }
    expect_none(faults);
}

/// The names of the scripts that the gate runs: its list `SCRIPTS=( … )`.
fn listed(gate: &str) -> Vec<String> {
    let list = gate.split_once("SCRIPTS=(").map_or("", |(_, rest)| rest.split(')').next().unwrap());
    list.split_whitespace().map(str::to_string).collect()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0o111)
}

#[test]
fn the_gate_runs_every_script() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = listed(&read(".ci/run"));
    let mut faults = Faults::new();
    for script in entries(&root.join("ci")).iter().filter(|path| path.extension().is_some_and(|end| end == "sh")) {
        let name = script.file_name().unwrap().to_string_lossy().into_owned();
        if !listed.contains(&name) {
            faults.push(format!("ci/{name}: .ci/run does not run it"));
        }
        if !is_executable(script) {
            faults.push(format!("ci/{name}: not executable"));
        }
    }
    if !is_executable(&root.join(".ci/run")) {
        faults.push(".ci/run: not executable".into());
    }
    expect_none(faults);
}

/// Names of the Rust files of a folder, without the ending.
fn stems(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let rust = entries(&folder).into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

/// The folder of each package, with a slash behind it: the library's, which is the root, and the members'.
fn packages() -> Vec<String> {
    let members = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("crates"));
    let names = members.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    let mut found: Vec<String> = names.map(|name| format!("crates/{name}/")).collect();
    assert!(!found.is_empty(), "no member was looked at");
    found.push(String::new());
    found
}

#[test]
fn nothing_rots_unbuilt() {
    let fuzz = read("fuzz/Cargo.toml");
    let mut faults = Faults::new();
    for package in packages() {
        let manifest = read(&format!("{package}Cargo.toml"));
        for bench in stems(&format!("{package}benches")) {
            if !manifest.contains(&format!("[[bench]]\nname = \"{bench}\"\nharness = false")) {
                faults.push(format!("{package}benches/{bench}.rs: not in Cargo.toml, or with the test harness"));
            }
        }
    }
    for target in stems("fuzz/fuzz_targets") {
        if !fuzz.contains(&format!("path = \"fuzz_targets/{target}.rs\"")) {
            faults.push(format!("fuzz_targets/{target}.rs: not in fuzz/Cargo.toml"));
        }
        if !read("ci/fuzz.sh").contains(&target) {
            faults.push(format!("fuzz_targets/{target}.rs: ci/fuzz.sh does not run it"));
        }
    }
    let prose: String = sources(&[".md", "lib.rs", ".sh"]).into_iter().map(|source| source.text).collect();
    for example in stems("examples") {
        if !prose.contains(&format!("examples/{example}.rs")) && !prose.contains(&format!("--example {example}")) {
            faults.push(format!("examples/{example}.rs: nothing tells a reader that it is there"));
        }
    }
    if !read(".ci/run").contains("--workspace --all-targets") {
        faults.push(".ci/run: does not build every target".into());
    }
    expect_none(faults);
}
