# %% [markdown]
"""
# 05 Root filesystems: what a container takes for the whole disk

**Question.** A container sees a file tree of its own, from `/` down. Where does that tree come from, why can the container not
climb out of it, and how can a hundred containers share one tree and still each write into it?

**Afterwards you can**
- build a root filesystem from a single program;
- break out of `chroot`, and say why the same trick fails after `pivot_root`;
- stack folders with OverlayFS and find every change, file by file, in the layer where it was made.

**Time:** about 20 minutes to read, 25 for the exercises. **You need** [lesson 03](03_namespaces.ipynb). Everything happens in containers and in one temporary folder, which the last cell removes.

[← 04 Control groups](04_cgroups.ipynb) · [Glossary](glossary.md) · [06 A container by hand →](06_container_by_hand.ipynb)
"""

# %%
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from labkit import Container, MiB, lesson
from labkit.container import run
from labkit.isolation import mounts, overlay
from labkit.linux.mountinfo import read_mountinfo
from labkit.measure import rootfs, scratch
from labkit.measure.layers import look_at_stack, read_layer, writable_folder
from labkit.widgets.layer_stack import layer_stack

lesson.begin("05_root_filesystems")

# %% tags=["nbval-ignore-output"]
lesson.needs("user namespace", "mount namespace", "private mounts", "pivot_root", "overlay", "tmpfs", "fresh /proc", "busybox")

# %% [markdown]
"""
## A root filesystem is a folder

A **[root filesystem](glossary.md#root-filesystem)** (for short *rootfs*) is the file tree that a process finds below `/`: programs, libraries, `/etc`, an empty
`/proc` to mount on. Nothing in the kernel says what must be in it. An ordinary folder will do.

How much has to be in that folder before a program can run? `busybox` is one file that plays many programs: called as `ls` it
lists, called as `sh` it is a shell. The one that labkit uses is *static*: it needs no library and no loader.
"""

# %%
guess_files = lesson.predict(
    "How many files must a root filesystem hold, at least, so that the command 'busybox echo hello' runs in it?",
    options=["1", "about 20", "some hundreds"],
    answer="1",
    why="A static program needs nothing but itself. /proc, /dev and /sys are mounted by whoever starts the container.",
)
guess_files

# %%
cleanup = ExitStack()
stage = cleanup.enter_context(scratch.scratch_folder())
base = stage / "base"
base.mkdir()
rootfs.fill_rootfs(base)
smallest = stage / "smallest"
smallest.mkdir()
shutil.copy(base / "bin/busybox", smallest / "busybox")
hello = run(Container(["/busybox", "echo", "hello"], rootfs=smallest), timeout_s=20)
print(sorted(path.name for path in smallest.iterdir()), "->", hello.text)

# %%
guess_files.compare()

# %%
lesson.check("a root filesystem of one file runs a program", hello.text == "hello\n", got=hello.text)

# %% [markdown]
"""
**What happened.** `cleanup` collects what has to be undone in the end, and `stage` is the temporary folder of this lesson. The
container had one file for its whole disk, and it was enough.

The folder `base` is more comfortable: `fill_rootfs` has put busybox into it, a link to it for each name under which it answers, and a small
`/etc`. Let us look:
"""

# %% tags=["nbval-ignore-output"]
names = [entry for entry in read_layer(base) if entry.path.startswith("/bin/")]
for entry in names[:8]:
    print(entry)
print(f"... and so on: {len(names)} names, {sum(entry.size_bytes for entry in names) / MiB:.1f} MiB")

# %%
real = [entry.path for entry in names if entry.kind == "file"]
lesson.check("all programs of the base are one file and links to it", real == ["/bin/busybox"], got=real)

# %% [markdown]
"""
## chroot: a root for one process

The oldest way to give a process another root is `chroot(2)`. Each process has two folders on record: its
*root*, where paths that begin with `/` start and where `..` goes no further, and its *working directory*, where all other paths
start. `chroot(path)` changes the first. It does not touch the second, and it does not touch anything else.

The next cell runs a small Python program in a container. The container plays the machine, so nothing that happens in it can
reach yours. The program makes a jail, leaves a secret outside it, locks itself in, and looks around.
"""

