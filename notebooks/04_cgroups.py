# %% [markdown]
"""
# 04 Control groups: what a process can use

**Question.** A program has a bug and eats all the memory it can get. Why does that end one container and not the machine?

**Afterwards you can**
- limit the CPU time, the memory, the number of processes and the disk traffic of a group;
- freeze a group, kill it as a whole, and read how much it had to wait;
- say each of these things in the words of both versions of cgroups.

**Time:** about 20 minutes to read, 25 for the exercises. **You need** [lesson 03](03_namespaces.ipynb). Every program that misbehaves here is bounded twice: by its
group, and by itself.

[← 03 Namespaces](03_namespaces.ipynb) · [Glossary](glossary.md) · [05 Root filesystems →](05_root_filesystems.ipynb)
"""

# %%
import signal
import time

from labkit import Cgroup, Container, Limits, MiB, charts, lesson
from labkit.charts.cgroup_live import draw_cpu
from labkit.container import run
from labkit.isolation.cgroups import read_layout
from labkit.measure import Sampler
from labkit.measure.diskwrite import seconds_to_write
from labkit.measure.hogs import cpu_hog, fork_bomb, memory_hog
from labkit.widgets.cgroup_sliders import CgroupSliders

lesson.begin("04_cgroups")

# %% [markdown]
"""
Does this machine let you make groups? Root may. An ordinary user may where an administrator, or systemd, has *delegated* a part of the
tree. Where the answer is no, it names the rule and the remedy; the cells below then go on and say what they cannot show.
"""

# %% tags=["nbval-ignore-output"]
groups = lesson.needs("cgroups", "cgroup cpu", "cgroup memory", "cgroup pids")
groups

# %% [markdown]
"""
## The idea: a group is a folder

A **control group**, or **[cgroup](glossary.md#cgroup)**, is a set of processes that the kernel counts, limits, freezes and kills together. There is no system call
for it. The kernel shows the groups as folders: to make one is `mkdir`, to move a process in is to write its number into the file
`cgroup.procs`, to set a limit is to write it into the file of that limit. Children are born in the group of their parent, and no process
leaves a group by itself.

labkit's `Cgroup` does exactly that:
"""

# %% tags=["nbval-ignore-output"]
if groups:
    first = Cgroup.create(limits=Limits(memory_bytes=64 * MiB, pids=16, cpus=0.5))
    folder = first.folders["memory"]
    files = sorted(file.name for file in folder.iterdir())
    print(f"a folder, {folder.name}, with {len(files)} files, among them:")
    for name in ("cgroup.procs", "memory.current", "memory.usage_in_bytes", "memory.max", "memory.limit_in_bytes"):
        if name in files:
            print("  ", name)

# %% [markdown]
"""
The limit is a text file. We read it as any program would:
"""

# %% tags=["nbval-ignore-output"]
if groups:
    limit_file = next(folder / name for name in ("memory.max", "memory.limit_in_bytes") if (folder / name).exists())
    text = limit_file.read_text().strip()
    print(f"cat {limit_file.name}  ->  {text}")
    first.delete()

# %%
lesson.check("the file says 64 MiB in bytes", groups and int(text) == 64 * MiB, got=groups and text)
lesson.check("to delete a group is to remove its folder", groups and not folder.exists(), got=groups and folder)

# %% [markdown]
"""
## Two versions, one vocabulary

Cgroups exist twice. Version 1 (2008) has one tree of folders for each *[controller](glossary.md#controller)*: one for CPU time, one for memory, one for
processes. Version 2 (2016) has a single tree, in which controllers are switched on. Many machines run both at once, which
is called *hybrid*. This course speaks version 2, and labkit translates:

| what | version 2 | version 1 |
|---|---|---|
| CPU time at most | `cpu.max`: `50000 100000` | `cpu.cfs_quota_us`: `50000`, `cpu.cfs_period_us`: `100000` |
| CPU share against others | `cpu.weight`: 100 | `cpu.shares`: 1024 |
| memory at most | `memory.max` | `memory.limit_in_bytes` |
| memory kills counted | `memory.events` (`oom_kill`) | `memory.oom_control` (`oom_kill`) |
| processes at most | `pids.max` | `pids.max` |
| disk traffic at most | `io.max` | `blkio.throttle.write_bps_device` |
| stop and go on | `cgroup.freeze`: 1, 0 | `freezer.state`: FROZEN, THAWED |
| kill all | `cgroup.kill`: 1 | (freeze, then kill one by one) |
| time lost to waiting | `cpu.pressure`, `memory.pressure`, `io.pressure` | (only that of the whole machine) |

Which one has this machine?
"""

