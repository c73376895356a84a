"""One stage at work: each instruction is read against the state before it and becomes a `Step`.

See: `labkit.image.build.builder` for the loop around it.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit.image.build import instructions as made
from labkit.image.build import settings
from labkit.image.build.arguments import Arguments
from labkit.image.build.copying import CopyPlan, Selected, check_sources, parse_chmod, plan_copy, select_sources
from labkit.image.build.items import Items
from labkit.image.build.job import Job
from labkit.image.build.layerfile import write_layer
from labkit.image.build.owners import named_owner
from labkit.image.build.parser import Containerfile, Stage
from labkit.image.build.stages import stage_above
from labkit.image.build.state import State
from labkit.image.build.step import Command, Step
from labkit.image.build.tree import Tree
from labkit.image.build.variables import expand_heredoc
from labkit.image.layer import Layer

if TYPE_CHECKING:
    from labkit.image.build.mounts import RunMount

__all__ = ["StageWork"]


class StageWork:
    """What is known while a stage is built. ``results`` are the states of the stages that are done, by number."""

    def __init__(
        self, job: Job, plan: Containerfile, stage: Stage, state: State, arguments: Arguments,
        results: Mapping[int, State],
    ) -> None:  # fmt: skip
        self.job, self.plan, self.stage, self.results = job, plan, stage, results
        self.state = state
        self.arguments = arguments
        self.cmd_was_set = False

    @property
    def env(self) -> dict[str, str]:
        """The image's environment so far."""
        return self.state.run_config.environment

    @property
    def workdir(self) -> str:
        """The working folder so far."""
        return self.state.run_config.working_dir or "/"

    def prepare(self, instruction: made.Instruction) -> Step:
        """Return what ``instruction`` asks for here. Raises: ContainerfileError, BuildError."""
        match instruction:
            case made.Arg():
                return self._arg(instruction)
            case made.Workdir():
                return self._workdir(instruction)
            case made.Copy():
                return self._copy(instruction)
            case made.Run():
                return self._run(instruction)
            case made.Maintainer():
                name = self._settings().text(instruction.name, instruction.line)
                return Step(f"MAINTAINER {name}", self.state.run_config, author=name)
        config, text = settings.apply(
            instruction, self.state.run_config, self._settings(), cmd_was_set=self.cmd_was_set
        )
        self.cmd_was_set = self.cmd_was_set or instruction.keyword.upper() == "CMD"
        return Step(text, config)

    def _settings(self) -> settings.Settings:
        return settings.Settings(self.arguments.seen(self.env), self.plan.escape)

    def _arg(self, instruction: made.Arg) -> Step:
        self.arguments.declare(instruction, self.env)
        known = self.arguments.values
        values = {name: known[name] for name, _ in instruction.pairs if name in known}
        words = [f"{name}={values[name]}" if name in values else name for name, _ in instruction.pairs]
        return Step(f"ARG {' '.join(words)}", self.state.run_config, variables=values, asked=instruction.text)

    def _workdir(self, instruction: made.Workdir) -> Step:
        config, text = settings.apply(
            instruction, self.state.run_config, self._settings(), cmd_was_set=self.cmd_was_set
        )
        return Step(text, config, work=lambda: self._make_folder(config.working_dir, instruction.line))

    def _make_folder(self, path: str, line: int) -> Layer | None:
        """Make the working folder, of the image's user, unless it is there."""
        below = self.job.tree(self.state)
        entry, missing = below.place_of(path)
        if not missing:
            return None
        items = Items(below, self.job.owner_of)
        owner = named_owner(self.state.run_config.user, self.job.lowers(self.state), line=line)
        items.add_folders(posixpath.join(entry.path, *missing), owner)
        return self._write(items)

    def _write(self, items: Items) -> Layer:
        return write_layer(self.job.store.blobs, items, epoch_s=self.job.epoch_s, cancel=self.job.cancel)

    def _source_tree(self, name: str, line: int) -> tuple[Tree, str]:
        """Return the tree that ``--from=name`` means, and what to call it."""
        if not name:
            return self.job.context.tree, "build context"
        stage = stage_above(self.plan, name, self.stage.number)
        state = self.results[stage.number] if stage is not None else self.job.image(name, line=line)
        return self.job.tree(state), f"stage {name}" if stage is not None else f"image {name}"

    def _copy(self, instruction: made.Copy) -> Step:
        read, line = self._settings(), instruction.line
        sources = [read.text(source, line) for source in instruction.sources]
        check_sources(sources, instruction.keyword, line=line)
        tree, where = self._source_tree(read.text(instruction.from_stage, line), line)
        excludes = [read.text(pattern, line) for pattern in instruction.excludes]
        selected = select_sources(tree, sources, where=where, excludes=excludes, line=line)
        selected = replace(selected, texts=tuple(self._texts(instruction)))
        chown = read.text(instruction.chown, line)
        plan = CopyPlan(
            read.text(instruction.target, line), self.workdir, mode=parse_chmod(read.text(instruction.chmod, line), line=line),
            unpacks=instruction.unpacks, keeps_archive_owners=not chown,
        )  # fmt: skip
        flags = {
            "from": instruction.from_stage,
            "chown": chown,
            "chmod": instruction.chmod,
            "exclude": " ".join(excludes),
        }
        shown = [f"--{name}={value}" for name, value in flags.items() if value]
        shown += [*sources, *(f"<<{name}" for name, _ in selected.texts), plan.target]
        text = " ".join([instruction.keyword.upper(), *shown])

        def work() -> Layer:
            owner = named_owner(chown, self.job.lowers(self.state) if chown else [], line=line)
            with ExitStack() as stack:
                below = self.job.tree(self.state)
                items = plan_copy(
                    selected, replace(plan, owner=owner), below, self.job.owner_of,
                    lambda: stack.enter_context(self.job.scratch_folder()), line=line,
                )  # fmt: skip
                return self._write(items)

        return Step(text, self.state.run_config, inputs=self._inputs(selected), work=work)

    def _texts(self, instruction: made.Copy) -> list[tuple[str, bytes]]:
        variables = self.arguments.seen(self.env)
        return [
            (found.name, (expand_heredoc(found.script, variables, line=instruction.line) if found.expand else found.script).encode())
            for found in instruction.heredocs
        ]  # fmt: skip

    def _inputs(self, selected: Selected) -> dict[str, str]:
        """Return path and checksum of everything that is copied."""
        checksums = self.job.checksums
        found = {}
        for entry in selected.entries:
            found[_as_text(entry.path[1:] or ".")] = checksums.of(entry)
            if entry.is_folder:
                found |= {_as_text(inner.path[1:]): checksums.of(inner) for _, inner in selected.below(entry)}
        return found | {f"<<{name}": checksums.of_bytes(data) for name, data in selected.texts}

    def _run(self, instruction: made.Run) -> Step:
        config = self.state.run_config
        words = instruction.words
        if instruction.in_shell:
            words = (*(config.shell or settings.DEFAULT_SHELL), *_with_heredocs(instruction))
        arguments = self.arguments.for_run(self.env)
        mounts = self._mounts(instruction) if instruction.mounts else []
        shared = {mount: self._mount_source(mount, instruction.line) for mount in mounts if mount.kind == "bind"}
        inputs = {path: checksum for selected in shared.values() for path, checksum in self._inputs(selected).items()}
        script = instruction.heredocs[0] if _is_script(instruction) else None
        if script is not None:
            inputs |= {f"<<{script.name}": self.job.checksums.of_bytes(script.script.encode())}
        given = [f"|{len(arguments)}", *(f"{name}={value}" for name, value in arguments.items())] if arguments else []
        options = [
            *(f"--mount={text}" for text in instruction.mounts),
            *([f"--network={instruction.network}"] if instruction.network else []),
        ]
        shown = words if instruction.in_shell else (json.dumps(list(words), ensure_ascii=False),)
        text, asked = (" ".join(["RUN", *options, *middle, *shown]) for middle in (given, ()))
        command = Command(
            words, {**self.arguments.proxies(), **arguments}, instruction.line, " ".join(words),
            network=self._network(instruction), mounts=tuple(mounts), shared=shared,
            script=None if script is None else script.script.encode(),
        )  # fmt: skip
        return Step(text, config, inputs, arguments, work=partial(self._run_command, command), asked=asked)

    def _run_command(self, command: Command) -> Layer:
        # With containers and all that they need: a build that finds everything in the cache needs none of it.
        from labkit.image.build.running import run_command

        return run_command(self.job, self.state, command)

    def _mounts(self, instruction: made.Run) -> list[RunMount]:
        from labkit.image.build.mounts import parse_mount  # few commands have any

        values = self._settings()
        return [parse_mount(values.text(text, instruction.line), line=instruction.line) for text in instruction.mounts]

    def _mount_source(self, mount: RunMount, line: int) -> Selected:
        tree, where = self._source_tree(mount.from_stage, line)
        return select_sources(tree, [mount.source], where=where, line=line)

    def _network(self, instruction: made.Run) -> Any:
        return self.job.network if instruction.network in ("", "default") else instruction.network


def _as_text(path: str) -> str:
    """Return a path as text that can be kept and shown: a file's name is bytes, which need not be UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _is_script(instruction: made.Run) -> bool:
    """Say whether a RUN is a heredoc alone whose first line names an interpreter: then it is a program, not shell text."""
    if len(instruction.heredocs) != 1 or not instruction.in_shell:
        return False
    word = instruction.words[0].strip()
    return word.startswith("<<") and " " not in word and instruction.heredocs[0].content.startswith("#!")


def _with_heredocs(instruction: made.Run) -> tuple[str, ...]:
    """Return the text for the shell: a heredoc alone is the script itself; else the shell reads heredocs as it always does."""
    text = instruction.words[0]
    if not instruction.heredocs:
        return (text,)
    first = instruction.heredocs[0]
    if len(instruction.heredocs) == 1 and text.strip().startswith("<<") and " " not in text.strip():
        return (first.script,)
    bodies = "".join(f"{found.content}{found.name}\n" for found in instruction.heredocs)
    return (f"{text}\n{bodies}",)
