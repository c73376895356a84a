# %% [markdown]
"""
# 08 Docker's architecture: who does what when you type docker run

**Question.** `docker run` comes back in half a second, and afterwards a program runs that you did not start: its parent is somebody else. Who has
done what? And what exactly was said between them?

**Afterwards you can**
- name client, daemon and runtime, say which of them needs which rights, and follow a command through all three;
- speak to a daemon yourself, over HTTP, and find your way in its API;
- name the objects that a daemon manages, and say what becomes of them when client, daemon or container ends.

**Time:** about 15 minutes to read, 30 for the exercises. **You need** lesson [06](06_container_by_hand.ipynb). The daemon of this lesson is labkit's *engine*. It speaks the API of the Docker Engine, so the real
`docker` command and the `docker` Python package work with it; and you can read its source.

[← 07 Start-up and density](07_start_up_and_density.ipynb) · [Glossary](glossary.md) · [09 Images and layers →](09_images_and_layers.ipynb)
"""

# %%
import json
import os
import subprocess
from contextlib import ExitStack

import docker as docker_sdk

from labkit import charts, cli, lesson
from labkit.charts import conversation as picture
from labkit.engine import conversation, local, proxy, smallclient
from labkit.image import ImageStore, rootfs
from labkit.image.recipes.command import build_one
from labkit.measure import programs, scratch
from labkit.widgets.conversation_view import conversation_view

# %% tags=["nbval-ignore-output"]
lesson.begin("08_docker_architecture")
can = lesson.needs("user namespace", "mount namespace", "network namespace", "pivot_root", "overlay", "tmpfs", "busybox")
can

# %% [markdown]
"""
## Three parties

![A client, the docker command or the Python SDK, sends HTTP requests over a unix socket to the daemon, dockerd or labkit's engine. The
daemon keeps four kinds of objects: images, containers, networks, volumes. To start a container it asks the runtime, containerd and runc
or labkit.container. The runtime makes the container and is done. A small process, the shim or labkit's keeper, is the parent of the
container's process, PID 1, and passes its output and its exit status on; so client and daemon may come and go.](figures/daemon.svg)

| party | what it is | what it needs |
|---|---|---|
| **[client](glossary.md#client)** (`docker`) | turns words into requests, shows the answers | the right to write to a socket |
| **[daemon](glossary.md#daemon)** (`dockerd`, here labkit's engine) | keeps images, containers, networks, volumes; answers requests | the right to make namespaces, mounts, cgroups |
| **[runtime](glossary.md#runtime)** (`containerd` and `runc`, here `labkit.container`) | makes one container, as in lesson 06 | the same, for a moment |

We start a daemon. It is a process like any other, and it listens at a *unix socket*: an address that is a file.
"""

# %%
cleanup = ExitStack()
folder = cleanup.enter_context(scratch.scratch_folder())
store = ImageStore(folder / "store")
cleanup.callback(rootfs.remove_tree, store.root)
build_one("busybox", store)
engine = cleanup.enter_context(local.LocalEngine(images=store.root))
print(oct(engine.socket.stat().st_mode))

# %%
lesson.check("only its owner may speak to the daemon", engine.socket.stat().st_mode & 0o777 == 0o600, got=oct(engine.socket.stat().st_mode))

# %% [markdown]
"""
That mode is worth a thought. Whoever may write to this socket may ask for a container with the machine's files in it. A daemon that runs as root gives everybody who
reaches its socket the rights of root: membership in the group `docker` **is** root.

## It is only HTTP

No special program is needed to speak to a daemon. Here is a request, as bytes on a socket, and the answer:
"""

# %%
connection = smallclient.UnixConnection(str(engine.socket))
connection.request("GET", "/version")
answer = connection.getresponse()
print(answer.status, answer.getheader("Content-Type"))
version = json.loads(answer.read())
connection.close()
print({name: version[name] for name in ("ApiVersion", "MinAPIVersion", "Os")})

# %%
lesson.check("the daemon speaks version 1.44 of the API", version["ApiVersion"] == "1.44", got=version)

# %% [markdown]
"""
Errors are JSON, too, with the status codes that HTTP has for them. What does a daemon answer to a question about a container that is not there?
"""

