"""A student's server under JupyterHub: the course's server, with a copy of the notebooks and a work folder of the student's own.

JupyterHub starts one server for each student and passes on what a browser asks, once it has said who it is. This program
is what it starts (``c.Spawner.cmd``). In the student's home it keeps ``labkit/notebooks``, a copy of the lessons in which what the student
saves stays, and ``labkit/work``; the sandbox of each kernel is given this work folder and no other, whatever Linux user it runs as.

The policy is the teacher's: the file that LABKIT_SANDBOX_POLICY names, or ``/etc/labkit/sandbox.toml``; not one in the home.

Leaves out: handing in and marking.
See: docs/workshop.md; JupyterHub's documentation, "Spawners".
"""

from __future__ import annotations

import atexit
import os
import runpy
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from labkit.sandbox import policy
from labkit.sandbox.server import with_options
from labkit.sandbox.server_options import course_options, enter, hold_config, state_folder
from labkit.setup import parts
from labkit.setup.steps import checkout_folder

__all__ = ["copy_lessons", "main", "write_policy"]

_LESSONS = ("*.ipynb", "glossary.md", "figures")


def copy_lessons(source: Path, target: Path) -> list[str]:
    """Copy the lessons that are not in ``target`` yet, and return their names; what a student has changed stays."""
    target.mkdir(parents=True, exist_ok=True)
    copied = []
    for pattern in _LESSONS:
        for lesson in sorted(source.glob(pattern)):
            place = target / lesson.name
            if place.exists():
                continue
            if lesson.is_dir():
                shutil.copytree(lesson, place)
            else:
                shutil.copyfile(lesson, place)
            copied.append(lesson.name)
    return copied


def write_policy(environ: Mapping[str, str], *, work: Path, target: Path) -> None:
    """Write the teacher's policy with this student's work folder to ``target``. Raises: InvalidSpec for a wrong policy."""
    named = environ.get("LABKIT_SANDBOX_POLICY", "")
    # Not the student's home, in which the first of the usual files would be.
    given = policy.load({"LABKIT_SANDBOX_POLICY": named, "XDG_CONFIG_HOME": "/etc/xdg"})
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.write_text(policy.as_text(replace(given, work=str(work))))


def main() -> None:
    """Prepare the home, and become JupyterHub's single-user server with the course's options."""
    own = Path.home() / "labkit"
    notebooks, work = own / "notebooks", own / "work"
    copy_lessons(checkout_folder() / "notebooks", notebooks)
    work.mkdir(exist_ok=True)
    enter(os.environ)
    atexit.register(hold_config().remove)
    target = state_folder(os.environ) / "policy.toml"
    write_policy(os.environ, work=work, target=target)
    os.environ["LABKIT_SANDBOX_POLICY"] = str(target)
    os.environ["PATH"] = parts.search_path(os.environ.get("PATH", os.defpath))
    options = [*course_options(notebooks, work=work), *(["--allow-root"] if os.geteuid() == 0 else [])]
    sys.argv[1:] = with_options(options, sys.argv[1:])
    # By name: only a server of a class needs JupyterHub.
    runpy.run_module("jupyterhub.singleuser", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