# %%
PRISON = """
import os
os.mkdir("/jail")
open("/jail/letter.txt", "w").close()
open("/secret.txt", "w").write("this lies outside the jail")
os.chroot("/jail")
os.chdir("/")
print("inside, / holds", os.listdir("/"), "and /secret.txt is there:", os.path.exists("/secret.txt"))
"""

# %%
def run_python(program):
    """Run a Python program as root of a container whose root was made with pivot_root; return what it printed."""
    command = [sys.executable, "-I", "-S", "-c", program]
    done = run(Container(command, image_like_host=True), timeout_s=20)
    return (done.text + done.stderr.decode()).strip()

# %%
in_jail = run_python(PRISON)
print(in_jail)

# %%
lesson.check("the jailed process does not see the secret", in_jail.endswith("is there: False"), got=in_jail)

# %% [markdown]
"""
It looks locked in. But `..` is stopped in one place only: at the folder that is the process's own root. A process that stands
*outside* its root folder never comes past that place on its way up. And root may call `chroot` again:

1. make a folder `hole`, and make it the new root, without going there;
2. now the working directory is outside the root; go up as often as you like;
3. make the place where you arrive the root.
"""

# %%
ESCAPE = """
os.mkdir("hole")
os.chroot("hole")                      # the root is now below us: we stand outside it
for _ in range(100): os.chdir("..")    # nobody stops us, for we never pass our own root
os.chroot(".")                         # and here we stay
"""

# %%
guess_escape = lesson.predict(
    "The jailed program goes on with these four lines and then opens /secret.txt. What will it get?",
    options=["the secret", "no such file", "permission denied"],
    answer="the secret",
    why="The kernel compares each '..' with the process's root only. The climb ends at the root of the mount namespace.",
)
guess_escape

# %%
escaped = run_python(PRISON + ESCAPE + 'print("after the climb:", open("/secret.txt").read())')
print(escaped)

# %%
guess_escape.compare()

# %%
lesson.check("a process with root's powers leaves a chroot", "this lies outside the jail" in escaped, got=escaped)

# %% [markdown]
"""
**What happened.** `chroot` was never meant as a wall. Its manual page says so: "In particular, the superuser can escape from a
'chroot jail'" (chroot(2), notes). It is useful all the same, for instance to repair a system from a rescue disk, or for a service that
gives root's powers away right after it.

## pivot_root: a root for a whole mount namespace

A container's root is made another way. In a mount namespace of its own, `pivot_root(2)` exchanges the *root mount* itself: the new tree
becomes the root of the namespace, the old one is moved aside and then unmounted. After that there is no folder above `/` to climb
to, because the old tree is not there.

labkit makes a container as a list of system calls. These are the ones that change the root:
"""

# %%
for step in [*mounts.private(), *mounts.pivot_into("/stage/new"), *mounts.let_go_of_old_root()]:
    print(f"{step!s:<62} # {step.why}")

# %% [markdown]
"""
`REC|PRIVATE` on `/` cuts the namespace off, so that nothing of what follows shows up on the host. `pivot_root(".", ".")` puts the
old root on top of the new one at the same place, which saves a folder to put it in; `umount2` with `DETACH` then takes it away.

The container in which the jail was built has such a root. So let the same four lines climb from *there*: no jail, just the
container. On the host lies a file for them to find.
"""

# %%
outside = stage / "outside.txt"
outside.write_text("this lies on the host\n")
CLIMB = "import os\nfirst = os.stat('/')\n" + ESCAPE + f"""
last = os.stat("/")
print("the same folder as before:", (first.st_dev, first.st_ino) == (last.st_dev, last.st_ino))
print("the host's file is there:", os.path.exists({str(outside)!r}))
"""

# %%
guess_climb = lesson.predict(
    "Where does the climb end this time?",
    options=["at the host's /", "at the container's own /", "the kernel refuses the climb"],
    answer="at the container's own /",
    why="Every call is allowed, and the climb arrives at the topmost folder there is: the container's own.",
)
guess_climb

# %%
climbed = run_python(CLIMB)
print(climbed)

# %%
guess_climb.compare()

# %%
held = "before: True" in climbed and "is there: False" in climbed
lesson.check("the same lines do not leave a root made by pivot_root", held, got=climbed)

