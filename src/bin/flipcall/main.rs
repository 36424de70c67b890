//! The command line of flipcall.

mod bench;
mod doctor;
mod echo;
mod endpoint;
mod mux;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Synchronous procedure calls between two processes that do not trust each other.
#[derive(Parser)]
#[command(name = "flipcall", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Arguments),
    /// The second process of a benchmark.
    #[command(hide = true)]
    BenchPeer(bench::peer::Arguments),
    /// Print what this kernel and machine offer, and what follows from it.
    Doctor,
    /// One raw endpoint on an inherited memfd.
    Endpoint(endpoint::Arguments),
    /// Serve as a conformance peer for the mux protocol.
    Mux(mux::Arguments),
    /// Serve as a conformance peer for calls.
    Echo(echo::Arguments),
}

/// What a subcommand ends with: an error is printed with its kind, and the exit status is 1.
type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::BenchPeer(arguments) => bench::peer::run(&arguments),
        Command::Doctor => doctor::run(),
        Command::Endpoint(arguments) => endpoint::run(&arguments),
        Command::Mux(arguments) => mux::run(&arguments),
        Command::Echo(arguments) => echo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<flipcall::Error>() {
                Some(typed) => eprintln!("flipcall: {}: {typed}", typed.kind()),
                None => eprintln!("flipcall: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}
