#!/usr/bin/env python3
"""Says what is linked into the programs: licences as a text, and a software bill of materials (CycloneDX 1.5).

usage: third-party.py VERSION NOTICES-FILE SBOM-FILE PACKAGE…    (in the repository; SOURCE_DATE_EPOCH is the bill's time)

Linked is what cargo takes for the programs without what it needs only to build and to test them. Nothing is fetched.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

TARGET = "x86_64-unknown-linux-gnu"
LICENCE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)([-._].*)?$", re.IGNORECASE)
# Sources in crates that are not compiled here.
NOT_LINKED = {"sqlcipher", "tests", "testdata", "examples", "benches", "fuzz", ".github"}
SQLITE = "SQLite is in the public domain: its authors have dedicated it (https://sqlite.org/copyright.html).\n"


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(packages):
    """Name and version of each crate in the programs."""
    named = [word for package in packages for word in ("-p", package)]
    tree = output("cargo", "tree", "--locked", "--target", TARGET, "--edges", "normal,no-proc-macro", "--prefix", "none",
                  "--no-dedupe", "--format", "{p}", *named)
    return {tuple(line.split()[:2]) for line in tree.splitlines() if line}


def licence_files(folder):
    found = []
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in NOT_LINKED)
        found += [Path(directory, name) for name in sorted(files)
                  if LICENCE.match(name) and not name.endswith((".rs", ".go", ".py", ".c", ".h"))]
    return found


def expression(package):
    # Some crates separate alternatives by the old sign.
    return (package["license"] or "").replace("/", " OR ")


def notices(crates, programs, standard):
    """Texts that several crates have alike stand once, below the names of all."""
    texts = {}
    for package in crates:
        folder = Path(package["manifest_path"]).parent
        files = licence_files(folder)
        name = f"{package['name']} {package['version']}"
        for file in files:
            place = file.relative_to(folder)
            label = name if len(place.parts) == 1 else f"{name} ({place.parent})"
            texts.setdefault(file.read_text(errors="replace").strip() + "\n", set()).add(label)
        if package["name"] == "libsqlite3-sys":
            texts.setdefault(SQLITE, set()).add(f"{name} (sqlite3)")
        if not files:
            by = ", ".join(package["authors"]) or f"the authors of {package['repository']}"
            text = f"Licensed as {expression(package)} by {by}; their package has no text of it.\n"
            texts.setdefault(text, set()).add(name)
    for file in standard:
        texts.setdefault(file.read_text(errors="replace").strip() + "\n", set()).add("the standard library of Rust")
    rule = "=" * 100 + "\n"
    head = f"What is linked into {', '.join(programs)} besides sealblk itself, and under which licences.\n\n"
    listed = "".join(f"{package['name']} {package['version']}: {expression(package)}\n" for package in crates)
    listed += "the standard library of Rust: MIT OR Apache-2.0\n"
    parts = sorted((sorted(names), text) for text, names in texts.items())
    return head + listed + "".join("\n" + rule + "\n".join(names) + "\n" + rule + "\n" + text for names, text in parts)


def checksums():
    lock = Path("Cargo.lock").read_text()
    entry = re.compile(r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"')
    return {(name, version): checksum for name, version, checksum in entry.findall(lock)}


def bill(version, crates, resolve, own):
    """`own` are this repository's packages among the crates."""
    sums = checksums()

    def component(package):
        purl = f"pkg:cargo/{package['name']}@{package['version']}"
        found = {"type": "library", "bom-ref": purl, "name": package["name"], "version": package["version"], "purl": purl}
        if package["license"]:
            found["licenses"] = [{"expression": expression(package)}]
        checksum = sums.get((package["name"], package["version"]))
        if checksum:
            found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["repository"]:
            found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return found

    refs = {package["id"]: f"pkg:cargo/{package['name']}@{package['version']}" for package in own + crates}
    depends = [{"ref": refs[node["id"]], "dependsOn": sorted({refs[to] for to in node["dependencies"] if to in refs})}
               for node in resolve if node["id"] in refs]
    product = f"pkg:generic/sealblk@{version}"
    depends.append({"ref": product, "dependsOn": sorted(refs[package["id"]] for package in own)})
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    time = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    components = [component(package) for package in own + crates]
    names = " ".join(refs.values())
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{product} {seconds} {names}')}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": product, "name": "sealblk", "version": version,
                          "licenses": [{"license": {"id": "Apache-2.0"}}]},
        },
        "components": components,
        "dependencies": sorted(depends, key=lambda entry: entry["ref"]),
    }


def main():
    version, notices_file, bill_file, *programs = sys.argv[1:]
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
    wanted = {(name, version.removeprefix("v")) for name, version in linked(programs)}
    packages = [package for package in metadata["packages"] if (package["name"], package["version"]) in wanted]
    packages.sort(key=lambda package: (package["name"], package["version"]))
    assert {(package["name"], package["version"]) for package in packages} == wanted
    own = [package for package in packages if package["source"] is None]
    crates = [package for package in packages if package["source"] is not None]
    licences = Path(output("rustc", "--print", "sysroot").strip(), "share/doc/rust/licenses")
    standard = [licences / name for name in ("Apache-2.0.txt", "MIT.txt", "LLVM-exception.txt")]
    standard = [file for file in standard if file.exists()]
    Path(notices_file).write_text(notices(crates, programs, standard))
    Path(bill_file).write_text(json.dumps(bill(version, crates, metadata["resolve"]["nodes"], own), indent=1) + "\n")
    missing = [package["name"] for package in crates if not licence_files(Path(package["manifest_path"]).parent)]
    print(f"{len(crates)} crates are linked; without a text of their licence: {', '.join(missing) or 'none'}")


main()
