#!/usr/bin/env python3
"""Reads `cargo metadata` and fails if a dependency of ours asks for a newer compiler than we promise in rust-version.

What only tests and benches need does not count: who builds with an old compiler builds the library and the command.
"""

import json
import sys


def version(text):
    return tuple(int(part) for part in text.split("."))


def built(metadata):
    """The identifiers of everything that is compiled for the members of the workspace, build scripts included."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, open_ends = set(), list(metadata["workspace_members"])
    while open_ends:
        this = open_ends.pop()
        if this in found:
            continue
        found.add(this)
        for dependency in nodes[this]["deps"]:
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"]):
                open_ends.append(dependency["pkg"])
    return found


def main():
    metadata = json.load(sys.stdin)
    members, needed = set(metadata["workspace_members"]), built(metadata)
    packages = [package for package in metadata["packages"] if package["id"] in needed]
    promised = {version(package["rust_version"]) for package in packages if package["id"] in members}
    if len(promised) != 1:
        sys.exit(f"the members promise different compilers: {sorted(promised)}")
    ours = promised.pop()
    newer = [f"{package['name']} {package['version']} asks for {package['rust_version']}"
             for package in packages if package["rust_version"] and version(package["rust_version"]) > ours]
    if newer:
        sys.exit("dependencies ask for a newer compiler than we promise:\n" + "\n".join(newer))
    print(f"{len(packages)} packages, none asks for more")


if __name__ == "__main__":
    main()
