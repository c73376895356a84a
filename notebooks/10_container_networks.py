# %% [markdown]
"""
# 10 Container networks: cables, switches and names

**Question.** A new network namespace has one interface, and it is down. How does a container get an address, find others by name, reach the world, and be reached from it?

**Afterwards you can**
- connect two network namespaces by hand, with two virtual cables and a bridge;
- say what an engine adds: addresses, names, NAT, isolation between networks, published ports;
- connect and cut containers while they run, and read who can reach whom from a picture.

**Time:** about 15 minutes to read, 30 for the exercises. **You need** lessons [03](03_namespaces.ipynb) (network namespaces) and [08](08_docker_architecture.ipynb) (the engine).

[← 09 Images and layers](09_images_and_layers.ipynb) · [Glossary](glossary.md) · [11 Volumes →](11_volumes.ipynb)
"""

# %%
import urllib.request
from contextlib import ExitStack

from docker.errors import APIError

from labkit import Container, charts, lesson
from labkit.charts import wiring as picture
from labkit.engine import local, wiring
from labkit.engine.network import byhand, links
from labkit.image import ImageStore
from labkit.image import rootfs as image_rootfs
from labkit.image.recipes.command import build_one
from labkit.measure import rootfs, scratch
from labkit.widgets import network_view

# %% tags=["nbval-ignore-output"]
lesson.begin("10_container_networks")
can = lesson.needs("user namespace", "network namespace", "mount namespace", "pivot_root", "overlay", "tmpfs", "busybox")
can

# %% [markdown]
"""
## By hand: a bridge and two cables

A **[veth pair](glossary.md#veth-pair)** is a cable with two ends: what goes in at the one comes out at the other. Put one end into a container's network namespace, plug the other into a **[bridge](glossary.md#bridge)** (a switch made of
software), and do the same with a second container. Two containers without any network to begin with:
"""

# %%
cleanup = ExitStack()
base = cleanup.enter_context(rootfs.busybox_rootfs())
one, two = (cleanup.enter_context(Container(["sleep", "600"], rootfs=base, name=f"labkit-{name}")) for name in ("one", "two"))
for container in (one, two):
    container.start()

def say(container, *words):
    """Run busybox in a container; return what it printed, and its exit status."""
    with container.exec(["/bin/busybox", *words]) as process:
        done = process.communicate(timeout_s=20)
    return done.text.strip(), done.exit.code

# %%
interfaces = [line.split(":")[1].strip() for line in say(one, "ip", "-o", "link")[0].splitlines()]
print(interfaces)
lesson.check("a new network namespace has the loopback interface only", interfaces == ["lo"], got=interfaces)

# %% [markdown]
"""
Now the bridge and the two cables. labkit's engine makes them with the function that you see here; `route` is a *netlink* socket, through which the kernel is told about interfaces and addresses (the command `ip`
uses the same):
"""

# %%
lesson.source(links.Links.plug)

# %%
bridge = cleanup.enter_context(byhand.Bridge("labkit-br", "10.77.0.1/24"))
bridge.plug(one.pid, "10.77.0.2")
bridge.plug(two.pid, "10.77.0.3")
print(say(one, "ip", "-o", "-4", "addr", "show", "eth0")[0])

# %%
guess = lesson.predict(
    "one has the address 10.77.0.2 and two has 10.77.0.3. Can one send packets to two?",
    options=["yes", "no, a route is missing", "no, NAT is missing"],
    answer="yes",
    why="They are in the same subnet, on the same switch: no router is between them, and nothing needs to be translated.",
)
guess

# %%
reached = say(one, "ping", "-c", "1", "-W", "3", "10.77.0.3")
print("exit status", reached[1])

# %%
guess.compare()

# %%
lesson.check("one reaches two over the bridge", reached[1] == 0, got=reached)
lesson.check("two's counters have seen it", "10.77.0.2" in say(two, "arp", "-n")[0], got=say(two, "arp", "-n"))

