# %% [markdown]
"""
# 02 Virtual machines: a computer made of software

**Question.** Two people share one computer and do not trust each other. Each wants a kernel of their own, and may crash it. How can one
machine be several, what do they cost, and what can be done with a machine that is only software?

**Afterwards you can**
- boot a virtual machine and say what the hypervisor, the guest kernel and the virtual devices are;
- say what a guest's crash does to the host, and what one tenant can see of another;
- save a running machine to a file, wake it up again, and move it while it runs;
- say what a virtual machine costs in time, memory and disk space.

**Time:** about 18 minutes to read, 25 for the exercises. **You need** [lesson 01](01_what_an_os_virtualizes.ipynb). QEMU and a guest kernel come from
`labkit setup vm`. Every machine here lives in memory and is gone at the end of the notebook. Where a machine cannot be started, the cells show recordings, marked as such.

[← 01 What an operating system virtualizes](01_what_an_os_virtualizes.ipynb) · [Glossary](glossary.md) · [03 Namespaces →](03_namespaces.ipynb)
"""

# %%
import os
from contextlib import ExitStack

from labkit import MiB, charts, lesson
from labkit.charts import machines as machine_charts
from labkit.charts.isolation import draw_grid, words_of_grid
from labkit.linux import kvm
from labkit.measure import machine_costs, scenes, scratch
from labkit.measure.machine_isolation import machine_matrix
from labkit.vm.guest import Guest
from labkit.widgets.boot_view import boot_view
from labkit.widgets.console_view import ConsoleView

lesson.begin("02_virtual_machines")

# %% tags=["nbval-ignore-output"]
machines = lesson.needs(*lesson.MACHINE)
machines

# %% [markdown]
"""
## Boot one

A *[virtual machine](glossary.md#virtual-machine)* (VM) is a computer that a program pretends to be. That program is the *[hypervisor](glossary.md#hypervisor)* (here QEMU, with or without the help of
the processor); what runs in the machine is the *guest*: a kernel of its own, and programs. The computer that all of it runs on is the *host*.

Where the processor helps, it executes the guest's instructions itself (on Linux that is KVM). Where it does not, QEMU translates every
instruction: slower, and it works everywhere. labkit asks first by running a guest of 123 bytes.
"""

# %%
guess_boot = lesson.predict(
    "How long does it take from starting QEMU until a program in the guest can run, in seconds?", unit="s",
    why="There is no firmware to speak of, no disk and no service to wait for: a kernel, and one program.",
)
guess_boot

# %% tags=["nbval-ignore-output"]
cleanup = ExitStack()
guest = cleanup.enter_context(Guest(memory_mib=128)) if machines else None
boot = lesson.recorded_or("boot", lambda: scenes.boot_of(guest), here=machines)
print(f"A guest under {boot.result.accelerator}; its kernel is Linux {boot.result.release}")
lesson.check("the guest has a kernel of its own", machines and boot.result.release != os.uname().release, got=boot.result.release)

# %% tags=["nbval-ignore-output"]
phases = boot.result.phases
print(machine_charts.boot_words(phases))
guess_boot.compare(boot.result.ready_s)
figure, (axes,) = charts.figure(8.2, 2.4)
machine_charts.draw_boot(axes, phases)
alt = f"Bars one after another, the phases of a boot: {machine_charts.boot_words(phases)}."
charts.show(figure, alt=alt, recording=boot.recording)

# %% [markdown]
"""
**What happened.** QEMU made a machine of virtual devices, put a kernel and a small archive of files into its memory, and let it run. The guest
kernel found a processor, 128 MiB of memory and two serial ports, and started the first program. It never learned that all of that
is software.

Boot some more: does a machine with more memory take longer? With more processors?
"""

# %% tags=["nbval-ignore-output"]
boots = boot_view(boot)
boots

# %% [markdown]
"""
## What the guest sees

The guest's kernel has its own processes, its own memory, its own clock. Ask it:
"""

# %% tags=["nbval-ignore-output"]
lesson.source(scenes.boot_of, without_docstring=True)

# %% tags=["nbval-ignore-output"]
for said in boot.result.said:
    print("$", said.command)
    print(said.text)

# %%
alone = boot.result.processes < 60 and boot.result.first_process == "init"
lesson.check("the host's processes are not among the guest's", machines and alone, got=boot.result.processes)

# %% [markdown]
"""
And the host? For the host's kernel all of the guest is one process, QEMU, with some threads. `ps` on the host shows no program of the guest.

A machine without a screen has a *console*, a serial line on which its kernel writes, and a shell listens. This one is yours: press **Start**, type `ls /`,
`cat /proc/meminfo` or `reboot -f`, and press Enter.
"""

