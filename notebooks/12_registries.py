# %% [markdown]
"""
# 12 Registries: how images travel

**Question.** An image is a list of layers. How does it get to another machine, why does the second one arrive almost at once, and who decides
what its name stands for?

**Afterwards you can**
- push an image to a registry, pull it elsewhere, and say which bytes travelled;
- read the few HTTP requests of which `docker push` and `docker pull` consist, and send them by hand;
- share an image under an account's name, and pin it so that nobody can change it under your feet.

**Time:** about 20 minutes to read, 25 for the exercises. **You need** [lesson 05](05_root_filesystems.ipynb). The registry of this lesson is a real one: Docker, Podman and
skopeo can talk to it. It listens on this machine only, keeps everything in one temporary folder, and is gone after the last cell.

[← 11 Volumes](11_volumes.ipynb) · [Glossary](glossary.md) · [13 Immutable infrastructure →](13_immutable_infrastructure.ipynb)
"""

# %%
import hashlib
import http.client
import json
from contextlib import ExitStack

from labkit import LabkitError, charts, lesson
from labkit.charts import transfers as transfer_chart
from labkit.image import ImageStore
from labkit.image.build import build
from labkit.image.registry import Credentials, RegistryServer, RegistrySettings
from labkit.image.run import container_of
from labkit.measure import rootfs, scratch, transfers
from labkit.widgets.transfer_view import transfer_view

# %% tags=["nbval-ignore-output"]
lesson.begin("12_registries")
runnable = lesson.needs("user namespace", "mount namespace", "pivot_root", "overlay", "fresh /proc", "busybox")
runnable

# %% [markdown]
"""
## A registry is a web server with a handful of addresses

Every registry, from the one on your laptop to the large public ones, answers the same HTTP requests. They are written down in the *OCI
Distribution Specification*. All addresses begin with `/v2/`; the first one only says whether a registry is there.

What a push and a pull consist of, you find again below, request by request:

![Three life lines: alice's store, the registry, bob's store. Push: POST asks to mount the base layer from another repository, 201: it was
there and is not sent. HEAD for the page's layer is answered 404; POST begins an upload, PUT sends its bytes with their digest, 201. The
configuration goes the same way. Last of all PUT stores the manifest under the tag. Pull: GET the manifest by its tag; bob compares its
digests with what he has; GET only the blobs that are missing; each is hashed on arrival, and refused if the digest is another one.](figures/registry.svg)

Let us start one. `watch` is called for each request, so that we can see later what the tools really ask.
"""

# %%
cleanup = ExitStack()
stage = cleanup.enter_context(scratch.scratch_folder())
seen = []
settings = RegistrySettings(port=0)  # any port that is free
server = RegistryServer(stage / "registry", settings, watch=lambda *request: seen.append(request))
registry = cleanup.enter_context(server)

# %%
def ask(method, path, body=None, headers=None):
    """Send one HTTP request to the registry; return status, headers and body."""
    connection = http.client.HTTPConnection(registry.address, timeout=10)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data

# %%
status, headers, body = ask("GET", "/v2/")
print(status, headers["Docker-Distribution-Api-Version"], body.decode().strip())

# %%
lesson.check("a registry is there", status == 200, got=status)

# %% [markdown]
"""
## Accounts: who may change what

So far everybody may do everything, which is fine for a registry that only this machine can reach, and for nothing else. Let us add two accounts.
The rule of this registry is the usual one: an account writes below its own name (`alice/...`), and everybody may read.
"""

# %% tags=["nbval-ignore-output"]
alice, bob = Credentials("alice", "correct horse battery"), Credentials("bob", "staple of old")
for account in (alice, bob):
    registry.accounts.set(account.name, account.password)
line = (stage / "registry/accounts.json").read_text().splitlines()[1]
print(line.strip()[:40] + "...")

# %% [markdown]
"""
The file does not hold the passwords. It holds `scrypt(password, salt)`, a function that is slow on purpose: whoever steals the file can try a
few passwords a second, not billions.
"""

# %%
guess_status = lesson.predict(
    "We ask for /v2/ once more, without a password. What will the registry answer?",
    options=["200 OK", "401 Unauthorized", "403 Forbidden", "404 Not Found"],
    answer="401 Unauthorized",
    why="401 means: say who you are, then ask again. 403 would mean: I know who you are, and you may not.",
)
guess_status

