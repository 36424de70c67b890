#!/bin/sh
# Kernels and filters that lack something: each system call that a role of docs/confinement.md makes is refused, with EPERM, ENOSYS and
# EINVAL, from the role's beginning and after its first call. The role works without, or ends by an error that names what was refused.
# `flipcall doctor` tells each with its reason.
#
# usage: ci/environments.sh [--full]
#
# The short form refuses each call once, with one error number to one role, in half a minute. --full goes through all of them (about
# 2,400 trials, ten minutes) and prints each one's line.
set -eu
cd "$(dirname "$0")/.."

case "${1-}" in
"")
	timeout 600 cargo test --all-features --test confinement
	exec timeout 300 cargo test -p flipcall-cli --test doctor
	;;
--full) ;;
*)
	echo "usage: ci/environments.sh [--full]" >&2
	exit 2
	;;
esac

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
FLIPCALL_FULL=1 RUST_BACKTRACE=0 timeout 1800 cargo test --all-features --test confinement -- --nocapture >"$log" 2>/dev/null || status=$?
grep -aE '^(fine|BAD|skipped|test )' "$log"
exit "$status"
