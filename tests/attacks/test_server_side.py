"""The server outside: can what a student plants in the work folder, or asks of the server, lead it out of the course folder?

Each attack is first tried on JupyterLab as it comes, over a folder of its own, and then on the course's server.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.kernels import requires_sandbox
from tests.attacks.servers import CANARY_CODE, NOTEBOOK, Server, World, world

pytestmark = [requires_sandbox, pytest.mark.timeout(400)]
JINJA = "{{% set _ = cycler.__init__.__globals__.os.mkdir({path!r}) %}}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """``attack`` asks the server; ``reached`` looks at the world, and at what the attack returned. ``cannot``: why not even JupyterLab."""

    name: str
    attack: Callable[[Server], Any]
    reached: Callable[[World, Any], bool]
    cannot: str = ""

    def __str__(self) -> str:
        return self.name


def canary(place: World, name: str) -> Path:
    """Return the place where a planted program leaves its mark."""
    return place.outside / f"canary-{name}"


def set_traps(place: World) -> None:
    """Plant what a student's program can plant: in the work folder, and (should it come that far) in the home."""
    (place.outside / "secret").write_text(place.secret)
    (place.outside / "victim").write_text("as it was")
    (place.outside / "to-delete").write_text("still here")
    (place.outside / "to-rename").write_text(place.secret)
    (place.outside / "a-checkpoint.txt").write_text(place.secret)
    (place.outside / "b-checkpoint.txt").write_text(place.secret)
    cell = NOTEBOOK["cells"][0] | {"source": place.secret}  # type: ignore[index,operator]
    (place.outside / "secret.ipynb").write_text(json.dumps(NOTEBOOK | {"cells": [cell]}))
    work = place.work
    (work / "file").symlink_to(place.outside / "secret")
    (work / "folder").symlink_to(place.outside)
    (work / "up").symlink_to("../../outside")
    (work / "victim").symlink_to(place.outside / "victim")
    (work / "link.ipynb").symlink_to(place.outside / "secret.ipynb")
    (work / "mine.txt").write_text("mine")
    (work / "a.txt").write_text("the old text")
    (work / ".~a.txt").symlink_to(place.outside / "written-by-backup")
    for name in ("new", "old"):
        (work / f"kept-{name}").mkdir()
        (work / f"kept-{name}/a.txt").write_text("mine")
        (work / f"kept-{name}/b.txt").write_text("mine")
        (work / f"kept-{name}/.ipynb_checkpoints").symlink_to(place.outside)
    with (work / "sparse").open("wb") as file:
        file.truncate(40 << 20)
    plant_programs(place)


def plant_programs(place: World) -> None:
    """Plant what would run on the host if the server took it for its own."""
    jupyter, data = place.home / ".jupyter", place.home / ".local/share/jupyter"
    (jupyter / "jupyter_server_config.d").mkdir(parents=True)
    for name in ("jupyter_server_config", "jupyter_lab_config", "jupyter_config"):
        (jupyter / f"{name}.py").write_text(CANARY_CODE.format(path=str(canary(place, name))))
    enabled = {"ServerApp": {"jpserver_extensions": {"evil_extension": True}}}
    (jupyter / "jupyter_server_config.d/evil.json").write_text(json.dumps(enabled))
    for name in ("evil_extension", "evil_exporter"):
        (place.work / f"{name}.py").write_text(CANARY_CODE.format(path=str(canary(place, name))))
    (data / "kernels/evil").mkdir(parents=True)
    spec = {"argv": ["touch", str(canary(place, "kernelspec"))], "display_name": "evil", "language": "python"}
    (data / "kernels/evil/kernel.json").write_text(json.dumps(spec))
    (data / "labextensions/evil").mkdir(parents=True)
    (data / "labextensions/evil/evil.js").write_text(place.secret)
    for folder, name in (
        (place.work / "lab", "template-here"),
        (data / "nbconvert/templates/markdown", "template-home"),
    ):
        folder.mkdir(parents=True)
        text = JINJA.format(path=str(canary(place, name)))
        (folder / "conf.json").write_text("{}")
        for index in ("index.html.j2", "index.md.j2"):
            (folder / index).write_text(text)
    startup = place.home / ".ipython/profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "evil.py").write_text(CANARY_CODE.format(path=str(canary(place, "startup"))))
    exported = NOTEBOOK | {
        "metadata": {"language_info": {"name": "python", "nbconvert_exporter": "evil_exporter.Evil"}}
    }
    (place.work / "exported.ipynb").write_text(json.dumps(exported))
    (place.work / "plain.ipynb").write_text(json.dumps(NOTEBOOK))


