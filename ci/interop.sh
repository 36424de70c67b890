#!/bin/sh
# The risk: our base protocol is not gVisor's after all. Runs every pairing of our endpoint and gVisor's own (crates/cli/tests/interop).
#
#   ci/interop.sh          a few thousand calls for each pairing; about half a minute
#   ci/interop.sh --full   100,000 calls for each pairing with small payloads, then the comparison whose table is in docs/interop.md;
#                          needs Go, takes some minutes, and wants a machine with nothing else to do
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
"")
    timeout 900 cargo test --test interop
    ;;
--full)
    export FLIPCALL_REQUIRE_ALL=1
    export FLIPCALL_INTEROP_CALLS=100000
    # One test at a time: pairings that spin would otherwise spin against each other.
    timeout 3600 cargo test --release --test interop -- --test-threads=1 --nocapture
    timeout 1800 cargo test --release --test interop -- --test-threads=1 --nocapture --ignored go_against_rust
    ;;
*)
    echo "usage: ci/interop.sh [--full]" >&2
    exit 2
    ;;
esac
