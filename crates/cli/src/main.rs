//! The command line of flipcall.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod cpus;
mod doctor;
mod echo;
mod endpoint;
mod mux;
mod outcome;
mod output;
mod sys;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use outcome::Outcome;
use output::{Unsaid, complain, say};

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
    /// One raw endpoint on an inherited memfd
    ///
    /// The server adds 1 to every byte of each datagram and sends it back, until the client shuts the window down. The client makes its
    /// calls, checks every byte of every answer, and prints one line with the time that a call took. It exits with 1 and names the kind
    /// of the error (such as peer-gone) if anything goes wrong. A window carries one connection: its bytes have to be zero at the start.
    Endpoint(endpoint::Arguments),
    /// Serve as a conformance peer for the mux protocol
    ///
    /// Until SIGTERM or SIGINT. A channel's name says what it does: `echo` returns every message, `sink` takes them, `stall` never reads,
    /// `reset` resets at the first message, `source:N` sends N bytes of which byte i is i mod 251, `open:NAME` opens an echoing
    /// channel NAME the other way. docs/stream.md says why the protocol is as it
    /// is; tests/stream_mux_client.py speaks it.
    Mux(mux::Arguments),
    /// Serve as a conformance peer for calls
    ///
    /// Until SIGTERM or SIGINT. Message types: 1 returns the bytes that it gets (u32 length, bytes), 2 adds two u64, 3 sleeps for u32
    /// milliseconds, 4 streams u32 chunks of u32 bytes, 5 fails with the given (u8 code, message, operation, path), 6 panics, 7 tells
    /// the caller's (pid, uid, gid), 8 takes a memfd and answers with its size and a pipe. docs/wire.md has the protocol;
    /// tests/rpc_client.py speaks it.
    Echo(echo::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::try_parse() {
        Ok(arguments) => run(&arguments.command),
        Err(help) if !help.use_stderr() => say(help.render()),
        Err(wrong) => {
            complain(wrong.render().to_string().trim_end());
            return ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(1));
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.downcast_ref().is_some_and(Unsaid::is_unheard) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<flipcall::Error>() {
                Some(typed) => complain(format_args!("flipcall: {}: {typed:#}", typed.kind())),
                None => complain(format_args!("flipcall: {error:#}")),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Outcome {
    match command {
        Command::Bench(arguments) => bench::run(arguments),
        Command::BenchPeer(arguments) => bench::peer::run(arguments),
        Command::Doctor => doctor::run(),
        Command::Endpoint(arguments) => endpoint::run(arguments),
        Command::Mux(arguments) => mux::run(arguments),
        Command::Echo(arguments) => echo::run(arguments),
    }
}