# %% tags=["nbval-ignore-output"]
console = ConsoleView(boot.result.console, source=str(boot.recording or ""))
console

# %% [markdown]
"""

## A guest that crashes

A kernel that finds itself damaged stops: it *panics*. On your computer that is the end of everything. Writing `c` to
`/proc/sysrq-trigger` makes a kernel panic on request. What happens to this notebook when we do that in a guest?
"""

# %%
guess_panic = lesson.predict(
    "The guest's kernel panics. What happens to the host?",
    options=["nothing", "it slows down until the guest is ended", "it panics, too"],
    answer="nothing",
    why="The panic is instructions executed on a virtual processor: the host sees a process that ends.",
)
guess_panic

# %% tags=["nbval-ignore-output"]
lesson.source(scenes.panic, without_docstring=True)

# %% tags=["nbval-ignore-output"]
victim = cleanup.enter_context(Guest(memory_mib=96)) if machines else None
crash = lesson.recorded_or("panic", lambda: scenes.panic(victim, guest), here=machines)
print(crash.result.error)
print(crash.result.console)

# %%
guess_panic.compare()
lesson.check("the guest's kernel panicked", machines and "sysrq" in crash.result.reason.lower(), got=crash.result)
lesson.check("the other guest did not notice", machines and crash.result.other_answers, got=crash.result)

# %% [markdown]
"""
**What happened.** The panic ended one machine. The host, this notebook and the other machine go on. That is *fault isolation*, the first
thing that virtual machines give.

## Two tenants

Two customers, a machine each. Each writes a secret into its home and then searches everything it can reach for the other's.
"""

# %% tags=["nbval-ignore-output"]
lesson.source(scenes.search_secrets, without_docstring=True)

# %% tags=["nbval-ignore-output"]
other = cleanup.enter_context(Guest(memory_mib=96)) if machines else None
found = lesson.recorded_or("tenants", lambda: scenes.search_secrets(guest, other), here=machines)
print("files with anna's secret:", {"anna": found.result.first, "ben": found.result.second})

# %%
own_only = found.result == scenes.Tenants(1, 0)
lesson.check("each tenant finds its own secret only", machines and own_only, got=found.result)

# %% [markdown]
"""
Each is root in its own machine, and that gives no power over the other's: there is no path, no process id and no address that
leads there. What both share is the hypervisor: an error in QEMU or KVM is what an attacker needs.

What can a program in a guest see of the host, compared with one in namespaces (lesson 03)? The same things are put up on the host, and each looks for
them: without namespaces, with all eight kinds, and in a machine. The last row is tried in the machine only, for a reason.
"""

# %% tags=["nbval-ignore-output"]
matrix = lesson.recorded_or("isolation-machine", machine_matrix)
figure, (axes,) = charts.figure(6.4, 4.4)
draw_grid(axes, matrix.result)
charts.show(figure, alt=words_of_grid(matrix.result), recording=matrix.recording)
for finding in matrix.result.columns[-1].findings:
    print(f"{finding.title:<24} host: {finding.host:<44.44} guest: {finding.inside}")

# %%
inside = {finding.probe: finding.sees_host for finding in matrix.result.columns[-1].findings}
shares = matrix.result.columns[1].finding("kernel").sees_host
measured = machines and (matrix.recording is None or lesson.needs("user namespace"))
lesson.check("a guest sees nothing of the host, not even its kernel", measured and not any(inside.values()), got=inside)
lesson.check("in all namespaces the kernel is still the host's", measured and shares, got=shares)

# %% [markdown]
"""
Namespaces hide the same things, but the kernel behind them is one and the same: an error in it is an error in everybody's.

## A machine as a file

A running process is spread over memory, kernel and open files; a running machine is all inside QEMU. So it can be written to a file, and
read back. We let a counter run, save the machine, and wake a copy up.
"""

# %% tags=["nbval-ignore-output"]
lesson.source(scenes.save_and_wake, without_docstring=True)

# %% tags=["nbval-ignore-output"]
stage = cleanup.enter_context(scratch.scratch_folder())
if machines:
    scenes.start_counter(guest)
saved = lesson.recorded_or("saved", lambda: scenes.save_and_wake(guest, stage / "machine"), here=machines).result
print(f"saved in {saved.saved_ms:.0f} ms as a file of {saved.size_bytes / MiB:.0f} MiB; awake again after {saved.restored_ms:.0f} ms")

# %%
both = saved.original_goes_on and saved.copy_goes_on
lesson.check("the counter goes on in the machine and in its copy", machines and both, got=saved)

