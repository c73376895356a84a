# %% [markdown]
"""
# 07 Start-up and density: what a container costs

**Question.** A container is a process with some pieces around it. What do these pieces cost: when it starts, in memory, and while it runs?

**Afterwards you can**
- measure a start-up so that the number means something to somebody else;
- compare a process, namespaces, a container, and the containers of other tools;
- say how many containers fit into this machine, and where isolation costs something and where it does not.

**Time:** about 20 minutes to read, 20 for the exercises. **You need** [lesson 06](06_container_by_hand.ipynb). Every number below is taken on this machine, while you
watch; yours differ from anybody else's. That is why each comes with its spread. What this machine cannot measure comes from a recording, marked as one.

[← 06 A container by hand](06_container_by_hand.ipynb) · [Glossary](glossary.md) · [08 Docker's architecture →](08_docker_architecture.ipynb)
"""

# %%
from contextlib import ExitStack, contextmanager

from labkit import NS, Container, KiB, Limits, MiB, Namespaced, charts, lesson
from labkit.charts import density as density_chart
from labkit.charts import machines as machine_chart
from labkit.charts import race as race_chart
from labkit.container import Security, run
from labkit.isolation.namespaces import namespace_id
from labkit.linux.proc import read_smaps_rollup
from labkit.measure import density, host_facts, machine_density, measure_overhead, race, rootfs, scratch, summarise
from labkit.measure.clock import time_ms
from labkit.widgets.race_view import race_view

lesson.begin("07_start_up_and_density")

# %% tags=["nbval-ignore-output"]
lesson.needs("user namespace", "pivot_root", "overlay", "fresh /proc", "seccomp filter", "libseccomp", "busybox")

# %% tags=["nbval-ignore-output"]
groups = lesson.needs("cgroups", "cgroup memory", "cgroup cpu", "cgroup pids")
groups

# %% tags=["nbval-ignore-output"]
machines = lesson.needs(*lesson.MACHINE)
machines

# %% tags=["nbval-ignore-output"]
print(host_facts())

# %% [markdown]
"""
A number without its machine is worth nothing tomorrow; hence the line above.

## One run is an anecdote

How long does it take from asking for a container to the end of its program? The program is `/bin/true`, which does nothing, so that
all the time goes into the container. Say it before you see it:
"""

# %%
guess_start = lesson.predict(
    "A container with everything (namespaces, layers, capabilities, filter): how long from the request to the program's end?",
    unit="ms",
)
guess_start

# %% tags=["nbval-ignore-output"]
cleanup = ExitStack()
base = cleanup.enter_context(scratch.scratch_folder())
rootfs.fill_rootfs(base)

def start_one():
    run(Container(["/bin/true"], rootfs=base), timeout_s=20)

samples = [time_ms(start_one) for _ in range(20)]
print(*(f"{sample:.1f}" for sample in samples))

# %% [markdown]
"""
Look at the first one. It had to start labkit's *launcher*, the small process that makes all containers, and to bring files into
memory. That is a *cold* start, and it is a different question. And no two of the others agree: a start-up has a floor, the work itself, and
a long tail, when the machine did something else. An average would follow the tail. The *[median](glossary.md#median)* hardly notices it:
"""

# %% tags=["nbval-ignore-output"]
warm = summarise(samples[1:])
print(f"average {sum(samples) / len(samples):.1f} ms, median without the first {warm.median:.1f} ms,")
print(f"middle half from {warm.lower_quartile:.1f} to {warm.upper_quartile:.1f} ms, n = {warm.n}")
guess_start.compare(warm.median)

# %%
lesson.check("the first start is among the slow ones", samples[0] > warm.median, got=samples)

# %% [markdown]
"""
## A fair race

Who is faster than whom? If A runs twenty times and then B twenty times, a browser that starts in between decides. So all contenders
run *turn by turn* (A B C A B C ...), after some rounds that are not counted, with the same program on the same files. They do not all do
the same, though: the table says what each of them does. Tools that are not installed, or cannot work here, are listed with the reason.
"""

# %%
guess_order = lesson.predict(
    "The usual tool below Docker is runc. How does labkit's container compare with a container that runc starts?",
    options=["runc is several times faster", "about the same", "runc takes several times as long"],
)
guess_order

# %% tags=["nbval-ignore-output"]
raced = lesson.recorded_or("race", lambda: race(12))
results = raced.result
for row in results.rows:
    numbers = race_chart.words_for(row) or "-"
    print(f"{race_chart.title_of(row.name):<20} {numbers:<30} {(row.skipped or row.note)[:76]}")