# %%
guess = lesson.predict(
    "GET /containers/nobody/json: which status will the answer have?",
    options=["200, with an empty answer", "400", "404", "500"],
    answer="404",
    why="Not found is 404, as anywhere on the web. 400 is for questions that make no sense, 409 for those that come at the wrong moment.",
)
guess

# %%
connection = smallclient.UnixConnection(str(engine.socket))
connection.request("GET", "/v1.44/containers/nobody/json")
answer = connection.getresponse()
print(answer.status, answer.read().decode().strip())
connection.close()

# %%
guess.compare()

# %% [markdown]
"""
## A docker run to read

So a client is a small thing. This one has all that `docker run --rm` needs:
"""

# %%
lesson.source(smallclient.SmallClient)

# %% tags=["nbval-ignore-output"]
client = smallclient.SmallClient(str(engine.socket))
status, output = client.run("busybox", ["sh", "-c", "echo I am PID $$; hostname; exit 3"])
print(output, "status", status)

# %%
lesson.check("five requests make a docker run", status == 3 and output.startswith("I am PID 1\n"), got=(status, output))

# %% [markdown]
"""
## Listening in

Now the real clients. We put something in between: a *proxy* with a socket of its own, which passes every byte on and writes down who said what. In addition we ask the daemon
what it does to containers; it announces that to anybody who asks (`GET /events`).
"""

# %%
ear = cleanup.enter_context(proxy.TracingProxy(str(engine.socket), f"{folder}/overheard.sock"))
sdk = engine.client()
listener = conversation.Listener(ear, sdk.api)

def heard():
    """Return the conversation so far, and forget it."""
    messages = listener.messages()
    listener.restart()
    return messages

# %%
overheard = docker_sdk.DockerClient(base_url=ear.url)
cleanup.callback(overheard.close)
_ = heard()
print(overheard.containers.run("busybox", "id", remove=True).decode())
messages = heard()

# %% tags=["nbval-ignore-output"]
figure, (axes,) = charts.figure(9.2, 5.4)
picture.draw(axes, messages)
charts.show(figure, alt="A sequence diagram of what the Docker SDK and the daemon said for one containers.run. " + picture.describe(messages))

# %%
asked = [message.words for message in messages if message.source == "client"]
lesson.check("it was created, started, waited for and removed",
             all(any(word in words for words in asked) for word in ("create", "start", "wait", "DELETE")), got=asked)

# %% [markdown]
"""
The `docker` command says the same things in another order. It attaches to the container's streams **before** it starts it, and the daemon answers `101`: from there on the connection is no HTTP any
more but a raw stream, as long as the container runs. (The command is used where it is installed; otherwise the cells say so.)
"""

# %% tags=["nbval-ignore-output"]
docker = programs.find_program("docker") if can else None

def command_line(*words, data=b""):
    """Run the real docker command against the proxy; return what it printed, or a word about why not."""
    if docker is None:
        return "the docker command is not installed here"
    environment = {**os.environ, "DOCKER_HOST": ear.url, "DOCKER_CONFIG": str(folder)}
    return subprocess.run([str(docker), *words], input=data, env=environment, capture_output=True, timeout=60).stdout.decode()

# %% tags=["nbval-ignore-output"]
print(command_line("run", "--rm", "-i", "busybox", "tr", "a-z", "A-Z", data=b"shout this\n"))
for message in heard():
    print(f"{message.source:>7} > {message.target:<7}  {message.words}")

# %% [markdown]
"""
In the view below you send the commands. Stopped, it draws each conversation when it is over; started, while it goes on.
"""

# %% tags=["nbval-ignore-output"]
def names():
    return [container.name for container in sdk.containers.list(all=True)]

view = conversation_view(listener, {
    "containers.run('busybox', 'true')": lambda: overheard.containers.run("busybox", "true", remove=True),
    "docker run -d --name talker": lambda: "talker" in names() or overheard.containers.run("busybox", "sleep 60", detach=True, name="talker"),
    "docker exec talker id": lambda: "talker" in names() and overheard.containers.get("talker").exec_run("id"),
    "docker rm -f talker": lambda: "talker" in names() and overheard.containers.get("talker").remove(force=True),
    "docker ps -a": lambda: overheard.containers.list(all=True),
})
view