# %%
status, headers, body = ask("GET", "/v2/")
print(status, json.loads(body)["errors"][0]["code"])

# %% tags=["nbval-ignore-output"]
print(headers["WWW-Authenticate"])

# %%
guess_status.compare()

# %%
lesson.check("the registry wants to know who asks", status == 401, got=status)

# %% [markdown]
"""
**What happened.** With the 401 came a *challenge*: where tokens are given out (`realm`). A client goes there with name and password, says what it
wants to do (`scope`), and gets a *[token](glossary.md#token)*. It is good for some minutes and for that scope only. The password itself is not sent with every request.
"""

# %%
def token_for(repository, account=alice):
    """Return the header with which ``account`` may pull from and push to ``repository``."""
    path = f"/token?service=labkit&scope=repository:{repository}:pull,push"
    _, _, body = ask("GET", path, headers={"Authorization": account.basic})
    return {"Authorization": f"Bearer {json.loads(body)['token']}"}

# %%
answers = {}
for account, repository in ((alice, "alice/web"), (bob, "alice/web"), (bob, "bob/site")):
    status, _, _ = ask("POST", f"/v2/{repository}/blobs/uploads/", headers=token_for(repository, account))
    answers[account.name, repository] = status
    print(f"{account.name} begins an upload to {repository}: {status}")

# %%
own = answers["alice", "alice/web"] == answers["bob", "bob/site"] == 202
lesson.check("each may push below the own name", own, got=answers)
lesson.check("and nobody below another's", answers["bob", "alice/web"] == 403, got=answers)

# %% [markdown]
"""
A token is signed by the registry: if one letter of it is changed, it is worth nothing. Tools do all of this for you when you have said `login` once.

## What an image is made of, on the way

Now something to move. Alice builds a small image, `base`, with a shell in it:
"""

# %%
alices = ImageStore(stage / "alice")
base, web = f"{registry.address}/alice/base:1", f"{registry.address}/alice/web:1"
tree = stage / "context/tree"
tree.mkdir(parents=True)
rootfs.fill_rootfs(tree)
build(stage / "context", containerfile=b'FROM scratch\nCOPY tree/ /\nCMD ["cat", "/page"]\n', store=alices, tags=[base])
parts = alices.image(base).manifest.references

# %% tags=["nbval-ignore-output"]
for part in parts:
    print(f"{part.media_type:<50} {part.size:>9} bytes  {part.digest[:19]}...")

# %% [markdown]
"""
This list is the *manifest*: a configuration and the layers, each named by its *digest*. A [digest](glossary.md#digest) is the hash of the bytes. It says what to ask
for, and whoever gets an answer can check it:
"""

# %%
data = alices.blobs.path(parts[1].digest).read_bytes()
hashed = "sha256:" + hashlib.sha256(data).hexdigest()
lesson.check("the digest of the layer is the hash of its bytes", hashed == parts[1].digest, got=hashed)

# %% [markdown]
"""
Alice pushes `base`.
"""

# %%
guess_last = lesson.predict(
    "Which of these will the registry be asked to store last?",
    options=["the manifest, under the tag", "the configuration", "the layer"],
    answer="the manifest, under the tag",
    why="A name must never lead to something that is not there yet. So first the parts, then what names them.",
)
guess_last

# %% tags=["nbval-ignore-output"]
seen.clear()
first = transfers.measure_push(base, alices, credentials=alice)
for method, path, status in seen:
    print(f"{method:<5} {status}  {path[:90]}")

# %%
stored = [path for method, path, status in seen if method == "PUT" and status == 201]
guess_last.compare()

# %%
lesson.check("the manifest comes last", stored[-1] == "/v2/alice/base/manifests/1", got=stored)

# %% [markdown]
"""
**What happened.** For each blob: `HEAD` asks whether the repository has it (404: no). `POST` begins an upload; the first answer to it is 401, so a
token is fetched, and the second gives an address for the upload. `PUT` sends the bytes there and names their digest; the registry computes it,
too, and refuses the upload if it is another one. At the end the manifest is stored under the tag. On the registry's side a
tag is nothing but a small file with a digest in it:
"""

# %%
tag_file = stage / "registry/repositories/alice/base/_tags/1"
digest = tag_file.read_text()
lesson.check("the tag is a file with the manifest's digest", digest == alices.resolve(base).digest, got=digest)