# %% [markdown]
"""
**What happened.** The copy went on in the middle of its loop: registers, memory and devices were in the file. Providers start
machines from such files (*provisioning*), and keep them as backups.

## Moving a running machine

The same stream can go to another QEMU process instead of a file, on this host or another. While the machine runs on, its memory is sent; what it
changed meanwhile is sent again; at the end it stands still for a moment, the rest goes over, and the other process goes on. This is
*live migration*. Will the counter miss a beat?
"""

# %% tags=["nbval-ignore-output"]
moved = lesson.recorded_or("moved", lambda: scenes.move(guest), here=machines).result
sent = f"{moved.transferred_bytes / MiB:.0f} MiB in {moved.total_s:.2f} s, {moved.rounds} rounds"
print(f"QEMU {moved.before_pid} -> {moved.after_pid}; {sent}")
print(f"it stood still for {moved.downtime_s * 1000:.0f} ms; the counter: {moved.before} -> {moved.after}")

# %%
went_on = moved.after >= moved.before and moved.goes_on
lesson.check("the machine lives in another process now", machines and moved.before_pid != moved.after_pid, got=moved)
lesson.check("the counter lost nothing and goes on", machines and went_on, got=moved)

# %% [markdown]
"""
## What it costs

A guest is given its memory when it starts. An idle guest uses a part; the hypervisor needs some more for itself. And programs
run as fast as the processor, or as fast as the translation. The same two programs, on the host and in a guest, turn by turn:
"""

# %%
guess_cost = lesson.predict(
    "Which suffers more from emulation: a program that computes, or one that makes system calls?",
    options=["computing", "system calls", "both alike"],
    why="Under emulation every instruction is translated, the kernel's too. Under KVM neither costs much.",
)
guess_cost

# %% tags=["nbval-ignore-output"]
weighed = lesson.recorded_or("machine-costs", lambda: machine_costs.measure_machine(3), here=machines)
costs = weighed.result
slowdown = {load.title: load.ratio for load in costs.loads}
print({title: round(ratio, 1) for title, ratio in slowdown.items()}, "times as long in the guest")
low, high = sorted(slowdown.values())
guess_cost.compare("both alike" if high < 1.3 * low else max(slowdown, key=slowdown.get))

# %% tags=["nbval-ignore-output"]
figure, (left, right) = charts.figure(9.6, 2.6, columns=2)
machine_charts.draw_memory(left, costs)
machine_charts.draw_loads(right, costs)
words = f"given {costs.given_bytes / MiB:.0f} MiB, taken {costs.used_bytes / MiB:.0f} MiB"
alt = f"Left, bars of a guest's memory: {words}. Right, times of two loads on the host and in the guest."
charts.show(figure, alt=alt, recording=weighed.recording)

# %% tags=["nbval-ignore-output"]
disk_mib = (costs.kernel_bytes + costs.initramfs_bytes) / MiB
print(f"What this small guest boots takes {disk_mib:.0f} MiB; its one program {costs.program_bytes / MiB:.1f} MiB.")
print(f"By memory alone about {costs.fit} such guests would fit into 80 % of this machine (computed, not tried).")

# %%
heavier = costs.kernel_bytes + costs.initramfs_bytes > 5 * costs.program_bytes
lesson.check("a guest carries much more than its program", machines and heavier, got=costs.kernel_bytes)

# %% [markdown]
"""
**What happened.** Each guest carries a kernel that the host has already, keeps memory that others could use, and takes its time to start. Lesson 07 compares
that with containers.

## A VM is a file descriptor

Where `/dev/kvm` works, a machine is a few system calls away. These bytes are a guest without kernel or devices: it multiplies 6 by 7 and writes
the digits to a port. labkit makes the machine by hand, without QEMU.
"""

# %%
lesson.source(kvm.execute, without_docstring=True)

# %% tags=["nbval-ignore-output"]
try:
    answer = kvm.run(kvm.SIX_TIMES_SEVEN)
    print("The guest wrote", answer)
except OSError as error:
    answer = None
    print("Not on this machine:", error)  # what the kernel, or our time limit, answered

# %%
claim = "a machine of a few bytes multiplies"
if answer is None:
    print(f"not shown here: {claim}")
else:
    lesson.check(claim, answer == b"42\n", got=answer)

# %%
lesson.quiz(
    "A tenant is root in its virtual machine and wants to read the files of another tenant's. What must it break?",
    [
        lesson.Answer("the other guest's password", "There is no door to knock at: no network leads from one to the other here."),
        lesson.Answer("the hypervisor", "It is the only thing that both share.", right=True),
        lesson.Answer("its own kernel", "It has power over that already, and gains nothing."),
    ],
)

# %% [markdown]
"""
## Exercise 1: a machine with a message

Boot a guest with 96 MiB, put the bytes `b"hello"` into its file `/tmp/message`, and return the guest, still running. The judge looks and ends it.
"""

