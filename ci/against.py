#!/usr/bin/env python3
"""Compares two builds of `flipcall` by their own benchmark, in one run: is the new one slower than the old one?

Usage: against.py NEW OLD [--rounds N] [--row NAME ...]     (ci/bench.sh --against OLD builds NEW and calls this)
       against.py --check NEW                               (whether this program still works; says nothing about speed)

Each round measures every row with three programs, one after the other in an order that changes from round to round: the new build, the old
build, and a second copy of the old build. new/old is the comparison; copy/old is what two builds of one commit differ in here and today.
For both the median of the rounds' ratios is printed, with its 95 % interval from order statistics, which presumes nothing about how the
noise is distributed. A row fails if the median of new/old is more than 3 % beyond the interval of copy/old; then the exit status is 1.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

# What may be lost beyond the noise.
ALLOWED = 0.03
# With fewer rounds the verdict is not worth printing: the interval of a median of 21 goes from the 6th to the 16th value.
LEAST_ROUNDS = 21
DEFAULT_ROUNDS = 31
# With fewer values a median has no 95 % interval.
LEAST_FOR_INTERVAL = 6
# Seconds that one measurement may take. It takes less than one.
PATIENCE = 60
# Turns of 4 ms that one measurement consists of. A timed run of 250 ms comes with it, so longer is not much dearer.
TURNS = 15


def rows_on(cpus):
    """Name, transport, payload bytes and CPUs of each row."""
    one, two = f"{cpus[0]},{cpus[0]}", f"{cpus[0]},{cpus[1]}"
    return [
        ("null", "window-spin", 0, two),
        ("48 B", "window-spin", 48, two),
        ("4 KiB", "window-spin", 4096, two),
        ("1 MiB", "window-spin", 1 << 20, two),
        ("typed null", "rpc-window", 0, two),
        ("typed 64 B", "rpc-window", 64, two),
        ("typed 1 KiB", "rpc-window", 1024, two),
        ("typed socket", "rpc-socket", 0, two),
        ("park, one CPU", "window-park", 0, one),
        ("park, two CPUs", "window-park", 0, two),
    ]


def measure(program, row, folder):
    """Mean nanoseconds of a call."""
    name, transport, payload, cpus = row
    result = os.path.join(folder, "result.json")
    # Compared with itself, so that no other row is measured along with it.
    command = [program, "bench", "--rounds", str(TURNS), "--transports", transport, "--against", transport,
               "--payload", str(payload), "--cpus", cpus, "--json", result]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    if ended.returncode != 0:
        sys.exit(f"against: {name}: {' '.join(command)}: status {ended.returncode}: {ended.stderr.strip()}")
    with open(result) as file:
        (only,) = json.load(file)["rows"]
    return only["mean_ns"]


def interval(values):
    """The 95 % interval of the median: the k-th smallest and the k-th largest value, for the largest k that covers as much."""
    ordered, count = sorted(values), len(values)
    below, k = 0.0, 0
    while True:
        below += math.comb(count, k) / 2**count
        if below > 0.025:
            break
        k += 1
    if k == 0:
        raise ValueError(f"{count} values are too few for an interval")
    return ordered[k - 1], ordered[count - k]


def limit(noise):
    """The largest ratio that passes. Which copy is called the old one is arbitrary, so the noise counts both ways."""
    low, high = noise
    return max(high, 1 / low) + ALLOWED


def compare(new, old, rounds, rows):
    """Ratios of each row: new by old, and copy by old."""
    found = {row[0]: {"new": [], "old": [], "copy": []} for row in rows}
    with tempfile.TemporaryDirectory(prefix="flipcall-against-") as folder:
        # Names of one length, so that the stacks of the processes begin alike.
        programs = {}
        for name, source in (("new", new), ("old", old), ("copy", old)):
            programs[name] = os.path.join(folder, name[0])
            shutil.copy2(source, programs[name])
        names = list(programs)
        for number in range(rounds):
            # All six orders come in turn: each program is first, second and last equally often.
            turn = names[number % 3:] + names[:number % 3]
            if number // 3 % 2:
                turn.reverse()
            for row in rows:
                for name in turn:
                    found[row[0]][name].append(measure(programs[name], row, folder))
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return found


def report(found):
    """Prints the table. Returns the names of the rows that failed."""
    print(f"{'row':<15} {'old ns':>10} {'new ns':>10}  {'new/old':>7} {'95 % interval':>15}  {'copy/old':>8} {'95 % interval':>15}  {'limit':>5}")
    failed = []
    for name, times in found.items():
        ratios = [new / old for new, old in zip(times["new"], times["old"])]
        noise = [copy / old for copy, old in zip(times["copy"], times["old"])]
        median, between = statistics.median(ratios), interval(noise)
        passes = median <= limit(between)
        if not passes:
            failed.append(name)
        spread = ["{:.3f} … {:.3f}".format(*pair) for pair in (interval(ratios), between)]
        print(f"{name:<15} {statistics.median(times['old']):>10.0f} {statistics.median(times['new']):>10.0f}  {median:>7.3f} {spread[0]:>15}  "
              f"{statistics.median(noise):>8.3f} {spread[1]:>15}  {limit(between):>5.3f}{'' if passes else '  SLOWER'}")
    return failed


def check(program, rows):
    """The statistics on values whose answer is known, and one short comparison of a program with itself."""
    assert interval(range(1, 22)) == (6, 16), "tables of the sign test: 6 and 16 of 21"
    assert interval(range(1, 32)) == (10, 22), "tables of the sign test: 10 and 22 of 31"
    assert interval(range(1, LEAST_FOR_INTERVAL + 1)) == (1, LEAST_FOR_INTERVAL)
    assert abs(limit((0.98, 1.01)) - (1 / 0.98 + 0.03)) < 1e-9 and abs(limit((0.99, 1.04)) - 1.07) < 1e-9
    slow = {"row": {"old": [100.0] * 21, "copy": [101.0] * 21, "new": [105.0] * 21}}
    assert report(slow) == ["row"], "5 % slower is seen where the copies differ by 1 %"
    slow["row"]["new"] = [103.0] * 21
    assert report(slow) == [], "3 % is allowed"
    report(compare(program, program, LEAST_FOR_INTERVAL, rows[:1]))
    print("against: works; these figures are too few for a verdict")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", help="the `flipcall` that is tried")
    parser.add_argument("old", nargs="?", help="the `flipcall` that it is compared with")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help=f"at least {LEAST_ROUNDS} [default: {DEFAULT_ROUNDS}]")
    parser.add_argument("--row", action="append", help="measure this row alone; may be given more than once")
    parser.add_argument("--check", action="store_true", help="only try whether this program works")
    arguments = parser.parse_args()
    for path in filter(None, (arguments.new, arguments.old)):
        if not os.access(path, os.X_OK) or os.path.isdir(path):
            parser.error(f"{path} is not a program")
    cpus = sorted(os.sched_getaffinity(0))
    if arguments.check:
        return check(arguments.new, rows_on([cpus[0], cpus[-1]]))
    if len(cpus) < 2:
        sys.exit("against: two CPUs are needed, and this process may run on one")
    rows = rows_on(cpus)
    if arguments.old is None:
        parser.error("there is no old build to compare with")
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"{arguments.rounds} rounds are too few for a verdict; it takes at least {LEAST_ROUNDS}")
    for name in arguments.row or []:
        if name not in [row[0] for row in rows]:
            parser.error(f"there is no row {name!r}; there are {', '.join(row[0] for row in rows)}")
    rows = [row for row in rows if not arguments.row or row[0] in arguments.row]
    print(f"{arguments.rounds} rounds on CPUs {cpus[0]} and {cpus[1]}; new: {arguments.new}; old: {arguments.old}")
    failed = report(compare(arguments.new, arguments.old, arguments.rounds, rows))
    if failed:
        sys.exit(f"against: more than {ALLOWED:.0%} slower beyond the noise: {', '.join(failed)}")


if __name__ == "__main__":
    main()
