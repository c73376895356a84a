# %% [markdown]
"""
# 11 Volumes: what is lost, and what stays

**Question.** Containers are replaced all the time; that is the idea. A database is not supposed to be. Where must a file lie so that it survives its container, and
where so that it surely does not?

**Afterwards you can**
- say for any path in a container where its bytes are: writable layer, volume, host folder, memory;
- choose among them, and predict what a restart, a replacement and a clean-up leave;
- share data between containers, read-only where that is enough, and back a volume up.

**Time:** about 10 minutes to read, 25 for the exercises. **You need** lessons [05](05_root_filesystems.ipynb) (layers) and [08](08_docker_architecture.ipynb) (the engine).

[← 10 Container networks](10_container_networks.ipynb) · [Glossary](glossary.md) · [12 Registries →](12_registries.ipynb)
"""

# %%
from contextlib import ExitStack

import docker

from labkit import lesson
from labkit.engine import local, whereabouts
from labkit.image import ImageStore, rootfs
from labkit.image.recipes.command import build_one
from labkit.measure import scratch
from labkit.widgets.whereabouts_view import whereabouts_view

lesson.begin("11_volumes")

# %% tags=["nbval-ignore-output"]
can = lesson.needs("user namespace", "mount namespace", "pivot_root", "overlay", "tmpfs", "busybox")
can

# %%
cleanup = ExitStack()
folder = cleanup.enter_context(scratch.scratch_folder())
store = ImageStore(folder / "store")
cleanup.callback(rootfs.remove_tree, store.root)
build_one("busybox", store)
engine = cleanup.enter_context(local.LocalEngine(images=store.root))
client = engine.client()
shared = folder / "shared"
shared.mkdir()

# %% [markdown]
"""
## Four places for a file

| place | how it is asked for | where the bytes are |
|---|---|---|
| writable layer | not at all: everything that is not mounted | a folder of the engine's, one for each container (lesson 05: `upper`) |
| [volume](glossary.md#volume) | `-v data:/volume` | a folder of the engine's, with a name and a life of its own |
| [bind mount](glossary.md#bind-mount) | `-v /some/folder:/bind` | that folder of the host |
| tmpfs | `--tmpfs /tmpfs` | memory; nowhere, in the end |

One container with all four:
"""

# %%
PATHS = {"layer": "/layer/file", "volume": "/volume/file", "bind": "/bind/file", "tmpfs": "/tmpfs/file"}

def start(name, **more):
    """Start a container that has all four kinds of places, and waits."""
    mounts = [docker.types.Mount("/volume", "data"), docker.types.Mount("/bind", str(shared), type="bind")]
    words = ["sh", "-c", "mkdir -p /layer; exec sleep 600"]
    return client.containers.run("busybox", words, name=name, detach=True, mounts=mounts, tmpfs={"/tmpfs": "size=1m"}, stop_signal="KILL", **more)

def write(container, text):
    """Write a text to all four files."""
    container.exec_run(["sh", "-c", 'for path; do echo "$0" > "$path"; done', text, *PATHS.values()])

# %%
first = start("first")
write(first, "written by first")
seen = whereabouts.look(client, "first", PATHS)
for place in seen.places:
    print(f"{place.path:<14} {place.content:<18} {place.lives_in}")

# %%
lesson.check("all four can be written and read", {place.content for place in seen.places} == {"written by first"}, got=seen)

# %% [markdown]
"""
Ask the container itself what is mounted where, and you find three of the four. The fourth is the rest of the tree:
"""

# %%
table = first.exec_run(["cat", "/proc/self/mountinfo"]).output.decode().splitlines()
kinds = {line.split()[4]: line.split(" - ")[1].split()[0] for line in table}
print({path: kind for path, kind in kinds.items() if path in ("/", "/volume", "/bind", "/tmpfs")})

# %%
lesson.check("the root is an overlay, and /tmpfs is memory", (kinds["/"], kinds["/tmpfs"]) == ("overlay", "tmpfs"), got=kinds)

# %% [markdown]
"""
## A restart

The process ends and is started again. The container stays the same.
"""

# %%
guess = lesson.predict(
    "The container is stopped and started again. Which file is gone?",
    options=["none", "the one in the tmpfs", "those in the layer and the tmpfs", "all but the one in the volume"],
    answer="the one in the tmpfs",
    why="The writable layer belongs to the container, which is still there. Memory belongs to the mount namespace, which is not.",
)
guess

# %%
def survivors(name):
    """Return the kinds of places in which the container finds something to read."""
    return [place.kind for place in whereabouts.look(client, name, PATHS).places if place.content]

first.restart(timeout=0)
after_restart = survivors("first")
print(after_restart)

# %%
guess.compare()

# %%
lesson.check("a restart costs the memory", after_restart == ["layer", "volume", "bind"], got=after_restart)

# %% [markdown]
"""
## A replacement

Now the container is removed, and another one takes its place, with the same mounts. This is what every update does (lesson 13).
"""

