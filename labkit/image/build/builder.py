"""The build: stage by stage, instruction by instruction, from the cache where it has an answer.

::

    for each stage that the target needs:
        state = its base image
        for each instruction:
            step = what it depends on (variables, files) and how to do it
            the cache knows the question?  ->  take the layer from the store
            otherwise                      ->  do it: copy files, or run a command and pack what it changed
            state = state + layer or setting

Everything that is made on the way is held by a lease of the store until the image has its name; if the program is killed,
what it left is found without an owner and collected.

See: dockerfile(5); OCI Image Specification, config.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as CancelEvent

from labkit.errors import InvalidSpec, LabkitError
from labkit.image.build import instructions as made
from labkit.image.build.arguments import Arguments
from labkit.image.build.cache import Cache, Question, Record
from labkit.image.build.checksums import Checksums
from labkit.image.build.context import Context, check_context_name, find_containerfile
from labkit.image.build.errors import BuildError, ContainerfileError
from labkit.image.build.job import FIXED_EPOCH_S, Epoch, Job, Network, Puller
from labkit.image.build.lexer import MOST_BYTES
from labkit.image.build.owners import owner_reader
from labkit.image.build.parser import Containerfile, Stage, parse
from labkit.image.build.progress import Event, Progress
from labkit.image.build.stages import base_of, needed_stages, stage_above
from labkit.image.build.stagework import StageWork
from labkit.image.build.state import State
from labkit.image.build.step import Step
from labkit.image.build.variables import expand
from labkit.image.descriptor import Descriptor, this_platform
from labkit.image.layer import Layer
from labkit.image.lock import hold_new_folder
from labkit.image.reference import Reference
from labkit.image.rootfs import remove_tree
from labkit.image.store import ImageStore, default_store
from labkit.image.tarstream import Readable
from labkit.image.unpack import IdPolicy, unpack

__all__ = ["BuildResult", "StepResult", "build"]

_LAST_EPOCH_S = 253_402_300_799  # the end of the year 9999: images write years with four digits


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step of a finished build; ``why`` says why it was not in the cache, ``layer_bytes`` is None if it made no layer."""

    number: int
    text: str
    image_id: str
    cached: bool
    why: str
    layer_bytes: int | None
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The image that was built: its id, what points to it, its names, and how it came about."""

    image_id: str
    descriptor: Descriptor
    references: tuple[str, ...]
    steps: tuple[StepResult, ...]
    warnings: tuple[str, ...]
    elapsed_s: float

    @property
    def hits(self) -> int:
        """How many steps came from the cache."""
        return sum(step.cached for step in self.steps)

    @property
    def misses(self) -> tuple[StepResult, ...]:
        """The steps that had to be done."""
        return tuple(step for step in self.steps if step.why)


def build(
    context: Path | str | Readable, *, containerfile: str | bytes | None = None, store: ImageStore | None = None,
    tags: Sequence[str] = (), build_args: Mapping[str, str] | None = None, target: str | None = None,
    progress: Progress | None = None, cancel: CancelEvent | None = None, network: Network = "none",
    no_cache: bool = False, pull: bool = False, labels: Mapping[str, str] | None = None,
    source_date_epoch: Epoch | None = None, puller: Puller | None = None,
) -> BuildResult:  # fmt: skip
    """Build an image from ``context`` (a folder, or a tar stream) and store it under ``tags``.

    ``containerfile`` names it within the context (default: Containerfile, then Dockerfile), or is its text if it is bytes. All times are
    cut off at ``source_date_epoch``, by default at 1970, so that the same input gives the same image; "now" keeps them.

    Raises: ContainerfileError with the line, BuildError, BuildCancelled, FeatureMissing; nothing but the cache stays then.
    """
    store = store or default_store()
    names = [Reference.parse(tag) for tag in tags]
    arguments = dict(build_args or {})
    epoch, was_given = _epoch(source_date_epoch, arguments)
    with ExitStack() as stack:
        stack.enter_context(store.lease())
        folder = stack.enter_context(_context_folder(store, context))
        name, text = _read_containerfile(folder, containerfile, is_stream=not isinstance(context, (str, Path)))
        plan = parse(text)
        cache = Cache(store)
        job = Job(
            store, Context.of(folder, name), cache, Checksums(cache.folder / "checksums"), owner_reader(),
            progress or (lambda event: None), cancel or CancelEvent(), network=network, no_cache=no_cache, pull=pull, puller=puller,
            epoch=epoch, epoch_was_given=was_given,
        )  # fmt: skip
        return _Build(job, plan, arguments).run(target, names, labels or {})


def _epoch(wanted: Epoch | None, arguments: Mapping[str, str]) -> tuple[Epoch, bool]:
    """Return the time to cut off at, and whether somebody asked for it. See: reproducible-builds.org, "SOURCE_DATE_EPOCH"."""
    if wanted is not None:
        return wanted if wanted == "now" else _checked_epoch(wanted), True
    text = arguments.get("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", ""))
    if not text:
        return FIXED_EPOCH_S, False
    if not (text.isascii() and text.isdigit()):
        raise InvalidSpec(f"SOURCE_DATE_EPOCH is {text!r}: it must be a number of seconds since 1970.")
    return _checked_epoch(int(text)), True


def _checked_epoch(seconds: int) -> int:
    if not 0 <= seconds <= _LAST_EPOCH_S:
        raise InvalidSpec(f"No image can be of the time {seconds}: write seconds since 1970, up to {_LAST_EPOCH_S}.")
    return seconds


@contextmanager
def _context_folder(store: ImageStore, context: Path | str | Readable) -> Iterator[Path]:
    """Give the folder of the context; a stream is unpacked into one that is removed at the end."""
    if isinstance(context, (str, Path)):
        yield Path(context)
        return
    path, fd = hold_new_folder(store.blobs.tmp)
    with fd:
        try:
            inner = path / "context"
            inner.mkdir()
            unpack(context, inner, is_layer=False, ids=IdPolicy(keep_owners=False))
            yield inner
        finally:
            remove_tree(path)


def _read_containerfile(folder: Path, wanted: str | bytes | None, *, is_stream: bool) -> tuple[str, bytes]:
    if isinstance(wanted, bytes):
        return "Containerfile", wanted
    if is_stream and wanted is not None:
        wanted = check_context_name(wanted)
    path = find_containerfile(folder, wanted)
    if is_stream and not path.resolve().is_relative_to(folder.resolve()):
        raise ContainerfileError(f"the Dockerfile ({path.name}) must be within the build context.")
    with path.open("rb") as file:
        return path.name, file.read(MOST_BYTES + 1)  # the reader refuses what is longer


@dataclass(slots=True)
class _Build:
    """One run of the builder."""

    job: Job
    plan: Containerfile
    given: Mapping[str, str]
    number: int = 0
    total: int = 0
    steps: list[StepResult] = field(default_factory=list)
    results: dict[int, State] = field(default_factory=dict)
    left_over: dict[int, dict[str, str]] = field(default_factory=dict)

    def run(self, target: str | None, names: Sequence[Reference], labels: Mapping[str, str]) -> BuildResult:
        started_s = time.monotonic()
        for text in self.plan.warnings:
            self.job.progress(Event("warning", text=text))
        arguments = Arguments.for_file(self.given, this_platform(), escape=self.plan.escape)
        for instruction in self.plan.global_args:
            arguments.declare(instruction, {})
        stages = needed_stages(self.plan, target, arguments)
        extra = _label_instruction(labels)
        self.total = sum(1 + len(stage.instructions) for stage in stages) + len(extra)
        for stage in stages:
            self.job.check_cancelled()
            self._build_stage(stage, arguments, extra if stage is stages[-1] else ())
        state = self.results[stages[-1].number]
        descriptor = state.store(self.job.store)
        self.job.checksums.save()
        return self._finish(state, descriptor, names, arguments, started_s)

    def _finish(
        self, state: State, descriptor: Descriptor, names: Sequence[Reference], arguments: Arguments, started_s: float
    ) -> BuildResult:
        warnings = list(self.plan.warnings)
        if unused := arguments.unused():
            warnings.append(f"One or more build-args {list(unused)} were not consumed: no ARG asks for them.")
            self.job.progress(Event("warning", text=warnings[-1]))
        self.job.progress(Event("built", image_id=state.id))
        if not names:
            self.job.store.keep(descriptor)
        for name in names:
            self.job.store.tag(name, descriptor)
            self.job.progress(Event("built", image_id=state.id, text=name.familiar))
        return BuildResult(
            state.id, descriptor, tuple(name.familiar for name in names), tuple(self.steps), tuple(warnings),
            time.monotonic() - started_s,
        )  # fmt: skip

    def _build_stage(self, stage: Stage, arguments: Arguments, extra: Sequence[made.Instruction]) -> None:
        started_s = time.monotonic()
        self._tell_step(stage.start, stage)
        base = base_of(stage, arguments)
        _check_platform(stage, arguments)
        below = stage_above(self.plan, base, stage.number, by_number=False)
        state = self._base(base, below, stage)
        self._tell_done(stage.start, state, started_s, cached=False)
        inherited = self.left_over.get(below.number, {}) if below is not None else {}
        work = StageWork(self.job, self.plan, stage, state, arguments.for_stage(inherited), self.results)
        for instruction in (*stage.instructions, *extra):
            self.job.check_cancelled()
            self._carry_out(work, instruction)
        self.results[stage.number] = work.state
        self.left_over[stage.number] = work.arguments.values

    def _base(self, base: str, below: Stage | None, stage: Stage) -> State:
        if below is not None:
            return self.results[below.number]
        if base == "scratch":
            return State.scratch().with_path()
        state = self.job.image(base, line=stage.start.line).with_path()
        if state.run_config.extra.get("OnBuild"):
            text = (
                f"{base} has ONBUILD instructions, which labkit does not carry out: write them into this Containerfile."
            )
            self.job.progress(Event("warning", text=text))
        return state

    def _carry_out(self, work: StageWork, instruction: made.Instruction) -> None:
        started_s = time.monotonic()
        self._tell_step(instruction, work.stage)
        with _told_as_build_error(instruction):
            step = work.prepare(instruction)
        variables = {**step.variables, **self.job.key_variables}
        question = Question(work.state.id, step.asked or step.created_by, variables, step.inputs)
        record, why = (None, "--no-cache") if self.job.no_cache else self.job.cache.find(question)
        if record is None:
            record = self._do(work.state, step, question, instruction)
        work.state = _after(work.state, step, record)
        self._tell_done(instruction, work.state, started_s, cached=not why, why=why, layer=record.layer)

    def _do(self, state: State, step: Step, question: Question, instruction: made.Instruction) -> Record:
        started_s = time.monotonic()
        with _told_as_build_error(instruction):
            layer = step.work() if step.work is not None else None
        record = Record(question, self.job.created, layer, time.monotonic() - started_s)
        manifest = _after(state, step, record).store(self.job.store) if layer is not None else None
        self.job.cache.keep(record, manifest)
        return record

    def _tell_step(self, instruction: made.Instruction, stage: Stage) -> None:
        self.number += 1
        event = Event("step", self.number, self.total, instruction.line, stage.name, instruction.text)
        self.job.progress(event)

    def _tell_done(
        self, instruction: made.Instruction, state: State, started_s: float, *, cached: bool, why: str = "",
        layer: Layer | None = None,
    ) -> None:  # fmt: skip
        elapsed_s = time.monotonic() - started_s
        layer_bytes = None if layer is None else layer.descriptor.size
        self.steps.append(StepResult(self.number, instruction.text, state.id, cached, why, layer_bytes, elapsed_s))
        self.job.progress(
            Event("done", self.number, self.total, instruction.line, image_id=state.id if state.config.history else "", cached=cached, why=why,
                  layer_bytes=layer_bytes, elapsed_s=elapsed_s)
        )  # fmt: skip


@contextmanager
def _told_as_build_error(instruction: made.Instruction) -> Iterator[None]:
    """Say what the system refuses (a file that may not be read, a full disk) with the instruction that asked for it."""
    try:
        yield
    except LabkitError:
        raise
    except OSError as error:
        name = os.fsencode(str(error.filename or "the system")).decode(errors="backslashreplace")
        raise BuildError(
            f"{instruction.keyword} (line {instruction.line}) failed: {name}: {error.strerror}.", line=instruction.line
        ) from error


def _after(state: State, step: Step, record: Record) -> State:
    return state.after(
        step.created_by, created=record.created, config=step.config, layer=record.layer, author=step.author
    )


def _label_instruction(labels: Mapping[str, str]) -> tuple[made.Label, ...]:
    """Return ``--label`` options as one more instruction at the end, as Docker does; quoted, as they hold no variables."""
    if not labels:
        return ()
    quoted = tuple((_quote(name), _quote(value)) for name, value in sorted(labels.items()))
    text = " ".join(["LABEL", *(f"{name}={value}" for name, value in sorted(labels.items()))])
    return (made.Label(0, text, quoted),)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _check_platform(stage: Stage, arguments: Arguments) -> None:
    here = this_platform()
    wanted = expand(stage.start.platform, arguments.values, escape=arguments.escape, line=stage.start.line)
    if wanted and wanted.lower() not in (str(here), here.os, f"{here.os}/{os.uname().machine}"):
        raise ContainerfileError(
            f"platform {wanted} cannot be built here: this machine is {here}, and labkit emulates no other.",
            line=stage.start.line,
        )