# %% tags=["nbval-ignore-output"]
layout = read_layout()
print("this machine:", layout.version)
for hierarchy in layout.hierarchies:
    print(f"  version {hierarchy.version} at {hierarchy.mount}: {', '.join(hierarchy.controllers) or 'no controllers'}")

# %%
lesson.check("it is v1, v2 or a hybrid", layout.version in ("v1", "v2", "hybrid"), got=layout.version)

# %% [markdown]
"""
## CPU: a quota in each period

`cpu.max` is two numbers: so many microseconds in each period of so many. Half a CPU is 50,000 in 100,000. A group that has used up its
quota is stopped until the next period begins. It is not slowed down: it runs at full speed, and then stands still. This is called
*[throttling](glossary.md#throttling)*. Our hog is an endless loop:
"""

# %%
print(*cpu_hog().command)

# %%
guess = lesson.predict(
    "The endless loop gets a tenth of one CPU and runs for 3 seconds. How much CPU time has it used then?", unit="s of CPU time")
guess

# %% tags=["nbval-ignore-output"]
if groups:
    with Container(cpu_hog().command, image_like_host=True, limits=Limits(cpus=0.1)) as hog:
        hog.start()
        with Sampler(hog.cgroup, hog.pid) as sampler:
            time.sleep(3)
        stats = hog.cgroup.stats()
    used_s = stats.cpu_usage_usec / 1e6
    print(f"{used_s:.2f} s of CPU time; stopped early in {stats.nr_throttled} of {stats.nr_periods} periods")

# %% tags=["nbval-ignore-output"]
if groups:
    guess.compare(used_s)

# %% tags=["nbval-ignore-output"]
if groups:
    figure, (axes,) = charts.figure(6.4, 2.6)
    draw_cpu(axes, sampler.samples, limit_percent=10, title="An endless loop stays at the tenth of a CPU that it may have")
    charts.show(figure, alt=f"Line: the CPU time of the loop stays at about 10 % of one CPU for {len(sampler.samples)} looks.")

# %%
lesson.check("the loop got no more than its quota", groups and used_s < 3 * 0.1 * 1.5, got=groups and used_s)
lesson.check("the kernel stopped it before its periods were over", groups and stats.nr_throttled > 0, got=groups and stats)

# %% [markdown]
"""
The other way to share a CPU is by *weight*: `cpu.weight` says how much of a contested CPU a group gets against its neighbours, and
takes nothing away while nobody else wants it. A weight shares, a quota caps.

In a shell: `systemd-run --user --scope -p CPUQuota=10% sh -c 'while :; do :; done'`

## Memory: the limit that kills

A process cannot be asked to wait for memory in the way it waits for the CPU: it touches a page, and needs it now. At its limit a group
first loses what can be read again from disk (the page cache), then it swaps, if it may. When that is not enough, the kernel's
**OOM killer** (*out of memory*) ends a process of the group. Our hog takes 2 MiB at a time:
"""

# %%
print(memory_hog(192 * MiB).command[-1])

# %%
guess = lesson.predict(
    "The hog wants 192 MiB, its group may have 64 MiB and no swap. How does it end?",
    options=["with a MemoryError from Python", "killed by the kernel", "by itself, only slower"],
    answer="killed by the kernel",
    why="The kernel had promised the memory when Python asked for it; the limit was met later, when the pages were written to.")
guess

# %% tags=["nbval-ignore-output"]
no_swap = 0 if lesson.needs("cgroup swap") else None
if groups:
    end = run(Container(memory_hog().command, image_like_host=True,
                        limits=Limits(memory_bytes=64 * MiB, swap_bytes=no_swap), time_limit_s=20)).exit
    print(f"{end.reason}; exit code {end.code}, after {end.elapsed_s:.1f} s")

# %% tags=["nbval-ignore-output"]
if groups:
    guess.compare()

# %%
lesson.check("the kernel killed it for its memory", groups and end.oom_killed, got=groups and end)
lesson.check("a shell would show 137, which is 128 + 9 (SIGKILL)", groups and end.code == 137, got=groups and end)

# %% [markdown]
"""
Remember **137**: it is the exit code of every container that ran out of memory, in Docker as in Kubernetes (`OOMKilled`). And note who is
still here: this notebook. Without a group, the kernel would have looked for a victim on the whole machine.

In a shell: `systemd-run --user --scope -p MemoryMax=64M -p MemorySwapMax=0 python3 -c 'x = bytearray(10**9)'`

## Processes: a fork bomb, contained

A process number is a resource too, and a small program can use up all of them: it starts two copies of itself, which start two
copies of themselves ... The classic is one line of shell. This one counts down, so that it ends by itself even without a limit:
"""