# %%
guess_new = lesson.predict(
    "first is removed, second is started with the same mounts. What does second find?",
    options=["nothing", "volume and bind mount", "layer, volume and bind mount", "only the volume"],
    answer="volume and bind mount",
    why="The writable layer went with its container. What has a life of its own, stays: a named volume, and the host's folder.",
)
guess_new

# %%
first.remove(force=True)
second = start("second")
after_replacement = survivors("second")
print(after_replacement, "-", (shared / "file").read_text().strip())

# %%
guess_new.compare()

# %%
lesson.check("what has a life of its own is still there", after_replacement == ["volume", "bind"], got=after_replacement)

# %% [markdown]
"""
In the view below you do it: write, restart, replace, and see what each place has kept. Two containers, `left` and `right`, share the volume and the host's folder.
"""

# %% tags=["nbval-ignore-output"]
second.remove(force=True)
pair = ("left", "right")

def replace_one(name):
    for container in client.containers.list(all=True, filters={"name": name}):
        container.remove(force=True)
    start(name)

for name in pair:
    replace_one(name)

# %% tags=["nbval-ignore-output"]
def looks():
    return [whereabouts.look(client, name, PATHS) for name in pair]

view = whereabouts_view(looks, pair, {
    "left writes": lambda: write(client.containers.get("left"), "written by left"),
    "right writes": lambda: write(client.containers.get("right"), "written by right"),
    "restart left": lambda: client.containers.get("left").restart(timeout=0),
    "replace left": lambda: replace_one("left")})
view

# %%
view.close()
write(client.containers.get("left"), "written by left")
right = {place.kind: place.content for place in whereabouts.look(client, "right", PATHS).places}
lesson.check("right reads what left wrote where they share a place", (right["volume"], right["bind"]) == ("written by left",) * 2, got=right)
lesson.check("and not in its own layer and memory", "written by left" not in (right["layer"], right["tmpfs"]), got=right)

# %% [markdown]
"""
## Read-only is enough for many

A web server reads its pages; it should not be able to change them. The same volume, mounted read-only:
"""

# %%
reader = client.containers.run("busybox", ["sleep", "600"], detach=True, name="reader", mounts=[docker.types.Mount("/volume", "data", read_only=True)], stop_signal="KILL")
read = reader.exec_run(["cat", "/volume/file"])
written = reader.exec_run(["sh", "-c", "echo no > /volume/file"])
print(read.output.decode().strip(), "-", written.output.decode().strip())

# %%
lesson.check("the reader can read and cannot write", read.exit_code == 0 and b"Read-only" in written.output, got=written.output)
reader.remove(force=True)

# %% [markdown]
"""
## A volume begins with what the image has

An empty volume that is mounted over a folder of the image is *filled* from it first. (A bind mount is not: it covers what was there.)
"""

# %%
guess_fill = lesson.predict(
    "An empty volume is mounted over /etc, and an empty host folder over /etc of another container. Which of the two still finds /etc/passwd?",
    options=["both", "the one with the volume", "the one with the host folder", "neither"],
    answer="the one with the volume",
    why="The engine copies the image's files into a new volume. A bind mount shows the host's folder as it is: empty.",
)
guess_fill

# %%
(folder / "empty").mkdir()
mounts = {"volume": docker.types.Mount("/etc", "filled"), "bind": docker.types.Mount("/etc", str(folder / "empty"), type="bind")}
found = {}
for kind, mount in mounts.items():
    container = client.containers.create("busybox", ["/bin/ls", "/etc/passwd"], mounts=[mount])
    container.start()
    found[kind] = container.wait()["StatusCode"] == 0
    container.remove()
print(found)

# %%
guess_fill.compare()

# %%
lesson.check("a new volume is filled from the image", found == {"volume": True, "bind": False}, got=found)

# %% [markdown]
"""
## Who removes what

Volumes are not removed with their containers, unless they are *anonymous* (no name was given) and one asks for it (`docker rm -v`). So they pile up:
"""

# %%
anonymous = client.containers.create("busybox", ["true"], mounts=[docker.types.Mount("/data", None)])
before = len(client.volumes.list())
anonymous.remove(v=True)
print(before, "volumes before, ", len(client.volumes.list()), "after:", *sorted(volume.name for volume in client.volumes.list()))

# %%
for container in client.containers.list(all=True):
    container.remove(force=True)
names = sorted(volume.name for volume in client.volumes.list())
lesson.check("named volumes outlive every container", names == ["data", "filled"], got=names)

# %%
lesson.quiz(
    "A database writes to /var/lib/db, and nothing is mounted there. The container is updated to a new image tonight. What about the data?",
    [
        lesson.Answer("It is kept: an update keeps the container's files.", "An update is a new container. Its writable layer is empty."),
        lesson.Answer("It is lost with the old container.", "The bytes lay in the old container's layer. A volume would have kept them.", right=True),
        lesson.Answer("It moves into the new image.", "An image is never changed by what runs from it."),
    ],
)

