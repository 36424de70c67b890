//! The command line of flipcall.

mod mux;

use std::process::ExitCode;

use clap::Parser;

/// Synchronous procedure calls between two processes that do not trust each other.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Serve as a conformance peer for the mux protocol
    Mux(mux::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Mux(args) => mux::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("flipcall: {}: {error}", error.kind());
        ExitCode::FAILURE
    })
}