# %%
view.close()
for name in names():
    sdk.containers.get(name).remove(force=True)

# %% [markdown]
"""
## What a daemon manages

| object | what it is | lesson |
|---|---|---|
| image | layers and a configuration, never changed | [09](09_images_and_layers.ipynb) |
| container | an image, a writable layer, settings; with or without a process | [06](06_container_by_hand.ipynb) |
| network | a bridge, addresses, names | [10](10_container_networks.ipynb) |
| volume | a folder that outlives containers | [11](11_volumes.ipynb) |

Each has a name, an id, and a life of its own. A container, above all, is **not** a process: it is there before its process starts and after it has ended.
"""

# %%
guess_ended = lesson.predict(
    "A container writes a file and ends. Is the file still there?",
    options=["no, the process has ended", "yes, until the container is removed", "yes, for ever"],
    answer="yes, until the container is removed",
    why="The writable layer belongs to the container, not to the process. Start it again, and the file is there; remove it, and the layer goes.",
)
guess_ended

# %%
kept = sdk.containers.create("busybox", ["sh", "-c", "cat /note || echo written > /note"], name="labkit-kept")
print(kept.status)
for _ in range(2):
    kept.start()
    kept.wait()
print(kept.logs().decode(), [(change["Kind"], change["Path"]) for change in kept.diff()])

# %%
guess_ended.compare()

# %%
lesson.check("the second run found what the first one wrote", kept.logs().decode().endswith("written\n"), got=kept.logs())
kept.reload()
lesson.check("an exited container has a status and no process", (kept.status, kept.attrs["State"]["Pid"]) == ("exited", 0), got=kept.attrs["State"])
kept.remove()

# %% [markdown]
"""
## When somebody dies

The client that started a container is gone after half a second; the container does not mind. What about the daemon? Containers of Docker's live on when their daemon is restarted, because between the two
sits a small process (`containerd-shim`, here labkit's *keeper*) that holds their streams and hears of their end.
"""

# %% tags=["nbval-ignore-output"]
long = sdk.containers.run("busybox", ["sleep", "60"], detach=True, name="labkit-long")
status = open(f"/proc/{long.attrs['State']['Pid'] or sdk.api.inspect_container(long.id)['State']['Pid']}/status").read()
parent = int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1])
print("its parent is", parent, "- this notebook is", os.getpid(), "and the daemon", engine.pid)

# %%
lesson.check("the container's parent is not the daemon", parent not in (os.getpid(), engine.pid), got=parent)
long.remove(force=True)

# %%
lesson.quiz(
    "Somebody may use the docker command on a server, and nothing else. What may they do there?",
    [
        lesson.Answer("Start containers, and nothing outside of them.", "docker run -v /:/host busybox chroot /host: and the machine is theirs."),
        lesson.Answer("Everything that the daemon may.", "The daemon asks nobody who they are. Where it is root, so are they.", right=True),
        lesson.Answer("Read, but not write.", "A socket knows no such difference."),
    ],
)

# %% [markdown]
"""
## A daemon somewhere else

The same conversation works over TCP: then anybody who reaches the port is root there. So it must be encrypted, with certificates for **both** sides, or stay on the machine. labkit's engine refuses anything
else:
"""

# %% tags=["nbval-ignore-output"]
refused = cli.main(["engine", "serve", "--tcp", "0.0.0.0:2375", "--state", str(folder / "tcp")])

# %%
lesson.check("an open port without certificates is refused", refused != 0, got=refused)

# %% [markdown]
"""
## Exercise 1: docker ps by hand

List the running containers with `client.ask` (our small client), and return their names as a list, without the slash in front.
"""

# %% tags=["folded"]
def with_two(my_names):
    """Call the function while two containers run; return what it found."""
    made = [sdk.containers.run("busybox", ["sleep", "60"], detach=True, name=f"labkit-ps-{number}") for number in (1, 2)]
    try:
        return sorted(my_names() or [])
    finally:
        for container in made:
            container.remove(force=True)

