"""The life of a ``clone``: what parent and child do between the call and the end of the program, in the order of time.

It is the order of the capstone's program; labkit's launcher does the same with one list of system calls.

Leaves out: errors (a pipe tells which step failed); joining cgroups at birth (CLONE_INTO_CGROUP).
See: clone(2), user_namespaces(7), pivot_root(2), execve(2); lessons 06 and 14.
"""

from __future__ import annotations

from labkit.charts.drawings.sheet import Sheet

__all__ = ["draw"]

_ALT = """Two life lines, parent and child, from top to bottom. The parent calls clone3 with flags for new namespaces, and the child is born into
them, as nobody in particular. The child waits at a pipe. The parent writes uid_map and gid_map, puts the child into a cgroup, and writes a byte into
the pipe. The child becomes root inside, builds its mounts and calls pivot_root, drops capabilities and sets no_new_privs, loads the seccomp filter, and
calls execve: from here on it is the program, PID 1. The program ends, the kernel kills everything else in its PID namespace, and the parent's
waitpid returns the exit status."""
_CHILD = (
    ("setresuid(0): root inside", "process"),
    ("mount ..., pivot_root: a root of its own", "process"),
    ("capset, no_new_privs: power given away", "process"),
    ("seccomp: the filter, last of all", "process"),
    ("execve: now it is the program, PID 1", "container"),
)


def draw() -> Sheet:
    """Return the picture."""
    sheet = Sheet(width=860, height=560, title="The life of a clone, from clone3 to waitpid", alt=_ALT)
    sheet.box(60, 52, 250, 36, "parent", concept="host")
    sheet.box(510, 112, 320, 36, "child, in new namespaces", concept="namespace", dashed=True)
    sheet.arrow((80, 88), (80, 536), head=False)
    sheet.arrow((530, 148), (530, 476), head=False, dashed=True)
    _step(sheet, 80, 112, 230, "clone3(NEWUSER | NEWPID | ...)")
    sheet.arrow((316, 130), (508, 130))
    sheet.write((412, 122), "is born", align="middle")
    _step(sheet, 530, 160, 286, "read(pipe): waits, nobody yet")
    _step(sheet, 80, 166, 230, "write uid_map and gid_map")
    _step(sheet, 80, 208, 230, "put the child into its cgroup")
    _step(sheet, 80, 250, 230, "write(pipe): one byte")
    sheet.arrow((316, 266), (530, 266))
    sheet.write((424, 258), "may go on", align="middle")
    for number, (text, concept) in enumerate(_CHILD):
        _step(sheet, 530, 276 + number * 40, 286, text, concept=concept)
    _step(sheet, 80, 292, 230, "waitpid: waits")
    sheet.write((540, 500), "The program ends. The kernel kills what is")
    sheet.write((540, 516), "left in its PID namespace.")
    sheet.arrow((530, 476), (530, 512), (316, 512))
    sheet.write((424, 504), "SIGCHLD", align="middle")
    _step(sheet, 80, 496, 230, "waitpid returns the exit status")
    return sheet


def _step(sheet: Sheet, left: float, top: float, width: float, text: str, *, concept: str = "plain") -> None:
    """Draw what somebody does at this moment, on the life line at ``left``."""
    sheet.box(left - 8, top, width + 8, 32, note=text, concept=concept)
