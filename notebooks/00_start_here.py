# %% [markdown]
"""
# 00 Start here

Welcome. This course takes containers apart and puts them together again, with real processes on the machine in front of you. You
need some Python and a little shell. You need to know nothing about kernels.

**Question.** What is the box in which this notebook runs, and what does this machine let you do?

**Afterwards you can**
- run a cell, and start a container from Python and say in plain words what it shows;
- read the table of what this machine allows;
- find your way through the lessons.

**Time:** about 15 minutes to read, 10 for the exercises. **You need** nothing but this page. Words that have a sense of their own in this course
stand in the [glossary](glossary.md); each lesson links there.

[Glossary](glossary.md) · [01 What an OS virtualizes →](01_what_an_os_virtualizes.ipynb)
"""

# %% [markdown]
"""
## How to read a lesson

Text like this explains. The grey boxes are **cells** of Python: click into one and press **Shift+Enter** to run it. Run them from top
to bottom. Nothing you do here can break the lesson: *Kernel > Restart Kernel and Run All Cells* puts everything back.

(JupyterLab calls the Python process behind a notebook its *kernel*. In this course the word means something else, as in all the books: the
**[kernel](glossary.md#kernel)** is Linux, the program that has the machine in its hands.)

Try it with the first cell. It loads what this lesson needs, and prints nothing.
"""

# %%
import os
import platform
from pathlib import Path

from labkit import NS, Container, Namespaced, lesson, units
from labkit.container import run
from labkit.doctor import LESSONS
from labkit.isolation import cgroups, namespaces, network
from labkit.lesson.needs import report
from labkit.linux.proc import read_uid_map
from labkit.sandbox.here import here
from labkit.widgets.doctor_table import DoctorTable

lesson.begin("00_start_here")

# %%
can = lesson.needs("user namespace", "mount namespace", "pid namespace")

# %% [markdown]
"""
## This notebook is already inside a container

Students run whatever they like in notebooks, so the Python behind this page does not run on the machine itself. It was put into a
**[sandbox](glossary.md#sandbox)**, a container made of the very mechanisms that this course takes apart. Ask it who it is. First, a guess:
"""

# %%
boxed = lesson.predict(
    "Which number does the system give to the Python process that runs this notebook?",
    options=["2", "a large number, as for any process of this machine"],
    answer="2" if here() else "a large number, as for any process of this machine",
    why="It sees a list of processes of its own: number 1 waits for the others to end, number 2 is this notebook's."
    if here() else "Here it runs without a sandbox: the list below its first cell says why.")
boxed