# %% tags=["nbval-ignore-output"]
figure, (axes,) = charts.figure(9.4, 5.0)
race_chart.draw(axes, results)
ran = "; ".join(f"{race_chart.title_of(row.name)} {race_chart.words_for(row)}" for row in results.ran)
alt = f"Dots on a logarithmic time scale, one for each start. Median in ms (middle half): {ran}."
charts.show(figure, alt=alt, recording=raced.recording)

# %% tags=["nbval-ignore-output"]
if results.row("runc").samples_ms:
    times = results.ratio("runc", "container")
    print(f"runc takes {times:.1f} times as long")
    fast, slow = "runc is several times faster", "runc takes several times as long"
    guess_order.compare(slow if times > 2 else fast if times < 0.5 else "about the same")
else:
    print("runc:", results.row("runc").skipped)

# %%
fastest = {row.name: min(row.samples_ms) for row in results.ran}
lesson.check("a bare process is faster than any other start", fastest["process"] == min(fastest.values()), got=fastest)
claim = "the container is faster than runc's"
if "runc" in fastest:
    lesson.check(claim, results.ratio("runc", "container") > 1, got=results.row("runc"))
else:
    print(f"not shown here: {claim}")

# %% [markdown]
"""
**What happened.** What takes long in other tools is mostly not the kernel's work: a program is loaded for each container (runc, written in Go,
starts itself several times), files are written, a supervisor is started beside the container so that it outlives whoever asked. labkit
keeps one launcher running instead, and sends it a list of system calls. The price of that is a process that stays, and containers that end
with the program that asked for them. The kernel's own part we see next.

## And virtual machines

Lesson 02 has booted machines with a kernel of their own. How long do they take beside a container, booted, and woken up from a file that was saved after
the boot? They get the same task: run `true`, and be gone.
"""

# %%
guess_machine = lesson.predict(
    "A container starts in some milliseconds. How many times as long does a micro VM take to boot?", unit="times",
    why="A kernel starts before the program can. Under emulation each of its instructions is translated, too.",
)
guess_machine

# %% tags=["nbval-ignore-output"]
contest = ["process", "container", "microvm", "vm-restore"]
booted = lesson.recorded_or("race-machines", lambda: race(3, only=contest, warm_up=1), here=machines)
for row in booted.result.rows:
    print(f"{race_chart.title_of(row.name):<26} {race_chart.words_for(row) or '-':<34} {(row.skipped or row.note)[:60]}")
guess_machine.compare(round(booted.result.ratio("microvm", "container")))

# %% tags=["nbval-ignore-output"]
figure, (axes,) = charts.figure(9.4, 2.4)
race_chart.draw(axes, booted.result)
ran = "; ".join(f"{race_chart.title_of(row.name)} {race_chart.words_for(row)}" for row in booted.result.ran)
alt = f"Dots on a logarithmic time scale, one for each start. Median in ms (middle half): {ran}."
charts.show(figure, alt=alt, recording=booted.recording)

# %%
slower = booted.result.ratio("microvm", "container")
lesson.check("a machine takes more than ten times as long to boot as a container to start", machines and slower > 10, got=slower)

# %% [markdown]
"""
**What happened.** The boot is the work of the guest's kernel, and the [snapshot](glossary.md#snapshot) saves just that: what remains is to start QEMU and to read the machine's memory.
A machine gives what no container has, a kernel of its own; `labkit race --vm` lets more of them take part.

## Where the time goes

We can take a container apart and time it with one piece more each time, turn by turn again:
"""

# %%
ALL = NS.USER | NS.MNT | NS.PID | NS.NET | NS.IPC | NS.UTS | NS.CGROUP
TRUE = ["/bin/true"]
bare = Security(capabilities=None, no_new_privs=False, seccomp=False, mask_paths=False)
full_limits = Limits(memory_bytes=64 * MiB, pids=32, cpus=0.5) if groups else None
stages = {
    "no namespace": lambda: Namespaced([str(base / "bin/true")], namespaces=NS(0)),
    "+ seven namespaces": lambda: Namespaced([str(base / "bin/true")], namespaces=ALL),
    "+ a root filesystem": lambda: Container(TRUE, rootfs=base, security=bare),
    "+ capabilities, filter, masks": lambda: Container(TRUE, rootfs=base),
    "+ limits": lambda: Container(TRUE, rootfs=base, limits=full_limits),
}