# %% [markdown]
"""
**What happened.** No call was refused. There was just nowhere to go. We can see that from outside, too: the kernel lists the mounts
of every process in `/proc/PID/mountinfo`. The list of the container has no line that shows the root of the host's disk.
"""

# %% tags=["nbval-ignore-output"]
with Container(["/bin/sleep", "60"], rootfs=base) as sleeper:
    sleeper.start()
    inside = read_mountinfo(sleeper.pid)
host = read_mountinfo()
print(f"{len(inside)} mounts inside, {len(host)} in the namespace of this notebook. The first inside:")
for mount in inside[:6]:
    print(f"  {mount.mount_point:<12} {mount.fstype}")

# %%
host_root = [mount for mount in host if mount.mount_point == "/"][-1]
shown = [m for m in inside if (m.device, m.root) == (host_root.device, host_root.root)]
lesson.check("none of the container's mounts is the host's root", not shown, got=shown)

# %% [markdown]
"""
## OverlayFS: one tree out of several folders

A container must be able to write to its root. If it wrote into `base`, the next container would find its leftovers. A copy of `base`
for each container would cost time and disk. *OverlayFS* is a union: it shows several folders as one.

- **[lower layers](glossary.md#lower-layer)** are only read. There may be many, the topmost first.
- the **[upper layer](glossary.md#upper-layer)** takes everything that is written.
- **merged** is what the process sees: each file from the topmost layer that has it.

![A grid of four files and four rows. The container sees the top row, merged. /etc/motd comes from the lower layer site, which covers the
one in base. /var/big was changed: it is copied up from base to the upper layer, and the copy is seen. /srv/old was deleted: a whiteout in
the upper layer hides the one in site, so that nothing is seen. /data/a was not touched and comes from base. The two lower layers are only
read; only the upper one is written to.](figures/layers.svg)

How the files of the picture got where they are, you see now, one operation after another.

Let us make a second lower layer, `site`, with some files, and put some into `base`.
"""

