# %% [markdown]
"""
# 01 What an operating system virtualizes

**Question.** Your computer has a few processors and one memory. Yet every program behaves as if it had a processor and a memory of its own. Who
lends them, and by which rule?

**Afterwards you can**
- say what a process is, and how the kernel shares one processor between two of them;
- tell virtual from physical memory, and see a page arrive at the moment it is touched;
- explain copy-on-write, and what happens when memory runs out and there is swap.

**Time:** about 12 minutes to read, 20 for the exercises. **You need** a little Python, and [lesson 00](00_start_here.ipynb).

[← 00 Start here](00_start_here.ipynb) · [Glossary](glossary.md) · [02 Virtual machines →](02_virtual_machines.ipynb)
"""

# %%
import mmap
import resource
import subprocess
import sys

import psutil

from labkit import MiB, charts, lesson
from labkit.charts import shares as share_chart
from labkit.measure import scenes
from labkit.measure.shares import SharedCpu
from labkit.widgets.cpu_shares import CpuShares
from labkit.widgets.touch_view import touch_view

lesson.begin("01_what_an_os_virtualizes")

# %% tags=["nbval-ignore-output"]
lesson.needs("cgroup cpu")

# %% tags=["nbval-ignore-output"]
machines = lesson.needs(*lesson.MACHINE)
machines

# %% [markdown]
"""
## A processor for everybody

A *[process](glossary.md#process)* is a program that runs: its memory, its open files, and the state of the processor when it was last on it. The kernel lets
one run for some milliseconds, puts its state away, and takes the next. Each process has a *[weight](glossary.md#weight)*, or the group that it is in has one (lesson 04);
those that want to run share the processor in proportion to their weights.

Two programs that only compute, bound to one and the same processor. The first has the weight 300, the second 100:
"""

# %%
guess_share = lesson.predict(
    "Weights 300 and 100, one processor. How many times as much time does the first program get?", unit="times",
    why="In proportion to the weights. Nobody is kept waiting for ever, and nothing is lost: together they use the whole processor.",
)
guess_share

# %% tags=["nbval-ignore-output"]
with SharedCpu(weights=(300, 100)) as pair:
    hogs = pair.pids
    shares = pair.measure(4.0)
first, second = shares.used_s
print(f"weight 300: {first:.2f} s, weight 100: {second:.2f} s: {shares.ratio:.1f} times as much")
print(f"the weights were set with {shares.by}. {shares.note}")

# %% tags=["nbval-ignore-output"]
figure, (axes,) = charts.figure(7.2, 1.8)
share_chart.draw(axes, shares)
charts.show(figure, alt=f"Two bars of processor time: weight 300 {first:.2f} s, weight 100 {second:.2f} s.")

# %% tags=["nbval-ignore-output"]
guess_share.compare(shares.ratio)

# %%
lesson.check("the lighter program gets less, and not nothing", 1.5 < shares.ratio < 6, got=shares)

# %% [markdown]
"""
**What happened.** Both ran at once, as far as they could tell. A processor that is lent in slices, by weight: the kernel has virtualized it. (Where groups may not be
made, `nice` did it: each step makes a weight a quarter greater or smaller, five of them a factor of three.)

Now move the weights while both run. When do both get half? What does a weight of 1000 against 10 leave to the other?
"""

# %% tags=["nbval-ignore-output"]
weights = CpuShares(shares)
weights

# %% [markdown]
"""
A weight only counts where there is somebody else: alone, the lightest program gets all of the processor.

## A memory for everybody

Each process has addresses of its own: *[virtual memory](glossary.md#virtual-memory)*. A table of the kernel's says which page (4 KiB) of it lies where in the real one,
and most pages lie nowhere. We ask for 256 MiB and look at the size (what we may address) and at the *resident set* (what really lies in memory).
"""

# %%
guess_resident = lesson.predict(
    "We ask the kernel for 256 MiB and write into the first 64 MiB. By how much does the resident set grow?", unit="MiB",
    why="A page gets memory when it is touched for the first time, not when it is asked for.",
)
guess_resident

