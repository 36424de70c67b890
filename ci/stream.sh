#!/bin/sh
# The stream layer: frames, attachments, mux. Short by default; --full runs the long tests and prints the figures that may be quoted.
set -eu
cd "$(dirname "$0")/.."
full=
[ "${1:-}" = --full ] && full=1

cargo build --examples
if [ -n "$full" ]; then
    FLIPCALL_FULL=1 PROPTEST_CASES=20000 cargo test --release -p flipcall --lib stream
    cargo build --release --examples
    FLIPCALL_FULL=1 cargo test --release --test stream_attachments --test mux_conformance --test stream_processes --test stream_mux --test stream_leader --test stream_goodbye
    cargo bench --bench stream -- --full
else
    cargo test -p flipcall --lib stream
    cargo test --test stream_attachments --test mux_conformance --test stream_processes --test stream_mux --test stream_leader --test stream_goodbye
    cargo bench --bench stream -- --test
fi
