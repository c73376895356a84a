# %% [markdown]
"""
# 01 What an operating system virtualizes

**Question.** Your computer has a few processors and one memory. Yet every program behaves as if it had a processor and a memory of its own. Who
lends them, and by which rule?

**Afterwards you can**
- say what a process is, and how the kernel shares one processor between two of them;
- tell virtual from physical memory, and see a page arrive at the moment it is touched;
- explain copy-on-write, and what happens when memory runs out and there is swap.

**Time:** about 30 minutes. **You need** a little Python, and [lesson 00](00_start_here.ipynb).
"""

# %%
import mmap
import resource
import subprocess
import sys
import time

import psutil

from labkit import MiB, charts, lesson
from labkit.setup.parts import find_busybox
from labkit.vm.guest import Guest
from labkit.vm.micro import micro_spec

lesson.begin("01_what_an_os_virtualizes")

# %% tags=["nbval-ignore-output"]
lesson.needs("busybox", "qemu-system-x86_64", "guest kernel")

# %% [markdown]
"""
## A processor for everybody

A *process* is a program that runs: its memory, its open files, and the state of the processor when it was last on it. The kernel lets
one run for some milliseconds, puts its state away, and takes the next. Each process has a *weight*; those that want to run share the processor in proportion to
their weights. `nice` sets it: each step makes a weight a quarter smaller, so `nice -n 5` has a third of the usual.

Two programs that only compute, bound to one and the same processor, one of them nice:
"""

# %%
guess_share = lesson.predict(
    "One program runs as usual, the other with nice 5, on one processor. How many times as much time does the first get?", unit="times",
    why="The kernel's table of weights: 1024 for nice 0, 335 for nice 5.",
)
guess_share

# %%
busybox = str(find_busybox())

def hog(nice):
    """Start a program that computes without end, bound to one processor."""
    process = psutil.Popen([busybox, "sh", "-c", "while :; do :; done"])
    process.cpu_affinity([min(psutil.Process().cpu_affinity())])
    process.nice(nice)
    return process

# %% tags=["nbval-ignore-output"]
usual, nice = hog(0), hog(5)
time.sleep(0.5)
start = [sum(process.cpu_times()[:2]) for process in (usual, nice)]
time.sleep(5)
shares = [sum(process.cpu_times()[:2]) - begun for process, begun in zip((usual, nice), start, strict=True)]
for process in (usual, nice):
    process.kill()
    process.wait()
print(f"usual {shares[0]:.2f} s, nice {shares[1]:.2f} s: {shares[0] / shares[1]:.1f} times as much")

# %% tags=["nbval-ignore-output"]
figure, (axes,) = charts.figure(7.2, 1.8)
rows = [charts.Bar(name, value, "process") for name, value in zip(("usual", "nice 5"), shares, strict=True)]
charts.bars(axes, rows, title=f"Weights decide: {shares[0] / shares[1]:.1f} to 1", x="processor time (s)")
charts.show(figure, alt=f"Two bars of processor time: usual {shares[0]:.2f} s, nice {shares[1]:.2f} s.")

# %% tags=["nbval-ignore-output"]
guess_share.compare(shares[0] / shares[1])

# %%
lesson.check("the nice program gets less, and not nothing", 1.5 < shares[0] / shares[1] < 6, got=shares)

# %% [markdown]
"""
**What happened.** Both ran at once, as far as they could tell. A processor that is lent in slices, by weight: the kernel has virtualized it. Lesson 04 gives weights
to whole groups of processes.

## A memory for everybody

Each process has addresses of its own: *virtual* memory. A table of the kernel's says which page (4 KiB) of it lies where in the real one, and most
pages lie nowhere. We ask for 256 MiB and look at the size (what we may address) and at the *resident set* (what really lies in memory).
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
prepare = "echo 200M > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0 && mount -o remount,size=200M /tmp"
fill = "dd if=/dev/zero of=/tmp/fill bs=1M count=100 2>/dev/null; free -m; grep pswpout /proc/vmstat"
with Guest(spec=micro_spec(memory_mib=128, modules=["lzo-rle", "zram"])) as small:
    small.exec(["sh", "-c", prepare], timeout_s=60)
    told = small.exec(["sh", "-c", fill], timeout_s=60).text
print(told)

# %%
swapped_pages = int(told.split()[-1])
lesson.check("pages were swapped out so that 100 MiB fitted", swapped_pages > 1000, got=told)

# %% [markdown]
"""
**What happened.** The files of `/tmp` lie in the guest's memory. When it was full, the kernel moved pages to the swap device. A program that needs one again waits until it is
back: correct, and slow.

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

Next: [02 Virtual machines](02_virtual_machines.ipynb).
"""

# %%
lesson.check("the two programs have ended", all(process.poll() is not None for process in (usual, nice)), got=usual.poll())