# %%
def now():
    """Return size, resident set (MiB) and the number of page faults of this process."""
    info = psutil.Process().memory_info()
    return info.vms / MiB, info.rss / MiB, resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = now()
area = mmap.mmap(-1, 256 * MiB)
asked = now()
for at in range(0, 64 * MiB, mmap.PAGESIZE):
    area[at] = 1
touched = now()

# %% tags=["nbval-ignore-output"]
for name, (size, resident, faults) in (("before", before), ("asked for", asked), ("touched", touched)):
    print(f"{name:<10} size {size:8.0f} MiB   resident {resident:6.0f} MiB   page faults {faults:8}")

# %% tags=["nbval-ignore-output"]
guess_resident.compare(touched[1] - asked[1])

# %%
lesson.check("asking made the size grow", asked[0] - before[0] > 250, got=asked)
lesson.check("only touching made the resident set grow", touched[1] - asked[1] > 55 > asked[1] - before[1] + 40, got=touched)
area.close()

# %% [markdown]
"""
**What happened.** Touching a page without memory stops the program for a moment (a *page fault*); the kernel finds a free page, enters it in the table, and
lets the program go on, which notices nothing.

Try it: one slider asks for memory, the other one touches it. What happens when less is touched than before?
"""

# %% tags=["nbval-ignore-output"]
memory = touch_view(asked_mib=256, touched_mib=64)
memory

# %% [markdown]
"""
Memory that is given back (here by `madvise`) leaves the resident set at once; the size stays until the area is unmapped.

## Copy on write

`fork` makes a second process with the same memory. Copying all of it would take long, and mostly be in vain. So both get the same pages, marked
read-only; whoever writes first gets a copy of that page.
"""

# %%
program = """import os
def private():
    rows = open('/proc/self/smaps_rollup').read().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith('Private_Dirty')) // 1024
kept = bytearray(64 << 20)
for at in range(0, len(kept), 4096): kept[at] = 1
if os.fork(): os.wait(); raise SystemExit
first = private()
for at in range(0, len(kept) // 2, 4096): kept[at] = 2
print(first, private())
"""
said = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60).stdout

# %% tags=["nbval-ignore-output"]
at_first, afterwards = map(int, said.split())
print(f"the child's own memory: {at_first} MiB after fork, {afterwards} MiB after it wrote into half of 64 MiB")

# %%
lesson.check("a new child has almost no memory of its own", at_first < 16, got=at_first)
lesson.check("writing gave it copies of what it wrote to", 28 < afterwards - at_first < 40, got=afterwards)

# %% [markdown]
"""
## When memory runs out

What has not been used for long can be put somewhere else: *swapped* out. We try that where it hurts nobody, in a small virtual machine (lesson 02 says what that is)
with 128 MiB. Its swap is a device that compresses.
"""

# %% tags=["nbval-ignore-output"]
lesson.source(scenes.swap_out, without_docstring=True)

# %% tags=["nbval-ignore-output"]
swapped = lesson.recorded_or("swapped", scenes.swap_out, here=machines).result
print(swapped.text)

# %%
lesson.check("pages were swapped out so that 100 MiB fitted", machines and swapped.pages > 1000, got=swapped)

# %% [markdown]
"""
**What happened.** The files of `/tmp` lie in the guest's memory. When it was full, the kernel moved pages to the swap device. A program that needs one again waits until it is
back: correct, and slow.
"""

# %%
lesson.quiz(
    "A program's size is 20 GiB on a machine with 8 GiB of memory, and nothing is swapped out. How can that be?",
    [
        lesson.Answer("the kernel is lying", "It counts what may be addressed. How much of that lies in memory is another number."),
        lesson.Answer("most of its pages were never touched", "Asking is free; the resident set is what counts.", right=True),
        lesson.Answer("the rest is in the processor's cache", "A cache holds copies of what lies in memory, and a few MiB of it."),
    ],
)