# %%
def fill(folder, files):
    """Write ``files`` (path -> text) below ``folder``."""
    for path, text in files.items():
        place = Path(f"{folder}{path}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

# %%
site = stage / "site"
fill(base, {"/etc/motd": "hello\n", "/data/a": "apple\n", "/data/b": "pear\n", "/var/big": "x" * MiB})
fill(site, {"/etc/motd": "welcome\n", "/srv/page": "a page\n", "/srv/old": "a relic\n"})
upper_a = cleanup.enter_context(writable_folder(stage / "a"))
a = cleanup.enter_context(Container(["/bin/sleep", "3600"], rootfs=[site, base], writable=upper_a))
a.start()

# %% [markdown]
"""
Container `a` now stands on two lower layers and writes into `stage/a/upper`. For the kernel that was one mount:
"""

# %%
print(*overlay.overlay("/stage/new", ["/site", "/base"], upper="/a/upper", work="/a/work", userxattr=True))

# %% [markdown]
"""
`workdir` is scratch room for OverlayFS on the same disk as the upper layer. `userxattr` lets it keep its notes where a container without
the host's root powers may write them. Now a shell in the container, and a look at the layers from outside:
"""

# %%
def sh(container, command):
    """Run a shell command inside a running container; return what it printed."""
    with container.exec(["/bin/sh", "-c", command]) as process:
        done = process.communicate(timeout_s=20)
    return (done.text + done.stderr.decode()).strip()

# %%
print("base:  ", (base / "etc/motd").read_text().strip())
print("site:  ", (site / "etc/motd").read_text().strip())
print("merged:", sh(a, "cat /etc/motd"), "|", sh(a, "cat /data/a"), "|", sh(a, "cat /srv/page"))
print("upper: ", read_layer(upper_a / "upper"))

# %%
seen = sh(a, "cat /etc/motd")
lesson.check("of two files with one name the topmost is seen", seen == "welcome", got=seen)

# %% [markdown]
"""
### Changing a file copies it up

That is the *[copy-up](glossary.md#copy-up)* of the picture.
`/var/big` lies in `base` and holds 1 MiB. The container is going to add a single byte to it.
"""

# %%
guess_copy = lesson.predict(
    "One byte is added to a file of 1 MiB in a lower layer. How much will the file in the upper layer hold?",
    unit="MiB",
    why="OverlayFS works with whole files: the first change copies the file up, with owner and mode, and goes on in the copy.",
)
guess_copy

# %%
sh(a, "echo >> /var/big")
copied = (upper_a / "upper/var/big").stat().st_size
for entry in read_layer(upper_a / "upper"):
    print(entry.path, entry.kind, entry.size_bytes, "bytes")
guess_copy.compare(copied / MiB)

# %%
lesson.check("the whole file was copied up, and one byte added", copied == MiB + 1, got=copied)
lesson.check("the lower file is as it was", (base / "var/big").stat().st_size == MiB, got=(base / "var/big").stat())

# %% [markdown]
"""
This is why a database does not belong on a container's root filesystem: the first write to a large file copies all of it.

### Deleting a file adds something

A file in a lower layer cannot be deleted: other containers stand on it. Yet it has to disappear.
"""

# %%
guess_delete = lesson.predict(
    "The container deletes /srv/old, which lies in the lower layer site. What will be found in the upper layer?",
    options=["nothing", "an empty file", "a device node", "a copy of the file"],
    answer="a device node",
    why="It is a whiteout: a character device with the numbers 0:0. OverlayFS stops its look-up there and says: no such file.",
)
guess_delete

# %%
print(sh(a, "rm /srv/old; cat /srv/old"))
for entry in read_layer(upper_a / "upper"):
    print(entry.path, entry.kind)

# %%
guess_delete.compare()

# %%
deleted = read_layer(upper_a / "upper", ["/srv/old"])
lesson.check("a whiteout hides the deleted file", [e.kind for e in deleted] == ["whiteout"], got=deleted)
lesson.check("the file is still in the lower layer", (site / "srv/old").exists(), got=list(site.rglob("*")))

# %% [markdown]
"""
### A folder made anew is opaque

And if a whole folder is deleted and made again under its old name? The files below must not shine through the new one.
"""

# %%
print("before:", sh(a, "echo /data/*"))
sh(a, "rm -r /data && mkdir /data && echo plum > /data/c")
print("after: ", sh(a, "echo /data/*"))
for entry in read_layer(upper_a / "upper", ["/data", "/data/c"]):
    print(entry.path, entry.kind)

# %%
remade = look_at_stack(a, ["/data", "/data/a", "/data/b"])
lesson.check("the new folder is marked opaque", remade.upper.entry("/data").kind == "opaque folder", got=remade.upper)
lesson.check("nothing below shines through", remade.sees("/data/a") is None, got=remade.merged)

# %% [markdown]
"""
**What happened.** The mark is an extended attribute of the folder, `user.overlay.opaque`. With it, one entry hides all that lies below;
without it, OverlayFS would need a whiteout for each name.

## One lower layer, many containers

A second container on the same two folders:
"""

# %%
upper_b = cleanup.enter_context(writable_folder(stage / "b"))
b = cleanup.enter_context(Container(["/bin/sleep", "3600"], rootfs=[site, base], writable=upper_b))
b.start()
print("a:", sh(a, "echo /srv/* /data/*"))
print("b:", sh(b, "echo /srv/* /data/*"))

# %% tags=["nbval-ignore-output"]
for name, folder in {"base": base, "site": site, "a: upper": upper_a / "upper", "b: upper": upper_b / "upper"}.items():
    print(f"{name:<12} {sum(entry.size_bytes for entry in read_layer(folder)):>10,} bytes")

# %%
files_of_b = sh(b, "echo /srv/* /data/*")
lesson.check("b sees nothing of what a did", files_of_b == "/srv/old /srv/page /data/a /data/b", got=files_of_b)
lesson.check("b has cost no disk yet", read_layer(upper_b / "upper") == (), got=read_layer(upper_b / "upper"))

# %% [markdown]
"""
Now see all of it at once. Choose a container and an operation and press **Run**; the picture shows which layer changed. With
**Start** it also follows what other cells do. An orange cell is in a container's own upper layer, a grey one in a shared lower
layer; what a container sees has the colour of the layer that it comes from. Two fresh containers, `A` and `B`, are used for it.
"""

# %%
fresh = {}
for name in ("A", "B"):
    folder = cleanup.enter_context(writable_folder(stage / f"fresh-{name}"))
    fresh[name] = cleanup.enter_context(Container(["/bin/sleep", "3600"], rootfs=[site, base], writable=folder))
    fresh[name].start()
paths = ["/etc/motd", "/srv/page", "/srv/old", "/srv/new", "/data/a", "/data/b"]

# %% tags=["nbval-ignore-output"]
view = layer_stack(fresh, paths)
view

# %% [markdown]
"""
Try in turn: read a file (nothing changes, not even a copy); change it; make one; delete one; rename one (a whiteout and a copy: for a
file that comes from a lower layer, `mv` is a copy and a deletion); change nothing but its mode (the whole file is copied up for that, too).
"""

# %%
print(sh(fresh["A"], "rm -f /srv/old; echo made > /srv/new; chmod 600 /data/a; echo /srv/*"))

# %%
seen_a, seen_b = (look_at_stack(fresh[name], paths, name=name) for name in "AB")
lesson.check("A's file comes from its upper layer", seen_a.source("/srv/new") == "upper", got=seen_a)
lesson.check("B's upper layer knows nothing of it", seen_b.upper.entry("/srv/new") is None, got=seen_b.upper)

# %%
lesson.quiz(
    "A container changes the owner of one file of 2 GiB that lies in a lower layer. What does that cost?",
    [
        lesson.Answer("a few bytes for the new owner", "Ownership is stored with the file, and the lower file must not change."),
        lesson.Answer("2 GiB in the upper layer", "The file is copied up whole, then the copy gets the new owner.", right=True),
        lesson.Answer("2 GiB in each lower layer", "Lower layers are never written to."),
    ],
)

# %% [markdown]
"""
## Exercise 1: a root filesystem of your own

Build a folder in which a shell runs and which says what it is.
"""

# %%
def ask(folder, command):
    """Run a shell command in a new container that has ``folder`` for its root filesystem; return what it printed."""
    done = run(Container(["/bin/sh", "-c", command], rootfs=folder), timeout_s=20)
    return (done.text + done.stderr.decode()).strip()

def name_in(folder):
    return ask(folder, "[ ! -e /etc/os-release ] || . /etc/os-release; echo $NAME")

def size_bytes(folder):
    return sum(entry.size_bytes for entry in read_layer(Path(folder)))

# %% tags=["folded"]
task = lesson.exercise("Build a root filesystem that calls itself moon", steps=[
    lesson.Step("it is a folder", look=lambda made: Path(made).is_dir(), hints=["Return a Path, such as stage / 'moon'."]),
    lesson.Step("a shell starts in it", look=lambda made: ask(made, "echo started"), want="started",
                hints=["The shell is looked for at /bin/sh.", "rootfs.fill_rootfs(folder) fills an existing folder."]),
    lesson.Step("its /etc/os-release says NAME=moon", look=name_in, want="moon",
                hints=[lambda seen: f"It says {seen!r}.", "fill(folder, {'/etc/os-release': 'NAME=...'}) writes a file."]),
    lesson.Step("it holds less than 4 MiB", look=size_bytes, want=lambda size: size < 4 * MiB,
                hints=["Is there a copy too many?"]),
    lesson.Step("the folder base does not call itself moon", look=lambda _: name_in(base), want="",
                hints=["Others stand on base: make a folder of your own."])])
task

# %% tags=["exercise"]
def my_rootfs():
    """Return the folder of a new root filesystem."""

# %% tags=["judge"]
task.judge(my_rootfs)

# %% tags=["solution"]
def my_rootfs_solution():
    folder = stage / "moon"
    folder.mkdir(exist_ok=True)
    if not (folder / "bin").exists():
        rootfs.fill_rootfs(folder)
    fill(folder, {"/etc/os-release": "NAME=moon\n"})
    return folder

task.prove(my_rootfs_solution)

# %% [markdown]
"""
## Exercise 2: deleted, but not gone

A colleague has put a password into a layer, noticed it, and deleted it in a container. What the container wrote, its upper layer, became
the topmost layer of what you are about to publish. (An upper layer that becomes a lower one: that is all that `docker commit` does.)
"""

# %%
vault, password = stage / "vault", "open-sesame-4711"
fill(vault, {"/etc/password": password + "\n", "/srv/page": "a page\n"})
tidy = cleanup.enter_context(writable_folder(stage / "tidy"))
run(Container(["/bin/rm", "/etc/password"], rootfs=[vault, base], writable=tidy), timeout_s=20)
layers = [tidy / "upper", vault, base]
done = run(Container(["/bin/sh", "-c", "ls /srv; cat /etc/password"], rootfs=layers), timeout_s=20)
print(done.text + done.stderr.decode())

# %% [markdown]
"""
The container says that there is no password. But whoever gets the layers gets their folders. Return a list of layers, topmost first, that shows
the same tree and that you can publish.
"""

# %%
def leaks(layers):
    """Return the files of ``layers`` in which the password can still be read."""
    files = [path for layer in layers for path in Path(layer).rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path.relative_to(stage)) for path in files if password.encode() in path.read_bytes()]

