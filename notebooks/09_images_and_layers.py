# %% [markdown]
"""
# 09 Images and layers: an environment that never changes

**Question.** "It works on my machine" ends where an application travels together with its machine: programs, libraries, settings, all of
it. That is what an image is. But what is it on the disk, byte by byte? Why can nobody change it behind your back? And how can five images of 70 MB
each take 73 MB in all?

**Afterwards you can**
- read an image: manifest, configuration, layers, and the digests that tie them together; say what `repository:tag` promises and what not;
- write a Containerfile (a Dockerfile is the same), and say which of its lines make a layer;
- explain the build cache: what a step depends on, why it missed, and how to order instructions so that it hits.

**Time:** about 25 minutes to read, 35 for the exercises. **You need** [lesson 05](05_root_filesystems.ipynb) (OverlayFS, whiteouts). Everything lies in one temporary folder, which the last cell removes.

[← 08 Docker's architecture](08_docker_architecture.ipynb) · [Glossary](glossary.md) · [10 Container networks →](10_container_networks.ipynb)
"""

# %%
import hashlib
import json
import tarfile
from contextlib import ExitStack

from labkit import MiB, lesson
from labkit.charts import image_layers, show, theme
from labkit.image import ImageStore, Reference, commit, diff, rootfs, run
from labkit.image.build import build, parse
from labkit.image.recipes.command import build_one, recipes_folder
from labkit.measure import builds, images, layers, scratch
from labkit.widgets import build_cache, image_stack

lesson.begin("09_images_and_layers")

# %% tags=["nbval-ignore-output"]
lesson.needs("user namespace", "mount namespace", "pivot_root", "overlay", "tmpfs", "busybox")

# %% [markdown]
"""
## A folder of bytes that name themselves

Images need a place to lie: a *store*. Ours is a folder, empty so far. No registry is asked for anything: labkit builds its base image from
the static busybox of this machine, after the recipe in `images/oci/busybox`. How that works comes later; first a look at the result.
"""

# %%
cleanup = ExitStack()
stage = cleanup.enter_context(scratch.scratch_folder())
store = ImageStore(stage / "store")
cleanup.callback(rootfs.remove_tree, store.root)
build_one("busybox", store)
print((recipes_folder() / "busybox/Containerfile").read_text())

# %% tags=["nbval-ignore-output"]
for path in sorted(path for path in (store.root / "blobs").rglob("*") if path.is_file()):
    head = path.read_bytes()[:34]
    print(f"{path.name[:16]}…  {path.stat().st_size:>9} bytes  {head!r}")

# %% [markdown]
"""
These files are called **[blobs](glossary.md#blob)**. Their names look like noise. What are they?
"""

# %%
guess_name = lesson.predict(
    "How does the store choose the name of a blob?",
    options=["at random", "by counting", "from the content", "from the time"],
    answer="from the content",
    why="The name is the SHA-256 of the bytes: a digest. The same bytes have the same name everywhere, other bytes another.",
)
guess_name

# %%
def wrong_names():
    """Return the blobs whose name is not the SHA-256 of their bytes, computed here and without labkit."""
    blobs = [path for path in (store.root / "blobs/sha256").iterdir()]
    return [path.name for path in blobs if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]

# %%
guess_name.compare()

# %%
lesson.check("every blob is named by the hash of its bytes", wrong_names() == [], got=wrong_names())

# %% [markdown]
"""
**What happened.** The store is *content-addressed*. Whoever has a digest can check what anybody gives for it, and nobody can change
the content without changing the name. This one idea carries everything that follows.

## From a name to the bytes

What do we ask for when we write `busybox`? A name is short for something longer:
"""

# %%
for text in ("busybox", "alice/web:2", "localhost:5000/alice/web", "busybox@sha256:" + 64 * "0"):
    print(f"{text[:34]:<36} {Reference.parse(text).canonical[:60]}")

# %% [markdown]
"""
A reference is `registry/repository:tag`. Without a registry it means `docker.io`, without an account `library`, without a tag `latest`, which
is a tag like any other. Instead of the tag there may be a digest, after `@`.

The store's `index.json` says to which blob a tag points. That blob is a **[manifest](glossary.md#manifest)**, and the manifest points on:
"""

