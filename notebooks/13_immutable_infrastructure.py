# %% [markdown]
"""
# 13 Immutable infrastructure: what is wanted is written down

**Question.** A server that people have repaired for three years is like no other: nobody dares to touch it, and nobody could build it again. What if
nothing that runs were ever changed, only replaced, and if a text said what shall run?

**Afterwards you can**
- run two applications side by side whose dependencies exclude each other, and say why that works;
- deploy from a text: read a plan before it is carried out, and see that the second time there is nothing to do;
- let a reconciler repair drift, roll an update forward and back, and say what Kubernetes adds to that.

**Time:** about 15 minutes to read, 40 for the exercises. **You need** lessons [08](08_docker_architecture.ipynb) (client and daemon) and [09](09_images_and_layers.ipynb) (images). The
engine of this lesson is labkit's own; it starts empty and ends with the lesson.

[← 12 Registries](12_registries.ipynb) · [Glossary](glossary.md) · [14 Capstone →](14_capstone.ipynb)
"""

# %%
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

from labkit import lesson
from labkit.compose import ComposeError, Health, Reconciler, image_ids, load_project, plan_up
from labkit.engine.local import LocalEngine
from labkit.image import ImageStore, rootfs
from labkit.image.recipes.command import build_one
from labkit.measure import scratch
from labkit.widgets.desired_view import desired_view

lesson.begin("13_immutable_infrastructure")

# %% tags=["nbval-ignore-output"]
can = lesson.needs("user namespace", "mount namespace", "network namespace", "pivot_root", "overlay", "tmpfs", "busybox")
can

# %% [markdown]
"""
First an engine with something to run: the images come from the recipes in `images/oci`, built from this machine's own Python. This takes a few
seconds.
"""

# %%
cleanup = ExitStack()
folder = cleanup.enter_context(scratch.scratch_folder())
store = ImageStore(folder / "store")
cleanup.callback(rootfs.remove_tree, store.root)
for name in ("busybox", "python", "web", "legacy-app", "modern-app"):
    build_one(name, store)
engine = cleanup.enter_context(LocalEngine(images=store.root))
client = engine.client()

# %%
print(*sorted(tag for image in client.images.list() for tag in image.tags if tag.endswith(":latest")), sep="\n")

# %% [markdown]
"""
## Two applications, one dependency, two versions

A shop has two tills. One was written for `coinbox` 1.0, where `total` is a function; the other for `coinbox` 2.0, where there is a class `Till` instead.
Both import `coinbox`, and one Python can have one of them. On one server, an update for the one breaks the other. (Virtual environments help with
Python packages. They do not help with the next conflict, which is about a C library.)
"""

# %%
guess = lesson.predict(
    "We start both at the same time, each from its own image, on one kernel. What happens?",
    options=["one of them fails", "both work", "the second one waits for the first"],
    answer="both work",
    why="Each sees the files of its own image and nothing else. The kernel does not care which Python package is which.",
)
guess

# %%
prices = ["1.10", "2.20"]
for name in ("legacy-app", "modern-app"):
    print(f"{name:>10}:", client.containers.run(name, prices, remove=True).decode().strip())

# %%
guess.compare()

# %% [markdown]
"""
The old till has the old error, by the way: it adds up floating-point numbers. That is what *never changes* means, too. And what would have happened on
one server? We run the old till's program with the new till's image:
"""

# %%
old_till = client.containers.run("legacy-app", "/srv/till.py", entrypoint="/bin/cat", remove=True).decode()
broken = client.containers.create("modern-app", ["-c", old_till, *prices], entrypoint="python3")
broken.start()
status = broken.wait()["StatusCode"]
print(broken.logs().decode().splitlines()[-1])
broken.remove()

# %%
lesson.check("with the other version the old till breaks", status == 1, got=status)

# %% [markdown]
"""
## Never change what runs

Somebody logs in to a container and repairs something by hand. It works. Then the container is replaced, for whatever reason.
"""

# %%
patched = client.containers.run("web", name="labkit-patched", detach=True)
patched.exec_run(["sh", "-c", "echo fixed > /srv/hotfix"], user="root")
before = patched.exec_run(["cat", "/srv/hotfix"]).output.decode().strip()
patched.remove(force=True)
again = client.containers.run("web", name="labkit-patched", detach=True)
after = again.exec_run(["cat", "/srv/hotfix"]).exit_code
again.remove(force=True)
print("before:", before, "- after: cat ended with status", after)

# %%
lesson.check("what was changed by hand is gone with the container", before == "fixed" and after != 0, got=(before, after))

