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

**Time:** about 45 minutes. **You need** a little Python. QEMU and a guest kernel come from `labkit setup vm`. Every machine here lives in memory and is gone at the
end of its block.
"""

# %%
import os
import time
from contextlib import ExitStack

from labkit import MiB, charts, lesson
from labkit.charts import machines as machine_charts
from labkit.errors import GuestError
from labkit.linux import kvm
from labkit.measure import machine_costs, scratch
from labkit.measure.clock import time_ms
from labkit.vm import accel, kernel
from labkit.vm.guest import Guest

lesson.begin("02_virtual_machines")

# %% tags=["nbval-ignore-output"]
lesson.needs("qemu-system-x86_64", "guest kernel", "busybox")

# %% [markdown]
"""
## Boot one

A *virtual machine* (VM) is a computer that a program pretends to be. That program is the *hypervisor* (here QEMU, with or without the help of
the processor); what runs in the machine is the *guest*: a kernel of its own, and programs. The computer that all of it runs on is the *host*.

Where the processor helps, it executes the guest's instructions itself (on Linux that is KVM). Where it does not, QEMU translates every
instruction: slower, and it works everywhere. labkit asks first by running a guest of 123 bytes.
"""

# %% tags=["nbval-ignore-output"]
print("Guests run under", accel.accelerator(), accel.accelerator().reason)

# %%
guess_boot = lesson.predict(
    "How long does it take from starting QEMU until a program in the guest can run, in seconds?", unit="s",
    why="There is no firmware to speak of, no disk and no service to wait for: a kernel, and one program.",
)
guess_boot

# %%
cleanup = ExitStack()
guest = cleanup.enter_context(Guest(memory_mib=128))
said = guest.exec(["uname", "-r"]).text.strip()
lesson.check("the guest has a kernel of its own", said == kernel.find_kernel("micro").release != os.uname().release, got=said)

# %% tags=["nbval-ignore-output"]
phases = guest.timeline.phases()
print(machine_charts.boot_words(phases))
guess_boot.compare(phases[-1].start_s + phases[-1].elapsed_s)
figure, (axes,) = charts.figure(8.2, 2.4)
machine_charts.draw_boot(axes, phases)
charts.show(figure, alt=f"Bars one after another, the phases of a boot: {machine_charts.boot_words(phases)}.")

# %% [markdown]
"""
**What happened.** QEMU made a machine of virtual devices, put a kernel and a small archive of files into its memory, and let it run. The guest
kernel found a processor, 128 MiB of memory and two serial ports, and started the first program. It never learned that all of that
is software.

## What the guest sees

The guest's kernel has its own processes, its own memory, its own clock. Ask it:
"""

# %% tags=["nbval-ignore-output"]
for command in (["ps"], ["free", "-m"], ["cat", "/proc/cmdline"]):
    print("$", " ".join(command))
    print("\n".join(guest.exec(command).text.splitlines()[:6]))

# %%
inside = {line.split()[0] for line in guest.exec(["ls", "/proc"]).text.splitlines() if line.split()[0].isdigit()}
lesson.check("the host's process is not among the guest's", len(inside) < 60 and guest.exec(["cat", "/proc/1/comm"]).text.strip() == "init", got=len(inside))

# %% [markdown]
"""
And the host? For the host's kernel all of the guest is one process, QEMU, with some threads. `ps` on the host shows no program of the guest.

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
victim = cleanup.enter_context(Guest(memory_mib=96))
try:
    victim.exec(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout_s=30)
except GuestError as error:
    print(error)
print(victim.console.tail(4))

# %%
guess_panic.compare()
panicked = victim.console.panic()
lesson.check("the guest's kernel panicked", panicked is not None and "sysrq" in panicked.lower(), got=panicked)
lesson.check("the other guest did not notice", guest.exec(["echo", "here"]).text == "here\n", got=guest.state)

# %% [markdown]
"""
**What happened.** The panic ended one machine. The host, this notebook and the other machine go on. That is *fault isolation*, the first
thing that virtual machines give.

## Two tenants

Two customers, a machine each. Each writes a secret into its home and then searches everything it can reach for the other's.
"""

# %%
other = cleanup.enter_context(Guest(memory_mib=96))
for tenant, secret in ((guest, "the secret of anna"), (other, "the secret of ben")):
    tenant.exec(["sh", "-c", f"echo '{secret}' > $HOME/secret"])
search = ["sh", "-c", "grep -rl 'secret of anna' $HOME /tmp /etc /run"]
found = {tenant: len(machine.exec(search).text.split()) for tenant, machine in (("anna", guest), ("ben", other))}
print("files with anna's secret:", found)
other.close()