# %% [markdown]
"""
## What is there need not travel

Alice builds a second image on top of the first: `web` is `base` and one page.
"""

# %%
def build_page(store, text, name, *, parent):
    """Build an image with one page on top of ``parent``."""
    (stage / "context/page").write_text(text)
    build(stage / "context", containerfile=f"FROM {parent}\nCOPY page /page\n".encode(), store=store, tags=[name])

build_page(alices, "Alice's page\n", web, parent=base)
layers = alices.image(web).manifest.layers
print([layer.size for layer in layers[1:]], "bytes in the layer with the page")

# %%
lesson.check("the two images have their first layer in common", layers[0] == parts[1], got=layers)

# %% [markdown]
"""
She pushes it, into a repository of its own, `alice/web`.
"""

# %%
guess_moved = lesson.predict(
    "base was some MiB. How many KiB of web will travel to the registry, layers and configuration together?",
    unit="KiB",
    why="The first layer is in the registry already, under another repository: it is mounted. Only the page and the configuration travel.",
)
guess_moved

# %% tags=["nbval-ignore-output"]
second = transfers.measure_push(web, alices, credentials=alice)
guess_moved.compare(second.moved_bytes / 1024)

# %%
def show(*journeys):
    """Draw what travelled and what did not."""
    ledger = transfers.Ledger(journeys)
    figure, (axes,) = charts.figure(9.2, 1.7 + 0.4 * len(journeys))
    transfer_chart.draw(axes, ledger)
    words = "; ".join(f"{one.way} {one.name} {transfer_chart.words_for(one)}" for one in journeys)
    charts.show(figure, alt=f"Bars from zero, one for each push. {words}.")

# %% tags=["nbval-ignore-output"]
show(first, second)

# %%
lesson.check("base had to travel as a whole", first.spared_bytes == 0 and first.moved_bytes > 100_000, got=first)
lesson.check("of web less than a tenth travelled", second.moved_bytes * 10 < second.total_bytes, got=second)

# %% [markdown]
"""
**What happened.** `alice/web` is another repository than `alice/base`, and a registry keeps their rights apart. But the bytes are the same, so the client
asked to *mount* the layer: `POST .../blobs/uploads/?mount=DIGEST&from=alice/base`. The registry made a note, and no byte of the layer moved.

## Sharing under an account's name

Bob works on another machine; here he has a store of his own. He needs no password to pull. Then he changes the page and pushes his
version, under *his* name.
"""

# %% tags=["nbval-ignore-output"]
bobs = ImageStore(stage / "bob")
site = f"{registry.address}/bob/site:1"
pulled = transfers.measure_pull(web, bobs)
build_page(bobs, "Bob's page\n", site, parent=web)
pushed = transfers.measure_push(site, bobs, credentials=bob)
show(pulled, pushed)

# %%
def run_image(store, name):
    """Run an image; return what it prints."""
    with container_of(store, name) as container:
        container.start()
        return container.communicate(timeout_s=20).text.strip()

# %%
said = [run_image(bobs, name) for name in (web, site)] if runnable else runnable
print(said)

# %%
ran = runnable and said == ["Alice's page", "Bob's page"]
lesson.check("both images run where they were pulled", ran, got=said)
lesson.check("bob got everything from alice", pulled.moved_bytes == pulled.total_bytes, got=pulled)
lesson.check("his version cost little", pushed.moved_bytes * 10 < pushed.total_bytes, got=pushed)

# %% [markdown]
"""
May Bob also replace *Alice's* image?
"""

# %%
try:
    transfers.measure_push(web, bobs, source=site, credentials=bob)
    refusal = "nothing"
except LabkitError as error:
    refusal = error.code
print(refusal)

# %%
lesson.check("bob may not write below alice's name", refusal == "DENIED", got=refusal)

# %% [markdown]
"""
## Live: moved against shared

The view below pulls for a third person, whose store is empty at first. Press **Start** and look at the order of the bars. Then untick an image, tick
*begin with an empty store*, and press Start again: who brings the large layer now?
"""

# %% tags=["nbval-ignore-output"]
view = transfer_view([base, web, site], most_bytes=int(1.3 * first.total_bytes))
view

# %% tags=["nbval-ignore-output"]
third = ImageStore(stage / "third")
journeys = [transfers.measure_pull(name, third) for name in (site, web, base)]
for journey in journeys:
    print(f"{journey.name:<14} {transfer_chart.words_for(journey)}")

