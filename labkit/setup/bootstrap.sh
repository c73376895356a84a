#!/bin/sh
# Find a Python that labkit can run on and hand over to `python -m labkit.setup "$@"`.
#
# A name on PATH proves nothing: pyenv puts a shim for every version it has ever seen, and a shim of a version that is not
# selected fails. So each candidate is run. The first pass wants one that can also make a virtual environment (Debian cuts
# ensurepip out of its python3); the second takes any, and set-up looks for another way to get pip.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)

say() { printf '%s\n' "labkit: $*" >&2; }

runs() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1; }
has_pip() { "$1" -c 'import ensurepip, venv' </dev/null >/dev/null 2>&1; }

find_python() {
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        if runs "$name" && has_pip "$name"; then echo "$name"; return 0; fi
    done
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if runs "$name"; then echo "$name"; return 0; fi
    done
    # uv keeps its own Pythons outside PATH.
    name=$(uv python find --no-python-downloads '>=3.11' 2>/dev/null) && runs "$name" && echo "$name"
}

install_python() {
    command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ] || return 1
    say "no Python 3.11 or newer here: installing the distribution's python3 with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends python3 python3-venv </dev/null >/dev/null 2>&1 && return 0
    apt-get update -q </dev/null >/dev/null 2>&1
    apt-get install -y -q --no-install-recommends python3 python3-venv </dev/null >/dev/null 2>&1
}

if [ "$(uname -s)" != Linux ]; then
    say "namespaces and cgroups are Linux's own, and this is $(uname -s): use a Linux machine, a Linux VM or WSL 2."
    exit 1
fi

if [ -n "${PYTHON:-}" ]; then
    python=$PYTHON
    runs "$python" || { say "PYTHON=$PYTHON is no Python 3.11 or newer that runs: name another one, or leave PYTHON unset."; exit 1; }
elif runs "$root/.venv/bin/python"; then
    python=$root/.venv/bin/python
else
    python=$(find_python) || { install_python && python=$(find_python); } || {
        found=$(python3 --version 2>/dev/null) || found=none
        say "the course needs Python 3.11 or newer, and this machine has no such program (python3: $found)." \
            "Install it (Debian, Ubuntu: sudo apt-get install python3 python3-venv; others: uv python install 3.12), then try again."
        exit 1
    }
fi

cd "$root"
exec "$python" -m labkit.setup "$@"