# %% [markdown]
"""
`arp` shows whom two has had to do with: it learned one's hardware address when the packet came. That is all there is to a container network; the rest is comfort.

## What an engine adds

An engine lays such cables for you, and adds what the picture shows: names, a way out, a wall between networks, and a port as a way in.

![Three containers, each in a network namespace of its own with an interface eth0. Cables, that is veth pairs, of web and shop end in the
bridge of the network front; a second cable of shop and one of db end in the bridge of the network back. A name server at 127.0.0.11
answers with the names of the container's own networks only. From front a way leads through NAT to the machine's interface and the world;
back is internal and has none. A packet filter drops what would cross from front to back. A published port of the machine, 8080, leads to
port 80 of web.](figures/network.svg)

We start an engine, and build this picture:
"""

# %%
bridge.close()
folder = cleanup.enter_context(scratch.scratch_folder())
store = ImageStore(folder / "store")
cleanup.callback(image_rootfs.remove_tree, store.root)
build_one("busybox", store)
engine = cleanup.enter_context(local.LocalEngine(images=store.root))
client = engine.client()

# %%
def start(name, network, **more):
    """Start a container that serves its own name over HTTP at port 80."""
    words = ["sh", "-c", f"mkdir /www; echo this is {name} > /www/index.html; exec httpd -f -p 80 -h /www"]
    return client.containers.run("busybox", words, name=name, network=network, detach=True, stop_signal="KILL", **more)

def ask(container, target):
    """Let a container visit another one; return what it was told, or the reason why not."""
    done = container.exec_run(["timeout", "4", "wget", "-q", "-O", "-", f"http://{target}/"])
    return done.output.decode().strip() or f"no answer (status {done.exit_code})"

# %%
client.networks.create("front")
web, shop = start("web", "front"), start("shop", "front")
print(web.exec_run(["ip", "-o", "-4", "addr", "show", "eth0"]).output.decode().split()[3])
print(web.exec_run(["ip", "route"]).output.decode().splitlines()[0].strip())
print(web.exec_run(["cat", "/etc/resolv.conf"]).output.decode().splitlines()[0])

# %% [markdown]
"""
An address, a default route to the bridge, and a name server at `127.0.0.11`: that one is the engine. It knows the names of all containers on the network.
"""

# %%
guess_names = lesson.predict(
    "web asks shop by its name. Then it asks for a container on another network, by name. What happens?",
    options=["both work", "the first works, the second name is unknown", "neither works"],
    answer="the first works, the second name is unknown",
    why="Names belong to networks: the engine tells each container the names on its own networks only.",
)
guess_names

# %%
client.networks.create("back", internal=True)
db = start("db", "back")
answers = ask(web, "shop"), ask(web, "db")
print(*answers, sep=" | ")

# %%
guess_names.compare()

# %%
lesson.check("names are known on the own network only", answers[0] == "this is shop" and "db" not in answers[0] and "this is db" not in answers[1], got=answers)

# %% [markdown]
"""
And with the address instead of the name? Then a packet filter stands between the networks: what comes from one of the engine's bridges does not pass to another one."""

# %%
from_web = ask(web, client.containers.get("db").attrs["NetworkSettings"]["Networks"]["back"]["IPAddress"])
lesson.check("the address alone does not help", "this is db" not in from_web, got=from_web)

# %% [markdown]
"""
## Connect and cut

A container may be on several networks, and join or leave them while it runs. `shop` shall reach `db`:
"""

# %%
client.networks.get("back").connect(shop)
now = ask(shop, "db"), ask(web, "db")
print(*now, sep=" | ")
lesson.check("shop reaches db now, and web still does not", now[0] == "this is db" and "this is db" not in now[1], got=now)

# %% tags=["nbval-ignore-output"]
figure, (axes,) = charts.figure(9.2, 4.4)
seen = wiring.read_wiring(client)
picture.draw(axes, seen)
charts.show(figure, alt="Containers and networks: " + picture.describe(seen))