# %%
lesson.check("each tenant finds its own secret only", found == {"anna": 1, "ben": 0}, got=found)

# %% [markdown]
"""
Each is root in its own machine, and that gives no power over the other's: there is no path, no process id and no address that
leads there. What both share is the hypervisor: an error in QEMU or KVM is what an attacker needs.

## A machine as a file

A running process is spread over memory, kernel and open files; a running machine is all inside QEMU. So it can be written to a file, and
read back. We let a counter run, save the machine, and wake a copy up.
"""

# %%
stage = cleanup.enter_context(scratch.scratch_folder())
counting = "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; usleep 10000; done"
guest.exec(["sh", "-c", f"({counting}) > /dev/null 2>&1 < /dev/null &"])

def count_in(machine):
    """Return the counter's value in a guest."""
    return int(machine.exec(["sh", "-c", "cat /tmp/count || echo 0"]).text.split()[0] or 0)

# %% tags=["nbval-ignore-output"]
saved_ms = time_ms(lambda: guest.snapshot(stage / "machine"))
woken = []
restored_ms = time_ms(lambda: woken.append(cleanup.enter_context(Guest.restore(stage / "machine"))))
size_mib = (stage / "machine").stat().st_size / MiB
print(f"saved in {saved_ms:.0f} ms as a file of {size_mib:.0f} MiB; awake again after {restored_ms:.0f} ms")

# %%
def goes_on(machine, *, patience_s=20):
    """Wait until the counter in a guest has grown; return whether it did."""
    first, deadline_s = count_in(machine), time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        if count_in(machine) > first:
            return True
    return False

counters = goes_on(guest), goes_on(woken[0])
lesson.check("the counter goes on in the machine and in its copy", counters == (True, True), got=counters)
woken[0].close()

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
before_pid, before = guest.pid, count_in(guest)
moved = guest.migrate()
after = count_in(guest)
print(f"QEMU {before_pid} -> {guest.pid}; {moved.transferred_bytes / MiB:.0f} MiB in {moved.total_s:.2f} s, {moved.rounds} rounds")
print(f"it stood still for {moved.downtime_s * 1000:.0f} ms; the counter: {before} -> {after}")

# %%
lesson.check("the machine lives in another process now", guest.pid != before_pid, got=guest.pid)
lesson.check("the counter lost nothing and goes on", after >= before and goes_on(guest), got=(before, after))

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
costs = machine_costs.measure_machine(3)
slowdown = {load.title: load.ratio for load in costs.loads}
print({title: round(ratio, 1) for title, ratio in slowdown.items()}, "times as long in the guest")
low, high = sorted(slowdown.values())
guess_cost.compare("both alike" if high < 1.3 * low else max(slowdown, key=slowdown.get))

# %% tags=["nbval-ignore-output"]
figure, (left, right) = charts.figure(9.6, 2.6, columns=2)
machine_charts.draw_memory(left, costs)
machine_charts.draw_loads(right, costs)
words = f"given {costs.given_bytes / MiB:.0f} MiB, taken {costs.used_bytes / MiB:.0f} MiB"
charts.show(figure, alt=f"Left, bars of a guest's memory: {words}. Right, times of two loads on the host and in the guest.")

# %% tags=["nbval-ignore-output"]
disk_mib = (costs.kernel_bytes + costs.initramfs_bytes) / MiB
print(f"What this small guest boots takes {disk_mib:.0f} MiB; its one program {costs.program_bytes / MiB:.1f} MiB.")
print(f"By memory alone about {costs.fit} such guests would fit into 80 % of this machine (computed, not tried).")

# %%
heavier = costs.kernel_bytes + costs.initramfs_bytes > 5 * costs.program_bytes
lesson.check("a guest carries much more than its program", heavier, got=costs.kernel_bytes)

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
    print("Not on this machine:", error)

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

letter.prove(lambda: ended_later(my_machine_solution))

# %% [markdown]
"""
## Exercise 2: back in time

Write a function that gets a running guest and a path: save the guest to the path, then remove the guest's file `/tmp/message`, and
return a guest in which the file still exists.
"""

# %% tags=["folded"]
def time_travel(function):
    """Let ``function`` work on a guest with a message; return what the guest that it returns finds, and what the first one finds."""
    first = ended_later(my_machine_solution)
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

back.prove(lambda: time_travel(my_way_back_solution))

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
cleanup.close()
lesson.check("the temporary folder and the machines are gone", not stage.exists() and guest.state == "ended", got=guest.state)