# %% [markdown]
"""
That looks like a weakness, and it is the point: what runs is what the image says, always. A change has one way only: into the text the image is built from, through
the tests, into a new image.

## A deployment as a text

How many of what, connected how, with which data: that is the other text. Compose is one language for it (Kubernetes has another):
"""

# %%
TEXT = """
name: labkit-shop
services:
  web:
    image: web
    environment: {VERSION: "1"}
    healthcheck: {test: wget -q -O /dev/null http://127.0.0.1:8080/health, interval: 500ms, retries: 20}
    volumes: ["visits:/data"]
    stop_grace_period: 1s
    deploy: {replicas: 2}
volumes: {visits: }
"""

# %%
(folder / "compose.yaml").write_text(TEXT)
project = load_project(folder / "compose.yaml")

# %% [markdown]
"""
`plan_up` compares the text with what the engine has, and says what would have to be done. It does nothing. Read its plan:
"""

# %%
reconciler = Reconciler(client.api, project)
for action in plan_up(project, reconciler.actual(), image_ids(client.api, project)):
    print(action)

# %%
lesson.source(plan_up, without_docstring=True)

# %%
guess_again = lesson.predict(
    "We carry the plan out, and then ask for a plan once more. How many actions will it have?",
    options=["as many as before", "none", "two: the containers are restarted"],
    answer="none",
    why="A plan is a difference. Carrying the same text out twice is the same as once: it is idempotent.",
)
guess_again

# %%
done = reconciler.step()
print(len(done), "actions done;", len(reconciler.drift()), "left")

# %%
guess_again.compare()

# %%
lesson.check("what is so already needs nothing", reconciler.drift() == [] and reconciler.step() == [], got=reconciler.drift())

# %% [markdown]
"""
The project's containers share a network, on which they find each other by name. A visitor comes from there, too. (Both replicas have the name `web`.)
"""

# %%
def visit(path="/"):
    """Visit the service by name, from a container on its network; return what it answered, or nothing."""
    words = ["timeout", "3", "wget", "-q", "-O", "-", f"http://web:8080{path}"]
    visitor = client.containers.create("busybox", words, network="labkit-shop_default")
    visitor.start()
    visitor.wait()
    said = visitor.logs(stderr=False).decode().strip()
    visitor.remove()
    return said

# %% tags=["nbval-ignore-output"]
for _ in range(4):
    print(visit())

# %%
answer = visit("/visits")
lesson.check("the service answers, and counts", '"version": "1"' in answer, got=answer)

# %% [markdown]
"""
## Drift, and who repairs it

Things die. We kill one [replica](glossary.md#replica), and remove the other behind the reconciler's back:
"""

# %%
client.containers.get("labkit-shop-web-1").kill()
client.containers.get("labkit-shop-web-1").wait()
client.containers.get("labkit-shop-web-2").remove(force=True)
for action in reconciler.drift():
    print(action)

# %%
drift = [(action.kind, action.name) for action in reconciler.drift()]
lesson.check("the drift has names", drift == [("start", "labkit-shop-web-1"), ("create", "labkit-shop-web-2")], got=drift)
_ = reconciler.step()
lesson.check("one step of the loop repairs it", reconciler.drift() == [], got=reconciler.drift())

# %% [markdown]
"""
A *reconciler* does nothing but this, again and again: look, compare, repair. Nobody tells it **how**; the text says **what**. (Kubernetes calls it a
*controller*; here that word belongs to cgroups, lesson 04.) This is the
**[reconcile loop](glossary.md#reconcile-loop)**:

![A loop of four steps. Look: what is there? Compare: the desired state, a text with two replicas of version 2, with the actual state, one
replica running and one gone. Plan: the difference, create replica 2; with no difference there is nothing to do. Act: ask the daemon,
which changes the world. Then look again. From the left a person changes only the text; from the right things happen to the world: a
process dies, somebody removes a container.](figures/reconcile.svg)

And this is the one that you have just used:
"""

# %%
lesson.source(Reconciler.step)

# %% [markdown]
"""
In the view below you are the one who wants, and the one who destroys. Stopped, it only looks; press **Start**, and the loop runs, twice a second. Move the
slider, choose the other version, kill replicas as they come.
"""

# %% tags=["nbval-ignore-output"]
view = desired_view(reconciler, "web", {"1": {"VERSION": "1"}, "2": {"VERSION": "2"}})
view

# %%
view.close()
reconciler.project = project
reconciler.step()
lesson.check("after the view everything is as the text says", reconciler.drift() == [], got=reconciler.drift())

# %% [markdown]
"""
## An update, rolled forward

Version 2 is a new text: one line differs. `update` replaces one replica after the other, and the next one only when this one is healthy. Meanwhile
visitors come all the time. How many of them find a closed door?
"""