# %%
def blob(digest):
    """Return the bytes of a blob."""
    return (store.root / "blobs" / digest.replace(":", "/")).read_bytes()

entry = json.loads((store.root / "index.json").read_text())["manifests"][0]
manifest = json.loads(blob(entry["digest"]))
config = json.loads(blob(manifest["config"]["digest"]))
print(entry["annotations"])

# %% tags=["nbval-ignore-output"]
print(json.dumps(manifest, indent=1)[:1300])

# %% [markdown]
"""
**Descriptors** are what images are tied together with: a media type, a digest and a size. The manifest has one for the *configuration* and one for
each **[layer](glossary.md#layer)**. The configuration says how to run the image, for which machines it is, and how it came about:
"""

# %% tags=["nbval-ignore-output"]
print(json.dumps(config["config"], indent=1))
for step in config["history"]:
    print("no layer" if step.get("empty_layer") else "layer   ", step["created_by"])

# %% [markdown]
"""
The digest of the configuration is the *image id* that `docker images` shows. And the layers? Each is a tar archive of files:
"""

# %% tags=["nbval-ignore-output"]
for descriptor in manifest["layers"]:
    with tarfile.open(store.root / "blobs" / descriptor["digest"].replace(":", "/")) as archive:
        names = archive.getnames()
    print(f"{len(names):>4} entries: {', '.join(sorted(names)[:6])}, ...")

# %%
steps_with_layer = [step for step in config["history"] if not step.get("empty_layer")]
same = len(steps_with_layer) == len(manifest["layers"])
lesson.check("each step with a layer has one in the manifest", same, got=manifest["layers"])

# %% [markdown]
"""
## A tag moves, a digest does not

Let us make a second image out of nothing but a setting, and give it a name that was in use.
"""

# %%
guess_tag = lesson.predict(
    "You deploy app:1 on Monday and again on Tuesday. Is it the same image?",
    options=["yes, always", "only if nobody has moved the tag", "never"],
    answer="only if nobody has moved the tag",
    why="A tag is a note in an index, and can be pointed to something else at any time. Only a digest names the bytes.",
)
guess_tag

# %%
def make(name, text, **options):
    """Build a Containerfile without files of its own and return what came out."""
    (stage / "empty").mkdir(exist_ok=True)
    return build(stage / "empty", containerfile=text.encode(), store=store, tags=[name], **options)

monday = make("app:1", "FROM busybox\nENV DAY=monday\n")
tuesday = make("app:1", "FROM busybox\nENV DAY=tuesday\n")
for name in ("app:1", "app@" + tuesday.descriptor.digest, monday.descriptor.digest):
    print(f"{name.partition('@')[0][:7]:<8}", store.image(name).config.config.environment["DAY"])

# %%
guess_tag.compare()

# %%
now = store.image("app:1").id
lesson.check("the tag names Tuesday's image", now == tuesday.image_id != monday.image_id, got=now)
by_digest = store.image(monday.descriptor.digest).id
lesson.check("Monday's image is still there, by its digest", by_digest == monday.image_id, got=by_digest)

# %% [markdown]
"""
Monday's image has lost its name; such an image is called *dangling*, and `labkit image prune` takes it away. Both images have the
very same layers. Only their configurations differ, by one word, and so do all digests that lead to it.

## Write a Containerfile

A Containerfile says how an image is made. Each line is an *instruction*:

| instruction | what it does | makes a layer |
|---|---|---|
| `FROM` | starts from an image, or from nothing (`scratch`) | |
| `COPY`, `ADD` | copies files of the *context*, the folder that is built; `ADD` unpacks archives | yes |
| `RUN` | runs a command in a container; what it changes is the layer | yes |
| `WORKDIR` | sets the working folder, and makes it if it is missing | if it makes it |
| `ENV`, `USER`, `EXPOSE`, `LABEL`, ... | settings of the containers to come | |
| `ENTRYPOINT`, `CMD` | what a container runs if nobody says anything else | |

Here is one, with its context:
"""

# %%
context = stage / "greeter"
context.mkdir()
(context / "greet.sh").write_text("read -r name < /etc/greeted\necho hello $name, it is $1\n")
(context / "names.txt").write_text("world\n")
_ = (context / "Containerfile").write_text("""FROM busybox
WORKDIR /app
COPY names.txt .
RUN sleep 1; sort names.txt > /etc/greeted; rm names.txt
COPY greet.sh .
ENTRYPOINT ["sh", "/app/greet.sh"]
CMD ["early"]
""")

