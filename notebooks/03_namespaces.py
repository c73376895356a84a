# %% [markdown]
"""
# 03 Namespaces: what a process can see

**Question.** Two processes run on one machine, under one kernel. How can one of them believe that it is alone?

**Afterwards you can**
- name the eight kinds of namespace, and make each one alone;
- predict what it hides, and what still shines through;
- step into the namespaces of a process that runs already.

**Time:** about 20 minutes to read, 25 for the exercises. **You need** [lesson 00](00_start_here.ipynb), and no terminal: every cell runs real processes on this machine,
and each section ends with the command that does the same in a shell.

[← 02 Virtual machines](02_virtual_machines.ipynb) · [Glossary](glossary.md) · [04 Control groups →](04_cgroups.ipynb)
"""

# %%
import os
import socket
import subprocess
from pathlib import Path

from labkit import NS, Namespaced, charts, lesson
from labkit.charts.isolation import draw_grid, words_of_grid
from labkit.container import MountSpec, run
from labkit.isolation.namespaces import describe, list_namespaces, namespace_id, namespaces_of
from labkit.linux.ipc import shared_segment
from labkit.measure import isolation_matrix
from labkit.widgets.isolation_matrix import IsolationView

lesson.begin("03_namespaces")

# %% [markdown]
"""
Does this machine allow what comes now? `labkit doctor` has tried it. If something is refused, the rule that refuses it stands in the
answer.
"""

# %% tags=["nbval-ignore-output"]
lesson.needs(
    "user namespace", "mount namespace", "pid namespace", "network namespace", "ipc namespace", "uts namespace",
    "cgroup namespace", "fresh /proc")

# %% [markdown]
"""
## The idea

The kernel keeps lists: of processes, of mounts, of network interfaces, of users. Once there was one list of each. A **[namespace](glossary.md#namespace)** is one
such list that can exist several times. Each process belongs to exactly one namespace of each kind, its children inherit the
membership, and what is in another list does not exist for it: there is no name by which it could ask.

It is one of the two mechanisms of which containers are made. The other one, cgroups, is the next lesson:

![A process stands in the middle. On the left are the eight kinds of namespace, which decide what it can see: UTS, the host name; PID, the
processes; mount, the file tree; network, interfaces and ports; IPC, shared memory; user, the ids; cgroup, its place in the tree of
groups; time, the clocks since boot. On the right are the controllers of cgroups, which decide what it can use: cpu, memory, pids, io. The
kernel below does both.](figures/two_mechanisms.svg)

There are eight kinds:
"""

# %%
for kind in NS:
    text = describe(kind)
    print(f"{text.name:<8} separates {text.separates}")

# %% [markdown]
"""
Every namespace is an object in the kernel with a number. The folder `/proc/PID/ns` shows in which ones a process is. This is
the process that runs this notebook:
"""

# %% tags=["nbval-ignore-output"]
for kind, number in namespaces_of("self").items():
    print(f"{describe(kind).name:<8} {number}")

# %% [markdown]
"""
Two processes are in the same namespace exactly when the two numbers are the same. A child that asks for nothing is in all
the namespaces of its parent. A child that asks for a UTS namespace gets a new one of that kind:
"""

# %% tags=["nbval-ignore-output"]
with Namespaced(["sleep", "60"], namespaces=NS.UTS) as child:
    child.start()
    outside, inside = namespaces_of("self"), namespaces_of(child.pid)
for kind in (NS.UTS, NS.NET, NS.IPC):
    print(f"{describe(kind).name:<8} here {outside[kind]}   child {inside[kind]}")

# %%
lesson.check("the child has a UTS namespace of its own", outside[NS.UTS] != inside[NS.UTS], got=inside)
lesson.check("the child shares the network namespace", outside[NS.NET] == inside[NS.NET], got=inside)

# %% [markdown]
"""
`Namespaced(command, namespaces=...)` is all that this lesson needs: it starts a program in new namespaces of the kinds that you
name, with the machine's own files and without any limits. (How labkit does that without a fork of the notebook is
[lesson 06](06_container_by_hand.ipynb)'s story.) `run(...)` starts it, waits, and returns what it wrote.

## 1. UTS: the host name

The smallest namespace holds two words: the host name and the NIS domain name. Its name is a fossil: *UNIX Time-sharing System*.
"""

# %%
guess = lesson.predict(
    "A process with a UTS namespace of its own renames its machine to moon. Which name does this notebook see afterwards?",
    options=["moon", "the name it had before"],
    answer="the name it had before", why="The name is in the namespace, and there are two of them now.")