# %%
answers, over = [], threading.Event()

def visitors():
    """Visit again and again until it is over; note each answer (nothing, where the door was closed)."""
    while not over.is_set():
        answers.append(visit("/visits") or "none")

# %%
second = replace(project, services={"web": replace(project.services["web"], environment={"VERSION": "2"})})
crowd = threading.Thread(target=visitors)
crowd.start()
for action in reconciler.update(second):
    print(action)
over.set()
crowd.join()

# %% tags=["nbval-ignore-output"]
for word in ('"version": "1"', '"version": "2"', "none"):
    print(f"{word:>16}: {sum(word in answer for answer in answers)} visitors")

# %%
lesson.check("version 2 answers now", '"version": "2"' in visit("/visits"), got=answers[-1])
served = sum("version" in answer for answer in answers)
lesson.check("most visitors were served during the update", served > len(answers) / 2, got=f"{served} of {len(answers)}")

# %% [markdown]
"""
**What happened.** While one replica was replaced, the other one answered. A visitor finds a closed door only if a name still leads to the replica that is just going; a
load balancer that asks the health check first (a Kubernetes Service, a reverse proxy) closes that gap.

## And back

Version 3 is sick: its health check fails. `update` notices at the first replica, and goes back before it touches the second.
"""

# %%
guess_sick = lesson.predict(
    "Version 3 never becomes healthy. What runs after the failed update?",
    options=["one replica of version 2, one of version 3", "two replicas of version 2", "nothing"],
    answer="two replicas of version 2",
    why="The text that was desired before is still there. Going back is carrying it out once more: another update, with an older text.",
)
guess_sick

# %%
sick = replace(second.services["web"], environment={"VERSION": "3"}, healthcheck=Health(("CMD", "false"), 0.2, 1, 0, 2))
try:
    reconciler.update(replace(second, services={"web": sick}))
except ComposeError as error:
    print(error)

# %%
guess_sick.compare()

# %%
lesson.check("everything is as it was", reconciler.drift() == [] and '"version": "2"' in visit("/visits"), got=reconciler.drift())
_ = reconciler.roll_back()
lesson.check("one step further back is version 1", '"version": "1"' in visit("/visits"), got=visit("/visits"))

# %% [markdown]
"""
And the visits? Containers came and went, the counter did not: its volume is named in the text, and outlives them all (lesson 11).

## A question
"""

# %%
lesson.quiz(
    "A container was changed by hand last night, and the service is better for it. What do you do?",
    [
        lesson.Answer("Leave it: it works.", "Until it is replaced. Then the fault is back, and nobody remembers."),
        lesson.Answer("Commit the container as an image.", "Then the image works, and nobody can build it again or say what is in it."),
        lesson.Answer("Put the change into the text the image is built from, and roll it out.", "Now it is there for good, and everybody can read why.", right=True),
    ],
)

# %% [markdown]
"""
## Exercise 1: a deployment of your own

Write a Compose text with two services: `web` (image `web`), and a `visitor` (image `busybox`) which visits it once a second. The visitor must start only
when `web` is healthy; the web's image has a health check of its own, but Compose wants to see one in the text.
"""

# %% tags=["folded"]
def started(text):
    """Bring a text up beside the lesson's project; return the containers by service."""
    file = folder / "own" / "compose.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    own = Reconciler(client.api, load_project(file, name="labkit-own"), wait_s=30)
    cleanup.callback(own.down, volumes=True)
    own.step()
    return {found.service: client.containers.get(found.id) for found in own.actual().containers}

# %% tags=["folded"]
def heard(containers):
    """Return what the visitor has heard, waiting for it up to ten seconds."""
    until = time.monotonic() + 10
    while time.monotonic() < until and not (said := containers["visitor"].logs().decode()):
        time.sleep(0.1)
    return said.splitlines()[-1] if said else "nothing"

# %% tags=["folded"]
own_text = lesson.exercise("Deploy a web service and its visitor from a text", steps=[
    lesson.Step("there are the services web and visitor", look=lambda c: sorted(c), want=["visitor", "web"]),
    lesson.Step("web was healthy before the visitor started",
                look=lambda c: c["web"].attrs["State"].get("Health", {}).get("Status"), want="healthy",
                hints=["depends_on: {web: {condition: service_healthy}}, and a healthcheck for web."]),
    lesson.Step("the visitor is answered", look=heard, want=lambda said: "hello from" in said,
                hints=["command: sh -c 'while sleep 1; do wget -q -O - http://web:8080/; done'", lambda said: f"It heard: {said}"])])
own_text

