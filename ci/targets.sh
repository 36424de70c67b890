#!/usr/bin/env bash
# The risk: code that only this kind of machine compiles. Checks everything, tests included, for another architecture and another C library.
# Nothing is linked and nothing runs: this is the compiler's word, not a test on such a machine.
#
#   ci/targets.sh           checks each target
#   ci/targets.sh --needs   prints the Debian packages without which it cannot, or nothing
#
# A target needs the standard library for it. Where `rustup target add` brought one, that is taken; else it is compiled from the sources
# that the component rust-src or Debian's package rust-web-src has, with the compiler that they belong to.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGETS=(aarch64-unknown-linux-gnu x86_64-unknown-linux-musl)
# Where Debian's packages put the compiler that goes with their sources.
DEBIAN_RUSTC=/usr/bin/rustc

has_library() { [ -d "$("$1" --print sysroot)/lib/rustlib/$2/lib" ]; }
has_sources() { [ -f "$("$1" --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]; }

# The compiler for a target, and whether the standard library has to be built: "rustc", "rustc -Zbuild-std", or nothing.
way() {
    if has_library rustc "$1"; then
        echo rustc
    elif has_sources rustc; then
        echo rustc -Zbuild-std
    elif [ -x "$DEBIAN_RUSTC" ] && has_sources "$DEBIAN_RUSTC"; then
        echo "$DEBIAN_RUSTC" -Zbuild-std
    fi
}

if [ "${1:-}" = --needs ]; then
    for target in "${TARGETS[@]}"; do
        [ -n "$(way "$target")" ] || { echo rustc-web rust-web-src; exit; }
    done
    exit
fi

for target in "${TARGETS[@]}"; do
    read -r compiler build <<<"$(way "$target")"
    if [ -z "$compiler" ]; then
        echo "skipped: neither the standard library for $target nor its sources are here" >&2
        [ -z "${FLIPCALL_REQUIRE_ALL:-}" ] || exit 1
        continue
    fi
    echo "== $target, $("$compiler" --version)${build:+, with a standard library built from its sources}"
    # A dependency of the tests compiles a C file. Nothing links it, so any compiler will do.
    compiler_of_c="CC_${target//-/_}"
    # shellcheck disable=SC2086
    env "$compiler_of_c=cc" RUSTC="$compiler" RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Dwarnings timeout 900 \
        cargo check --workspace --all-targets --all-features --target "$target" --target-dir target/targets $build
done