# %%
large = [journey.moved_bytes > journey.spared_bytes for journey in journeys]
lesson.check("whoever comes first brings the large layer", large == [True, False, False], got=journeys)

# %% [markdown]
"""
## Tags move, digests do not

Alice finds a spelling mistake. She builds `web` again and pushes it under the same tag.
"""

# %%
old = alices.resolve(web).digest
build_page(alices, "Alice's page, corrected\n", web, parent=base)
transfers.measure_push(web, alices, credentials=alice)
by_digest = f"{registry.address}/alice/web@{old}"
print(by_digest.split("@")[1] != alices.resolve(web).digest)

# %%
guess_tag = lesson.predict(
    "Carol pulls alice/web:1, and alice/web@sha256:..., with the digest from before the correction. What will she get?",
    options=["twice the old page", "twice the new page", "by tag the new page, by digest the old one"],
    answer="by tag the new page, by digest the old one",
    why="The tag is a note that alice may change. The digest is the hash of the manifest, which names its layers by their hashes.",
)
guess_tag

# %%
carols = ImageStore(stage / "carol")
transfers.measure_pull(web, carols)
transfers.measure_pull(by_digest, carols)
pages = [carols.image(which).manifest.layers[-1].size for which in (web, by_digest)]
digests = [carols.resolve(which).digest for which in (web, by_digest)]
guess_tag.compare()

# %%
lesson.check("the tag leads to the new image", digests[0] == alices.resolve(web).digest != old, got=digests)
lesson.check("the digest leads to the old one", digests[1] == old, got=digests)

# %% [markdown]
"""
## A registry need not be trusted

Somebody breaks into the registry and changes one byte of the layer on its disk. The registry does not notice: it hands out what lies there.
"""

# %%
layer = parts[1]
blob = registry.blobs.path(layer.digest)
right = blob.read_bytes()
middle = len(right) // 2
blob.write_bytes(right[:middle] + bytes([right[middle] ^ 1]) + right[middle + 1 :])
dave = ImageStore(stage / "dave")

# %% tags=["nbval-ignore-output"]
try:
    transfers.measure_pull(base, dave)
    complaint = ""
except LabkitError as error:
    complaint = str(error)
blob.write_bytes(right)
print(complaint)

# %%
left = [*dave.blobs.digests(), *dave.entries()]
lesson.check("the changed layer is refused", layer.digest in complaint, got=complaint)
lesson.check("and nothing of it stays", left == [], got=left)

# %% [markdown]
"""
**What happened.** Dave asked for a digest and got bytes with another one. That is all there is to it: whoever knows the right digest need trust neither
the registry nor the network. What is left to trust is where the digest came from; signatures are for that.
"""

# %%
lesson.quiz(
    "Your machine pulled web:1 yesterday. Today it pulls web:2, which differs in one page of 2 KiB; the base has 80 MiB. What travels?",
    [
        lesson.Answer("80 MiB and 2 KiB", "The base layer's digest is in your store: nobody asks for it again."),
        lesson.Answer("the layer with the page, a configuration and a manifest", "What is named by a digest that you have need not come.", right=True),
        lesson.Answer("2 KiB", "Nearly. But the configuration names the layers, and the manifest names both: they are new blobs, too."),
    ],
)

# %% [markdown]
"""
## Exercise 1: push a blob by hand

A push needs no tool. Write `upload()`, which stores the bytes `note` as a blob in the repository `alice/notes`, with nothing but `ask`, and
returns their digest. Two requests are needed; `token_for("alice/notes")` gives you what to send along as headers.
"""

# %%
note = b"carried by hand"

# %% tags=["folded"]
by_hand = lesson.exercise("Push a blob by hand", steps=[
    lesson.Step("you return a digest", look=lambda made: str(made)[:7], want="sha256:",
                hints=["hashlib.sha256(note).hexdigest() is what stands behind 'sha256:'."]),
    lesson.Step("the registry gives the note out under it", want=note,
                look=lambda made: ask("GET", f"/v2/alice/notes/blobs/{made}")[2],
                hints=["POST /v2/alice/notes/blobs/uploads/ answers 202 with a Location.",
                       "PUT the bytes to that Location with ?digest=sha256:... behind it; both requests need the token."])])
by_hand

# %% tags=["exercise"]
def upload():
    """Store ``note`` in alice/notes; return its digest."""