guess

# %%
before = socket.gethostname()
done = run(Namespaced(["uname", "-n"], namespaces=NS.UTS, hostname="moon"))
print("inside:", done.text.strip())

# %%
guess.compare()

# %%
lesson.check("inside, the host name is moon", done.text.strip() == "moon", got=done.text)
lesson.check("outside, it is what it was", socket.gethostname() == before, got=socket.gethostname())

# %% [markdown]
"""
In a shell: `sudo unshare --uts sh -c 'hostname moon; uname -n'`

## 2. PID: the processes

A process in a new PID namespace gets a second number: one that counts within the namespace. It keeps the one by which the outside
knows it, so a process has as many PIDs as it has namespaces above it.
"""

# %%
guess = lesson.predict(
    "Which PID will the first process of a new PID namespace see for itself?",
    options=["0", "1", "the same number as outside"],
    answer="1", why="It is the first of its namespace, and with that it is the init of everything that follows it there.")
guess

# %% tags=["nbval-ignore-output"]
with Namespaced(["sh", "-c", "echo $$; sleep 60"], namespaces=NS.PID) as child:
    child.start()
    inner_pid = int(child.stdout.readline())
    print(f"outside it is {child.pid}, for itself it is {inner_pid}")

# %%
guess.compare()

# %%
lesson.check("the first process of a PID namespace is PID 1 for itself", inner_pid == 1, got=inner_pid)

# %% [markdown]
"""
Now a trap that has caught everybody once. Programs such as `ps` ask no system call for the list of processes: they read the folder
`/proc`. Let us list it from inside.
"""

# %%
guess = lesson.predict(
    "In a new PID namespace, and nothing else, `ls /proc` shows the processes of ...",
    options=["the new namespace", "the outside"],
    answer="the outside", why="/proc is a file system that shows the PID namespace in which it was mounted, and it was mounted outside.")
guess


# %% tags=["nbval-ignore-output"]
def processes_listed(namespaces, mounts=()):
    """Count the processes that `ls /proc` shows inside ``namespaces``."""
    listing = run(Namespaced(["ls", "/proc"], namespaces=namespaces, mounts=mounts)).text
    return sum(name.isdigit() for name in listing.split())


old_proc = processes_listed(NS.PID)
print("with the old /proc:", old_proc)

# %%
guess.compare()

# %% [markdown]
"""
The processes are hidden all the same: it cannot send them a signal, for it has no number for them. Only the old list still hangs on
the wall. The cure is to mount a new `/proc` over the old one, which needs a mount namespace too, or everybody would
get the new one:
"""

# %% tags=["nbval-ignore-output"]
new_proc = processes_listed(NS.PID | NS.MNT, mounts=[MountSpec("proc", "/proc")])
print("with a /proc of its own:", new_proc)

# %%
lesson.check("with a /proc of its own, ls sees nobody but itself", new_proc == 1, got=new_proc)
lesson.check("the old /proc showed more", old_proc > new_proc, got=(old_proc, new_proc))

# %% [markdown]
"""
PID 1, the **[init](glossary.md#init)** of its namespace, has two privileges that make containers what they are. First, a signal for which it has no handler does nothing to it, not even
SIGTERM. (That is why `docker stop` so often takes its full ten seconds.) Second, when it ends, the kernel kills everything in
its namespace: nothing of a container can outlive its PID 1.
"""

# %% tags=["nbval-ignore-output"]
with Namespaced(["sh", "-c", "sleep 60 & sleep 60 & wait"], namespaces=NS.PID) as family:
    family.start()
    number = namespace_id(family.pid, NS.PID)
    members = [space.pids for space in list_namespaces() if space.inode == number]
print("outside, its processes were", members)
left = [space.pids for space in list_namespaces() if space.inode == number]
print("after the end of PID 1:", left)

# %%
lesson.check("with PID 1, everything in its namespace ends", members and not left, got=left)

# %% [markdown]
"""
In a shell: `sudo unshare --pid --fork --mount-proc sh -c 'echo $$; ps'`

## 3. Mount: the file tree

The oldest kind (2002, when nobody expected a second one: its flag is simply called `CLONE_NEWNS`). It separates the *mounts*: which
file system hangs at which folder. A new one begins as a copy, so at first nothing looks different. Then something is mounted.
"""