# %%
plan = parse((context / "Containerfile").read_text())
for instruction in plan.stages[0].instructions:
    print(f"line {instruction.line}: {instruction.keyword}")

# %%
guess_layers = lesson.predict(
    "How many layers does this Containerfile put on top of busybox?",
    unit="layers",
    why="WORKDIR makes a folder, COPY copies, RUN changes files, COPY copies: four. ENTRYPOINT and CMD are settings only.",
)
guess_layers

# %% tags=["nbval-ignore-output"]
first = builds.build_run("greeter", context, store=store)
print(*first.steps, sep="\n")

# %%
greeter, base = store.image("greeter"), store.image("busybox")
guess_layers.compare(len(greeter.manifest.layers) - len(base.manifest.layers))

# %%
def say(name, *words, **options):
    """Run a container of an image and return what it prints."""
    with run.container_of(store, name, words, **options) as container:
        container.start()
        return container.communicate(timeout_s=30).text

said = say("greeter") + say("greeter", "late")
print(said)

# %%
wanted = "hello world, it is early\nhello world, it is late\n"
lesson.check("words of the caller replace CMD, not ENTRYPOINT", said == wanted, got=said)

# %% [markdown]
"""
**What happened.** `RUN` started a container on the layers so far, exactly as in lesson 05: read-only layers below, an empty writable one
above. When the command had ended, the upper layer was packed as the new layer. Look into it: the file that was removed is there, as a
whiteout. In a tar, where there are no device nodes to spare, a whiteout is an empty file `.wh.NAME`.
"""

# %%
run_layer = greeter.manifest.layers[len(base.manifest.layers) + 2]
with tarfile.open(store.blobs.path(run_layer.digest)) as archive:
    in_layer = archive.getnames()
print(in_layer)

# %%
lesson.check("the deleted file is a whiteout of the layer", "app/.wh.names.txt" in in_layer, got=in_layer)

# %% [markdown]
"""
## Shared layers are stored once

Three more images on the same base. Before you look: what do they cost?
"""

# %%
for color in ("red", "green", "blue"):
    make(color, f"FROM greeter\nRUN echo {color} > /etc/color\n")
shelf = images.look_at_images(store, ["busybox", "greeter", "red", "green", "blue"])

# %%
guess_disk = lesson.predict(
    "busybox has about 2 MiB, and each of the other four images has it inside. How much do the five take together?",
    options=["about 2 MiB", "about 5 MiB", "about 10 MiB"],
    answer="about 2 MiB",
    why="A layer is a blob, and a blob lies in the store once. What the others add is a few kilobytes each.",
)
guess_disk

# %% tags=["nbval-ignore-output"]
figure, [axes] = theme.figure(9.4, 5.4)
image_layers.draw(axes, shelf)
show(figure, alt="Five images as stacks: busybox's layers lie below all, greeter's below four, and each color has one of its own")

# %%
guess_disk.compare()

# %%
times_one = [size / shelf.stacks[0].size_bytes for size in (shelf.stored_bytes, shelf.sum_bytes)]
lesson.check("five images take little more than one", times_one[0] < 1.1 and times_one[1] > 4.5, got=times_one)

# %% [markdown]
"""
It is the same on disk, in a registry and on the way there (lesson 12): what is there already need not come again. And when containers of
all five run, the kernel has the base's files once in its page cache.

The live view draws the store as it is. Press **Start**, then build, tag or remove something in the cell below it.
"""

# %% tags=["nbval-ignore-output"]
stacks = image_stack.image_stack(store)
stacks

# %% tags=["nbval-ignore-output"]
make("yellow", "FROM red\nRUN echo yellow > /etc/color\n")
print(image_stack.describe(images.look_at_images(store)))

# %% [markdown]
"""
## The build cache

The first build of `greeter` took a second, because of `sleep 1`, which stands for a package manager at work. Let us build it again.
"""

