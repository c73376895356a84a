from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys

import labkit
from labkit.measure.hostfacts import HostFacts, host_facts, virtualisation
from tests.support import requires


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def test_the_facts_are_those_of_uname_and_nproc() -> None:
    facts = host_facts()
    assert f"{facts.kernel} {facts.machine}" == output("uname", "-r", "-m")
    assert facts.cpus == int(output("nproc"))
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert (facts.labkit, facts.as_root) == (labkit.__version__, os.geteuid() == 0)


@requires("program:free")
def test_memory_is_what_free_shows() -> None:
    total = output("free", "--bytes").splitlines()[1].split()[1]
    assert host_facts().memory_bytes == int(total)


@requires("program:systemd-detect-virt")
def test_virtualisation_is_seen_where_systemd_sees_it() -> None:
    assert bool(virtualisation()) == (output("systemd-detect-virt", "--vm") != "none")


def test_the_date_is_now_and_says_its_time_zone() -> None:
    taken = datetime.datetime.fromisoformat(host_facts().date)
    assert abs(datetime.datetime.now(datetime.UTC) - taken) < datetime.timedelta(seconds=5)


def test_the_version_of_cgroups_is_that_of_the_mounts() -> None:
    types = {line.split(" - ")[1].split()[0] for line in open("/proc/self/mountinfo") if " - cgroup" in line}
    expected = {frozenset({"cgroup"}): "v1", frozenset({"cgroup2"}): "v2"}.get(frozenset(types), "hybrid")
    if types:
        assert host_facts().cgroup_version == expected


def test_facts_survive_json_and_read_as_a_sentence() -> None:
    facts = host_facts()
    assert HostFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    assert f"Linux {facts.kernel}" in str(facts)
    assert "\n" not in str(facts)


def test_facts_are_taken_without_starting_a_program() -> None:
    assert shutil.which("true")
    before = output("sh", "-c", "echo $PPID")  # this process
    assert before == str(os.getpid())
    children = open(f"/proc/self/task/{os.getpid()}/children").read()
    host_facts()
    assert open(f"/proc/self/task/{os.getpid()}/children").read() == children