# %% tags=["folded"]
letter = lesson.exercise("Boot a guest with a message in it", steps=[
    lesson.Step("a guest runs", look=lambda made: made is not None and made.state, want="running",
                hints=["Guest(memory_mib=96) makes one; start() boots it.", "Do not use it in a with block: it ends there."]),
    lesson.Step("it has 96 MiB", look=lambda made: made.spec.memory_bytes // MiB, want=96, hints=["memory_mib=96"]),
    lesson.Step("the message is in it", look=lambda made: made.exec(["cat", "/tmp/message"]).stdout, want=b"hello",
                hints=["guest.copy_in(b'...', '/tmp/message')"])])
letter

# %% tags=["exercise"]
def my_machine():
    """Return a running guest with a message."""

# %% tags=["folded"]
def ended_later(make):
    """Return the guest that ``make`` makes; the last cell ends it."""
    made = make()
    if made is not None:
        cleanup.callback(made.close)
    return made

# %% tags=["judge"]
letter.judge(lambda: ended_later(my_machine))

# %% tags=["solution"]
def my_machine_solution():
    made = Guest(memory_mib=96)
    made.start()
    made.copy_in(b"hello", "/tmp/message")
    return made

letter.prove(lambda: ended_later(my_machine_solution), here=machines)

# %% [markdown]
"""
## Exercise 2: back in time

Write a function that gets a running guest and a path: save the guest to the path, then remove the guest's file `/tmp/message`, and
return a guest in which the file still exists.
"""

# %% tags=["folded"]
def time_travel(function):
    """Let ``function`` work on a guest with a message; return what the guest that it returns finds, and what the first one finds."""
    first = ended_later(my_machine_solution) if machines else None
    second = ended_later(lambda: function(first, stage / "back"))
    look = ["cat", "/tmp/message"]
    return None if second is None else (second.exec(look).stdout, first.exec(look).stdout)

back = lesson.exercise("Bring a removed file back from a snapshot", steps=[
    lesson.Step("a guest is returned", look=lambda seen: seen is not None, want=True, hints=["Guest.restore(path) returns a running guest."]),
    lesson.Step("the file is in it", look=lambda seen: seen[0], want=b"hello", hints=["Save before you remove."]),
    lesson.Step("and gone in the first one", look=lambda seen: seen[1], want=b"", hints=["guest.exec(['rm', '/tmp/message'])"])])
back

# %% tags=["exercise"]
def my_way_back(guest, path):
    """Return a guest in which /tmp/message still exists, after having removed it in ``guest``."""

# %% tags=["judge"]
back.judge(lambda: time_travel(my_way_back))

# %% tags=["solution"]
def my_way_back_solution(guest, path):
    guest.snapshot(path)
    guest.exec(["rm", "/tmp/message"])
    return Guest.restore(path)

back.prove(lambda: time_travel(my_way_back_solution), here=machines)

# %% [markdown]
"""
## In the real world

- **Clouds** sell virtual machines: the hypervisor is the wall between customers. AWS Lambda and Fargate boot *micro VMs* with Firecracker, as small as
  the ones here, and keep snapshots of booted ones ready.
- **Live migration** empties a host before it is repaired; customers notice a pause of some milliseconds.
- **Kata Containers** puts each container (or pod) into a micro VM, **gVisor** a kernel written in Go in between: both for code that nobody trusts.
- **WSL 2, Docker Desktop** on Windows and macOS run Linux containers in one virtual machine.

The same in a shell:

```sh
labkit vm run -- uname -a
labkit vm exec -- ls /
qemu-system-x86_64 -M microvm -m 128M -kernel vmlinux -initrd initramfs -append console=ttyS0 -nographic
virsh list; virsh migrate --live NAME qemu+ssh://OTHER/system
```

## Further reading
- Documentation/virt/kvm/api.rst in the Linux source: <https://docs.kernel.org/virt/kvm/api.html>
- QEMU's documentation, *microvm* and *Migration*: <https://www.qemu.org/docs/master/>
- qemu(1), memfd_create(2), proc_pid_smaps(5)

## Summary
- A hypervisor is a program; a guest has a kernel of its own, and its crash is the end of a process of the host.
- Tenants in machines of their own share nothing but the hypervisor.
- A machine is a state that can be saved, copied and moved while it runs.
- The price: memory set aside, a kernel and files in each, a boot, and under emulation every instruction.

Next: [03 Namespaces](03_namespaces.ipynb).
"""

# %%
boots.stop()
console.stop()
cleanup.close()
gone = not stage.exists() and (guest is None or guest.state == "ended")
lesson.check("the temporary folder and the machines are gone", gone, got=stage)
