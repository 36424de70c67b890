//! Calls between two processes, without the command line: long messages, descriptors, a hostile server, the bytes on the wire.

mod bulk;
mod hostile_server;
mod leftovers;
mod transfers;
mod vectors;

use std::time::Duration;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
