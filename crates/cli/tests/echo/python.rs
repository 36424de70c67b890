//! Peers in another language: a client that knows only the wire format, and one that breaks it.

use std::process::Command;

use super::peer::Echo;

fn run(script: &str, echo: &Echo, arguments: &[&str]) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let output = Command::new("python3")
        .arg(format!("{root}/tests/{script}"))
        .arg(echo.path())
        .args(arguments)
        .current_dir(root)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none() => {
            eprintln!("skipped: no python3: {error}");
            return;
        }
        Err(error) => panic!("python3: {error}"),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{out}{err}", output.status);
    print!("{out}");
}

#[test]
fn a_client_that_knows_only_the_wire_format() {
    run("rpc_client.py", &Echo::start(&[]), &["tests/vectors/rpc"]);
}

#[test]
fn a_client_that_breaks_every_rule() {
    let echo = Echo::start(&["--window-bytes", "16777216"]);
    let small = Echo::start(&["--max-message", "8192"]);
    run("rpc_hostile.py", &echo, &[&echo.id().to_string(), small.path().to_str().unwrap()]);
}