# %%
guess = lesson.predict(
    "A process with a mount namespace of its own mounts an empty file system on /tmp and writes a file there. Outside, we see ...",
    options=["the file", "an empty /tmp", "/tmp as it was"],
    answer="/tmp as it was", why="The mount exists in one namespace only; the folder below it was never touched.")
guess

# %%
scratch = MountSpec("tmpfs", "/tmp")
done = run(Namespaced(["sh", "-c", "echo hello > /tmp/labkit-note; ls /tmp"], namespaces=NS.MNT, mounts=[scratch], cwd="/"))
print("inside, /tmp holds:", done.text.strip())

# %%
guess.compare()

# %%
lesson.check("inside, /tmp holds the new file alone", done.text.split() == ["labkit-note"], got=done.text)
lesson.check("outside, there is no such file", not Path("/tmp/labkit-note").exists(), got=os.listdir("/tmp"))

# %% [markdown]
"""
Note what it does *not* do: every file that was there before is still there for the process, with the same rights. A mount namespace
gives a tree of one's own to change; to take the old tree away is the subject of [lesson 05](05_root_filesystems.ipynb).

In a shell: `sudo unshare --mount sh -c 'mount -t tmpfs none /tmp; ls /tmp'`

## 4. Network: interfaces, addresses, ports
"""

# %%
guess = lesson.predict(
    "How many network interfaces does a process in a new network namespace have?",
    options=["none", "one", "as many as the machine"],
    answer="one", why="Every network namespace is born with lo, the loopback: a way to itself and to nobody else.")
guess


# %% tags=["nbval-ignore-output"]
def interface_names(text):
    """Return the names in /proc/net/dev, which has one line for each interface after two lines of heads."""
    return [line.split(":")[0].strip() for line in text.splitlines()[2:]]


there = interface_names(run(Namespaced(["cat", "/proc/net/dev"], namespaces=NS.NET)).text)
print("inside:", there)
print("here:  ", interface_names(Path("/proc/net/dev").read_text()))

# %%
guess.compare()

# %%
lesson.check("a new network namespace has lo, no other hardware", "lo" in there and "eth0" not in there, got=there)

# %% [markdown]
"""
No interface means no way out: no firewall rule could close a network as well as its absence. Ports are in the namespace as well, so two
servers can both listen on port 80 and never meet. How a namespace gets a cable to the world is
the question of [lesson 10](10_container_networks.ipynb).

In a shell: `sudo unshare --net ip address`

## 5. IPC: memory shared by number

Processes can share memory under a plain number, by an interface as old as System V. Any process that knows the number may ask for the
segment. In a new IPC namespace the number means nothing. The kernel lists the segments of the reader's namespace in
`/proc/sysvipc/shm`, the number in the second column:
"""


# %%
def segment_numbers(namespaces):
    """Return the numbers of the shared memory segments that a process in ``namespaces`` is shown."""
    table = run(Namespaced(["cat", "/proc/sysvipc/shm"], namespaces=namespaces)).text
    return [int(line.split()[1]) for line in table.splitlines()[1:]]


with shared_segment(4096) as ours:
    seen_shared, seen_own = segment_numbers(NS.UTS), segment_numbers(NS.IPC)

# %%
lesson.check("another process sees our segment", ours in seen_shared, got=seen_shared)
lesson.check("a process in an IPC namespace of its own sees none", seen_own == [], got=seen_own)

# %% [markdown]
"""
In a shell: `sudo unshare --ipc ipcs --shmems`

## 6. User: who one is

The most powerful kind, and the only one that an ordinary user may make. In a [user namespace](glossary.md#user-namespace) the user and group ids are translated by a
table, `/proc/PID/uid_map`. A process can be **root inside**, with every capability over what belongs to its namespace, and
be an ordinary user, or nobody known, to everything else.
"""

# %%
guess = lesson.predict(
    "Root in a user namespace of its own tries to read /etc/shadow, the file of passwords that only root may read. What happens?",
    options=["it is shown", "permission denied"],
    answer="permission denied", why="The file belongs to the machine's root. This root is someone else, and the kernel compares the ids outside.")
guess

# %% tags=["nbval-ignore-output"]
script = "id -u; cat /etc/shadow"
done = run(Namespaced(["sh", "-c", script], namespaces=NS.USER))
print(done.text)
print(done.stderr.decode())

# %%
guess.compare()

# %%
lesson.check("inside, it is root (uid 0)", done.text.splitlines()[0] == "0", got=done.text)
lesson.check("the file of passwords stays closed", done.exit.code == 1, got=done.exit)

