#!/usr/bin/env bash
# The risk: what others wrote. Looks at licences, sources and doubles among the dependencies (deny.toml), at every set of features, and at
# what Cargo.toml promises: the oldest versions of direct dependencies that it allows, and the oldest compiler (rust-version).
#
#   ci/dependencies.sh
#
# Known vulnerabilities are looked up where their database can be fetched, or was; where not, that is said. The oldest compiler is tried
# where rustup has it. In any case clippy (in .ci/run) refuses what the standard library had not yet in that version, and no dependency may
# ask for a newer one; a feature of the language that came later would go unseen then.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in hack deny; do
    # Without optimisation: they run for seconds and compile for minutes.
    cargo "$tool" --version >/dev/null 2>&1 || cargo install "cargo-$tool" --locked --quiet --debug --no-default-features
done

echo "== licences, sources and doubles"
cargo fetch --locked --quiet
cargo deny --workspace --all-features check licenses bans sources
echo "== known vulnerabilities"
if ! found=$(timeout 120 cargo deny --workspace --all-features check advisories 2>&1); then
    if grep -q "failed to fetch advisory database" <<<"$found"; then
        echo "not looked up: the advisory database cannot be fetched from here"
    else
        echo "$found" >&2
        exit 1
    fi
fi

echo "== every set of features"
cargo hack check --workspace --feature-powerset --all-targets --target-dir target/features

oldest=$(cargo metadata --no-deps --format-version 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["packages"][0]["rust_version"])')
echo "== what our dependencies ask of the compiler: at most $oldest"
cargo metadata --locked --format-version 1 --all-features --filter-platform x86_64-unknown-linux-gnu | python3 ci/oldest.py
if rustup toolchain list 2>/dev/null | grep -q "^$oldest"; then
    cargo "+$oldest" check --workspace --lib --bins --all-features --target-dir target/oldest-compiler
else
    echo "not tried: no toolchain $oldest is here (rustup toolchain install $oldest)"
fi

echo "== the oldest versions of direct dependencies"
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r Cargo.toml Cargo.lock src crates examples benches tests README.md "$copy/"
target="$PWD/target/oldest"
(
    cd "$copy"
    RUSTC_BOOTSTRAP=1 cargo update -Zdirect-minimal-versions --quiet
    cargo check --workspace --lib --bins --all-features --target-dir "$target"
)
