# %% [markdown]
"""
# 06 A container by hand: six pieces, and what each one stops

**Question.** Linux has no system call that makes a container. What has to be put around a process until it deserves the name, and
against what does each piece defend?

**Afterwards you can**
- put a container together from namespaces, a root filesystem, a cgroup, capabilities, `no_new_privs` and a seccomp filter, and say why
  in that order;
- read a container as what it is for the kernel: a list of system calls;
- take one defence away and predict which attack comes back.

**Time:** about 20 minutes to read, 30 for the exercises. **You need** lessons [03](03_namespaces.ipynb), [04](04_cgroups.ipynb)
and [05](05_root_filesystems.ipynb). All attacks in this lesson are real, but they are
aimed at canaries that labkit puts up for them, and they are bounded.

[← 05 Root filesystems](05_root_filesystems.ipynb) · [Glossary](glossary.md) · [07 Start-up and density →](07_start_up_and_density.ipynb)
"""

# %%
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from labkit import NS, Container, Limits, MiB, Namespaced, charts, lesson
from labkit.charts import attacks as attack_chart
from labkit.container import MountSpec, Security, preview, run
from labkit.isolation import capabilities, seccomp
from labkit.measure import attack_table, rootfs, scratch, try_attack
from labkit.widgets.attack_table import attack_board

lesson.begin("06_container_by_hand")

# %% tags=["nbval-ignore-output"]
lesson.needs("user namespace", "mount namespace", "pid namespace", "network namespace", "pivot_root", "overlay",
             "fresh /proc", "capabilities dropped", "no_new_privs", "seccomp filter", "libseccomp", "busybox")

# %% [markdown]
"""
Limits need a cgroup of your own. Root has one; an ordinary user has one where an administrator or systemd has delegated it. Where
there is none, the cells about limits say so, and everything else works.
"""

# %% tags=["nbval-ignore-output"]
groups = lesson.needs("cgroups", "cgroup memory", "cgroup cpu", "cgroup pids")
groups

# %% [markdown]
"""
## Piece 1: namespaces decide what is seen

We start with a process that has nothing but namespaces of its own: `Namespaced` gives it those and leaves everything else as it is. A small
shell script is going to tell us, after each step, how the world looks from inside.
"""

# %%
LOOK = """
echo "my pid is $$, and I see $(ls -d /proc/[0-9]* | wc -l) processes"
echo "below / I find:" $(ls /)
grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status
"""
ALL = NS.USER | NS.MNT | NS.PID | NS.NET | NS.IPC | NS.UTS | NS.CGROUP

# %% tags=["nbval-ignore-output"]
alone = run(Namespaced(["/bin/sh", "-c", LOOK], namespaces=ALL), timeout_s=20)
print(alone.text, alone.stderr.decode())

# %%
lesson.check("the process is PID 1 of its namespace", "my pid is 1," in alone.text, got=alone.text)
outside = {path.name for path in Path("/").iterdir() if not path.name.startswith(".")}
found = set(alone.text.split("I find:")[1].splitlines()[0].split())
lesson.check("but it finds the same files as this notebook", found == outside, got=found)

# %% [markdown]
"""
**What happened.** It is PID 1, and yet it counts all the processes of the machine: `ls /proc` reads files, and its files are still the host's.
`CapEff` shows every capability that there is. It is root, though only of its own user namespace.

## Piece 2: a root filesystem decides which files

A `Container` has a root of its own, made with `pivot_root` and OverlayFS as in lesson 05, and with it a `/proc` and a `/dev` of its own. By
default it has all the other pieces, too. Let us take these away, so that we can add them one at a time: `bare` is a container without defences.
"""

# %%
cleanup = ExitStack()
base = cleanup.enter_context(scratch.scratch_folder())
rootfs.fill_rootfs(base)
for name in ("unshare", "nc"):
    (base / "bin" / name).symlink_to("busybox")
bare = Security(capabilities=None, no_new_privs=False, seccomp=False, mask_paths=False)