# %%
print(fork_bomb().command[-1])

# %%
guess = lesson.predict(
    "The bomb explodes in a group with pids.max = 16. How many processes are there at most, its first shell included?",
    options=["fewer than 16", "16", "17 or more"],
    answer="16", why="The kernel counts before it forks; the seventeenth fork fails with EAGAIN.")
guess

# %% tags=["nbval-ignore-output"]
most = 0
if groups:
    with Container(fork_bomb().command, image_like_host=True, limits=Limits(pids=16, cpus=0.5), time_limit_s=20) as bomb:
        bomb.start()
        while bomb.status == "running":
            most = max(most, bomb.cgroup.stats().pids)
            time.sleep(0.01)
        end = bomb.wait()
    print(f"at most {most} processes at once; {end.pids_limit_hits} forks were refused; it took {end.elapsed_s:.1f} s")

# %% tags=["nbval-ignore-output"]
if groups:
    guess.compare()

# %%
lesson.check("there were never more than 16", groups and 0 < most <= 16, got=groups and most)
lesson.check("the kernel refused forks", groups and end.pids_limit_hits > 0, got=groups and end)

# %% [markdown]
"""
In a shell: `systemd-run --user --scope -p TasksMax=16 bash`

## Freeze: stop without asking

SIGSTOP stops a process as well, but its parent notices, and so can the process when it goes on. A frozen group just stands still, all
of it at one moment, whoever its members are and whatever signals they ignore. It is how a container is paused (`docker pause`) and how
a consistent snapshot of many processes is taken.
"""

# %%
guess = lesson.predict(
    "We freeze the endless loop for half a second. How much CPU time does it use meanwhile?",
    options=["none", "a little, for it has to notice", "half a second"],
    answer="none", why="It does not run, so there is nothing in it that could notice.")
guess

# %% tags=["nbval-ignore-output"]
freezer = lesson.needs("cgroups", "cgroup cpu", "cgroup freezer")
freezer

# %% tags=["nbval-ignore-output"]
if freezer:
    hog = Container(cpu_hog().command, image_like_host=True, limits=Limits(cpus=0.5))
    hog.start()
    hog.cgroup.freeze()
    before_usec = hog.cgroup.stats().cpu_usage_usec
    time.sleep(0.5)
    frozen_usec = hog.cgroup.stats().cpu_usage_usec - before_usec
    print(f"{frozen_usec} microseconds while frozen; the loop is {hog.status}")

# %% tags=["nbval-ignore-output"]
if freezer:
    guess.compare()

# %%
lesson.check("a frozen group uses no CPU time", freezer and frozen_usec < 1000, got=freezer and frozen_usec)
lesson.check("its processes are still there", freezer and hog.status == "running", got=freezer and hog)

# %% [markdown]
"""
After the thaw it goes on as if nothing had been:
"""

# %% tags=["nbval-ignore-output"]
if freezer:
    hog.cgroup.thaw()
    time.sleep(0.5)
    thawed_usec = hog.cgroup.stats().cpu_usage_usec - before_usec
    print(f"{thawed_usec} microseconds after the thaw")
    hog.close()

# %%
lesson.check("thawed, it runs again", freezer and thawed_usec > frozen_usec, got=freezer and thawed_usec)

# %% [markdown]
"""
## Kill: all of them, at once

To kill a tree of processes one by one is a race: while you read the list, it grows. A group is killed as a whole. This program
ignores SIGTERM, as many do that want to finish their work, and has two children:
"""

# %% tags=["nbval-ignore-output"]
if groups:
    with Container(["sh", "-c", "trap '' TERM; sleep 60 & sleep 60 & wait"], image_like_host=True, limits=Limits(pids=16)) as stubborn:
        stubborn.start()
        while len(stubborn.cgroup.procs()) < 3:
            time.sleep(0.01)
        stubborn.kill(signal.SIGTERM)
        asked = len(stubborn.cgroup.procs())
        stubborn.cgroup.kill()
        stubborn.cgroup.wait_empty(5)
        left = len(stubborn.cgroup.procs())
    print(f"{asked} processes after SIGTERM, {left} after the group was killed")