# %% [markdown]
"""
The table of a process is a file. We read that of a child, from outside:
"""

# %% tags=["nbval-ignore-output"]
with Namespaced(["sleep", "60"], namespaces=NS.USER) as child:
    child.start()
    print(Path(f"/proc/{child.pid}/uid_map").read_text())

# %% [markdown]
"""
Read each line from left to right: *id inside, id outside, how many from there on*. Root, 0 inside, is a harmless number outside: a high one
that nobody has, or, for an ordinary user, the user's own. Seen from inside, a file of the machine's root belongs to 65534, the id for
"somebody that I have no number for":
"""

# %%
done = run(Namespaced(["stat", "--format", "%u", "/usr/bin/env"], namespaces=NS.USER))
lesson.check("the machine's root has no number inside", done.text.strip() == "65534", got=done.text)

# %% [markdown]
"""
Every other namespace belongs to a user namespace, and the capabilities of a process count in the namespaces that belong to its own. This is
how a user without any rights on the machine may rename, mount and configure a network: in namespaces that are its own.

In a shell, without `sudo`: `unshare --user --map-root-user sh -c 'id -u; cat /proc/self/uid_map'`

## 7. Cgroup: where in the tree of limits

[Lesson 04](04_cgroups.ipynb) puts processes into groups, and limits them. The groups form a tree, and `/proc/self/cgroup` tells
a process its place in it, which gives away how the machine is organised. A cgroup namespace moves the root: the place where the process is
when the namespace is made becomes `/`.
"""

# %% tags=["nbval-ignore-output"]
done = run(Namespaced(["cat", "/proc/self/cgroup"], namespaces=NS.CGROUP))
places = {line.split(":", 2)[2] for line in done.text.splitlines()}
print("inside:", places)

# %%
lesson.check("the process sees itself at the root of every tree", places == {"/"}, got=places)

# %% [markdown]
"""
It hides, it does not free: the limits of the groups above hold as before, whether the process sees them or not.

In a shell: `sudo unshare --cgroup cat /proc/self/cgroup`

## 8. Time: since when

The youngest kind (Linux 5.6, 2020). A container that is moved to another machine while it runs must not see its clocks jump. So the two
clocks that count from boot get an offset. The date does not: it is the same in every namespace.
"""

# %% tags=["nbval-ignore-output"]
clocks = lesson.needs("time namespace", "time offsets")
clocks

# %%
guess = lesson.predict(
    "We give a process an offset of 365 days. It asks how long the machine has been up, and what day it is. Which answers change?",
    options=["both", "the uptime only", "the date only"],
    answer="the uptime only", why="Only CLOCK_MONOTONIC and CLOCK_BOOTTIME have an offset; CLOCK_REALTIME is everybody's.")
guess

# %% tags=["nbval-ignore-output"]
year_s = 365 * 24 * 3600
if clocks:
    done = run(Namespaced(["sh", "-c", "cat /proc/uptime; date +%F"], namespaces=NS.TIME, time_offset_s=year_s))
    print(done.text)
    uptime_s, today = float(done.text.split()[0]), done.text.split()[-1]

# %% tags=["nbval-ignore-output"]
if clocks:
    guess.compare()

# %%
lesson.check("inside, the machine has been up for more than a year", clocks and uptime_s > year_s, got=clocks and uptime_s)
own_today = run(Namespaced(["date", "+%F"], namespaces=NS.UTS)).text.strip()
lesson.check("the date is the same", clocks and today in (own_today, done.text.split()[-1]), got=clocks and today)

# %% [markdown]
"""
In a shell: `sudo unshare --time --boottime 31536000 cat /proc/uptime`

## All of them, side by side

Eight sections of prose; now the evidence on one page. For each choice of namespaces labkit puts up canaries outside (a process, a
segment, a server, a mount ...), starts a process in these namespaces, lets it look for each canary, and notes what it saw. Nothing
in the picture comes from a table of what namespaces are supposed to do.
"""

# %% tags=["nbval-ignore-output"]
matrix = isolation_matrix()
figure, (axes,) = charts.figure(8.0, 4.0)
draw_grid(axes, matrix)
charts.show(figure, alt=words_of_grid(matrix))

# %%
alone, together = matrix.columns[0], matrix.columns[-1]
shared = [alone.finding(probe).sees_host for probe in ("processes", "hostname", "interfaces", "clock")]
seen_together = [found.title for found in together.findings if found.sees_host]
lesson.check("without namespaces, the host's processes, name, network and clock are seen", all(shared), got=shared)
lesson.check("with all of them, nothing that was looked for is seen", seen_together == [], got=seen_together)