def attempt(script, security=bare, **more):
    """Run a shell script in a container with these defences; return what it printed."""
    done = run(Container(["/bin/sh", "-c", script], rootfs=base, security=security, **more), timeout_s=20)
    return (done.text + done.stderr.decode()).strip()

# %% tags=["nbval-ignore-output"]
rooted = attempt(LOOK)
print(rooted)

# %%
found = set(rooted.split("I find:")[1].splitlines()[0].split())
lesson.check("now it finds its root filesystem", found == {path.name for path in base.iterdir()}, got=rooted)
lesson.check("and only its own processes", int(rooted.split("I see ")[1].split()[0]) < 10, got=rooted)

# %% [markdown]
"""
## Piece 3: a cgroup decides how much

The container sees little now, but it may still take everything: a program that starts processes without end takes the host's
process table, however well it is hidden. The next script starts 40 processes (and no more; they end after a second).
"""

# %%
BOMB = "for n in $(seq 40); do sleep 1 & done; echo started all"

# %%
guess_bomb = lesson.predict(
    "The container may have 16 processes at a time (pids=16). What will become of the script's 40?",
    options=["all 40 start", "fork fails after a while", "the container is killed"],
    answer="fork fails after a while",
    why="At pids.max the kernel answers fork with EAGAIN. What runs goes on; the shell gives up.",
)
guess_bomb

# %% tags=["nbval-ignore-output"]
limits = Limits(memory_bytes=64 * MiB, pids=16, cpus=0.5)
print("no limits:", attempt(BOMB))
bombed = groups and attempt(BOMB, limits=limits)
print("limits:   ", bombed)

# %%
guess_bomb.compare()

# %%
lesson.check("the 17th process was refused", groups and "can't fork" in bombed, got=bombed)

# %% [markdown]
"""
## Piece 4: capabilities decide what root may do

Root's power is cut into pieces, the **[capabilities](glossary.md#capability)**. In its user namespace the container's root has all of them. They count only for
what the namespace owns, so it can mount (in its own mount namespace) and set the host name (of its own UTS namespace). That is no
danger in itself. But each of these calls reaches code in the kernel that ordinary programs never reach, and code has errors.
"""

# %%
MOUNT = "mount -t tmpfs labkit-mine /tmp && echo mounted"
print("all capabilities:", attempt(MOUNT))

# %% [markdown]
"""
Docker leaves a container's root 14 capabilities; labkit has the same default:
"""

# %%
for start in range(0, len(capabilities.DOCKER_DEFAULT), 5):
    print(*capabilities.DOCKER_DEFAULT[start : start + 5])

# %%
guess_mount = lesson.predict(
    "The same root, with these 14 capabilities. What will become of the mount?",
    options=["mounted", "permission denied", "mounted, but read-only"],
    answer="permission denied",
    why="mount(2) asks for CAP_SYS_ADMIN, and that is not among them. Uid 0 alone opens nothing here.",
)
guess_mount

# %%
fewer = replace(bare, capabilities=capabilities.DOCKER_DEFAULT)
refused = attempt(MOUNT, fewer)
print(refused)

# %%
guess_mount.compare()

# %%
lesson.check("without CAP_SYS_ADMIN the container's root cannot mount", "mounted" not in refused, got=refused)

# %% [markdown]
"""
## Piece 5: no_new_privs decides that it stays so

A program file with the *set-user-ID* bit runs with the rights of its owner: that is how `sudo` and `passwd` work. So an ordinary user inside a
container may become the container's root again. One bit of the process, **[no_new_privs](glossary.md#no_new_privs)**, makes `execve(2)` ignore such bits; children inherit
it, and nothing takes it back.

labkit has attacks ready for use. `try_attack(attack, defence)` tries one of them at one level of defence and looks *from outside*
whether it worked. This one runs a set-user-ID program as user `nobody`:
"""

# %% tags=["nbval-ignore-output"]
for level in ("capabilities", "no_new_privs"):
    outcome = try_attack("setuid", level)
    print(f"{level:<14} {outcome.verdict:<10} {outcome.evidence} {outcome.errno}")