# %% tags=["nbval-ignore-output"]
print("process", os.getpid(), "of user", os.geteuid(), "on a machine called", platform.node())
print("number 1 is", Path("/proc/1/comm").read_text().strip())
print("the machine's own root, who owns /usr, is for it user", os.stat("/usr").st_uid)
print("its network:", ", ".join(interface.name for interface in network.interfaces()))
print("its home:", os.statvfs(Path.home()).f_blocks * os.statvfs(Path.home()).f_frsize // units.MiB, "MiB")

# %% tags=["nbval-ignore-output"]
boxed.compare()

# %% [markdown]
"""
You are root here, but not the root of the machine, whom this sandbox knows only as 65534, "nobody". So you may break things: delete what you like, fill the disk, start processes without end. *Kernel > Restart Kernel* throws
this sandbox away and makes a new one. What is in the folder `work` in the home stays; nothing else does. The machine around it, and other people's notebooks,
do not notice.

These are the limits, as the text that a teacher can change. What the words mean is what the lessons are about.
"""

# %% tags=["nbval-ignore-output"]
print(here() or "This notebook does not run in a sandbox of labkit's.")

# %%
lesson.check("in a sandbox this notebook is process number 2, and root", not here() or (os.getpid(), os.geteuid()) == (2, 0),
             got=(os.getpid(), os.geteuid()))
lesson.check("in a sandbox the only network is its own", not here() or {i.name for i in network.interfaces()} <= {"lo", "eth0"},
             got=network.interfaces())

# %% [markdown]
"""
## Your first container

A **[container](glossary.md#container)** is a group of ordinary processes that are made to believe they have a machine of their own. That is all: no second kernel, no
emulated hardware. Beside a virtual machine, which has both, it looks like this:

![Two stacks on the same hardware. Left, three virtual machines: each has its program, its files and libraries, a guest kernel of its own
and a hypervisor process with virtual devices; below them lies the one host kernel. Right, three containers: each has its program, and its
files and libraries; below them lies directly the one Linux kernel, with namespaces and cgroups around each container.](figures/vm_and_container.svg)

The next cell starts one. It runs four commands in it, waits, and brings back what they wrote.

But first a question. Many of them will follow in this course: they are worth a guess, because a guess that was wrong is what one
remembers. Nobody keeps score, and the lesson goes on without an answer.
"""

# %%
guess = lesson.predict(
    "In the container we ask for the number of the process that runs. Which number will it say?",
    options=["1", "a large number, as for any process of this machine"],
    answer="1", why="It has a list of processes of its own, and is the first one in it.")
guess

# %% tags=["nbval-ignore-output"]
script = "uname -n; echo $$; id -u; ls /boot 2>&1"
done = run(Container(["sh", "-c", script], image_like_host=True, hostname="moon"))
print(done.text)
print(f"It took {done.exit.elapsed_s * 1000:.0f} ms.")

# %%
guess.compare()

# %% [markdown]
"""
Line by line, what it showed, and where you will make it yourself:

| what we asked | what it says | the word for it | lesson |
|---|---|---|---|
| `uname -n`, the name of the machine | moon | UTS **namespace** | 03 |
| `echo $$`, its process number | 1 | PID namespace | 03 |
| `id -u`, its user number | 0, which is root | user namespace | 03 |
| `ls /boot`, where a machine keeps its kernel | not there | **root filesystem** | 05 |
| (how much CPU and memory it may have) | no limit yet | control group, **cgroup** | 04 |

And the outside? It has noticed nothing. After the numbers that differ from machine to machine, a **Check** follows: it states what must be
true on every machine, and stops the lesson if it is not.
"""

# %%
name, number, user, *boot = done.text.split()
lesson.check("the container believes to be on a machine called moon", name == "moon", got=name)
lesson.check("its first process is number 1, its user number 0", (number, user) == ("1", "0"), got=(number, user))
lesson.check("this machine kept its own name", platform.node() != "moon", got=platform.node())

# %% [markdown]
"""
## What this machine allows

Not every machine allows everything. A company's laptop, a server in a cloud, a container in which this notebook may itself be running: each has
rules. `labkit doctor` has found them out by trying: it made every kind of namespace, group, mount and filter, looked whether it worked, and
removed it. Where something is refused, the table names the rule and what would change it.

Choose a lesson to see what it needs.
"""

# %% tags=["nbval-ignore-output"]
table = DoctorTable(report())
table

# %%
answers = {row.state for row in report().features}
lesson.check("the doctor has an answer for everything", answers <= {"yes", "limited", "no"}, got=answers)

# %% [markdown]
"""
You need not understand the rows now. Each lesson comes back to its own, in the cell that says `lesson.needs(...)`.

## Where this notebook runs

The notebook is a page in your browser. The Python that runs its cells is a process on a machine, and it is itself in a box: eight
*namespaces*, which say what it can see, and a *cgroup*, which says what it may use. For an ordinary process that box is the whole machine. For this
notebook it is the sandbox that you met at the top.
"""

# %% tags=["nbval-ignore-output"]
print(f"This Python is process {os.getpid()} of user {os.geteuid()}, on Linux {platform.release()}.")
for kind, number in namespaces.namespaces_of("self").items():
    print(f"  its {namespaces.describe(kind).name} namespace is number {number}")

# %% [markdown]
"""
Is that the same box in which process 1 lives? The numbers tell. (Who has less power than process 1 may not look at it; then the answer is "not
shown". In the sandbox it is so: its process 1 belongs to the outer of two user namespaces.)
"""

# %% tags=["nbval-ignore-output"]
mine = namespaces.namespaces_of("self")
try:
    first = namespaces.namespaces_of(1)
    same = [namespaces.describe(kind).name for kind in mine if mine[kind] == first[kind]]
    print("shared with process 1:", ", ".join(same))
except PermissionError:
    print("not shown: this user may not look at process 1")
print("control groups:", cgroups.read_layout().version)
print("ids, as (inside, outside, how many):", [(line.inside, line.outside, line.count) for line in read_uid_map()])

# %% [markdown]
"""
And the container? Its box was another one. Here it is beside yours:
"""

# %% tags=["nbval-ignore-output"]
with Container(["sleep", "60"], image_like_host=True) as box:
    box.start()
    theirs = namespaces.namespaces_of(box.pid)
for kind in mine:
    print(f"  {namespaces.describe(kind).name:<8}", "the same" if mine[kind] == theirs[kind] else "its own")

# %%
lesson.check("the container's process list is not ours", mine[NS.PID] != theirs[NS.PID], got=theirs)

# %% [markdown]
"""
## Exercises, and how they are judged

An **Exercise** asks you to make something happen. It is judged by what happened, not by how you wrote it. Run the judge as often as you like: it
says what it sees now, and from the second try on it gives hints. Below it, folded away, is one way to do it.

### Exercise 1: a name of your own

Start a container on a machine called `mars`. The cell that put the two boxes side by side shows how to start one; `hostname=` gives it
a name. Write your lines below the text in `mars`, and run the cell, then the judge.
"""

# %% tags=["folded"]
named = lesson.exercise("Start a container whose host name is mars", steps=[
    lesson.Step("the container runs", look=lambda c: c.status, want="running",
                hints=["box = Container(['sleep', '60'], image_like_host=True), box.start(), return box"]),
    lesson.Step("inside, the host name is mars", look=lambda c: c.exec(["uname", "-n"]).communicate().text.strip(), want="mars",
                hints=[lambda seen: f"It is {seen!r} now.", "Container(..., hostname='mars')"])])
named


# %% tags=["exercise"]
def mars():
    """Return a started container."""


# %% tags=["judge"]
named.judge(mars)


# %% tags=["solution"]
def mars_solution():
    box = Container(["sleep", "60"], image_like_host=True, hostname="mars")
    box.start()
    return box


named.prove(mars_solution)

# %% [markdown]
"""
("not yet" is what the judge says while nobody has tried. It never stops the lesson.)

### Exercise 2: how it ended

Every process ends with a number, its *exit status*: 0 means that all went well. Run a container that ends with 7, and return what
`run` gives you.
"""

# %% tags=["folded"]
ended = lesson.exercise("Run a container that ends with exit status 7", steps=[
    lesson.Step("a container has run and ended", look=lambda done: hasattr(done, "exit"),
                hints=["return run(Container([...], image_like_host=True))"]),
    lesson.Step("its exit status was 7", look=lambda done: done.exit.code, want=7,
                hints=[lambda seen: f"It was {seen}.", "In a shell, `exit 7` ends with 7: ['sh', '-c', 'exit 7']"])])
ended


# %% tags=["exercise"]
def seven():
    """Return a finished run."""


# %% tags=["judge"]
ended.judge(seven)


# %% tags=["solution"]
def seven_solution():
    return run(Container(["sh", "-c", "exit 7"], image_like_host=True))


ended.prove(seven_solution)

# %% [markdown]
"""
A **Quiz** closes some sections. Each answer has a reply, so the wrong ones are worth trying, too.
"""

# %%
question = lesson.quiz("What does a container bring that the machine does not have already?", [
    lesson.Answer("a kernel", "No: there is one Linux kernel, and every container's processes run on it."),
    lesson.Answer("emulated hardware", "No: that would be a virtual machine, lesson 02."),
    lesson.Answer("nothing but a different view, and limits",
                  "Yes: ordinary processes that see other lists and may use less.", right=True)])
question

# %% [markdown]
"""
## The lessons

Read them in order. Each says at the top how long it takes.

| lesson | question |
|---|---|
| [01 What an operating system virtualizes](01_what_an_os_virtualizes.ipynb) | Who lends every program a processor and a memory of its own? |
| [02 Virtual machines](02_virtual_machines.ipynb) | How can one machine be several, and what does that cost? |
| [03 Namespaces](03_namespaces.ipynb) | How can a process believe that it is alone? |
| [04 Control groups](04_cgroups.ipynb) | Why does a program that eats all memory end one container and not the machine? |
| [05 Root filesystems](05_root_filesystems.ipynb) | Where does a container's file tree come from, and why can it not climb out? |
| [06 A container by hand](06_container_by_hand.ipynb) | Which parts make a container, and what is each one for? |
| [07 Start-up and density](07_start_up_and_density.ipynb) | What does a container cost, in time and in memory? |
| [08 Docker's architecture](08_docker_architecture.ipynb) | Who does what when one types `docker run`? |
| [09 Images and layers](09_images_and_layers.ipynb) | What is an image, byte by byte, and why can nobody change it? |
| [10 Container networks](10_container_networks.ipynb) | How does a container get an address, and a name that others find? |
| [11 Volumes](11_volumes.ipynb) | Which files outlive their container? |
| [12 Registries](12_registries.ipynb) | How do images travel, and which bytes need not? |
| [13 Immutable infrastructure](13_immutable_infrastructure.ipynb) | What if nothing that runs is ever changed, only replaced? |
| [14 Capstone](14_capstone.ipynb) | What is left of `docker run` when you write it yourself? |

What each of the lessons in this folder can show on *this* machine:
"""

# %% tags=["nbval-ignore-output"]
found = [state for state in report().lessons() if list(Path(".").glob(f"{state.lesson}_*.ipynb"))]
for state in found:
    shows = {"yes": "all of it", "limited": "its main point", "no": "what is refused, and why"}[state.state]
    print(f"{state.lesson} {state.title:<42} {shows}{': without ' + ', '.join(state.missing) if state.missing else ''}")

# %%
lesson.check("every lesson has an answer", len(report().lessons()) == len(LESSONS), got=found)

# %% [markdown]
"""
### What you have done so far

Predictions, quizzes and exercises are counted in one small file in the folder `work`, which outlives the sandbox and which nobody else reads.
"""

# %% tags=["nbval-ignore-output"]
lesson.show_progress()

# %% [markdown]
"""
## In the real world

`docker run -it --rm --hostname moon debian sh` does what your first cell did: it starts a process in namespaces, with a file tree of
its own. **Docker**, **Podman**, **Kubernetes** and the sandboxes of **Chrome** and **Firefox** ask the same kernel for the same things.

The same in a shell, without any of them:

```sh
unshare --user --map-root-user --uts --pid --fork --mount-proc sh -c 'hostname moon; hostname; echo $$'
labkit run --image-like-host -- sh -c 'echo $$'
labkit doctor
```

## Further reading

- namespaces(7), cgroups(7), unshare(1)
- What a process is: fork(2), execve(2)

## Summary

- A container is a group of ordinary processes that see a machine of their own.
- What they see is decided by namespaces (lesson 03), what they use by cgroups (lesson 04), what their files are by a root filesystem (lesson 05).
- `lesson.predict`, `lesson.check` and `lesson.exercise` will accompany you: guess, look, try.
- What this machine refuses stands in the doctor's table, with the rule and the remedy.

The last cell makes sure that nothing is left.

Next: [01 What an operating system virtualizes](01_what_an_os_virtualizes.ipynb).
"""

# %%
gone = run(Namespaced(["uname", "-n"], namespaces=NS.UTS)).text.strip()
lesson.check("nothing of the moon is left on this machine", gone == platform.node(), got=gone)