# %% [markdown]
"""
That is the usual shape of an application: a *front* that visitors reach, a *back* for the database, and one who stands in both. The view below counts packets; press the buttons and watch who is
reached.
"""

# %% tags=["nbval-ignore-output"]
def cut(container, network):
    client.networks.get(network).disconnect(container, force=True)
    return "cut"

def join(container, network):
    client.networks.get(network).connect(container)
    return "connected"

view = network_view.network_view(client, {
    "web asks shop": lambda: ask(web, "shop"), "web asks db": lambda: ask(web, "db"), "shop asks db": lambda: ask(shop, "db"),
    "cut shop from back": lambda: cut(shop, "back"), "connect shop to back": lambda: join(shop, "back")})
view

# %%
view.close()
wired = {node.name: sorted(node.addresses) for node in wiring.read_wiring(client).nodes}
lesson.check("shop stands in both networks", wired == {"db": ["back"], "shop": ["back", "front"], "web": ["front"]}, got=wired)

# %% [markdown]
"""
## Publishing a port

Containers reach each other. Who reaches them from outside? Nobody, until a port of the machine is passed on:
"""

# %%
public = start("public", "front", ports={"80/tcp": ("127.0.0.1", None)})
public.reload()
port = public.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
print(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read().decode().strip())

# %%
guess_publish = lesson.predict(
    "Two containers publish their port 80, both at the machine's port 8080. What happens?",
    options=["both are reached, in turn", "the second one is refused", "the first one is cut off"],
    answer="the second one is refused",
    why="A port of the machine can be listened at by one only. Inside, both may have their port 80: each has its own network namespace.",
)
guess_publish

# %%
refused = None
try:
    start("second", "front", ports={"80/tcp": ("127.0.0.1", int(port))})
except APIError as error:
    refused = str(error.explanation)
client.containers.get("second").remove(force=True)

# %% tags=["nbval-ignore-output"]
print(refused)

# %%
guess_publish.compare()

# %%
lesson.check("a port of the machine is given away once", refused is not None and "port is already allocated" in refused, got=refused)

# %% [markdown]
"""
## No network, or the machine's own

`none` is the strongest separation that there is: a loopback interface, and nothing else. A program that needs no network should not have one. An *internal* network (such as `back`) has no way out: no default route.
"""

# %%
alone = client.containers.run("busybox", ["ip", "-o", "link"], network="none", remove=True).decode()
routes = db.exec_run(["ip", "route"]).output.decode()
lesson.check("none has one interface", len(alone.splitlines()) == 1 and ": lo:" in alone, got=alone)
lesson.check("an internal network has no default route", "default" not in routes, got=routes)

# %%
lesson.quiz(
    "A container on a user-defined network was attacked, and the attacker can run commands in it. What can they reach?",
    [
        lesson.Answer("The whole machine's network.", "Not from its network namespace."),
        lesson.Answer("Every container of the engine.", "Other networks are islands: a packet filter drops what goes across."),
        lesson.Answer("The containers on its networks, and the world, unless the network is internal.", "That is why a database gets a network of its own.", right=True),
    ],
)

# %% [markdown]
"""
## Exercise 1: three tiers

Make a network `tier-a` and a network `tier-b`, and start three containers with `start`: `visitor` on `tier-a`, `store` on `tier-b`, and `logic`, which reaches both. The visitor must reach `logic` by name, and must not reach
`store`. Return the three as a dictionary.
"""

# %% tags=["folded"]
tiers = lesson.exercise("Build an application of three tiers", steps=[
    lesson.Step("the visitor reaches logic", look=lambda c: ask(c["visitor"], "logic"), want="this is logic",
                hints=["Both are on tier-a; names are known there."]),
    lesson.Step("logic reaches the store", look=lambda c: ask(c["logic"], "store"), want="this is store",
                hints=["client.networks.get('tier-b').connect(container)"]),
    lesson.Step("the visitor does not reach the store", look=lambda c: ask(c["visitor"], "store"), want=lambda said: "this is store" not in said,
                hints=["The store must not be on tier-a."])])