# %%
lesson.check("with no_new_privs a set-user-ID program gains nothing", not outcome.succeeded, got=outcome)

# %% [markdown]
"""
(Where only one user id could be mapped, there is no `nobody` to start from, and the attack fails at the first level already.)

## Piece 6: a seccomp filter decides which system calls there are

A process with no capabilities at all may still make a user namespace in which it has every capability. Then it may call `mount`
again, and reach all that code again. A **[seccomp filter](glossary.md#seccomp-filter)** is a small program that the kernel runs at each system call, before anything else:
it sees the number and the arguments, and says "go on", "fail with this error", or "kill".
"""

# %%
print(attempt("unshare -U id -u", fewer))

# %% tags=["nbval-ignore-output"]
filter_bytes = seccomp.compile_filter(seccomp.default_profile())
print(f"labkit's default filter: {len(filter_bytes) // 8} instructions of 8 bytes")
for call in ("unshare", "clone", "clone3", "socket", "bpf", "keyctl", "reboot"):
    print(f"  {call:<8} {seccomp.reason_for(call)}")

# %%
guess_filter = lesson.predict(
    "With the filter loaded, the container tries unshare -U again. What does it get?",
    options=["a user namespace", "Operation not permitted", "it is killed"],
    answer="Operation not permitted",
    why="The default of this filter is the error EPERM. Killing would punish programs that just try and have another way.",
)
guess_filter

# %%
filtered = replace(fewer, no_new_privs=True, seccomp=True)
print(attempt("unshare -U id -u", filtered))

# %%
guess_filter.compare()

# %%
before, after = attempt("unshare -U true && echo made", fewer), attempt("unshare -U true && echo made", filtered)
lesson.check("the filter refuses a new user namespace", before == "made" and "made" not in after, got=(before, after))

# %% [markdown]
"""
Why did `no_new_privs` come along? Because of a rule of the kernel: a process without `CAP_SYS_ADMIN` may load a filter only with that
bit set (seccomp(2)). Otherwise it could load a strange filter and then start a set-user-ID program, which would meet errors that it
never expected.

### And masks, for what no namespace separates

Some files in `/proc` and `/sys` show or change things of the whole machine. A container gets them read-only, or hidden behind `/dev/null`
or an empty folder. To see the mask alone, we leave the container all its capabilities:
"""

# %%
WRITE = "echo 1 > /proc/sys/net/ipv4/ip_forward && echo written"
masked = replace(bare, mask_paths=True)
print("without masks:", attempt(WRITE))
print("with masks:   ", attempt(WRITE, masked).splitlines()[0])

# %%
lesson.check("/proc/sys is read-only in the container", "Read-only" in attempt(WRITE, masked), got=attempt(WRITE, masked))

# %% [markdown]
"""
## All pieces at once: a container is a list of system calls

Without `security=` a `Container` has all of it. `plan_of` returns what will be done for it, between the `clone3(2)` that makes the
child with its namespaces and the `execve(2)` that starts the program. Written out as the story of two processes:

![Two life lines, parent and child, from top to bottom. The parent calls clone3 with flags for new namespaces, and the child is born into
them, as nobody in particular. The child waits at a pipe. The parent writes uid_map and gid_map, puts the child into a cgroup, and writes
a byte into the pipe. The child becomes root inside, builds its mounts and calls pivot_root, drops capabilities and sets no_new_privs,
loads the seccomp filter, and calls execve: from here on it is the program, PID 1. The program ends, the kernel kills everything else in
its PID namespace, and the parent's waitpid returns the exit status.](figures/clone.svg)

(labkit's launcher is the parent; it joins the cgroup in the same call where the kernel allows it.) Nothing is started for this; it is the plan. Steps that serve one
purpose are shown as one line, with their number and the first of them:
"""

# %%
full = Container(["/bin/sh", "-c", LOOK], rootfs=base, limits=limits if groups else None)
plan = preview.plan_of(full)
PURPOSES = {"enter /": "enter the new root", "stage": "stack the layers", "/dev": "build a minimal /dev",
            "mask ": "mask files of the whole machine", "RDONLY": "make settings read-only", "read-only": "make settings read-only"}