# %% tags=["nbval-ignore-output"]
times = {name: [] for name in stages}
for _ in range(15):
    for name, make in stages.items():
        times[name].append(time_ms(lambda make=make: run(make(), timeout_s=20)))
parts = {name: summarise(found) for name, found in times.items()}
for name, part in parts.items():
    print(f"{name:<30} {part.median:5.1f} ms  ({part.lower_quartile:.1f} to {part.upper_quartile:.1f}, n = {part.n})")

# %% tags=["nbval-ignore-output"]
concepts = ["process", "namespace", "container", "container", "container"]
rows = [charts.Bar(name, part.median, concept, (part.lower_quartile, part.upper_quartile))
        for (name, part), concept in zip(parts.items(), concepts, strict=False)]
figure, (axes,) = charts.figure(8.2, 2.8)
title = f"From {rows[0].value:.1f} to {rows[-1].value:.1f} ms, piece by piece"
charts.bars(axes, rows, title=title, x="start-up, median (ms)")
charts.show(figure, alt="Bars: start-up with one piece more each time. " + ", ".join(f"{r.name} {r.value:.1f} ms" for r in rows))

# %%
cheapest = {name: min(found) for name, found in times.items()}
lesson.check("all pieces together take longer than none", cheapest["+ limits"] > cheapest["no namespace"], got=cheapest)

# %% [markdown]
"""
## The race, live

The picture shows the race that you have run above; where there are virtual machines, they may take part now, too. Choose who takes part and how often, and press **Start**: each round adds one dot to every row. Watch how the median settles
while single dots go on falling far out. What changes when you start something else on this machine meanwhile?
"""

# %% tags=["nbval-ignore-output"]
view = race_view(results, starts=20, machines=bool(machines))
view

# %% [markdown]
"""
## How many fit

A container that waits takes no CPU time. It takes memory: the pages of its program, and what the kernel has to remember about its namespaces,
mounts and cgroup. How much is that? We start a hundred that sleep, look while all are alive, and end them.
"""

# %%
guess_memory = lesson.predict(
    "How much memory does one waiting container take, program and kernel together?", unit="KiB",
    why="There is no operating system inside: the kernel, and the pages of the program file, are there once for all.",
)
guess_memory

# %% tags=["nbval-ignore-output"]
counted = lesson.recorded_or("density", lambda: density.measure_density(100))
crowd = counted.result
pieces = density_chart.memory_parts(crowd)
for name, kib in pieces.items():
    print(f"{name:<30} {kib:8.0f} KiB")
guess_memory.compare(sum(pieces.values()))

# %% tags=["nbval-ignore-output"]
figure, (left, right) = charts.figure(9.4, 3.0, columns=2)
density_chart.draw_starts(left, crowd)
density_chart.draw_memory(right, crowd)
words = ", ".join(f"{name} {kib:.0f} KiB" for name, kib in pieces.items())
alt = f"Left, the start-up of each container while the others stay alive; right, the memory of one: {words}."
charts.show(figure, alt=alt, recording=counted.recording)

# %% tags=["nbval-ignore-output"]
each = sum(pieces.values()) * KiB
fit = int(crowd.host.memory_bytes / each)
print(f"By memory alone about {fit:,} such containers would fit into the {crowd.host.memory_bytes / MiB:,.0f} MiB of this machine.")

# %%
lesson.check("a hundred containers were alive at once", crowd.count == len(crowd.start_ms) == 100, got=crowd.count)
lesson.check("one of them takes less than 8 MiB", each < 8 * MiB, got=each)

# %% [markdown]
"""
**What happened.** (The share of the kernel is the growth of the kernel's own memory on the *whole* machine, divided by a hundred: if other
programs do much meanwhile, it is rough.) The last line is arithmetic, not a measurement: process ids, file descriptors and above all the
work that real programs do set the limit much earlier.

And machines? Each has a kernel of its own and memory that nobody else may use. We boot some, weigh what their QEMUs take together, and end them.
"""

# %% tags=["nbval-ignore-output"]
weighed = lesson.recorded_or("machine-density", lambda: machine_density.measure_machine_density((1, 2, 4)), here=machines)
together = weighed.result
for row in together.rows:
    print(f"{row.count} alive: each takes {row.each_bytes / MiB:.0f} MiB of the {together.given_bytes / MiB:.0f} MiB it was given")
print(f"{together.fit} would fit until 80 % of the memory are taken ({'computed' if together.is_extrapolated else 'run'}).")