# %% tags=["exercise"]
def my_text():
    """Return started(TEXT) with a text of your own."""

# %% tags=["judge"]
own_text.judge(my_text)

# %% tags=["solution"]
def my_text_solution():
    return started("""
services:
  web: {image: web, stop_grace_period: 1s,
        healthcheck: {test: wget -q -O /dev/null http://127.0.0.1:8080/health, interval: 500ms, retries: 20}}
  visitor: {image: busybox, command: sh -c 'while sleep 1; do wget -q -O - http://web:8080/; done',
            stop_grace_period: 0s, depends_on: {web: {condition: service_healthy}}}
""")

own_text.prove(my_text_solution, here=can)

# %% [markdown]
"""
## Exercise 2: the heart of a reconciler

`compare(wanted, there)` gets how many replicas are wanted, and what there is: a mapping from a replica's number to its state (`"running"` or `"exited"`). It
returns what must be done, as a list of pairs: `("create", number)`, `("start", number)` or `("remove", number)`.
"""

# %% tags=["folded"]
def settle(compare):
    """Let ``compare`` run a world until nothing is left to do; return the world, or what was wrong."""
    worlds = []
    for wanted, there in ((2, {}), (3, {1: "exited", 2: "running"}), (1, {1: "running", 2: "running", 3: "exited"}), (2, {2: "running"})):
        for _ in range(5):
            for kind, number in compare(wanted, dict(there)) or []:
                there.pop(number, None) if kind == "remove" else there.__setitem__(number, "running")
        worlds.append(there == dict.fromkeys(range(1, wanted + 1), "running") and not compare(wanted, dict(there)))
    return worlds

# %% tags=["folded"]
heart = lesson.exercise("Write the comparison that a reconciler runs on", steps=[
    lesson.Step("it returns a list of pairs", look=lambda f: f(1, {1: "running"}), want=[],
                hints=["With nothing to do, the list is empty."]),
    lesson.Step("every world comes to rest as it was wanted", look=settle, want=[True] * 4,
                hints=["Numbers from 1 to wanted must be running.", "What has a larger number must go.",
                       lambda worlds: f"{worlds.count(False)} of 4 worlds do not come to rest."])])
heart

# %% tags=["exercise"]
def my_comparison():
    """Return a function compare(wanted, there)."""

# %% tags=["judge"]
heart.judge(my_comparison)

# %% tags=["solution"]
def my_comparison_solution():
    def compare(wanted, there):
        actions = [("remove", number) for number in there if number > wanted]
        for number in range(1, wanted + 1):
            if there.get(number) != "running":
                actions.append(("start" if number in there else "create", number))
        return actions
    return compare

heart.prove(my_comparison_solution)

# %% [markdown]
"""
## In the real world

- **Kubernetes** is this loop many times over: a *Deployment* wants replicas, a *ReplicaSet* counts them, the *kubelet* on each machine makes them so. It adds a scheduler
  that chooses among many machines, a store (etcd) in which what is wanted outlives every controller, Services that send visitors to healthy replicas only,
  and an API to which anybody may add kinds of things and controllers of their own.
- **Terraform** compares a text with what cloud providers have, and prints a plan before it does anything: `terraform plan`, `terraform apply`.
- **GitOps** (Argo CD, Flux) takes the wanted text from a git repository: deploying is merging, and going back is `git revert`.
- Netflix and others bake whole disk images of virtual machines in the same spirit. *Immutable infrastructure* is older than containers; they made it cheap.

The same in a shell:

```sh
labkit compose up --dry-run     # the plan
labkit compose up               # carried out
labkit compose watch            # the loop
docker compose up -d            # Docker's own, with the same text
kubectl apply -f shop.yaml      # Kubernetes
```

## Further reading
- *Compose Specification*: <https://github.com/compose-spec/compose-spec>
- Kubernetes, *Controllers*: <https://kubernetes.io/docs/concepts/architecture/controller/>
- *The Twelve-Factor App*: <https://12factor.net>
- Chad Fowler, *Trash Your Servers and Burn Your Code: Immutable Infrastructure and Disposable Components* (2013)

## Summary
- An image carries its dependencies; two images may contradict each other on one kernel.
- Nothing that runs is changed. What is wanted is written down, and what runs is made anew from it.
- A plan is the difference between text and world; with no difference there is nothing to do.
- A reconciler carries plans out for ever. Update, repair, scaling and going back are the same loop with another text.

Next: [14 Capstone](14_capstone.ipynb).
"""

# %%
reconciler.down(volumes=True)
cleanup.close()
lesson.check("engine, images and files are gone", engine.process.poll() == 0 and not folder.exists(), got=folder)