tiers

# %% tags=["exercise"]
def my_tiers():
    """Return {"visitor": ..., "logic": ..., "store": ...}."""

# %% tags=["judge"]
tiers.judge(my_tiers)

# %% tags=["solution"]
def my_tiers_solution():
    for name in ("tier-a", "tier-b"):
        client.networks.create(name)
    made = {"visitor": start("visitor", "tier-a"), "logic": start("logic", "tier-a"), "store": start("store", "tier-b")}
    client.networks.get("tier-b").connect(made["logic"])
    return made

tiers.prove(my_tiers_solution, here=can)

# %% [markdown]
"""
## Exercise 2: a cable of your own

Start a container (`Container`, as at the top) and connect it by hand to a bridge `labkit-own` with the address 10.78.0.1/24, as 10.78.0.9. Return the container and the bridge. (`cleanup.enter_context` takes care that both
are removed.)
"""

# %% tags=["folded"]
cable = lesson.exercise("Lay a cable into a container", steps=[
    lesson.Step("it has the address", look=lambda pair: say(pair[0], "ip", "-o", "-4", "addr", "show", "eth0")[0].split()[3:4], want=["10.78.0.9/24"],
                hints=["byhand.Bridge('labkit-own', '10.78.0.1/24') makes the bridge; its method plug lays the cable."]),
    lesson.Step("it reaches the bridge", look=lambda pair: say(pair[0], "ping", "-c", "1", "-W", "3", "10.78.0.1")[1], want=0)])
cable

# %% tags=["exercise"]
def my_cable():
    """Return (container, bridge)."""

# %% tags=["judge"]
cable.judge(my_cable)

# %% tags=["solution"]
def my_cable_solution():
    container = cleanup.enter_context(Container(["sleep", "600"], rootfs=base))
    container.start()
    own = cleanup.enter_context(byhand.Bridge("labkit-own", "10.78.0.1/24"))
    own.plug(container.pid, "10.78.0.9")
    return container, own

cable.prove(my_cable_solution, here=can)

# %% [markdown]
"""
## In the real world

- **Docker** makes the same: `docker0` is a bridge, each container has a veth pair, `iptables` or `nft` has the rules, and a small name server answers at 127.0.0.11.
- **Rootless** engines may not touch the machine's interfaces. They give the whole engine a network namespace, and a program (`slirp4netns`, `pasta`) carries its packets as an ordinary user's connections.
- **Kubernetes** gives each *pod* an address, shared by its containers, and wants every pod to reach every other without NAT; plugins (CNI) do that. Who may talk to whom, a *NetworkPolicy* says.
- **Service meshes** put a proxy beside each container, and take the decision from the network to the request.

The same in a shell:

```sh
ip link add labkit-br type bridge; ip addr add 10.77.0.1/24 dev labkit-br; ip link set labkit-br up
ip link add v1 type veth peer name eth0 netns PID; ip link set v1 master labkit-br up
nsenter --net=/proc/PID/ns/net ip addr add 10.77.0.2/24 dev eth0
docker network create front; docker run --network front --name web IMAGE
docker network connect back shop; docker run -p 127.0.0.1:8080:80 IMAGE
```

## Further reading
- veth(4), network_namespaces(7), ip-link(8), bridge(8), nft(8)
- Docker, *Networking*: <https://docs.docker.com/engine/network/>
- *Container Network Interface*: <https://github.com/containernetworking/cni>

## Summary
- A veth pair is a cable, a bridge a switch. Two netlink messages make them, a third moves an end into a container.
- Engines add addresses, names, a way out (NAT) and separation between networks.
- A published port is the only way in. An internal network has no way out; `none` has neither.

Next: [11 Volumes](11_volumes.ipynb).
"""

# %%
for container in client.containers.list(all=True):
    container.remove(force=True)
cleanup.close()
lesson.check("engine, networks and cables are gone", engine.process.poll() == 0 and not folder.exists(), got=folder)
