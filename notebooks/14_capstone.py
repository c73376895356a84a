# %% [markdown]
"""
# 14 Capstone: a docker run of your own

**Question.** What is left of `docker run` when you write it yourself: which calls, in which order, and how will you know that it holds?

**Afterwards you can**
- write a program that starts any command in a container, in about 60 lines of Python on the kernel's own calls;
- judge a container from outside, by ten checks of its effects;
- say what your program costs against labkit's container and other people's, and where the time goes.

**Time:** about 15 minutes to read, 75 for the exercises. **You need** lessons [03](03_namespaces.ipynb) to [06](06_container_by_hand.ipynb). Work with their pages open; that is
no cheating.

[← 13 Immutable infrastructure](13_immutable_infrastructure.ipynb) · [Glossary](glossary.md)
"""

# %%
import socket
from contextlib import ExitStack

from labkit import charts, lesson
from labkit.charts import race as race_chart
from labkit.isolation import capabilities, mounts, overlay
from labkit.lesson import capstone
from labkit.linux.steps import perform
from labkit.measure import startup

lesson.begin("14_capstone")

# %% tags=["nbval-ignore-output"]
can = lesson.needs("user namespace", "mount namespace", "pid namespace", "network namespace", "pivot_root", "overlay",
                   "fresh /proc", "capabilities dropped", "no_new_privs", "seccomp filter", "libseccomp", "busybox")
can

# %% tags=["nbval-ignore-output"]
groups = lesson.needs("cgroups", "cgroup pids")
groups

# %% [markdown]
"""
## The task

You write a program `own.py`. Called with an image (a folder) and a command, it runs the command in a container made of that folder, waits for its
end, and returns its exit status:

```sh
python own.py IMAGE PIDS COMMAND [ARGUMENT ...]
```

It consists of five functions. You write them one after the other; what you have not written yet is taken from labkit, so every piece can be judged
as soon as it is there. Your functions are copied, as text, into the program's file, and a fresh Python runs it. (Why not this notebook itself? It
has threads, and the kernel makes no user namespace for a process with threads.)

| function | what it does | lesson |
|---|---|---|
| `files(image, stage)` | steps to a root of its own | 05 |
| `defences()` | steps that give power away | 06 |
| `maps()` | who the users inside are outside | 03 |
| `inside(command, image, stage, gate, filter_program)` | the child: waits, builds, defends, becomes the command | 06 |
| `docker_run(command, image, limits)` | the parent: makes the group and the child, waits, cleans up | 03, 04 |

What lies below is labkit's: each function of `labkit.isolation` returns a list of `Step`s ([system calls](glossary.md#system-call)), and `perform(steps)` makes them.
Have a look at the three you will need most:
"""

# %%
lesson.source(mounts.pivot_into)

# %%
lesson.source(overlay.overlay, without_docstring=True)

# %%
lesson.source(perform)

# %% [markdown]
"""
Your functions may use these names:
"""

# %%
print(capstone.PRELUDE)

# %% [markdown]
"""
The image is a folder with busybox in it. Everything in it belongs to the user who will be root inside:
"""

# %%
cleanup = ExitStack()
image = cleanup.enter_context(capstone.image())
pids = 24 if groups else 0
print(*sorted(path.name for path in image.iterdir()))

# %% [markdown]
"""
## How the container will be judged

Ten checks, from outside or by small programs inside. None of them reads your code:
"""

# %% tags=["folded"]
def field(program, name):
    """Return a field of /proc/self/status of a process in the container."""
    return program.run("sh", "-c", f"grep {name}: /proc/self/status").text.split()[-1]

def words(program, script):
    """Run a script in the container; return the words that it printed, or what went wrong."""
    done = program.run("sh", "-c", script)
    return done.text.split() or [done.errors]

# %% tags=["folded"]
CHECKS = {
    "1 the command runs and its output arrives": lesson.Step(
        "a command's output arrives", look=lambda p: words(p, "echo hello"), want=["hello"]),
    "2 its exit status comes back": lesson.Step(
        "`exit 7` comes back as 7", look=lambda p: p.run("sh", "-c", "exit 7").code, want=7,
        hints=["os.waitstatus_to_exitcode understands what os.waitpid returns."]),
}

# %% tags=["folded"]
CHECKS |= {
    "3 it is PID 1": lesson.Step(
        "the command is PID 1", look=lambda p: words(p, "echo $$"), want=["1"],
        hints=["NS.PID among the flags of clone3."]),
    "4 its name is its own": lesson.Step(
        "the host name inside is another one",
        look=lambda p: words(p, "hostname"), want=lambda seen: len(seen) == 1 and seen != [socket.gethostname()],
        hints=["socket.sethostname in the child, in a UTS namespace of its own."]),
}