# %%
guess_again = lesson.predict(
    "Nothing has changed. How long will the second build take?",
    options=["a second again", "half a second", "less than a tenth of a second"],
    answer="less than a tenth of a second",
    why="Every step is found in the cache: image below, instruction and files are the same, so the layer is, too.",
)
guess_again

# %% tags=["nbval-ignore-output"]
second = builds.build_run("greeter", context, store=store)
print(*second.steps, sep="\n")
print(f"{second.elapsed_s * 1000:.0f} ms")

# %%
guess_again.compare()

# %%
lesson.check("nothing was done, and the image is the same", second.done == () and second.image_id == first.image_id, got=second)

# %% [markdown]
"""
A step's result is kept under a key, and the key is a hash of all that the result depends on:

1. the **image below** it (its id, which holds everything that came before);
2. the **instruction**, with variables replaced;
3. of `COPY` and `ADD`, the **contents** and modes of the files, but not their times;
4. of `RUN`, the build arguments (`ARG`); but *not* what the command would fetch or compute today.

Now `greet.sh` gets one more line.
"""

# %%
guess_miss = lesson.predict(
    "greet.sh has changed. Which steps have to be done again?",
    options=["COPY greet.sh, and what comes after it", "COPY greet.sh only", "all steps"],
    answer="COPY greet.sh, and what comes after it",
    why="The steps after it stand on another image now, so their keys differ, too. Those before it know nothing of the change.",
)
guess_miss

# %% tags=["nbval-ignore-output"]
with (context / "greet.sh").open("a") as file:
    file.write("echo and good-bye\n")
third = builds.build_run("greeter", context, store=store)
print(*third.steps, sep="\n")

# %%
guess_miss.compare()

# %%
missed = [step.text.split()[0] for step in third.done]
lesson.check("COPY and what follows was done, RUN was not", missed == ["COPY", "ENTRYPOINT", "CMD"], got=missed)
lesson.check("the reason is told", third.done[0].why == "greet.sh changed", got=third.done[0].why)

# %% [markdown]
"""
So the order of instructions matters: what changes rarely comes first, what changes often comes last. The live view builds two
Containerfiles on the same context. One copies everything at once, the other copies the list of packages first. Choose a file to change and press
**Build**.
"""

# %%
(context / "Containerfile.all_at_once").write_text("""FROM busybox
COPY . /app/
RUN sleep 1; sort /app/names.txt > /etc/greeted
CMD ["sh", "/app/greet.sh", "early"]
""")
_ = (context / "Containerfile.in_order").write_text("""FROM busybox
COPY names.txt /app/
RUN sleep 1; sort /app/names.txt > /etc/greeted
COPY greet.sh /app/
CMD ["sh", "/app/greet.sh", "early"]
""")

# %% tags=["nbval-ignore-output"]
orders = ["Containerfile.all_at_once", "Containerfile.in_order"]
cache_view = build_cache.build_cache(store, context, orders, files=["greet.sh", "names.txt"])
cache_view

# %%
with (context / "greet.sh").open("a") as file:
    file.write("exit 0\n")
slow, quick = (builds.build_run("order", context, store=store, containerfile=name) for name in orders)

# %%
ran = [["RUN" in step.text for step in order.done].count(True) for order in (slow, quick)]
lesson.check("only the bad order ran the slow command again", ran == [1, 0], got=(slow, quick))

# %%
lesson.quiz(
    "A Containerfile says RUN fetch-latest-data. Yesterday's build is in the cache. What does today's build contain?",
    [
        lesson.Answer("today's data", "The command is not run again: nothing that its key is made of has changed."),
        lesson.Answer("yesterday's data", "The key knows the command's text, not what the network would answer.", right=True),
        lesson.Answer("nothing: such a step is never cached", "Every RUN is cached; --no-cache or a changed ARG makes it run."),
    ],
)

# %% [markdown]
"""
## The same input, the same image

If the image is a function of its input, then anybody can build it and compare digests, and need not trust whoever built it. Two things
stand in the way: clocks, and whatever a command fetches.
"""

# %%
guess_digest = lesson.predict(
    "The same Containerfile, built without the cache in another store, some seconds later. Will the digest be the same?",
    options=["yes", "no: the times differ", "no: the store differs"],
    answer="yes",
    why="labkit cuts all times off at SOURCE_DATE_EPOCH (1970 unless you say otherwise), and a build has no network and a fixed host name.",
)
guess_digest

