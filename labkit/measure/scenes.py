"""What lesson 02 shows of virtual machines, scene by scene, as results that can be kept: boot, panic, tenants, a file, a move.

Each function is given machines that run, does to them what the lesson says, and returns what was seen. The lesson calls them with its
own machines; `labkit record` with machines made for it.

Leaves out: what a machine costs (`labkit.measure.machine_costs`).
See: `labkit.vm.guest`; Documentation/admin-guide/sysrq.rst (the panic on request).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import GuestError, LabkitError
from labkit.measure.clock import time_ms
from labkit.measure.record import Result
from labkit.vm.accel import accelerator
from labkit.vm.guest import Guest
from labkit.vm.micro import micro_spec
from labkit.vm.timeline import Phase

__all__ = [
    "Boot", "Moved", "Panic", "Said", "Saved", "Stage", "Swapped", "Tenants", "boot_of", "count_in", "goes_on", "move", "panic",
    "save_and_wake", "search_secrets", "start_counter", "swap_out",
]  # fmt: skip

_ASKED = ("ps", "free -m", "cat /proc/cmdline")
_COUNTING = "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; usleep 10000; done"
_PREPARE_SWAP = (
    "echo 200M > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0 && mount -o remount,size=200M /tmp"
)
_FILL = "dd if=/dev/zero of=/tmp/fill bs=1M count=100 2>/dev/null; free -m; grep pswpout /proc/vmstat"
_LINES = 6


@dataclass(frozen=True, slots=True)
class Said(Result):
    """A command and the first lines of its answer."""

    command: str
    text: str


@dataclass(frozen=True, slots=True)
class Stage(Result):
    """A phase of a boot; the same as `labkit.vm.timeline.Phase`, as a result."""

    name: str
    start_s: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Boot(Result):
    """A machine that has booted: the phases, its kernel's release, what it answered, and how many processes it has."""

    accelerator: str
    release: str
    stages: tuple[Stage, ...]
    said: tuple[Said, ...]
    first_process: str
    processes: int
    console: str

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases as `labkit.charts.machines` draws them."""
        return tuple(Phase(stage.name, stage.start_s, stage.elapsed_s) for stage in self.stages)

    @property
    def ready_s(self) -> float:
        """When the machine was ready, counted from the start of QEMU."""
        return self.stages[-1].start_s + self.stages[-1].elapsed_s


@dataclass(frozen=True, slots=True)
class Panic(Result):
    """A panic: what labkit said, what the guest's kernel said, and whether the other machine still answered."""

    error: str
    reason: str
    console: str
    other_answers: bool


@dataclass(frozen=True, slots=True)
class Tenants(Result):
    """In how many files each of two tenants found the first one's secret."""

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Saved(Result):
    """A machine as a file: how long writing and waking took, its size, and whether the counter went on in both."""

    saved_ms: float
    restored_ms: float
    size_bytes: int
    original_goes_on: bool
    copy_goes_on: bool


@dataclass(frozen=True, slots=True)
class Moved(Result):
    """A live migration: from process to process, what was sent, how long it stood still, the counter before and after."""

    before_pid: int
    after_pid: int
    transferred_bytes: int
    total_s: float
    rounds: int
    downtime_s: float
    before: int
    after: int
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Swapped(Result):
    """Memory and swap of a guest after it had written more than fits, and how many pages went out."""

    text: str
    pages: int


def boot_of(guest: Guest) -> Boot:
    """Return where the time of the guest's boot went, and what its kernel says about itself."""
    listed = [word for word in guest.exec(["ls", "/proc"]).text.split() if word.isdigit()]
    said = tuple(Said(line, "\n".join(guest.exec(line.split()).text.splitlines()[:_LINES])) for line in _ASKED)
    stages = tuple(Stage(phase.name, phase.start_s, phase.elapsed_s) for phase in guest.timeline.phases())
    first, release = (guest.exec(words).text.strip() for words in (["cat", "/proc/1/comm"], ["uname", "-r"]))
    return Boot(str(accelerator()), release, stages, said, first, len(listed), guest.console.tail(_LINES))


def panic(victim: Guest, other: Guest) -> Panic:
    """Let the kernel of ``victim`` panic, which ends it; look whether ``other`` noticed."""
    error = ""
    try:
        victim.exec(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout_s=30)
    except GuestError as ended:
        error = str(ended)
    answers = other.exec(["echo", "here"]).text == "here\n"
    return Panic(error, victim.console.panic() or "", victim.console.tail(4), answers)


def search_secrets(first: Guest, second: Guest) -> Tenants:
    """Let two tenants write a secret each, and both search all that they can reach for the first one's."""
    for tenant, name in ((first, "anna"), (second, "ben")):
        tenant.exec(["sh", "-c", f"echo 'the secret of {name}' > $HOME/secret"])
    search = ["sh", "-c", "grep -rl 'secret of anna' $HOME /tmp /etc /run"]
    return Tenants(*(len(tenant.exec(search).text.split()) for tenant in (first, second)))


def start_counter(guest: Guest) -> None:
    """Start a program in the guest that counts on, a hundred times a second, and writes the number to a file."""
    guest.exec(["sh", "-c", f"({_COUNTING}) > /dev/null 2>&1 < /dev/null &"])


def count_in(guest: Guest) -> int:
    """Return the counter's number."""
    return int(guest.exec(["sh", "-c", "cat /tmp/count || echo 0"]).text.split()[0] or 0)


def goes_on(guest: Guest, *, patience_s: float = 20.0) -> bool:
    """Wait until the counter has grown; return whether it did."""
    first, deadline_s = count_in(guest), time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        if count_in(guest) > first:
            return True
    return False


def save_and_wake(guest: Guest, path: Path) -> Saved:
    """Save a guest with a counter to ``path``, wake a copy up from there, look at both, and end the copy."""
    saved_ms = time_ms(lambda: guest.snapshot(path))
    woken: list[Guest] = []
    restored_ms = time_ms(lambda: woken.append(Guest.restore(path)))
    with woken[0] as copy:
        return Saved(saved_ms, restored_ms, path.stat().st_size, goes_on(guest), goes_on(copy))


def move(guest: Guest) -> Moved:
    """Move a guest with a counter to another QEMU process while it runs."""
    before_pid, before = guest.pid, count_in(guest)
    moved = guest.migrate()
    after = count_in(guest)
    return Moved(
        before_pid, guest.pid, moved.transferred_bytes, moved.total_s, moved.rounds, moved.downtime_s, before, after,
        goes_on(guest),
    )  # fmt: skip


def swap_out() -> Swapped:
    """Let a guest with 128 MiB and compressed swap write 100 MiB into its memory. Raises: LabkitError if it has no swap."""
    with Guest(spec=micro_spec(memory_mib=128, modules=["lzo-rle", "zram"])) as small:
        prepared = small.exec(["sh", "-c", _PREPARE_SWAP], timeout_s=60)
        if prepared.status:
            raise LabkitError(f"The guest got no swap: {prepared.stderr.decode(errors='replace').strip()}.")
        text = small.exec(["sh", "-c", _FILL], timeout_s=60).text
    return Swapped(text, int(text.split()[-1]))
