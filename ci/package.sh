#!/usr/bin/env bash
# The risk: a crate that builds here and nowhere else. Packs both crates as a registry would take them, unpacks them where nothing of
# this repository is in reach, and tries what came out: the library's tests compile and pass, and the command line builds against that library.
#
#   ci/package.sh          compiles every test, runs those that take seconds
#   ci/package.sh --full   runs them all
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
print(next(package["version"] for package in json.load(sys.stdin)["packages"] if package["name"] == "flipcall"))')
packed="$PWD/target/package"

# What cargo would verify is verified below, with the tests. Files that are not committed yet are packed, too.
cargo package --workspace --no-verify --allow-dirty --quiet

# The workspace leaves `target` out. Files in a package are as old as cargo makes them, and would never be built again: -m makes them new.
unpacked="$PWD/target/package-unpacked"
rm -rf "$unpacked"
mkdir -p "$unpacked"
for name in flipcall flipcall-cli; do
    tar -xzmf "$packed/$name-$version.crate" -C "$unpacked"
done
export CARGO_TARGET_DIR="$PWD/target/package-tests"

cd "$unpacked/flipcall-$version"
for kept in LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md; do
    [ -s "$kept" ] || { echo "ci/package.sh: $kept is not in the package" >&2; exit 1; }
done
if [ "${1:-}" = --full ]; then
    timeout 1800 cargo test --all-features --no-fail-fast
else
    timeout 900 cargo test --all-features --no-run
    timeout 300 cargo test --all-features --lib --test endpoint_wire --test endpoint_handshake --test rpc_end --test rpc_postcard
    timeout 300 cargo test --all-features --doc
fi

cd "$unpacked/flipcall-cli-$version"
for kept in LICENSE-MIT LICENSE-APACHE README.md; do
    [ -s "$kept" ] || { echo "ci/package.sh: $kept is not in the package of the command line" >&2; exit 1; }
done
# The registry does not have the library yet, or has an older one.
timeout 600 cargo build --config "patch.crates-io.flipcall.path='$unpacked/flipcall-$version'"
"$CARGO_TARGET_DIR/debug/flipcall" --version