# %%
other_store = ImageStore(stage / "other")
cleanup.callback(rootfs.remove_tree, other_store.root)
build_one("busybox", other_store)
there = build(context, store=other_store, tags=["greeter"], no_cache=True)
here = build(context, store=store, tags=["greeter"])
guess_digest.compare()

# %%
lesson.check("another store built the same digest", there.descriptor == here.descriptor, got=(there.descriptor, here.descriptor))

# %% [markdown]
"""
With `docker build` you get this if you set `SOURCE_DATE_EPOCH`; by default it writes the time of the build into the image.

## What a container changes, and how it becomes an image

A container is an image and one writable layer. Whatever it writes goes there. `docker diff` lists it, `docker commit` makes a layer of it, and so an
image without a Containerfile.
"""

# %%
upper = cleanup.enter_context(layers.writable_folder(stage / "writable"))
say("greeter", entrypoint=["sh", "-c", "echo moon > /etc/greeted; rm /app/greet.sh"], writable=upper)
before = store.image("greeter")
by_hand = commit.commit(store, upper / "upper", before, tag="by-hand", created_by="a shell")
changes = [str(change) for change in diff.diff_images(store, [before, by_hand])]
print(*changes, sep="\n")

# %%
lesson.check("one file changed, one went", changes == ["D /app/greet.sh", "C /etc/greeted"], got=changes)
lesson.check("the image below is as it was", store.image("greeter").id == here.image_id, got=store.image("greeter").id)

# %% [markdown]
"""
An image made like this works, but nobody can say how it came about, and nobody can make it again. That is why people write Containerfiles.

## Exercise 1: an image that is as small as it looks

This image downloads something big, uses it, and deletes it. Its last layer says that the file is gone:
"""

# %% tags=["nbval-ignore-output"]
FAT = """FROM busybox
RUN head -c 5242880 /dev/zero > /big
RUN wc -c < /big > /answer
RUN rm /big
CMD ["cat", "/answer"]
"""
fat = make("fat", FAT)
print(f"{store.image('fat').size / MiB:.1f} MiB, of which the base has {store.image('busybox').size / MiB:.1f}")

# %% [markdown]
"""
Deleting adds a whiteout; the layer with the file stays below it. Write a Containerfile with the same answer and without the weight. There are
two ways: one `RUN` that does everything, or a second *stage* (`FROM ... AS name`, and `COPY --from=name`).
"""

# %%
def added_bytes(text):
    """Build ``text`` as slim and return how many bytes it adds to busybox."""
    make("slim", text)
    return store.image("slim").size - store.image("busybox").size

# %% tags=["folded"]
slim = lesson.exercise("Build the same answer without the weight", steps=[
    lesson.Step("it is a Containerfile", look=lambda text: len(parse(text).stages), want=lambda n: n > 0,
                hints=["Return a text that begins with FROM busybox."]),
    lesson.Step("it builds, and adds less than 100 kB to busybox", look=added_bytes, want=lambda size: size < 100_000,
                hints=[lambda seen: f"It adds {seen} bytes: the big file is still in a layer.",
                       "Files that one RUN makes and deletes are in no layer.",
                       "COPY --from=STAGE takes one file out of another stage."]),
    lesson.Step("its container prints the number of bytes", look=lambda _: say("slim").strip(), want="5242880",
                hints=["CMD [\"cat\", \"/answer\"] must find /answer."])])
slim

# %% tags=["exercise"]
def my_containerfile():
    """Return the text of a Containerfile."""

# %% tags=["judge"]
slim.judge(my_containerfile)

# %% tags=["solution"]
def my_containerfile_solution():
    return """FROM busybox AS work
RUN head -c 5242880 /dev/zero > /big
RUN wc -c < /big > /answer
FROM busybox
COPY --from=work /answer /answer
CMD ["cat", "/answer"]
"""

slim.prove(my_containerfile_solution)

# %% [markdown]
"""
## Exercise 2: quick to build again

The context below has an application that changes every hour, and a list of packages that changes once a month. Installing takes a
second. Write a Containerfile so that a change of the application needs no new installation.
"""

