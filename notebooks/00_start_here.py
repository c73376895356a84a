# %% [markdown]
"""
# 00 Start here

Welcome. This course takes containers apart and puts them together again, with real processes on the machine in front of you. You
need some Python and a little shell. You need to know nothing about kernels.

**Question.** What is the box in which this notebook runs, and what does this machine let you do?

**At the end you can** run a cell, start a container from Python and say in plain words what it shows, read the table of what this machine
allows, and find your way through the lessons.

**Time:** about 15 minutes.

## How to read a lesson

Text like this explains. The grey boxes are **cells** of Python: click into one and press **Shift+Enter** to run it. Run them from top
to bottom. Nothing you do here can break the lesson: *Kernel > Restart and Run All Cells* puts everything back.

Try it with the first cell. It loads what this lesson needs, and prints nothing.
"""

# %%
import os
import platform
from pathlib import Path

from labkit import NS, Container, Namespaced, lesson
from labkit.container import run
from labkit.doctor import LESSONS
from labkit.isolation.cgroups import read_layout
from labkit.isolation.namespaces import describe, namespaces_of
from labkit.lesson.needs import report
from labkit.linux.proc import read_uid_map
from labkit.widgets.doctor_table import DoctorTable

lesson.begin("00_start_here")

# %% [markdown]
"""
## Your first container

A **container** is a group of ordinary processes that are made to believe they have a machine of their own. That is all: no second kernel, no
emulated hardware. The next cell starts one. It runs four commands in it, waits, and brings back what they wrote.

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
*namespaces*, which say what it can see, and a *cgroup*, which says what it may use. On an ordinary machine that box is the whole machine. In the
course's sandbox, or in a cloud, it is a smaller one.
"""

# %% tags=["nbval-ignore-output"]
print(f"This Python is process {os.getpid()} of user {os.geteuid()}, on Linux {platform.release()}.")
for kind, number in namespaces_of("self").items():
    print(f"  its {describe(kind).name} namespace is number {number}")

# %% [markdown]
"""
Is that the same box in which the first process of this machine lives? The numbers tell. (An ordinary user may not look at process 1; then
the answer is "not shown".)
"""

# %% tags=["nbval-ignore-output"]
mine = namespaces_of("self")
try:
    first = namespaces_of(1)
    same = [describe(kind).name for kind in mine if mine[kind] == first[kind]]
    print("shared with process 1:", ", ".join(same))
except PermissionError:
    print("not shown: this user may not look at process 1")
print("control groups:", read_layout().version)
print("ids, as (inside, outside, how many):", [(line.inside, line.outside, line.count) for line in read_uid_map()])

# %% [markdown]
"""
And the container? Its box was another one. Here it is beside yours:
"""

# %% tags=["nbval-ignore-output"]
with Container(["sleep", "60"], image_like_host=True) as box:
    box.start()
    theirs = namespaces_of(box.pid)
for kind in mine:
    print(f"  {describe(kind).name:<8}", "the same" if mine[kind] == theirs[kind] else "its own")

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
| [03 Namespaces](03_namespaces.ipynb) | How can a process believe that it is alone? |
| [04 Control groups](04_cgroups.ipynb) | Why does a program that eats all memory end one container and not the machine? |
| [05 Root filesystems](05_root_filesystems.ipynb) | Where does a container's file tree come from, and why can it not climb out? |
| [06 A container by hand](06_container_by_hand.ipynb) | Which parts make a container, and what is each one for? |
| [07 Start-up and density](07_start_up_and_density.ipynb) | What does a container cost, in time and in memory? |

What each of the lessons in this folder can show on *this* machine:
"""

# %% tags=["nbval-ignore-output"]
here = [state for state in report().lessons() if list(Path(".").glob(f"{state.lesson}_*.ipynb"))]
for state in here:
    shows = {"yes": "all of it", "limited": "its main point", "no": "what is refused, and why"}[state.state]
    print(f"{state.lesson} {state.title:<42} {shows}{': without ' + ', '.join(state.missing) if state.missing else ''}")

# %%
lesson.check("every lesson has an answer", len(report().lessons()) == len(LESSONS), got=here)

# %% [markdown]
"""
### What you have done so far

Predictions, quizzes and exercises are counted in one small file on this machine, which nobody else reads.
"""

# %% tags=["nbval-ignore-output"]
lesson.show_progress()

# %% [markdown]
"""
## In the real world

`docker run -it --rm --hostname moon debian sh` does what your first cell did: it starts a process in namespaces, with a file tree of
its own. **Docker**, **Podman**, **Kubernetes** and the sandboxes of **Chrome** and **Firefox** ask the same kernel for the same things.

In a shell, without any of them: `unshare --user --map-root-user --uts --pid --fork --mount-proc sh -c 'hostname moon; hostname; echo $$'`

## Further reading

`namespaces(7)`, `cgroups(7)`, `unshare(1)`. To learn what a process is, `fork(2)` and `execve(2)`. In a terminal, `labkit doctor` prints
the table of this lesson.

## Summary

- A container is a group of ordinary processes that see a machine of their own.
- What they see is decided by namespaces (lesson 03), what they use by cgroups (lesson 04), what their files are by a root filesystem (lesson 05).
- `lesson.predict`, `lesson.check` and `lesson.exercise` will accompany you: guess, look, try.
- What this machine refuses stands in the doctor's table, with the rule and the remedy.

Next: [03 Namespaces](03_namespaces.ipynb). The last cell makes sure that nothing is left.
"""

# %%
gone = run(Namespaced(["uname", "-n"], namespaces=NS.UTS)).text.strip()
lesson.check("nothing of the moon is left on this machine", gone == platform.node(), got=gone)
