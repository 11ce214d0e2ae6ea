"""What is done to each generated request before it is sent. Every second one is led to objects that there are, and half of
these ask for what can be done. None gets at files outside of the test's directory, or fills the medium."""

import os
import posixpath

import schemathesis

HOST = os.environ["API_TEST_HOST"]
LARGEST_DISK = 1 << 20
PATHS = ("path", "file", "vhost_socket", "vm_socket", "boot_disk")
# Made by scripts/api-test, and there until its end.
PRESENT = {
    "account": "default",
    "disk": "data",
    "image": "base",
    "instance": "vm",
    "key": "own",
    "snapshot": "data/first",
}
KEPT_IDS = os.environ["API_TEST_KEPT"].split()
# Fields that can be given with what PRESENT has; others are likely to be refused.
POSSIBLE = ("amount", "disk", "force", "instance", "name", "read_only", "repair", "size", "snapshot")
count = 0


@schemathesis.hook
def before_call(context, case, kwargs):
    global count
    count += 1
    contain(case.body)
    if count % 2 == 0:
        lead(case)
    if count % 4 == 0:
        make_possible(case)
    keep(case)


def lead(case):
    """To objects that there are."""
    for name, wanted in PRESENT.items():
        if name in parameters(case):
            case.path_parameters[name] = wanted
        if isinstance(case.body, dict) and isinstance(case.body.get(name), str):
            # Within its disk, where the call is about one.
            case.body[name] = wanted.rpartition("/")[2]


def make_possible(case):
    if case.headers:
        case.headers.pop("If-Match", None)
    if not isinstance(case.body, dict):
        return
    for name in set(case.body) - set(POSSIBLE):
        del case.body[name]
    if isinstance(case.body.get("name"), str):
        case.body["name"] = f"made-{count}"
    if "size" in case.body:
        case.body["size"] = LARGEST_DISK


def keep(case):
    """What others are led to is neither deleted nor renamed."""
    for name, wanted in parameters(case).items():
        if wanted not in KEPT_IDS and wanted not in PRESENT.values():
            continue
        if case.method.upper() == "DELETE":
            case.path_parameters[name] = "not-there"
        elif case.method.upper() == "PATCH" and isinstance(case.body, dict) and "name" in case.body:
            case.body["name"] = PRESENT[name].rpartition("/")[2]


def parameters(case):
    return case.path_parameters if isinstance(case.path_parameters, dict) else {}


def contain(body):
    if isinstance(body, list):
        for item in body:
            contain(item)
    if not isinstance(body, dict):
        return
    for key, value in body.items():
        if key in PATHS and isinstance(value, str) and value.startswith("/"):
            body[key] = HOST + posixpath.normpath("/" + value.lstrip("/"))
        elif key == "size" and isinstance(value, (int, float)) and value > LARGEST_DISK:
            body[key] = LARGEST_DISK
        else:
            contain(value)