# %% tags=["folded"]
CHECKS |= {
    "5 it sees the image, and nothing of the machine": lesson.Step(
        "/ is the image", look=lambda p: sorted(words(p, "ls /")),
        want=lambda seen: seen == sorted(path.name for path in image.iterdir()),
        hints=["pivot_into, and let_go_of_old_root at the end."]),
    "6 it can write, and the image stays as it is": lesson.Step(
        "what it writes stays in its layer", look=lambda p: (words(p, "echo mine > /etc/mine; cat /etc/mine"), (image / "etc/mine").exists()),
        want=(["mine"], False), hints=["overlay(root, [image], upper=..., work=..., userxattr=True)"]),
}

# %% tags=["folded"]
CHECKS |= {
    "7 it sees only its own processes and its own network": lesson.Step(
        "one process in /proc, one interface, and that is up",
        look=lambda p: (len(words(p, "exec ls -d /proc/[0-9]*")), words(p, "ip -o link | grep -c UP")),
        want=(1, ["1"]), hints=["proc('/proc') after pivot_into; loopback_up() in a network namespace."]),
    "8 it cannot have more processes than it may": lesson.Step(
        "40 processes do not start", look=lambda p: p.run("sh", "-c", "for n in $(seq 40); do sleep 1 & done; echo all").text,
        want=lambda seen: seen != "all" or not groups, hints=["group.attach(pid) before the child is let go."]),
}