# %%
lesson.check("SIGTERM left all of them alive", groups and asked == 3, got=groups and asked)
lesson.check("killing the group left none", groups and left == 0, got=groups and left)

# %% [markdown]
"""
## Pressure: how much waiting

A group that uses 10 % of a CPU may be idle, or strangled. The difference is in **[pressure](glossary.md#pressure)** (*pressure stall information*, PSI): the share of time in
which work was there and had to wait, for CPU, memory or disk. Version 2 keeps it for each group; version 1 knows only that of the whole
machine, which is what labkit then shows.
"""

# %% tags=["nbval-ignore-output"]
pressure_kept = lesson.needs("cgroups", "cgroup cpu", "pressure (PSI)")
pressure_kept

# %% tags=["nbval-ignore-output"]
if pressure_kept:
    with Container(cpu_hog().command, image_like_host=True, limits=Limits(cpus=0.2)) as hog:
        hog.start()
        before = hog.cgroup.pressure("cpu")
        time.sleep(1)
        after = hog.cgroup.pressure("cpu")
    waited_usec = after.some.total_usec - before.some.total_usec
    print(f"{waited_usec / 1e6:.2f} s of one second were spent waiting for the CPU (by the {after.scope})")

# %%
lesson.check("the time lost to waiting is counted", pressure_kept and waited_usec >= 0 and after.some.total_usec > 0,
             got=pressure_kept and after)

# %% [markdown]
"""
In a shell: `cat /proc/pressure/cpu`, or `systemd-cgtop` for who uses what.

## Disk: bytes a second

Where the host's disk takes part, reading and writing can be limited in bytes a second. Version 1 limits only writes that go to the
disk directly; those that go through the page cache are written later by the kernel itself, in nobody's name. We write 2 MiB
directly, with a limit of 1 MiB a second:
"""

# %%
lesson.source(seconds_to_write, without_docstring=True)

# %% tags=["nbval-ignore-output"]
disk = lesson.needs("cgroups", "cgroup io")
disk

# %% tags=["nbval-ignore-output"]
if disk:
    free_s = seconds_to_write(2 * MiB, Limits())
    limited_s = seconds_to_write(2 * MiB, Limits(io_write_bytes_per_s=MiB))
    print(f"without a limit {free_s:.2f} s, with a limit {limited_s:.2f} s")

# %%
lesson.check("with 1 MiB a second, 2 MiB take more than a second", disk and limited_s > max(1, free_s), got=disk and (free_s, limited_s))

# %% [markdown]
"""
## Try it yourself: a cgroup in your hands

Three limits, three hogs. Start a hog, and watch its curve climb to the dashed line. Then move the slider (with the mouse, or Tab and the arrow
keys). Each move is one write to one file. Questions to answer:

- Halve `cpu.max`: what happens to the curve, and to the share of periods in which the group is stopped?
- Set `memory.max` below what the hog wants (192 MiB): who ends, and who stays?
- Start the process hog, and raise `pids.max` while it runs. Then lower it below what is there: does that end anybody?

A hog ends by itself after a minute, and with the notebook.
"""

# %% tags=["nbval-ignore-output"]
view = groups and CgroupSliders(begin=["CPU hog"])
if groups:
    view.start()
view

# %% tags=["nbval-ignore-output"]
if groups:
    time.sleep(2.5)
    print(view.sentence)

# %%
lesson.check("the charts move", groups and view.frames_drawn >= 2, got=groups and view.frames_drawn)

# %%
question = lesson.quiz("A container with memory.max = 512 MiB is ended with exit code 137. What do you look at first?", [
    lesson.Answer("the CPU quota", "A CPU quota stops a group for a while. It never ends a process."),
    lesson.Answer("oom_kill in memory.events", "If that counter has grown, the group ran into its memory limit.", right=True),
    lesson.Answer("pids.max", "A refused fork is an error to the program that asked (EAGAIN), not a signal.")])
question

# %% [markdown]
"""
## Exercise 1: a fifth of a CPU

A colleague's program loops. Let it run, but give it a fifth of one CPU and no more.
"""


# %% tags=["folded"]
def cpu_percent(container):
    """Measure for one second how much of one CPU the container's group uses."""
    begun_usec = container.cgroup.stats().cpu_usage_usec
    time.sleep(1)
    return round((container.cgroup.stats().cpu_usage_usec - begun_usec) / 1e4)