def purpose(step):
    return next((name for mark, name in PURPOSES.items() if mark in step.why), step.why)

# %% tags=["nbval-ignore-output"]
print(f"clone3({preview.clone_flags(full)!r})")
print(f"and then {len(plan)} system calls:")
for name, group in groupby(plan, key=purpose):
    steps = list(group)
    print(f"{len(steps):>4}  {name:<38} {str(steps[0])[:72]}")

# %% [markdown]
"""
Read it from top to bottom, and you see the order that each piece forces on the others:

1. **namespaces** come with `clone3`, and the process becomes root inside;
2. then the **tree**: everything that needs `CAP_SYS_ADMIN`, up to letting go of the old root;
3. then that power is given away: **capabilities** are dropped;
4. then **no_new_privs**, so that nothing comes back;
5. then the **filter**: from here on even `mount` and `unshare` are refused to us ourselves;
6. then **execve**, as the last call, because after it we are somebody else's program.
"""

# %%
calls = [step.call for step in plan]
places = [calls.index(call) for call in ("pivot_root", "umount2", "capset", "seccomp", "execve")]
lesson.check("first the tree, then capabilities, then the filter, then the program", places == sorted(places), got=places)

# %% tags=["nbval-ignore-output"]
done = run(full, timeout_s=20)
print(done.text)
print(f"from the request to the end of the program: {done.exit.elapsed_s * 1000:.1f} ms")

# %%
lesson.check("the filter is on (Seccomp: 2)", "Seccomp:\t2" in done.text, got=done.text)
lesson.check("no new privileges (NoNewPrivs: 1)", "NoNewPrivs:\t1" in done.text, got=done.text)

# %% [markdown]
"""
## Which defence stops which attack?

Now all attacks that labkit has, each at every level of defence. A level has all the defences of the levels to its left. What counts is never
what the attacker says: labkit looks from outside whether the canary is dead, the file was read, the mount is there.
"""

# %%
guess_most = lesson.predict(
    "Which single step stops most attacks of root's?",
    options=["namespaces", "a root filesystem", "user namespace", "limits", "capabilities dropped", "no_new_privs", "seccomp"],
    why="What cannot be named cannot be attacked; the other steps are for what still can.",
)
guess_most

# %% tags=["nbval-ignore-output"]
table = attack_table()
for attack in table.attacks:
    stopped_by = table.stopped_by(attack.name)
    print(f"{attack.title:<30} {attack.tries:<56} stopped by: {stopped_by.title if stopped_by else 'nothing here'}")

# %% tags=["nbval-ignore-output"]
figure, (axes,) = charts.figure(9.4, 5.0)
attack_chart.draw(axes, table)
ends = [f"{a.title}: {(table.stopped_by(a.name) or table.defences[0]).title}" for a in table.attacks]
charts.show(figure, alt="Table of attacks against levels of defence. Stopped from this level on: " + "; ".join(ends))

# %% [markdown]
"""
**What happened.** A cell names the error that the kernel gave (its [errno](glossary.md#errno)), if it gave one: `ESRCH` means that the process to be killed does not exist *for
the attacker*; `stopped` without an error means that the call worked, but without effect outside, or that the attacker was killed. A `?` stands where it could not be tried: without a cgroup of your own
there are no limits to add, and in a sandbox there is nobody's key to steal. As an
ordinary user you start with fewer rights than root, so more is stopped in the first column already.
"""

# %% tags=["nbval-ignore-output"]
stops = [table.stopped_by(attack.name) for attack in table.attacks]
counts = {defence.title: stops.count(defence) for defence in table.defences[1:]}
for title, count in counts.items():
    print(f"{title:<24} stops {count} that got as far as this")
guess_most.compare(max(counts, key=counts.get).removeprefix("+ "))

# %%
def verdicts(attack):
    return [table.outcome(attack, defence.name).verdict for defence in table.defences]