# %% [markdown]
"""
## Exercise 1: a large address space

Return an `mmap` of at least 512 MiB of which less than 8 MiB are resident.
"""

# %% tags=["folded"]
def grown(make):
    """Return how much ``make`` lets size and resident set grow, in MiB."""
    start = now()
    kept = make()
    end = now()
    if kept is not None:
        kept.close()
    return end[0] - start[0], end[1] - start[1]

large = lesson.exercise("Ask for much memory and use little", steps=[
    lesson.Step("the size grew by 512 MiB", look=lambda both: both[0], want=lambda size: size >= 500, hints=["mmap.mmap(-1, bytes)"]),
    lesson.Step("the resident set did not", look=lambda both: both[1], want=lambda size: size < 8, hints=["Do not write into it."])])
large

# %% tags=["exercise"]
def my_area():
    """Return an mmap."""

# %% tags=["judge"]
large.judge(lambda: grown(my_area))

# %% tags=["solution"]
def my_area_solution():
    return mmap.mmap(-1, 600 * MiB)

large.prove(lambda: grown(my_area_solution))

# %% [markdown]
"""
## Exercise 2: exactly so many pages

Write a function that gets an `mmap` and a number, and makes that many of its pages resident, no more.
"""

# %% tags=["folded"]
def resident_after(touch, count=2000):
    """Return how many pages became resident in a new area when ``touch`` worked on it."""
    with mmap.mmap(-1, 64 * MiB) as fresh:
        fresh.madvise(mmap.MADV_NOHUGEPAGE)
        start = psutil.Process().memory_info().rss
        touch(fresh, count)
        return (psutil.Process().memory_info().rss - start) // mmap.PAGESIZE

pages = lesson.exercise("Make 2000 pages resident", steps=[
    lesson.Step("about 2000 pages came", look=lambda seen: seen, want=lambda seen: 1800 < seen < 2300,
                hints=["Write one byte into each page.", "Page number n begins at n * mmap.PAGESIZE."])])
pages

# %% tags=["exercise"]
def my_touch(area, count):
    """Make ``count`` pages of ``area`` resident."""

# %% tags=["judge"]
pages.judge(lambda: resident_after(my_touch))

# %% tags=["solution"]
def my_touch_solution(area, count):
    for number in range(count):
        area[number * mmap.PAGESIZE] = 1

pages.prove(lambda: resident_after(my_touch_solution))

# %% [markdown]
"""
## In the real world

- **systemd** and Kubernetes give weights to services and pods (`CPUWeight`, `requests`), with the mechanism of lesson 04.
- **Databases** ask for large areas at their start and touch them over hours; monitoring by size alone misleads.
- **Redis** saves its data by `fork`: the child writes an unchanging picture of the memory while the parent goes on.
- **Android and ChromeOS** swap to compressed memory, as the guest here did.

The same in a shell:

```sh
nice -n 5 taskset 1 sh -c 'while :; do :; done'
systemd-run --user --scope -p CPUWeight=300 sh -c 'while :; do :; done'
grep -e VmSize -e VmRSS /proc/self/status
vmstat 1; swapon --show
```

## Further reading
- sched(7), nice(2), sched_setaffinity(2), fork(2), mmap(2), proc_pid_status(5), swapon(2)
- Documentation/admin-guide/mm/concepts.rst: <https://docs.kernel.org/admin-guide/mm/concepts.html>

## Summary
- The kernel lends the processor in slices, in proportion to weights.
- Addresses are a process's own; memory comes page by page, when it is touched.
- After fork both share pages until one writes.
- Swap holds what memory does not, and costs time.

The last cell ends what this notebook started. (The program behind the memory sliders sleeps until you move them, and ends with the notebook.)

Next: [02 Virtual machines](02_virtual_machines.ipynb).
"""

# %%
weights.stop()
lesson.check("the programs have ended", not any(map(psutil.pid_exists, hogs)) and not weights.running, got=hogs)