def exists(name: str) -> Callable[[World, Any], bool]:
    """Reached if there is such a file outside."""
    return lambda place, _: (place.outside / name).exists()


def left(name: str) -> Callable[[World, Any], bool]:
    """Reached if the planted program has run."""
    return lambda place, _: canary(place, name).exists()


def knows(place: World, answer: Any) -> bool:
    """Reached if the answer has the secret in it."""
    return place.secret in str(answer)


def get(path: str) -> Callable[[Server], Any]:
    """Ask for an address."""
    return lambda server: server.ask("GET", path).text


def put(path: str, content: str) -> Callable[[Server], Any]:
    """Save a text."""
    return lambda server: server.ask(
        "PUT", f"/api/contents/{path}", {"type": "file", "format": "text", "content": content}
    )


def post(path: str, body: Any) -> Callable[[Server], Any]:
    """Post."""
    return lambda server: server.ask("POST", path, body).text


def restores(server: Server) -> str:
    """Restore a checkpoint that lies outside, and read what was restored."""
    server.ask("POST", "/api/contents/work/kept-old/b.txt/checkpoints/checkpoint")
    return server.ask("GET", "/api/contents/work/kept-old/b.txt").text


def copies_in(server: Server) -> str:
    """Copy a file from outside, and read the copy."""
    reply = server.ask("POST", "/api/contents/work", {"copy_from": "work/folder/secret"})
    return server.ask("GET", f"/api/contents/{reply.json()['path']}").text if reply.status == 201 else ""


def renames_in(server: Server) -> str:
    """Move a file from outside, and read it."""
    server.ask("PATCH", "/api/contents/work/folder/to-rename", {"path": "work/moved"})
    return server.ask("GET", "/api/contents/work/moved").text


def kernel_of(server: Server) -> str:
    """Return the kernel that this server has for its students."""
    return "labkit" if server.is_ours else "python3"


def starts(body: Callable[[Server], Any], path: str = "/api/kernels", code: str = "") -> Callable[[Server], Any]:
    """Start a kernel, run a line in it if it runs, and end it."""

    def attack(server: Server) -> str:
        kernel_id = server.start_kernel(body(server), path=path)
        if not kernel_id:
            return ""
        try:
            return "started " + (server.run(kernel_id, code) if code else "")
        except (OSError, AssertionError):
            return "started "
        finally:
            server.ask("DELETE", f"/api/kernels/{kernel_id}")

    return attack


LOOK = "import os; print(os.getcwd(), os.listdir('.'), [open(n).read() for n in ('secret',) if os.path.exists(n)])"
STAYS = "This address answers on JupyterLab, and nothing more is asked of it here."


def page_offers(words: str) -> Callable[[World, Any], bool]:
    """Reached if JupyterLab's page has these words in its settings."""
    return lambda _, answer: words in answer.replace(" ", "")


def answers(server: Server, method: str, path: str) -> bool:
    """Tell whether the server has something at the address."""
    return server.ask(method, path).status < 300


def at(method: str, path: str) -> Callable[[Server], Any]:
    """Ask whether there is something at an address."""
    return lambda server: answers(server, method, path)


def changes(method: str, path: str) -> Callable[[Server], Any]:
    """Ask in a form that is wrong, so that nothing happens: what is there answers with an error of its own."""
    return lambda server: (
        server.ask(method, path, None if method in ("DELETE", "GET") else {"cmd": "nothing"}).status != 404
    )


def yes(_: World, answer: Any) -> bool:
    """Reached if there is."""
    return bool(answer)


def opens_a_terminal(server: Server) -> bool:
    """Open a terminal, and close it again."""
    reply = server.ask("POST", "/api/terminals")
    if reply.status != 200:
        return False
    server.ask("DELETE", f"/api/terminals/{reply.json()['name']}")
    return True