# %% tags=["nbval-ignore-output"]
figure, (left, right) = charts.figure(9.8, 2.6, columns=2)
machine_chart.draw_together(left, together)
machine_chart.draw_fit(right, together, each)
alt = f"Left, the memory of one guest by the number alive; right, how many fit: {together.fit} machines, and far more containers."
charts.show(figure, alt=alt, recording=weighed.recording)

# %%
heavier = together.rows[-1].each_bytes / each
lesson.check("an idle machine takes more than ten times the memory of a waiting container", machines and heavier > 10, got=heavier)

# %% [markdown]
"""
An idle guest has touched only a part of what it was given; one that works comes to use all of it, and the host must have it.

Does the three-hundredth container start as fast as the first, and is anything left? One after the other this time:
"""

# %% tags=["nbval-ignore-output"]
series = lesson.recorded_or("series", lambda: density.measure_series(300)).result
print(f"first tenth {series.first_ms:.1f} ms, last tenth {series.last_ms:.1f} ms: {series.slowing:.2f} times as long")
for name in ("descriptors", "processes", "cgroups", "mounts"):
    print(f"{name:<12} before {getattr(series.before, name):>4}   after {getattr(series.after, name):>4}")

# %%
left_behind = [name for name in ("processes", "cgroups", "mounts") if getattr(series.before, name) < getattr(series.after, name)]
lesson.check("three hundred containers leave nothing behind", not left_behind, got=series.after)

# %% [markdown]
"""
## What isolation costs while a program runs

The instructions of a container run on the CPU like anybody's; nothing is translated. Only where the program asks the kernel for something
may there be more to do: the filter runs at each system call, the cgroup counts each page. Which of these loads takes noticeably longer in a container?
"""

# %%
guess_cost = lesson.predict(
    "Which load suffers most from being in a container?",
    options=["computing", "system calls", "fresh memory, page by page"],
    why="Computing asks nobody. At a system call the filter has its say first. Differences of a few per cent are noise here.",
)
guess_cost

# %% tags=["nbval-ignore-output"]
worked = lesson.recorded_or("overhead", lambda: measure_overhead(12))
overhead = worked.result
loads = [overhead.row(name) for name in density_chart.LOADS]
for row in loads:
    inside, outside = summarise(row.container_ms), summarise(row.process_ms)
    medians = f"outside {outside.median:6.1f} ms   inside {inside.median:6.1f} ms"
    print(f"{row.title:<28} {medians}   {density_chart.verdict(row)}")
guess_cost.compare(max(loads, key=lambda row: min(row.container_ms) / min(row.process_ms)).title)

# %% tags=["nbval-ignore-output"]
figure, (axes,) = charts.figure(8.6, 2.8)
density_chart.draw_overhead(axes, overhead)
words = ", ".join(f"{row.title} {row.ratio:.2f}" for row in loads)
alt = f"Bars: each load outside and inside a container. How many times as long inside: {words}."
charts.show(figure, alt=alt, recording=worked.recording)

# %%
cpu = overhead.row("cpu")
ratio = min(cpu.container_ms) / min(cpu.process_ms)
lesson.check("computing is about as fast inside as outside", ratio < 1.5, got=ratio)

# %% [markdown]
"""
**What happened.** Where the middle halves of the runs overlap, the picture says "no different": such a difference may be the machine's
mood. The check compares the fastest runs, for the floor is the work itself, and the tail is the machine.
"""

# %%
lesson.quiz(
    "You measured A ten times, then B ten times. B's median is 5 % lower. What do you know?",
    [
        lesson.Answer("B is faster", "Perhaps something else ran while it was A's turn, or B found its files in memory already."),
        lesson.Answer("not much yet", "Let them run turn by turn, warm up first, and look at the spread.", right=True),
        lesson.Answer("B is faster, since a median was used", "A median protects against single late runs, not against a bad minute."),
    ],
)

# %% [markdown]
"""
## Exercise 1: a measurement of your own

Take at least twenty start-up times of `Container(["/bin/true"], rootfs=base)`, in milliseconds, and leave nothing running.
"""

# %%
def looks_like_ms(samples):
    """Return the median of ``samples`` divided by that of the race."""
    return summarise(list(samples)).median / results.row("container").summary.median

