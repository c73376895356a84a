"""The reconcile loop: look, compare, act, again and again; what is wanted is a text, and nobody says how.

Leaves out: queues, leader election, back-off of failing actions.
See: Kubernetes, "Controllers"; lesson 13.
"""

from __future__ import annotations

from labkit.charts.drawings.sheet import Sheet

__all__ = ["draw"]

_ALT = """A loop of four steps. Look: what is there? Compare: the desired state, a text with two replicas of version 2, with the actual state, one replica
running and one gone. Plan: the difference, create replica 2; with no difference there is nothing to do. Act: ask the daemon, which changes the
world. Then look again. From the left a person changes only the text; from the right things happen to the world: a process dies, somebody
removes a container."""


def draw() -> Sheet:
    """Return the picture."""
    sheet = Sheet(
        width=860, height=404, title="The reconcile loop: the text says what, the loop finds out how", alt=_ALT
    )
    text = sheet.box(20, 64, 220, 100, "desired: a text", concept="process", note="web: version 2,\n2 replicas")
    compare = sheet.box(330, 64, 200, 100, "compare", concept="host", note="where do text and\nworld differ?")
    world = sheet.box(620, 64, 220, 100, "actual: the world", concept="container", note="web-1 runs,\nweb-2 is gone")
    plan = sheet.box(330, 240, 200, 84, "plan", concept="host", note="create web-2\n(or: nothing to do)")
    act = sheet.box(620, 240, 220, 84, "act", concept="host", note="requests to the daemon")
    sheet.arrow(text.side("right"), compare.side("left"))
    sheet.write((285, 104), "read", align="middle")
    sheet.arrow(world.side("left"), compare.side("right"))
    sheet.write((575, 104), "look", align="middle")
    sheet.arrow(compare.side("bottom"), plan.side("top"))
    sheet.write((440, 206), "difference", room=100)
    sheet.arrow(plan.side("right"), act.side("left"))
    sheet.write((575, 274), "do", align="middle")
    sheet.arrow(act.side("top"), world.side("bottom"))
    sheet.write((740, 206), "changes", room=90)
    sheet.write((20, 196), "A person changes the text.")
    sheet.write((20, 214), "Going back is an older text.")
    sheet.write((330, 352), "Again and again: after an event, and every few seconds.", room=400)
    sheet.write((330, 372), "An event may be missed; the next look finds the difference all the same.", room=520)
    for number, words in enumerate(("Things happen", "by themselves:", "processes die.")):
        sheet.write((620, 188 + 16 * number), words, room=104)
    return sheet