# %% [markdown]
"""
## Exercise 1: a backup

The volume `data` shall be copied: write its file into a file `backup` in the host's folder `shared`, by a container that has the volume **read-only**. Return the container (it may have ended).
"""

# %% tags=["folded"]
def mount_of(container):
    """Return how the container has the volume: True for read-only."""
    container.reload()
    return [not mount["RW"] for mount in container.attrs["Mounts"] if mount.get("Name") == "data"]

def saved(container):
    """Wait for the container's end, and return what the backup says."""
    container.wait()
    path = shared / "backup"
    return path.read_text().strip() if path.exists() else "there is no backup"

# %% tags=["folded"]
backup = lesson.exercise("Copy the volume's file into the host's folder", steps=[
    lesson.Step("the volume is mounted read-only", look=mount_of, want=[True],
                hints=["docker.types.Mount('/volume', 'data', read_only=True)"]),
    lesson.Step("the backup has what the volume had", look=saved, want="written by left",
                hints=["The host's folder needs a mount of its own: type='bind'.", lambda text: f"The backup says: {text}"])])
backup

# %% tags=["exercise"]
def my_backup():
    """Return the container that makes the backup."""

# %% tags=["judge"]
backup.judge(my_backup)

# %% tags=["solution"]
def my_backup_solution():
    mounts = [docker.types.Mount("/volume", "data", read_only=True), docker.types.Mount("/host", str(shared), type="bind")]
    return client.containers.run("busybox", ["cp", "/volume/file", "/host/backup"], mounts=mounts, detach=True)

backup.prove(my_backup_solution, here=can)

# %% [markdown]
"""
## Exercise 2: a secret that leaves no trace

A password shall be there while the container runs, in `/run/secrets/password`, and nowhere on a disk: not in its layer, not in a volume. Start such a container (it must run) and write the
password into the file.
"""

# %% tags=["folded"]
def secret_in(container):
    return container.exec_run(["cat", "/run/secrets/password"]).output.decode().strip()

def filesystem_of(container):
    lines = container.exec_run(["cat", "/proc/self/mountinfo"]).output.decode().splitlines()
    return [line.split(" - ")[1].split()[0] for line in lines if line.split()[4] in ("/run/secrets", "/run")][-1:]

# %% tags=["folded"]
secret = lesson.exercise("Keep a password in memory only", steps=[
    lesson.Step("the container can read a password", look=secret_in, want=lambda text: bool(text) and "No such file" not in text,
                hints=["exec_run(['sh', '-c', 'echo ... > /run/secrets/password']) writes it."]),
    lesson.Step("its place is memory", look=filesystem_of, want=["tmpfs"],
                hints=["tmpfs={'/run/secrets': 'size=64k'} when the container is made.", lambda kinds: f"It lies in: {kinds or 'the layer'}."]),
    lesson.Step("its layer has no copy", look=lambda c: [change["Path"] for change in c.diff() or [] if "password" in change["Path"]], want=[])])
secret

# %% tags=["exercise"]
def my_secret():
    """Return the container with the password."""

# %% tags=["judge"]
secret.judge(my_secret)

# %% tags=["solution"]
def my_secret_solution():
    container = client.containers.run("busybox", ["sleep", "600"], detach=True, tmpfs={"/run/secrets": "size=64k"}, stop_signal="KILL")
    container.exec_run(["sh", "-c", "echo open sesame > /run/secrets/password"])
    return container

secret.prove(my_secret_solution, here=can)

# %% [markdown]
"""
## In the real world

- **Databases** in containers have their data in volumes, always; the official images declare one with `VOLUME`, so that at least an anonymous one is there.
- **Kubernetes** asks for a *PersistentVolumeClaim*: so much space, of that kind; a driver finds a disk in the network, and the data follows the pod from machine to machine. `emptyDir` is its anonymous
  volume, `medium: Memory` its tmpfs, `hostPath` its bind mount.
- **Development** uses bind mounts: the source in the editor is the source in the container.
- A bind mount of `/` or of the daemon's socket gives the host away (lesson 08).

The same in a shell:

```sh
docker volume create data
docker run -v data:/volume -v "$PWD/shared:/bind:ro" --tmpfs /tmpfs:size=1m busybox
docker volume ls; docker volume inspect data; docker volume prune
mount --bind shared /somewhere          # what a bind mount is
```

## Further reading
- mount(8) ("Bind mounts"), tmpfs(5), mount_namespaces(7)
- Docker, *Storage*: <https://docs.docker.com/engine/storage/>
- Kubernetes, *Persistent Volumes*: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/>

## Summary
- The writable layer lives as long as its container; memory as long as its process; a volume as long as you want; a host folder is the host's.
- A restart costs the memory, a replacement the layer too.
- Mount read-only what is only read. Give names to volumes that matter.

Next: [12 Registries](12_registries.ipynb).
"""

# %%
for container in client.containers.list(all=True):
    container.remove(force=True)
cleanup.close()
lesson.check("engine, volumes and files are gone", engine.process.poll() == 0 and not folder.exists(), got=folder)
