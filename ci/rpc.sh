#!/bin/sh
# Typed calls: wire vectors, every transport, peers in another language and hostile ones, deadlines, deaths, memory, allocations.
# Short by default; --full runs 8 x 100,000 calls, 10,000 OPENs and 256 clients, and prints the figures that may be quoted.
set -eu
cd "$(dirname "$0")/.."
export RUST_BACKTRACE=0
profile=
if [ "${1:-}" = --full ]; then
    profile=--release
    export FLIPCALL_FULL=1
fi

# shellcheck disable=SC2086
timeout 900 cargo test $profile --features tracing,postcard --test rpc --test echo --test rpc_allocations --test rpc_tracing --test rpc_postcard \
    --test rpc_end --test rpc_large --test rpc_quiet --test rpc_limits --test rpc_debug --test api \
    -- --nocapture --test-threads 1
# The same calls where nothing is told, in a build without feature tracing.
timeout 300 env -u FLIPCALL_FULL cargo test --test rpc_quiet --test rpc --test echo --test rpc_allocations -- --nocapture --test-threads 1
timeout 300 cargo test $profile -p flipcall --doc rpc
timeout 60 cargo run --quiet $profile --example kv
timeout 60 cargo run --quiet $profile --example device
if [ -n "$profile" ]; then
    cargo build --release
    timeout 300 ./target/release/flipcall bench --transports rpc-window,rpc-bulk,rpc-socket --rounds 7 --cpus 0,1 \
        --payload 0,64,1024,4096,16384,65536,131072,262000,262144,524288,1048576,2097152,4194304,16777216,67108800
    timeout 60 ./target/release/flipcall bench --transports rpc-window,rpc-bulk --rounds 7 --cpus 0,0 --payload 262000,262144
fi
