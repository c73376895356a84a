"""``labkit registry`` and ``labkit image pull|push|search``, as a person types them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit.image import ImageStore
from tests.image.registry.liar import Liar, answer
from tests.image.registry.test_push import put_image
from tests.image.registry.wire import MANIFEST, Wire, blob, digest_of, image
from tests.support.cli import LABKIT, assert_one_sentence, labkit, start, wait_until

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep away from this user's own images, accounts and passwords."""
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@contextmanager
def served(*options: str) -> Iterator[str]:
    """Run ``labkit registry serve`` on a free port; yield its address; end it as a person would."""
    with start("registry", "serve", "--port", "0", *options) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " at 127.0.0.1:" in line, process.stderr and process.stderr.read()
            yield line.split(" at ")[1].split(". ")[0]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0


def test_the_whole_way_from_an_account_to_a_pulled_image(own_state: Path) -> None:
    store = ImageStore(own_state / "images")
    manifest, _ = put_image(store, "web:1", blob(100_000))
    done = labkit("registry", "adduser", "alice", "--password-stdin", data=f"{PASSWORD}\n")
    assert (done.returncode, done.stdout) == (0, "Added alice, who may now push alice/...\n")
    assert labkit("registry", "users").stdout == "alice\n"
    with served() as address:
        name = f"{address}/alice/web:1"
        refused = labkit("image", "push", "web:1", name)
        assert refused.returncode == 1
        assert "unauthorized" in refused.stderr.splitlines()[-1]
        wrong = labkit("registry", "login", address, "-u", "alice", "--password-stdin", data="wrong password\n")
        assert wrong.returncode == 1
        assert_one_sentence(wrong.stderr)
        right = labkit("registry", "login", address, "-u", "alice", "--password-stdin", data=f"{PASSWORD}\n")
        assert right.returncode == 0
        kept = own_state / "credentials.json"
        assert str(kept) in right.stdout
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        pushed = labkit("image", "push", "web:1", name)
        assert pushed.returncode == 0
        assert digest_of(manifest) in pushed.stdout
        assert ": Pushed" in pushed.stderr
        assert labkit("image", "search", address).stdout.split() == ["NAME", "TAGS", f"{address}/alice/web", "1"]
        assert labkit("image", "search", address, "nothing").returncode == 1
        pulled = labkit("image", "pull", "-q", name)
        assert (pulled.stdout, pulled.stderr) == (f"{digest_of(manifest)}\n", "")
        assert "Image is up to date" in labkit("image", "pull", name).stdout
        missing = labkit("image", "pull", f"{address}/alice/web:9")
        assert (missing.returncode, missing.stdout) == (1, "")
        assert_one_sentence(missing.stderr)
        assert "manifest unknown" in missing.stderr
        assert labkit("registry", "logout", address).returncode == 0
        assert labkit("registry", "logout", address).returncode == 1
        assert json.loads(kept.read_text())["auths"] == {}
    assert labkit("registry", "rmuser", "alice").returncode == 0
    assert labkit("registry", "rmuser", "alice").returncode == 1


def test_a_registry_is_pruned_while_it_serves(own_state: Path) -> None:
    with served() as address:
        wire = Wire(address)
        location = wire.begin("a/b").headers["Location"]
        wire.ask("PATCH", location, b"x" * 1000)
        _, digest = wire.push_image("a/b", "1")
        assert labkit("registry", "prune").stdout == "Removed 0 blobs (0 B) and 0 unfinished uploads.\n"
        assert wire.ask("GET", location).status == 204  # somebody may go on with it
        assert wire.ask("GET", f"/v2/a/b/manifests/{digest}").status == 200
    assert labkit("registry", "prune").stdout == "Removed 0 blobs (0 B) and 1 unfinished uploads.\n"


def test_SIGTERM_ends_it_too(own_state: Path) -> None:
    with start("registry", "serve", "--port", "0", "--private") as process:
        assert process.stdout is not None
        assert "There are no accounts" in process.stdout.readline()
        process.terminate()
        assert process.wait(10) == 0


def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with served() as address:
        done = labkit("registry", "serve", "--port", address.rpartition(":")[2])
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert_one_sentence(done.stderr)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("serve", "--port", "70000"), 2), (("serve", "--port", "x"), 2), (("serve", "--max-blob", "huge"), 2),
        (("serve", "--host", "0.0.0.0", "--port", "0"), 1), (("serve", "--tls-cert", "x"), 2),
        (("serve", "--tls-cert", "/nowhere", "--tls-key", "/nowhere", "--port", "0"), 1),
        (("adduser", "Alice", "--password-stdin"), 2), (("adduser", "alice"), 2),
        (("login", "localhost:1", "--password-stdin"), 2),
        (("login", "localhost:1", "-u", "a", "--password-stdin"), 1),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(words: tuple[str, ...], status: int) -> None:
    done = labkit("registry", *words, data="some password\n")
    assert done.returncode == status
    assert_one_sentence(done.stderr)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("pull", "UPPER"), 2), (("pull", "localhost:1/a/b"), 1), (("pull", "--platform", "x", "localhost:1/a/b"), 2),
        (("push", "localhost:1/a/b"), 1), (("push", "--chunk", "x", "localhost:1/a/b"), 2), (("search", "localhost:1"), 1),
        (("search", "a b"), 2),
    ],
)  # fmt: skip
def test_images_that_cannot_be_moved_are_one_sentence(words: tuple[str, ...], status: int) -> None:
    done = labkit("image", *words)
    assert done.returncode == status, done.stderr
    assert_one_sentence(done.stderr)


def test_on_a_terminal_the_lines_are_drawn_in_place(own_state: Path) -> None:
    with served() as address:
        Wire(address).push_image("alice/web", "1", blob(3_000_000))
        master_fd, slave_fd = os.openpty()
        with open(master_fd, "rb", buffering=0) as master:
            done = subprocess.run(
                [*LABKIT, "image", "pull", f"{address}/alice/web:1"],
                stdout=subprocess.DEVNULL,
                stderr=slave_fd,
                check=True,
            )
            os.close(slave_fd)
            shown = b""
            try:
                while part := master.read(65536):
                    shown += part
            except OSError:
                pass  # a terminal without a program at its other end
    assert done.returncode == 0
    assert b"\x1b[2A" in shown
    assert shown.count(b"Pull complete") >= 2


def test_Ctrl_C_ends_a_pull_from_a_registry_that_is_stuck_at_once() -> None:
    layer = blob(1000)
    manifest, (configuration, _) = image(layer)
    with Liar().running() as liar:
        liar.serve("GET /v2/a/b/manifests/1 ", answer("200 OK", manifest, f"Content-Type: {MANIFEST}"))
        for data in (layer, configuration):
            liar.serve(f"GET /v2/a/b/blobs/{digest_of(data)} ", lambda connection, _: connection.recv(1))
        with start("image", "pull", f"{liar.address}/a/b:1") as process:
            assert wait_until(lambda: sum("/blobs/" in head for head in liar.asked) == 2)
            begun_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert time.monotonic() - begun_s < 5