# %% tags=["judge"]
by_hand.judge(upload)

# %% tags=["solution"]
def upload_solution():
    digest = "sha256:" + hashlib.sha256(note).hexdigest()
    _, headers, _ = ask("POST", "/v2/alice/notes/blobs/uploads/", headers=token_for("alice/notes"))
    ask("PUT", f"{headers['Location']}?digest={digest}", note, token_for("alice/notes"))
    return digest

by_hand.prove(upload_solution)

# %% [markdown]
"""
## Exercise 2: a deployment that nobody can change

A server shall run Alice's page as it is *now*, also after she has pushed a new one under the same tag. Write `pin()`, which returns what the
server should pull instead of `web`. The judge lets Alice move the tag, and then pulls what you said.
"""

# %%
def deploy(wanted):
    """Let alice move the tag, pull ``wanted`` on a new server, and say whether that is the image from before."""
    before = alices.resolve(web).digest
    build_page(alices, f"Alice's page, after {before}\n", web, parent=base)
    transfers.measure_push(web, alices, credentials=alice)
    store = ImageStore(stage / "servers" / before[7:19])
    transfers.measure_pull(wanted, store)
    return "the old image" if store.resolve(wanted).digest == before else "the new image"

# %% tags=["folded"]
pinned = lesson.exercise("Pin the image", steps=[
    lesson.Step("the server gets the image from before the tag was moved", look=deploy, want="the old image",
                hints=["A tag is a note that can be changed; a digest is not.",
                       "HEAD /v2/alice/web/manifests/1 answers with the header Docker-Content-Digest.",
                       "Return HOST:PORT/alice/web@sha256:..."])])
pinned

# %% tags=["exercise"]
def pin():
    """Return what to pull instead of ``web``."""

# %% tags=["judge"]
pinned.judge(pin)

# %% tags=["solution"]
def pin_solution():
    _, headers, _ = ask("HEAD", "/v2/alice/web/manifests/1")
    return f"{registry.address}/alice/web@{headers['Docker-Content-Digest']}"

pinned.prove(pin_solution)

# %% [markdown]
"""
## In the real world

- **Docker Hub and the registries of clouds and companies** speak this protocol, with accounts, organisations and quotas around it. `docker pull
  busybox` is short for `docker.io/library/busybox:latest`.
- **Kubernetes** pulls on every machine that runs a container; layer reuse is why a rolling update of a large image takes seconds. Manifests in
  production name images by digest, or a controller does it for them.
- **Signatures and bills of materials** are stored beside the image, as manifests whose `subject` is its digest; `GET /v2/NAME/referrers/DIGEST` lists them.
- **Names are claims.** Attackers publish images under names that look like known ones. An account's name says who may push, nothing about what
  is inside.

The same in a shell, with labkit, and with the tools you will meet elsewhere:

```sh
labkit registry adduser alice && labkit registry serve        # in a second shell from here on
labkit registry login localhost:5000 -u alice
labkit image build -t localhost:5000/alice/web:1 . && labkit image push localhost:5000/alice/web:1
labkit image search localhost:5000
docker login localhost:5000 && docker push localhost:5000/alice/web:1 && docker pull localhost:5000/alice/web:1
skopeo inspect --tls-verify=false docker://localhost:5000/alice/web:1
```

## Further reading
- *OCI Distribution Specification* 1.1: <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md>
- *OCI Image Format Specification*, manifest.md and descriptor.md: <https://github.com/opencontainers/image-spec>
- *Token Authentication Specification*: <https://distribution.github.io/distribution/spec/auth/token/>
- RFC 7914 (scrypt), RFC 9110 (HTTP: conditional and range requests), RFC 6750 (bearer tokens)
- skopeo(1), podman-push(1), docker-login(1)

## Summary
- A registry is a web server that stores blobs by digest, and manifests by digest and by tag.
- Parts first, names last: nobody ever sees an image with a hole.
- What the other side has does not travel: it is shared, or mounted from another repository.
- An account's name is the first part of a repository's name, and says who may push there.
- A tag can be moved, a digest cannot. Whoever checks digests need not trust the registry.

Next: [13 Immutable infrastructure](13_immutable_infrastructure.ipynb).
"""

# %%
view.close()
cleanup.close()
lesson.check("the registry and its folder are gone", not stage.exists(), got=stage)