# %% tags=["folded"]
by_hand = lesson.exercise("List the running containers over HTTP", steps=[
    lesson.Step("the names are those of the containers that run", look=with_two, want=["labkit-ps-1", "labkit-ps-2"],
                hints=["client.ask('GET', '/containers/json') returns bytes; json.loads understands them.",
                       "Each container has a list `Names`, and each name begins with a slash.", lambda seen: f"It found {seen}."])])
by_hand

# %% tags=["exercise"]
def my_names_maker():
    """Return a function that returns the names."""

# %% tags=["judge"]
by_hand.judge(my_names_maker)

# %% tags=["solution"]
def my_names_solution():
    return lambda: [found["Names"][0].lstrip("/") for found in json.loads(client.ask("GET", "/containers/json"))]

by_hand.prove(my_names_solution, here=can)

# %% [markdown]
"""
## Exercise 2: docker exec by hand

Run a second command in a running container: create an exec object, start it, and ask for its exit code. Three requests. (`{"Detach": true}` in the second one spares you the raw stream; then ask
until it no longer runs.)
"""

# %% tags=["folded"]
def exec_in_one(my_exec):
    """Call the function with a container that runs; return its answers to two commands."""
    container = sdk.containers.run("busybox", ["sleep", "60"], detach=True, name="labkit-exec")
    try:
        return [my_exec(container.id, ["sh", "-c", "exit 5"]), my_exec(container.id, ["true"])]
    finally:
        container.remove(force=True)

# %% tags=["folded"]
second = lesson.exercise("Run a second command in a container over HTTP", steps=[
    lesson.Step("exit codes come back", look=exec_in_one, want=[5, 0],
                hints=["POST /containers/ID/exec with {'Cmd': [...]} answers with {'Id': ...}.",
                       "POST /exec/ID/start with {'Detach': true}; GET /exec/ID/json has Running and ExitCode.",
                       lambda seen: f"It returned {seen}."])])
second

# %% tags=["exercise"]
def my_exec_maker():
    """Return a function of (container id, command) that returns the exit code."""

# %% tags=["judge"]
second.judge(my_exec_maker)

# %% tags=["solution"]
def my_exec_solution():
    def run_in(container, command):
        made = json.loads(client.ask("POST", f"/containers/{container}/exec", {"Cmd": command}))["Id"]
        client.ask("POST", f"/exec/{made}/start", {"Detach": True})
        while (seen := json.loads(client.ask("GET", f"/exec/{made}/json")))["Running"]:
            pass
        return seen["ExitCode"]
    return run_in

second.prove(my_exec_solution, here=can)

# %% [markdown]
"""
## In the real world

- **Docker** has more parties: `dockerd` asks **containerd**, which asks **runc** (once for each container) and leaves a **containerd-shim** with it.
- **Podman** speaks the same API (`podman system service`), but needs no daemon: its command does the work itself, as the user who calls it.
- **Kubernetes** has its own protocol for this conversation, the *Container Runtime Interface*: the kubelet is the client, containerd or CRI-O the daemon.
- `DOCKER_HOST=ssh://server docker ps` sends the conversation through SSH: encrypted, with the server's own accounts.

The same in a shell:

```sh
labkit engine serve --socket docker.sock &
export DOCKER_HOST=unix://$PWD/docker.sock
docker run --rm busybox id
curl --unix-socket docker.sock http://localhost/v1.44/containers/json
```

## Further reading
- *Docker Engine API*: <https://docs.docker.com/reference/api/engine/>
- unix(7), socket(7)
- *Protect the Docker daemon socket*: <https://docs.docker.com/engine/security/protect-access/>
- *containerd*: <https://github.com/containerd/containerd>

## Summary
- The client speaks HTTP to a socket; whoever may write to that socket has the daemon's rights.
- The daemon keeps objects: images, containers, networks, volumes. A container is there before and after its process.
- The runtime makes one container and is done; a small process stays with it, so that client and daemon may come and go.

Next: [09 Images and layers](09_images_and_layers.ipynb).
"""

# %%
cleanup.close()
lesson.check("daemon, images and sockets are gone", engine.process.poll() == 0 and not folder.exists(), got=folder)
