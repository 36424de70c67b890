//! The Go program, built once for each content of its sources.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The program, or `None` where it cannot be had here; the reason has been printed then, once.
pub(crate) fn peer() -> Option<&'static Path> {
    static PEER: OnceLock<Option<PathBuf>> = OnceLock::new();
    PEER.get_or_init(|| find().map_err(skip).ok()).as_deref()
}

fn skip(reason: String) {
    assert!(std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none_or(|value| value != "1"), "needed here: {reason}");
    // Past the test harness, which keeps what a passing test prints to itself. A closed standard error keeps no test from passing.
    let _ = writeln!(std::io::stderr(), "skipped all tests against gVisor's flipcall: {reason}");
}

/// The path of the program. An error is a reason to skip; a program that does not compile is none, and panics.
fn find() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("interop-{:016x}", digest(&source)));
    if built.exists() {
        return Ok(built);
    }
    let fetched = go(&source, &["mod", "download"]).map_err(|error| format!("no Go toolchain: {error}"))?;
    if !fetched.status.success() {
        return Err(format!("gVisor's module cannot be fetched: {}", String::from_utf8_lossy(&fetched.stderr).trim()));
    }
    // Test processes may build at the same time: each to a name of its own, and the last rename wins.
    let scratch = built.with_extension(std::process::id().to_string());
    let name = scratch.to_str().expect("the target directory's name is UTF-8");
    let output = go(&source, &["build", "-trimpath", "-buildvcs=false", "-o", name, "."]).expect("go ran before");
    assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&scratch, &built).expect("both are in the target directory");
    Ok(built)
}

fn go(source: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("go").args(arguments).current_dir(source).env("CGO_ENABLED", "0").output()
}

/// A digest of what the program is built from.
fn digest(source: &Path) -> u64 {
    let entries = std::fs::read_dir(source).expect("the sources are there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files.iter().filter(|file| is_go(file)) {
        hasher.write(file.as_os_str().as_encoded_bytes());
        hasher.write(&std::fs::read(file).expect("a readable source"));
    }
    hasher.finish()
}

fn is_go(file: &Path) -> bool {
    file.extension().is_some_and(|extension| ["go", "mod", "sum"].map(OsStr::new).contains(&extension))
}