# %% [markdown]
"""
Look at the row *processes in /proc*: no single namespace hides it. It takes two, PID and mount, as you found out above. Isolation is
built from parts that need each other.

(For an ordinary user, *user ids* and *new mounts* are hidden in every column: such a user may make the other kinds only from
inside a user namespace, so labkit's helper lives in one, with a mount namespace beside it.)

### Try it yourself

Tick namespaces (with the mouse, or Tab and Space). Each tick starts one process in exactly those, and it reports what it can still see. Before
each tick, say which line will break.
"""

# %% tags=["nbval-ignore-output"]
view = IsolationView(NS.PID)
view

# %%
lesson.check("the process has looked and reported", view.probes_made >= 1, got=view.probes_made)

# %%
question = lesson.quiz("A process has namespaces of all eight kinds. What can it still use without a limit?", [
    lesson.Answer("the processes of other users", "Those are in another PID namespace: it has no number for them."),
    lesson.Answer("the CPUs and the memory",
                  "Namespaces limit what is seen, not what is used. That is what cgroups are for.", right=True),
    lesson.Answer("the network card", "It is in another network namespace; inside there is only lo.")])
question

# %% [markdown]
"""
## Stepping inside

A namespace lives as long as a process is in it, and another process can join. The system call is `setns`; the command is
`nsenter`; Docker calls it `docker exec`; labkit calls it `exec`. Let us start a small world, and enter it.
"""

# %% tags=["nbval-ignore-output"]
world = Namespaced(["sleep", "300"], namespaces=NS.UTS | NS.PID | NS.MNT, hostname="moon", mounts=[MountSpec("proc", "/proc")])
world.start()
visitor = world.exec(["sh", "-c", "uname -n; ls /proc | grep '^[0-9]'"]).communicate(timeout_s=10)
name, *pids = visitor.text.split()
print(f"The visitor is on {name} and sees the processes {pids}.")

# %%
lesson.check("the visitor finds the host name of the world it entered", name == "moon", got=name)
lesson.check("the visitor sees PID 1, which was there before it", "1" in pids, got=pids)

# %% [markdown]
"""
The witness is `/proc`: which of the numbers of that world are the notebook's, and which are its own?
"""

# %% tags=["nbval-ignore-output"]
here, there = namespaces_of("self"), namespaces_of(world.pid)
for kind in here:
    print(f"{describe(kind).name:<8} {'shared' if here[kind] == there[kind] else 'its own'}")

# %%
own = {kind for kind in here if here[kind] != there[kind]}
lesson.check("the world has the three kinds that it asked for", own >= {NS.UTS, NS.PID, NS.MNT}, got=own)
world.close()

# %% [markdown]
"""
(An ordinary user finds a user namespace among them: without one, labkit could not have made the others.)

In a shell: `lsns` lists the namespaces of the machine; `sudo nsenter --target PID --uts --pid --mount` enters those of a process.

labkit is one way to make namespaces, `unshare` from util-linux is another. Both ask the same kernel, so both must get the same
answer:
"""

# %% tags=["nbval-ignore-output"]
twin = lesson.needs("unshare", "one id mapped")
command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "sh", "-c", "echo $$; id -u"]
if twin:
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ours = run(Namespaced(["sh", "-c", "echo $$; id -u"], namespaces=NS.USER | NS.PID)).text.split()
    print("unshare:", theirs, "labkit:", ours)

# %%
lesson.check("unshare and labkit get the same answer", twin and theirs == ours == ["1", "0"], got=twin and (theirs, ours))

# %% [markdown]
"""
## Exercise 1: a name of its own, a network of ours

A test server shall believe that it is on a machine called `moon`, and that it is the only process there. But it must be
reachable, so it keeps the machine's network.
"""

# %% tags=["folded"]
task = lesson.exercise("Start a process on a host called moon that is PID 1 and keeps the machine's network", steps=[
    lesson.Step("the process runs", look=lambda p: p.status, want="running",
                hints=["Write p = Namespaced([...], namespaces=...), p.start(), return p. `sleep 60` keeps it busy."]),
    lesson.Step("it sees the host name moon", look=lambda p: p.exec(["uname", "-n"]).communicate().text.strip(), want="moon",
                hints=[lambda seen: f"It is {seen!r} now: which kind is about names?", "Namespaced(..., hostname='moon')"]),
    lesson.Step("it has a PID namespace of its own", look=lambda p: namespace_id(p.pid, NS.PID) != namespace_id("self", NS.PID),
                hints=["Kinds are joined with |, as in NS.UTS | NS.IPC."]),
    lesson.Step("it is in the machine's network namespace",
                look=lambda p: namespace_id(p.pid, NS.NET) == namespace_id("self", NS.NET), hints=["Ask for less."])])
