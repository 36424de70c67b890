//! Two-way interoperability with gVisor's `pkg/flipcall`, against gVisor's own code.
//!
//! The Go files beside this one are a small program around the published module (pinned in `go.mod`). Each test runs it in a process
//! of its own, against our endpoint in another: this process, or one of `flipcall endpoint`. Without a Go toolchain, or where the module
//! cannot be fetched, they all pass and one line says why; with `FLIPCALL_REQUIRE_ALL=1` they fail instead.
//!
//! `FLIPCALL_INTEROP_CALLS` sets how many calls each pairing makes with small payloads; `ci/interop.sh --full` runs the long form,
//! and the comparison whose table is in `docs/interop.md`.

mod attacks;
mod calls;
mod compare;
mod go;
mod handshake;
mod ours;
mod place;
mod process;
mod shutdown;
mod siege;
mod windows;