# %%
shop = stage / "shop"
shop.mkdir()
(shop / "packages.txt").write_text("till\nscales\n")
(shop / "app.sh").write_text("cat /installed\n")
INSTALL = "RUN sleep 1; sort /srv/packages.txt > /installed"

def after_a_change(text):
    """Build, change the application, build again; return the keywords of the steps that were done again."""
    (shop / "Containerfile").write_text(text)
    builds.build_run("shop", shop, store=store)
    with (shop / "app.sh").open("a") as file:
        file.write("exit 0\n")
    return [step.text.split()[0] for step in builds.build_run("shop", shop, store=store).done]

# %% tags=["folded"]
shopping = lesson.exercise("Order the instructions so that the installation stays in the cache", steps=[
    lesson.Step("it installs with the command INSTALL", look=lambda text: INSTALL in text,
                hints=["Use an f-string, or paste the line."]),
    lesson.Step("a change of app.sh does not run it again", look=after_a_change, want=lambda done: "RUN" not in done,
                hints=[lambda seen: f"These steps were done again: {', '.join(seen)}.",
                       "What does RUN stand on? Everything that was copied before it.",
                       "Copy packages.txt, run, then copy app.sh."]),
    lesson.Step("but app.sh is copied anew", look=after_a_change, want=lambda done: "COPY" in done,
                hints=["The application must be in the image."]),
    lesson.Step("its container prints the packages", look=lambda _: say("shop").split(), want=["scales", "till"],
                hints=["CMD [\"sh\", \"/srv/app.sh\"] runs the application."])])
shopping

# %% tags=["exercise"]
def my_order():
    """Return the text of a Containerfile."""

# %% tags=["judge"]
shopping.judge(my_order)

# %% tags=["solution"]
def my_order_solution():
    return f"""FROM busybox
COPY packages.txt /srv/
{INSTALL}
COPY app.sh /srv/
CMD ["sh", "/srv/app.sh"]
"""

shopping.prove(my_order_solution)

# %% [markdown]
"""
## In the real world

- **Docker, Podman, containerd, Kubernetes** read and write these very files: the store of this lesson is an *OCI image layout*, and
  `skopeo inspect oci:FOLDER:NAME` reads it as it is.
- **BuildKit**, Docker's present builder, makes a graph of the steps instead of a list, builds stages in parallel, and shares its cache between machines.
  The rules of the cache are those above.
- **Language images** copy the list of dependencies first (`requirements.txt`, `package.json`, `go.mod`), install, and copy the code last: exercise 2.
- **Distroless and scratch images** hold an application and nothing else: no shell for an attacker, and little to keep up to date. They are made
  with stages: exercise 1.
- **Signatures and bills of materials** point to digests, never to tags.

The same in a shell:

```sh
labkit setup images                              # the recipes of images/oci: busybox, python, web, ...
labkit image build -t greeter FOLDER             # one line a step; misses say why
labkit image ls
labkit image history greeter
labkit image du                                  # shared bytes and each image's own
labkit run --image greeter -- late
```

With Docker it is `docker build -t greeter FOLDER`, `docker images`, `docker history greeter`, `docker system df`, `docker run greeter late`.

## Further reading
- *OCI Image Format Specification* (manifest, config, layer, image layout): <https://github.com/opencontainers/image-spec>
- *Dockerfile reference*: <https://docs.docker.com/reference/dockerfile/>; *Build cache*: <https://docs.docker.com/build/cache/>
- `SOURCE_DATE_EPOCH` and reproducible builds: <https://reproducible-builds.org/>
- dockerfile(5), docker-build(1), buildah-build(1), skopeo(1), tar(5)

## Summary
- An image is a manifest, a configuration and layers, each a blob that is named by the hash of its bytes.
- A tag is a note that can be moved; a digest names the bytes.
- A layer is a tar of changes; deletions are whiteouts, so what a lower layer holds stays in the image.
- Layers that images share are stored, moved and cached once.
- A build step is found in the cache by the image below it, its instruction and its files; order instructions from rare to frequent changes.
- The same input gives the same image if times and the network are kept out.

Next: [10 Container networks](10_container_networks.ipynb).

"""

# %%
stacks.stop()
cache_view.stop()
cleanup.close()
lesson.check("the temporary folder is gone", not stage.exists(), got=stage)
