"""Registry traffic: the requests of a push and of a pull, in order, and which of them carry many bytes.

Leaves out: the challenge and the token (lesson 12 sends them); chunked uploads; referrers.
See: OCI Distribution Specification 1.1; lesson 12.
"""

from __future__ import annotations

from labkit.charts.drawings.sheet import Sheet

__all__ = ["draw"]

_ALT = """Three life lines: alice's store, the registry, bob's store. Push: POST asks to mount the base layer from another repository, 201: it was there and is not sent.
HEAD for the page's layer is answered 404; POST begins an upload, PUT sends its bytes with their digest, 201. The configuration goes the same way. Last of all PUT stores the manifest under the tag. Pull: GET the manifest by its tag; bob compares its digests with what he has; GET only the blobs that are
missing; each is hashed on arrival, and refused if the digest is another one."""
#: From (0 alice, 1 registry, 2 bob), to, what is said, whether many bytes travel.
_MESSAGES = (
    (0, 1, "POST mount the base layer", False), (1, 0, "201: was there, need not travel", False),
    (0, 1, "HEAD page layer", False), (1, 0, "404: not here", False),
    (0, 1, "POST upload, PUT bytes and digest", True), (1, 0, "201: the digest is right", False),
    (0, 1, "PUT manifest under the tag, last", False),
    (2, 1, "GET manifest by its tag", False), (1, 2, "digests of config and layers", False),
    (2, 1, "GET the blobs that are missing", True),
)  # fmt: skip
_X = (110, 430, 750)


def draw() -> Sheet:
    """Return the picture."""
    sheet = Sheet(width=860, height=530, title="Parts first, names last: a push and a pull", alt=_ALT)
    for x, name, concept in zip(
        _X, ("alice's store", "registry", "bob's store"), ("process", "host", "process"), strict=True
    ):
        sheet.box(x - 80, 50, 160, 36, name, concept=concept)
        sheet.arrow((x, 86), (x, 512), dashed=True, head=False)
    for number, (source, target, words, heavy) in enumerate(_MESSAGES):
        y = 124 + number * 36 + (10 if number > 6 else 0)
        toward = 1 if _X[target] > _X[source] else -1
        start, end = _X[source] + 8 * toward, _X[target] - 8 * toward
        sheet.arrow((start, y), (end, y), concept="container" if heavy else "plain")
        if heavy:
            sheet.arrow((start, y + 4), (end - 10 * toward, y + 4), concept="container", head=False)
        sheet.write(((start + end) / 2, y - 7), words, size=13, bold=heavy, align="middle", room=300)
    sheet.write((450, 230), "Double line: the bytes travel.")
    sheet.write((450, 248), "Everything else is a few hundred bytes.")
    sheet.write((446, 500), "bob hashes what arrives:", room=296)
    sheet.write((446, 516), "with another digest it is refused", room=296)
    return sheet