# %% tags=["folded"]
own = lesson.exercise("Measure the start-up of a container twenty times, in milliseconds", steps=[
    lesson.Step("there are at least twenty samples", look=lambda samples: len(samples), want=lambda n: n >= 20,
                hints=["Return a list.", "[... for _ in range(20)]"]),
    lesson.Step("they are milliseconds from the request to the end", look=looks_like_ms, want=lambda ratio: 0.1 < ratio < 10,
                hints=[lambda ratio: f"Your median is {ratio:.2g} times that of the race above.",
                       "time_ms(action) calls action and returns milliseconds; the time module counts in seconds."]),
    lesson.Step("nothing is left running", look=lambda _: density.count_now().cgroups, want=density.count_now().cgroups,
                hints=["run(container) waits and cleans up; so does a with block."])])
own

# %% tags=["exercise"]
def my_samples():
    """Return a list of start-up times in milliseconds."""

# %% tags=["judge"]
own.judge(my_samples)

# %% tags=["solution"]
def my_samples_solution():
    return [time_ms(lambda: run(Container(["/bin/true"], rootfs=base), timeout_s=20)) for _ in range(20)]

own.prove(my_samples_solution)

# %% [markdown]
"""
## Exercise 2: a crowd

Keep thirty containers alive at once, each in a PID namespace of its own, and return them in a list. The judge looks at each from outside
and ends them all.
"""

# %%
@contextmanager
def held(make):
    """Give the containers that ``make`` returns, and end them."""
    made = make() or []
    try:
        yield made
    finally:
        for container in made:
            container.close()

def shared_bytes(made):
    """Return the memory of all programs, shared pages divided by their users (PSS). See: proc_pid_smaps(5)."""
    return sum(read_smaps_rollup(container.pid).proportional_bytes for container in made)

# %% tags=["folded"]
many = lesson.exercise("Keep thirty containers alive at once", steps=[
    lesson.Step("thirty of them run", look=lambda made: sum(c.status == "running" for c in made), want=lambda n: n >= 30,
                hints=["A container runs from start() to the end of its program: give it something to wait for.",
                       "['/bin/sleep', '60'] waits for a minute."]),
    lesson.Step("each is in a PID namespace of its own", look=lambda made: len({namespace_id(c.pid, NS.PID) for c in made}),
                want=lambda n: n >= 30, hints=["Container makes one; Namespaced makes what it is told."]),
    lesson.Step("together their programs take less than 16 MiB", look=shared_bytes, want=lambda size: size < 16 * MiB,
                hints=["Which program do they run? The shell of busybox is larger than its sleep."])])
many

# %% tags=["exercise"]
def my_crowd():
    """Return a list of running containers."""

# %% tags=["judge"]
many.judge(lambda: held(my_crowd))

# %% tags=["solution"]
def my_crowd_solution():
    made = [Container(["/bin/sleep", "60"], rootfs=base) for _ in range(30)]
    for container in made:
        container.start()
    return made

many.prove(lambda: held(my_crowd_solution))

# %% [markdown]
"""
## In the real world

- **Test suites** start a fresh container for each test and throw it away, which is bearable only because a start is cheap.
- **Kubernetes** recommends at most 110 pods on a node
  (<https://kubernetes.io/docs/setup/best-practices/cluster-large/>): not memory sets that limit, but the work of looking after them.
- **Docker and podman** start a supervisor beside each container (`containerd-shim`, `conmon`), so that it lives on when the engine is
  restarted. You have seen in the race what that costs, where they are installed.
- **Browsers** give each site a process of its own, for the same reason: a process is cheap enough to be the unit of isolation.

The same in a shell:

```sh
labkit race --n 20
time unshare --user --map-root-user --pid --fork --mount --net true
grep Pss: /proc/PID/smaps_rollup
systemd-cgtop
docker stats
```

## Further reading
- clock_gettime(2), posix_spawn(3), vfork(2), clone3(2), proc_pid_smaps(5), proc_meminfo(5)
- *OCI Runtime Specification*, runtime.md ("Lifecycle"): <https://github.com/opencontainers/runtime-spec>
- Documentation/admin-guide/cgroup-v2.rst ("Memory"): <https://docs.kernel.org/admin-guide/cgroup-v2.html>

## Summary
- A number needs its machine, its n, its median and its spread; contenders take turns, and cold starts are another question.
- The kernel makes a container in milliseconds. What takes longer are the programs around it.
- A waiting container costs some hundred KiB, because there is one kernel and one copy of each file's pages.
- Computing costs nothing extra inside; a system call costs what the filter takes.

Next: [08 Docker's architecture](08_docker_architecture.ipynb).
"""

# %%
view.stop()
cleanup.close()
lesson.check("the temporary folder is gone", not base.exists(), got=base)