fifth = lesson.exercise("Start cpu_hog() in a container that gets a fifth of one CPU", steps=[
    lesson.Step("the container runs", look=lambda c: c.status, want="running",
                hints=["Container(cpu_hog().command, image_like_host=True, limits=...), then start() it and return it."]),
    lesson.Step("measured for a second, it uses 1 to 25 % of one CPU", look=cpu_percent, want=lambda seen: 1 <= seen <= 25,
                hints=[lambda seen: f"It uses {seen} % now.", "Limits(cpus=...) is CPU time for each second of time."])])
fifth


# %% tags=["exercise"]
def fifth_of_a_cpu():
    """Return a started container that does what the exercise asks for."""


# %% tags=["judge"]
fifth.judge(fifth_of_a_cpu)


# %% tags=["solution"]
def fifth_solution():
    container = Container(cpu_hog().command, image_like_host=True, limits=Limits(cpus=0.2))
    container.start()
    return container


fifth.prove(fifth_solution, here=groups)

# %% [markdown]
"""
## Exercise 2: stop it, but lose nothing

The same program has run for three days, and you need its CPU for an hour. It ignores every signal that it can. Make it use nothing, without
ending it.
"""


# %% tags=["folded"]
def used_in_half_a_second(container):
    """Return the microseconds of CPU time that the container's group uses in half a second."""
    begun_usec = container.cgroup.stats().cpu_usage_usec
    time.sleep(0.5)
    return container.cgroup.stats().cpu_usage_usec - begun_usec


pause = lesson.exercise("Start cpu_hog() in a container and make it stand still, without ending it", steps=[
    lesson.Step("the container runs", look=lambda c: c.status, want="running", hints=["Start it, and do not kill it."]),
    lesson.Step("it uses no CPU time", look=used_in_half_a_second, want=lambda seen: seen < 1000,
                hints=[lambda seen: f"It used {seen} microseconds of half a second.", "container.cgroup is its group."]),
    lesson.Step("its processes are still there", look=lambda c: len(c.cgroup.procs()), want=lambda seen: seen > 0)])
pause


# %% tags=["exercise"]
def paused():
    """Return a started container that does what the exercise asks for."""


# %% tags=["judge"]
pause.judge(paused)


# %% tags=["solution"]
def paused_solution():
    container = Container(cpu_hog().command, image_like_host=True, limits=Limits(cpus=0.5))
    container.start()
    container.cgroup.freeze()
    return container


pause.prove(paused_solution, here=freezer)

# %% [markdown]
"""
## In the real world

- **Docker**: `docker run --cpus 0.5 --memory 64m --pids-limit 32` writes the three files of this lesson; `docker pause` freezes;
  `docker stats` reads the counters.
- **Kubernetes**: `resources.limits` become `cpu.max` and `memory.max`, `resources.requests` become `cpu.weight`; a pod that is
  `OOMKilled` has met what you have met here.
- **systemd** gives every service, and every login, a group of its own: `systemctl status` shows it, `MemoryMax=` and `CPUQuota=` limit it.
- **Android** freezes the apps that you do not look at; **systemd-oomd** kills by pressure before the OOM killer has to.

The same in a shell, as root and with version 2:

```sh
mkdir /sys/fs/cgroup/labkit-mine
echo "10000 100000" > /sys/fs/cgroup/labkit-mine/cpu.max
echo 64M > /sys/fs/cgroup/labkit-mine/memory.max
echo $$ > /sys/fs/cgroup/labkit-mine/cgroup.procs      # this shell, and all its children
echo 1 > /sys/fs/cgroup/labkit-mine/cgroup.freeze      # from another shell
```

## Further reading
- cgroups(7), cgroup_namespaces(7), proc_pid_cgroup(5), systemd.resource-control(5), systemd-run(1)
- Control Group v2: <https://docs.kernel.org/admin-guide/cgroup-v2.html>; *scheduler/sched-bwc.rst* (quota and throttling) and
  *accounting/psi.rst* (pressure) beside it

## Summary

- A cgroup is a folder; limits are files in it; a process is moved in by writing its number, and its children are born there.
- CPU: over the quota a group is stopped until the next period. Memory: at the limit a process is killed, and the exit code is 137. Processes: at
  the limit fork fails.
- A group is frozen and killed as a whole; no member can notice or refuse.
- Pressure tells waiting from idling.
- Namespaces decide what a process sees, cgroups what it uses. What is missing for a container is a file tree of its own.

The last cell ends what this notebook started. (The view above stays: a hog's button begins anew.)

Next: [05 Root filesystems](05_root_filesystems.ipynb).
"""

# %%
if groups:
    view.rest()
lesson.check("no hog runs any more", not groups or view.pen is None, got=view)