ATTEMPTS = (
    Attempt("read a file through a link", get("/api/contents/work/file"), knows),
    Attempt("read a file through a link to its folder", get("/api/contents/work/folder/secret"), knows),
    Attempt("read a file through a link that leads up", get("/api/contents/work/up/secret"), knows),
    Attempt("list a folder through a link", get("/api/contents/work/folder"), lambda _, answer: "to-delete" in answer),
    Attempt("download a file through a link", get("/files/work/file"), knows, "tornado follows no links to files"),
    Attempt("convert a notebook through a link", get("/nbconvert/python/work/link.ipynb"), knows),
    Attempt("save a new file through a link", put("work/folder/saved", "x"), exists("saved")),
    Attempt("save over a link", put("work/victim", "changed"),
            lambda place, _: (place.outside / "victim").read_text() != "as it was"),
    Attempt("save where the backup copy is a link", put("work/a.txt", "new"), exists("written-by-backup")),
    Attempt("create a file through a link", post("/api/contents/work/folder", {"type": "file", "ext": ".made"}),
            exists("untitled.made")),
    Attempt("create a folder through a link", post("/api/contents/work/folder", {"type": "directory"}), exists("Untitled Folder")),
    Attempt("copy a file from outside", copies_in, knows),
    Attempt("copy a file to outside", post("/api/contents/work/folder", {"copy_from": "work/mine.txt"}), exists("mine.txt")),
    Attempt("move a file from outside", renames_in, knows),
    Attempt("move a file to outside",
            lambda server: server.ask("PATCH", "/api/contents/work/mine.txt", {"path": "work/folder/gone.txt"}), exists("gone.txt")),
    Attempt("delete a file through a link", lambda server: server.ask("DELETE", "/api/contents/work/folder/to-delete"),
            lambda place, _: not (place.outside / "to-delete").exists()),
    Attempt("write a checkpoint through a link", post("/api/contents/work/kept-new/a.txt/checkpoints", None),
            lambda place, _: (place.outside / "a-checkpoint.txt").read_text() != place.secret),
    Attempt("restore a checkpoint through a link", restores, knows),
    Attempt("a file of zeros that takes no disk", lambda server: len(server.ask("GET", "/api/contents/work/sparse").body),
            lambda _, answer: answer > 100 << 20),
    Attempt("a planted kernelspec", starts(lambda _: {"name": "evil"}), left("kernelspec")),
    Attempt("a kernelspec that is there but not offered", starts(lambda _: {"name": "python3"}), yes),
    Attempt("a session with another kernelspec",
            starts(lambda _: {"path": "work/x.ipynb", "name": "", "type": "notebook", "kernel": {"name": "python3"}},
                   "/api/sessions"), yes),
    Attempt("a planted start-up file of IPython", starts(lambda server: {"name": kernel_of(server)}, code="1"), left("startup")),
    Attempt("a kernel whose working folder is a link",
            starts(lambda server: {"name": kernel_of(server), "path": "work/folder"}, code=LOOK), knows),
    Attempt("a kernel whose working folder is reached by dots",
            starts(lambda server: {"name": kernel_of(server), "path": "work/../../outside"}, code=LOOK), knows),
    Attempt("a session whose working folder is a link",
            starts(lambda server: {"path": "work/folder/x.ipynb", "name": "", "type": "notebook",
                                   "kernel": {"name": kernel_of(server)}}, "/api/sessions", LOOK), knows),
    Attempt("a planted jupyter_server_config.py", lambda _: None, left("jupyter_server_config")),
    Attempt("a planted jupyter_lab_config.py", lambda _: None, left("jupyter_lab_config")),
    Attempt("a planted jupyter_config.py", lambda _: None, left("jupyter_config")),
    Attempt("a planted server extension", lambda _: None, left("evil_extension")),
    Attempt("a planted labextension", get("/lab/extensions/evil/evil.js"), knows),
    Attempt("a planted template in the working folder", get("/nbconvert/html/work/plain.ipynb"), left("template-here")),
    Attempt("a planted template in the home", get("/nbconvert/markdown/work/plain.ipynb"), left("template-home"),
            "in a virtual environment its own templates come first"),
    Attempt("a converter that the notebook names", get("/nbconvert/script/work/exported.ipynb"), left("evil_exporter")),
    Attempt("a terminal", opens_a_terminal, yes),
    Attempt("the list of terminals", at("GET", "/api/terminals"), yes),
    Attempt("packages, installed by the extension manager", get("/lab"), page_offers('"can_install":true')),
    Attempt("a build of JupyterLab", changes("DELETE", "/lab/api/build"), yes),
    Attempt("the programs of language servers", changes("GET", "/lsp/ws/python"), yes),
    Attempt("the plugins of JupyterLab", changes("POST", "/lab/api/plugins"), yes),
    Attempt("the extensions of JupyterLab", changes("POST", "/lab/api/extensions"), yes),
    Attempt("conversion by TeX, which reads any file", lambda server: server.ask("GET", "/api/nbconvert").text,
            lambda _, answer: '"pdf"' in answer),
)  # fmt: skip


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """JupyterLab as it comes, and the course's server, each in a world of its own."""
    places = [world(tmp_path_factory.mktemp(name)) for name in ("stock", "ours")]
    for place in places:
        set_traps(place)
    with Server(places[0], ours=False) as stock, Server(places[1], ours=True) as ours:
        yield stock, ours


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_the_server_is_not_led_out_of_its_folder(attempt: Attempt, servers: tuple[Server, Server]) -> None:
    stock, ours = servers
    reached = attempt.reached(stock.world, attempt.attack(stock))
    assert reached != bool(attempt.cannot), "on JupyterLab as it comes the attack should succeed, or say why not"
    answer = attempt.attack(ours)
    assert not attempt.reached(ours.world, answer), answer