climbed, killed, nested = verdicts("escape_chroot"), verdicts("kill_process"), verdicts("new_namespace")
lesson.check("pivot_root ends the climb out of chroot", climbed[0] == "succeeded" and "succeeded" not in climbed[2:], got=climbed)
lesson.check("a PID namespace hides whom to kill", killed[0] == "succeeded" and "succeeded" not in killed[1:], got=killed)
lesson.check("only the filter ends new namespaces", "succeeded" not in nested[-2:], got=nested)
hog = verdicts("memory_hog")[-1]
lesson.check("a cgroup stops who takes all memory", groups and hog == "failed", got=groups and hog)

# %% [markdown]
"""
Now it is your turn: the board below tries all attacks against exactly the defences that you tick, in a real container. Take one
away and press **Start**. Do you find one whose loss lets *nothing* through? That is no reason to leave it out: defences overlap on
purpose, so that an error in one of them is not the end.
"""

# %% tags=["nbval-ignore-output"]
board = attack_board(table)
board

# %%
lesson.quiz(
    "A new error in the kernel lets whoever may call mount(2) take over the machine. Which of these containers is safe from it?",
    [
        lesson.Answer("one with memory limits", "Limits count pages and processes; the call is still made."),
        lesson.Answer("one with a user namespace and all capabilities", "That is the very container that may call mount(2)."),
        lesson.Answer("one whose filter refuses mount and unshare", "The faulty code is never reached.", right=True),
        lesson.Answer("one with a read-only root filesystem", "The root may be read-only; mount(2) is called all the same."),
    ],
)

# %% [markdown]
"""
## Exercise 1: least privilege

A server wants to listen on port 80, and on nothing else. Ports below 1024 are reserved. Give it what it needs and not one
capability more. The program is given; you choose the container.
"""

# %%
SERVER = ["/bin/nc", "-l", "-p", "80"]

def listens(container):
    """Start the container and look from outside, for two seconds at most, whether port 80 (0x50) is open in it."""
    container.start()
    until = time.monotonic() + 2
    while container.status == "running" and time.monotonic() < until:
        sockets = [line.split() for path in Path(f"/proc/{container.pid}/net").glob("tcp*") for line in path.read_text().splitlines()]
        if any(fields[1].endswith(":0050") and fields[3] == "0A" for fields in sockets):
            return True
        time.sleep(0.01)
    return False

# %%
def held(container):
    """Return the names of the capabilities that the container's program has, read from outside."""
    status = Path(f"/proc/{container.pid}/status").read_text()
    return capabilities.names_of(int(status.split("CapEff:")[1].split()[0], 16))

# %% tags=["folded"]
port = lesson.exercise("Run SERVER in a container with a single capability", steps=[
    lesson.Step("port 80 is open in it", look=listens,
                hints=["Security(capabilities=(...)) names the capabilities to keep.",
                       "capabilities(7) says which one lets a program bind to a port below 1024."]),
    lesson.Step("it has exactly one capability", look=held, want=lambda names: len(names) == 1,
                hints=[lambda names: f"It has {len(names)} now: {', '.join(names)}.", "Keep CAP_NET_BIND_SERVICE alone."])])
port

# %% tags=["exercise"]
def my_server():
    """Return a container that has not been started yet."""

# %% tags=["judge"]
port.judge(my_server)

# %% tags=["solution"]
def my_server_solution():
    return Container(SERVER, rootfs=base, security=Security(capabilities=("CAP_NET_BIND_SERVICE",)))

port.prove(my_server_solution)

# %% [markdown]
"""
## Exercise 2: a container that can change nothing

A program from somewhere reads its input and writes scratch files below `/tmp`. It needs nothing else: no other place to write to, no
capability. Lock it in accordingly, and keep the defences that a container has by default.
"""

# %%
WAIT = ["/bin/sleep", "60"]

def inside(container, script):
    """Run a script in a container that is started if it is not running; return what it printed."""
    if container.status == "created":
        container.start()
    with container.exec(["/bin/sh", "-c", script]) as process:
        done = process.communicate(timeout_s=20)
    return (done.text + done.stderr.decode()).strip()

