from __future__ import annotations

import json
import os

from labkit.commands.ps import Running, list_running
from labkit.container import Container
from tests.support import requires
from tests.support.cli import labkit, start, wait_until

pytestmark = requires("userns", "overlay-userns")


def entry(name: str) -> Running | None:
    return next((item for item in list_running() if item.name == name), None)


def test_a_container_of_this_program_is_listed_while_it_runs() -> None:
    with Container(["sleep", "30"], image_like_host=True) as container:
        container.start()
        assert wait_until(lambda: entry(container.name))
        found = entry(container.name)
        assert found is not None
        assert (found.pid, found.command) == (container.pid, ("sleep", "30"))
        assert 0 <= found.age_s < 30
        assert 0 < found.memory_bytes < 64 << 20
    assert entry(container.name) is None


def test_containers_of_other_programs_are_listed_too() -> None:
    with start("run", "--", "sh", "-c", "echo ready; sleep 30") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert wait_until(lambda: "sleep 30" in labkit("ps").stdout)
        data = json.loads(labkit("ps", "--json").stdout)
        (found,) = [item for item in data if item["command"] == ["sh", "-c", "echo ready; sleep 30"]]
        assert os.path.exists(f"/proc/{found['pid']}")
        header = labkit("ps").stdout.splitlines()[0]
        assert header.split() == ["NAME", "PID", "AGE", "MEMORY", "COMMAND"]
        process.kill()
    assert wait_until(lambda: "echo ready" not in labkit("ps").stdout)


def test_a_command_cannot_write_to_the_readers_terminal() -> None:
    with Container(["sleep", "31", "\x1b[31m"], image_like_host=True) as container:
        # sleep refuses the word, but it is listed until it has ended; so is a shell that ignores it
        container.close()
    with Container(["sh", "-c", "sleep 30", "\x1b[31mred\n"], image_like_host=True) as container:
        container.start()
        assert wait_until(lambda: entry(container.name))
        shown = labkit("ps").stdout
        assert "?[31mred?" in shown
        assert "\x1b" not in shown