def test_the_course_server_still_does_what_a_student_needs(servers: tuple[Server, Server]) -> None:
    _, ours = servers
    saved = ours.ask("PUT", "/api/contents/work/own.ipynb", {"type": "notebook", "format": "json", "content": NOTEBOOK})
    assert saved.status == 201
    assert ours.ask("GET", "/api/contents/work/own.ipynb").json()["content"]["cells"][0]["source"] == "text"
    assert [made["id"] for made in ours.ask("GET", "/api/contents/work/own.ipynb/checkpoints").json()] == ["checkpoint"]
    assert "text" in ours.ask("GET", "/nbconvert/html/work/own.ipynb").text
    assert ours.ask("GET", "/files/work/kept-old/a.txt").text == "mine"
    names = {entry["name"] for entry in ours.ask("GET", "/api/contents/work").json()["content"]}
    assert "own.ipynb" in names and not names & {"file", "up", "link.ipynb"}
    assert os.listdir(ours.world.work / ".ipynb_checkpoints") == ["own-checkpoint.ipynb"]
    kernel_id = ours.start_kernel({"name": "labkit", "path": "work"})
    assert ours.run(kernel_id, "print(1 + 1)") == "2\n"
    assert ours.ask("DELETE", f"/api/kernels/{kernel_id}").status == 204


FLOOD = "import time\ntime.sleep(1)\nfor _ in range(300):\n    print('x' * (1 << 20), flush=True)\n    time.sleep(0.01)"


def test_a_flood_of_output_while_no_browser_listens_does_not_fill_the_server(servers: tuple[Server, Server]) -> None:
    """300 MiB: JupyterLab as it comes keeps them all for a browser that may come back."""
    before_mib = [server.memory_mib for server in servers]
    kernels = [server.start_kernel({"name": kernel_of(server)}) for server in servers]
    for server, kernel_id in zip(servers, kernels, strict=True):
        server.run(kernel_id, "1")
        server.start_and_leave(kernel_id, FLOOD)
    grown_mib = [0, 0]
    deadline_s = time.monotonic() + 60
    while (grown_mib[0] < 200 and time.monotonic() < deadline_s) or time.monotonic() < deadline_s - 54:
        time.sleep(0.2)
        now = [server.memory_mib - before for server, before in zip(servers, before_mib, strict=True)]
        grown_mib = [max(pair) for pair in zip(grown_mib, now, strict=True)]
    for server, kernel_id in zip(servers, kernels, strict=True):
        server.ask("DELETE", f"/api/kernels/{kernel_id}")
    assert grown_mib[0] >= 200, "without labkit's server the flood should fill the memory"
    assert grown_mib[1] < 150, grown_mib


def test_many_requests_at_once_are_answered(servers: tuple[Server, Server]) -> None:
    """Files are read and written in threads; what is bound to one thread (the database of signatures) must not be in these."""
    _, ours = servers
    body = {"type": "notebook", "format": "json", "content": NOTEBOOK}

    def ask(number: int) -> set[int]:
        path = f"/api/contents/work/many-{number}.ipynb"
        return {ours.ask("PUT", path, body).status, *(ours.ask("GET", path).status for _ in range(3))}

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(ask, range(16))) == {200, 201}


def test_what_a_program_in_the_sandbox_writes_is_seen_by_the_server(servers: tuple[Server, Server]) -> None:
    _, ours = servers
    kernel_id = ours.start_kernel({"name": "labkit"})
    ours.run(
        kernel_id,
        "import os\nos.chdir(os.path.expanduser('~/work'))\nopen('from-inside', 'w').write('hello')\nos.symlink('/etc/passwd', 'trap')",
    )
    assert ours.ask("GET", "/api/contents/work/from-inside").json()["content"] == "hello"
    assert ours.ask("GET", "/api/contents/work/trap").status == 404
    assert (
        ours.ask("PUT", "/api/contents/work/from-inside", {"type": "file", "format": "text", "content": "back"}).status
        == 200
    )
    assert (
        ours.run(
            kernel_id,
            "path = os.path.expanduser('~/work/from-inside'); print(open(path).read(), os.access(path, os.W_OK))",
        )
        == "back True\n"
    )
    ours.ask("DELETE", f"/api/kernels/{kernel_id}")