# %% tags=["folded"]
publish = lesson.exercise("Publish the layers without the password", steps=[
    lesson.Step("the container sees the page", look=lambda made: ask(made, "cat /srv/page"), want="a page",
                hints=["The page lies in the same layer as the password.", "A layer is a folder: fill() a new one."]),
    lesson.Step("the container sees no password", look=lambda made: "password" in ask(made, "ls /etc"), want=False,
                hints=["Which of your layers shows it?"]),
    lesson.Step("no layer holds the password", look=leaks, want=[],
                hints=[lambda seen: f"It can be read in {', '.join(seen)}.",
                       "A whiteout hides a file of another layer. Leave that layer out."])])
publish

# %% tags=["exercise"]
def clean_layers():
    """Return a list of folders, topmost first."""

# %% tags=["judge"]
publish.judge(clean_layers)

# %% tags=["solution"]
def clean_layers_solution():
    clean = stage / "clean"
    fill(clean, {"/srv/page": (vault / "srv/page").read_text()})
    return [clean, base]

publish.prove(clean_layers_solution)

# %% [markdown]
"""
## In the real world

- **Docker and Podman** unpack each layer of an image into a folder and mount the stack with OverlayFS, as above; `docker inspect` names the
  folders (`GraphDriver`: `LowerDir`, `UpperDir`, `MergedDir`). The layers of an image are stored once, however many containers stand on them.
- **Secrets in images** are found every day in layers from which a later layer "deleted" them. Builders have ways to mount a secret for
  one step only, so that it never lies in a layer.
- **Live systems on read-only media** and OpenWrt routers have a compressed, read-only lower layer and a small writable upper one.
- **runc, crun and bubblewrap** call `pivot_root`; `chroot` remains for builds and repairs.

The same in a shell (no root needed; `unshare` makes the namespaces):

```sh
unshare --user --map-root-user --mount sh
mount -t overlay labkit-overlay -o lowerdir=site:base,upperdir=a/upper,workdir=a/work,userxattr merged
cd merged && mkdir -p old && pivot_root . old && umount -l /old && exec chroot . /bin/sh
```

## Further reading
- chroot(2), pivot_root(2), mount_namespaces(7), mount(2), umount2(2), path_resolution(7), xattr(7)
- proc_pid_mountinfo(5), proc_pid_root(5)
- *Overlay Filesystem*, Documentation/filesystems/overlayfs.rst in the Linux source: <https://docs.kernel.org/filesystems/overlayfs.html>
- *OCI Image Format Specification*, layer.md ("Whiteouts"): <https://github.com/opencontainers/image-spec>

## Summary
- A root filesystem is a folder. A static program is enough to run in one.
- `chroot` changes where one process's paths begin; a process with root's powers climbs out.
- `pivot_root` changes the root mount of a mount namespace and lets the old tree go: nothing is left to climb to.
- OverlayFS looks a file up from the top. Changing copies up, deleting adds a whiteout, a folder made anew is opaque.
- Lower layers never change, so any number of containers can share them; and what they hold stays in them.

Next: [06 A container by hand](06_container_by_hand.ipynb).

"""

# %%
view.stop()
cleanup.close()
lesson.check("the temporary folder is gone", not stage.exists(), got=stage)