# %% tags=["folded"]
CHECKS |= {
    "9 it has 14 capabilities, a filter, and no way back": lesson.Step(
        "CapEff, NoNewPrivs and Seccomp say so", look=lambda p: [field(p, name) for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")],
        want=["00000000a80425fb", "00000000a80425fb", "1", "2"],
        hints=["limit_bounding_set, set_capabilities, no_new_privs, and the filter as the last call before execve."]),
    "10 killed, it leaves nothing behind": lesson.Step(
        "after `kill -9` of the program nothing of it runs", look=lambda p: p.orphans_after_kill(), want=0,
        hints=["prctl(Prctl.SET_PDEATHSIG, ...) in the child, and once more after setresuid, which clears it."]),
}
print(*CHECKS, sep="\n")

# %% [markdown]
"""
## Piece 1: files

The child will carry your steps out as root of its own namespaces. `stage` is an empty folder: mount a tmpfs there, so that nothing you make is
seen outside; make the folders `root`, `upper` and `work` in it; stack a layer over the image; pivot; mount a new `/proc` and a minimal
`/dev` (whose devices come from the old root, `host_dev="./dev"`); and let go of the old root. First of all: `mounts.private()`.
"""

# %% tags=["folded"]
task_files = lesson.exercise("Give the container a root of its own", steps=[
    CHECKS[name] for name in ("1 the command runs and its output arrives", "5 it sees the image, and nothing of the machine",
                              "6 it can write, and the image stays as it is", "7 it sees only its own processes and its own network")])
task_files

# %% tags=["exercise"]
def files(image, stage):
    """Return the steps to a root of its own."""

# %% tags=["judge"]
task_files.judge(lambda: capstone.program(image, pids=pids, own=[files]))

# %% tags=["solution"]
lesson.source(capstone.files)
task_files.prove(lambda: capstone.program(image, pids=pids), here=can)

# %% [markdown]
"""
## Piece 2: defences

Keep Docker's capabilities (`capabilities.DOCKER_DEFAULT`), in the bounding set and in the process's own sets, and set `no_new_privs`. The filter is
loaded by `inside`, as it must come last of all.
"""

# %%
guess = lesson.predict(
    "Somebody writes the two lines in the other order: first the process's own sets, then the bounding set. What will become of it?",
    options=["the same result", "the bounding set cannot be changed any more", "the kernel refuses the first one"],
    answer="the same result",
    why="Dropping from the bounding set needs CAP_SETPCAP, and that is among Docker's 14. With fewer the kernel would refuse: so it comes first.")
guess

# %%
guess.compare()
kept = capabilities.names_of(capabilities.parse_capabilities(capabilities.DOCKER_DEFAULT))
lesson.check("CAP_SETPCAP is among the capabilities that stay", "CAP_SETPCAP" in kept, got=kept)

# %% tags=["folded"]
task_defences = lesson.exercise("Give away what the container does not need", steps=[
    CHECKS["1 the command runs and its output arrives"], CHECKS["9 it has 14 capabilities, a filter, and no way back"]])
task_defences

# %% tags=["exercise"]
def defences():
    """Return the steps that give power away."""

# %% tags=["judge"]
task_defences.judge(lambda: capstone.program(image, pids=pids, own=[defences]))

# %% tags=["solution"]
lesson.source(capstone.defences)
task_defences.prove(lambda: capstone.program(image, pids=pids), here=can)

# %% [markdown]
"""
## Piece 3: maps

Root inside must be nobody outside; the [id maps](glossary.md#id-map) see to it. Who may decide that depends on who you are: root has all ids and gives away a range that nobody uses
(`idmap.container_maps(idmap.own_maps())`); an ordinary user has `idmap.user_maps()`. Return the maps, and whether `newuidmap` must write them.
This one is given; read it.
"""

# %%
lesson.source(capstone.maps)

# %% tags=["nbval-ignore-output"]
print("uid 0 inside is uid", capstone.maps()[0].uids[0].outside, "here, where this notebook runs")

# %%
lesson.check("uid 0 is mapped, so there is a root inside", capstone.maps()[0].uids[0].inside == 0, got=capstone.maps())

# %% [markdown]
"""
## Piece 4: inside

Pieces 4 and 5 are the two life lines of this picture, which you know from lesson 06:

![Two life lines, parent and child, from top to bottom. The parent calls clone3 with flags for new namespaces, and the child is born into
them, as nobody in particular. The child waits at a pipe. The parent writes uid_map and gid_map, puts the child into a cgroup, and writes
a byte into the pipe. The child becomes root inside, builds its mounts and calls pivot_root, drops capabilities and sets no_new_privs,
loads the seccomp filter, and calls execve: from here on it is the program, PID 1. The program ends, the kernel kills everything else in
its PID namespace, and the parent's waitpid returns the exit status.](figures/clone.svg)

Here is the child. It arrives with all namespaces made and as nobody in particular, because its id maps are not written yet: the parent does that, and then
writes one byte into a pipe whose other end is `gate`. From then on: become root (`setresgid`, `setresuid`), name yourself, bring the
loopback interface up, perform your steps, load the filter, become the command (`os.execvpe`). Two lines are about dying with the parent.
"""

# %% tags=["folded"]
task_inside = lesson.exercise("Be the child", steps=[
    CHECKS[name] for name in ("1 the command runs and its output arrives", "4 its name is its own",
                              "9 it has 14 capabilities, a filter, and no way back", "10 killed, it leaves nothing behind")])
task_inside

# %% tags=["exercise"]
def inside(command, image, stage, gate, filter_program):
    """Be the child: wait, build, defend, become the command."""

# %% tags=["judge"]
task_inside.judge(lambda: capstone.program(image, pids=pids, own=[inside]))

# %% tags=["solution"]
lesson.source(capstone.inside)
task_inside.prove(lambda: capstone.program(image, pids=pids), here=can)

# %% [markdown]
"""
## Piece 5: docker_run

The parent. Compile the filter (`seccomp.compile_filter(seccomp.default_profile())`) before there is a child: inside, its library will be out of
reach. Make a pipe, a temporary folder for the stage, a cgroup with the limits (if there are any), the child with `clone3`. Then its maps, its
group, the byte that lets it go; wait; return its status. In the child, whatever happens, never return: `os._exit(127)`.
"""

# %% tags=["folded"]
task_run = lesson.exercise("Be the parent", steps=[
    CHECKS[name] for name in ("1 the command runs and its output arrives", "2 its exit status comes back", "3 it is PID 1",
                              "8 it cannot have more processes than it may")])
task_run

# %% tags=["exercise"]
def docker_run(command, image, limits):
    """Be the parent; return the command's exit status."""

# %% tags=["judge"]
task_run.judge(lambda: capstone.program(image, pids=pids, own=[docker_run]))

# %% tags=["solution"]
lesson.source(capstone.docker_run)
task_run.prove(lambda: capstone.program(image, pids=pids), here=can)

# %% [markdown]
"""
## All of it: ten checks

Now your five pieces together, and nothing of labkit's. (`maps` is the given one, unless you write your own.)
"""

# %% tags=["folded"]
final = lesson.exercise("A docker run of your own passes ten checks", steps=list(CHECKS.values()))
final

# %% tags=["exercise"]
def whole():
    """Return the program made of your own pieces."""
    return capstone.program(image, pids=pids, own=[files, defences, inside, docker_run])

# %% tags=["judge"]
final.judge(whole)

# %% tags=["solution"]
final.prove(lambda: capstone.program(image, pids=pids), here=can)

# %%
reference = capstone.program(image, pids=pids)
code = [line for line in reference.text.splitlines() if line.strip() and not line.strip().startswith(('"""', "#"))]
lesson.check("the whole program has fewer than 90 lines of code", len(code) < 90, got=len(code))

# %% [markdown]
"""
## The race

Yours against a bare process, labkit's container, and `bwrap` and `runc` where they are installed, turn by turn. (If your pieces are not all there
yet, labkit's reference takes part instead.)
"""

# %%
guess_race = lesson.predict(
    "Your program makes the same container as labkit's `Container`. How much longer will it take?",
    options=["about the same", "about twice as long", "ten times as long or more"],
    answer="ten times as long or more",
    why="Not the container is slow but the way to it: a fresh Python has to start and import labkit first. labkit keeps a helper ready.")
guess_race

# %% tags=["nbval-ignore-output"]
mine = whole() or reference
entrant = cleanup.enter_context(capstone.contender(mine)) if can else None
result = startup.race(7, only=["process", "container", "bwrap", "runc"], warm_up=1, extra=[entrant] if entrant else [])
figure, (axes,) = charts.figure(9.4, 2.6)
race_chart.draw(axes, result)
charts.show(figure, alt="Dots, one a start, on a logarithmic scale: " + "; ".join(f"{row.name} {race_chart.words_for(row)} ms" for row in result.ran) + ".")

# %% tags=["nbval-ignore-output"]
guess_race.compare()

# %%
slower = result.ratio("yours", "container") if can else 0
lesson.check("starting Python costs more than the whole container", can and slower > 3, got=f"{slower:.1f} times as long")

# %% [markdown]
"""
**What happened.** The kernel's share of your program is a few milliseconds, as in `Container`. The rest is Python: an interpreter that starts,
modules that are read. `runc` has the same trouble with Go and starts itself twice; `crun` is written in C for that very reason. A daemon that is
there already, like labkit's launcher, does not pay at all. You have met the reason why Docker has one; lesson 08 gave the others.

## A question that remains
"""

# %%
lesson.quiz(
    "A program in your container sends SIGKILL to PID 1, which is itself. What happens?",
    [
        lesson.Answer("The container ends with status 137.", "From outside it would. From inside the kernel protects PID 1."),
        lesson.Answer("Nothing.", "The kernel ignores signals to PID 1 from its own namespace unless it has a handler for them.", right=True),
        lesson.Answer("The machine stops.", "It is PID 1 of its own PID namespace only."),
    ],
)

# %% tags=["nbval-ignore-output"]
print(reference.run("sh", "-c", "kill -9 $$; echo still here"))

# %%
survived = can and reference.run("sh", "-c", "kill -9 $$; echo still here").text
lesson.check("PID 1 survives its own kill -9", can and survived == "still here", got=survived)

# %% [markdown]
"""
## What your program does not do

| missing | what it takes | who does it |
|---|---|---|
| an image by name | a store, a registry | lessons 09 and 12 |
| a network to the others | veth pairs, a bridge, addresses | lesson 10 |
| files that outlive it | bind mounts, volumes | lesson 11 |
| a terminal | a devpts instance, a controlling terminal | `labkit.container.plan`, `_terminal` |
| a second command inside | setns(2) | `labkit.container.plan`, `enter_steps` |
| an init that collects orphans | wait(2) in a loop as PID 1 | `docker run --init` |
| to be told to stop politely | passing SIGTERM on | `labkit run` |

## In the real world

- **runc** is this program in Go, with the OCI runtime specification as its input; **crun** is it in C, **youki** in Rust.
- **bubblewrap** is it for a desktop: no root needed, no daemon, a command line instead of a specification. Flatpak starts every program with it.
- **systemd-nspawn** is it as a part of systemd, for a whole distribution in a folder.

The same in a shell:

```sh
unshare --user --map-root-user --mount --pid --fork --net --ipc --uts --root=IMAGE /bin/sh   # the shortest docker run there is
```

## Further reading
- clone(2), user_namespaces(7), pid_namespaces(7) ("The namespace init process"), pivot_root(2), prctl(2), seccomp(2), cgroups(7)
- *OCI Runtime Specification*: <https://github.com/opencontainers/runtime-spec>
- *Bubblewrap*: <https://github.com/containers/bubblewrap>

## Summary
- A container is a process that was started with care. Five functions are enough for it.
- The order is the design: namespaces, maps, files, powers, filter, command.
- What cannot be read off from outside has not been proven; ten effects say more than a hundred lines of code.

This was the last lesson. Go back to [00](00_start_here.ipynb) to see what you have done.
"""

# %%
cleanup.close()
lesson.check("the image is gone", not image.exists(), got=image)