task


# %% tags=["exercise"]
def moon_server():
    """Return a started process that does what the exercise asks for."""


# %% tags=["judge"]
task.judge(moon_server)


# %% tags=["solution"]
def moon_server_solution():
    process = Namespaced(["sleep", "60"], namespaces=NS.UTS | NS.PID, hostname="moon")
    process.start()
    return process


task.prove(moon_server_solution)

# %% [markdown]
"""
## Exercise 2: alone in the list

Start a process for which `ls /proc` shows no process of the machine: only itself and whoever enters its world.
"""


# %% tags=["folded"]
def listed_in(process):
    """Return how many processes a visitor finds in /proc."""
    text = process.exec(["ls", "/proc"]).communicate(timeout_s=10).text
    return sum(name.isdigit() for name in text.split())


alone_task = lesson.exercise("Start a process whose /proc lists only the processes of its own namespace", steps=[
    lesson.Step("the process runs", look=lambda p: p.status, want="running", hints=["Start it before you return it."]),
    lesson.Step("/proc lists itself and its visitor, at most three processes", look=listed_in, want=lambda seen: seen <= 3,
                hints=[lambda seen: f"It lists {seen} processes now.", "A PID namespace is not enough: whose /proc does it read?",
                       "mounts=[MountSpec('proc', '/proc')] needs NS.MNT as well."])])
alone_task


# %% tags=["exercise"]
def alone_process():
    """Return a started process that does what the exercise asks for."""


# %% tags=["judge"]
alone_task.judge(alone_process)


# %% tags=["solution"]
def alone_solution():
    proc = MountSpec("proc", "/proc")
    process = Namespaced(["sleep", "60"], namespaces=NS.PID | NS.MNT, mounts=[proc])
    process.start()
    return process


alone_task.prove(alone_solution)

# %% [markdown]
"""
## In the real world

- **Docker** gives a container mount, PID, network, IPC and UTS namespaces, on hosts with cgroup v2 a cgroup namespace, too. The user namespace is an option that few installations
  switch on (`userns-remap`); Podman without root always uses one.
- **Kubernetes** lets the containers of one *pod* share the network, IPC and UTS namespaces: that is why they reach each other on
  `localhost`, and what a pod is.
- **systemd** makes namespaces for single services: `PrivateTmp=` is a mount namespace, `PrivateNetwork=` a network namespace.
- **Chrome** and **Firefox** put the processes that read web pages into namespaces of their own (type `chrome://sandbox` to see it).
- **CRIU**, which moves containers to another machine while they run, is what the time namespace was made for.

The same in a shell, all kinds at once:

```sh
unshare --user --map-root-user --uts --pid --mount --net --ipc --cgroup --time --fork --mount-proc sh
lsns                                          # what there is
nsenter --target PID --user --uts --pid --mount sh
```

## Further reading
- namespaces(7) and, one for each kind: uts_namespaces(7), pid_namespaces(7), mount_namespaces(7), network_namespaces(7),
  ipc_namespaces(7), user_namespaces(7), cgroup_namespaces(7), time_namespaces(7)
- The calls: clone(2), unshare(2), setns(2). The commands: unshare(1), nsenter(1), lsns(8)

## Summary

- A namespace is one of several lists of one kind of thing. What is not in a process's list, it cannot name.
- Eight kinds: UTS (host name), PID, mount, network, IPC, user, cgroup, time. They are independent, and some are useful only together:
  PID needs a new `/proc`, and that needs a mount namespace.
- Root in a user namespace is root over what belongs to that namespace, and nobody to the rest of the machine.
- A process's namespaces stand in `/proc/PID/ns`; `setns`, `nsenter` and `exec` join them.
- Namespaces decide what a process *sees*. How much it may *use* is the next lesson.

The last cell ends what this notebook started. (The view above stays: nothing runs in it between two ticks.)

Next: [04 Control groups](04_cgroups.ipynb).
"""

# %%
world.close()
lesson.check("nothing of this lesson runs any more", world.status == "ended", got=world)