# %% tags=["folded"]
locked = lesson.exercise("Run WAIT in a container that can write to /tmp alone", steps=[
    lesson.Step("it can write below /tmp", look=lambda c: inside(c, "echo x > /tmp/x && cat /tmp/x"), want="x",
                hints=["mounts=[MountSpec('tmpfs', '/tmp', options=('size=1m', 'mode=1777'))] puts memory there."]),
    lesson.Step("it cannot write to /etc", look=lambda c: "Read-only" in inside(c, "echo x > /etc/x"),
                hints=["Container(..., readonly=True) is about the root filesystem."]),
    lesson.Step("it has no capability", look=lambda c: held(c), want=(), hints=[lambda names: f"It has {', '.join(names)}."]),
    lesson.Step("it can gain none, and its filter is on",
                look=lambda c: inside(c, "grep -c -E 'NoNewPrivs:.1|Seccomp:.2' /proc/self/status"), want="2",
                hints=["Security() has both by default: did you take one away?"])])
locked

# %% tags=["exercise"]
def my_locked():
    """Return a container that has not been started yet."""

# %% tags=["judge"]
locked.judge(my_locked)

# %% tags=["solution"]
def my_locked_solution():
    scratch_memory = MountSpec("tmpfs", "/tmp", options=("size=1m", "mode=1777"))
    return Container(WAIT, rootfs=base, readonly=True, mounts=[scratch_memory], security=Security(capabilities=()))

locked.prove(my_locked_solution)

# %% [markdown]
"""
## In the real world

- **Docker** does all this by default, except for the user namespace (`userns-remap`) and `no_new_privs`
  (`--security-opt no-new-privileges`), which have to be asked for. `--privileged` takes nearly all of it away at once.
- **Kubernetes** names the same pieces in a pod's `securityContext`: `capabilities: drop: ["ALL"]`, `allowPrivilegeEscalation: false`,
  `readOnlyRootFilesystem: true`, `seccompProfile`.
- **Chrome's sandbox** puts its renderers into user, PID and network namespaces, an empty root, and a seccomp filter.
- **systemd** offers them for any service: `NoNewPrivileges=`, `CapabilityBoundingSet=`, `SystemCallFilter=`, `ProtectKernelTunables=`.

The same in a shell, with bubblewrap (limits come from `systemd-run`, a filter from a file descriptor):

```sh
systemd-run --user --scope -p MemoryMax=64M -p TasksMax=16 \
  bwrap --unshare-all --bind rootfs / --proc /proc --dev /dev --cap-drop ALL --die-with-parent /bin/sh
```

`systemd-analyze security SERVICE` judges a service by these pieces. For a process that runs, `grep -E 'Cap|NoNew|Seccomp' /proc/PID/status` does.

## Further reading
- namespaces(7), user_namespaces(7), cgroups(7), capabilities(7), seccomp(2), prctl(2) (`PR_SET_NO_NEW_PRIVS`), pivot_root(2), clone3(2)
- *No New Privileges Flag*: <https://docs.kernel.org/userspace-api/no_new_privs.html>
- *Seccomp BPF*: <https://docs.kernel.org/userspace-api/seccomp_filter.html>
- *OCI Runtime Specification*, config-linux.md: <https://github.com/opencontainers/runtime-spec>

## Summary
- The kernel knows no containers. There are processes, and six pieces around them.
- Namespaces: what is seen. Root filesystem: which files. Cgroup: how much. Capabilities: what root may do. `no_new_privs`: that it stays so.
  Seccomp: which calls there are. Masks cover what no namespace separates.
- The order follows from the powers that each step needs and the next one gives away.
- Each defence stops what the others let pass; most attacks are stopped by more than one.

Next: [07 Start-up and density](07_start_up_and_density.ipynb).

"""

# %%
board.stop()
cleanup.close()
lesson.check("the temporary folder is gone", not base.exists(), got=base)
