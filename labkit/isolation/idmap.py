"""Id mapping: which user and group ids a user namespace has, and who they are outside.

A process in a new user namespace has no identity until somebody writes ``/proc/PID/uid_map`` and ``gid_map``.
Each line of a map says "``count`` ids from ``inside`` on are the ids from ``outside`` on in the parent". With enough
privilege in the parent a whole range can be mapped; an ordinary user may map only its own id, or, through the
set-uid helpers ``newuidmap`` and ``newgidmap``, also the ranges that ``/etc/subuid`` and ``/etc/subgid`` grant.

labkit never maps an inner id to uid 0 of the machine: root's containers use a high range that owns nothing.

Leaves out: maps of more than one range taken from /etc/subuid; project ids.
See: user_namespaces(7), newuidmap(1), subuid(5).
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from labkit.linux.proc import IdMapping, parse_id_map

__all__ = [
    "CONTAINER_IDS",
    "HIGH_RANGE_START",
    "IdMapping",
    "IdMaps",
    "container_maps",
    "own_maps",
    "subordinate_ranges",
    "user_maps",
    "write_maps",
]

#: How many ids a container gets: uid 0 to 65535, with "nobody" (65534) among them.
CONTAINER_IDS = 65_536
#: Where root's containers live: above what distributions give to people, services, /etc/subuid and systemd-nspawn.
HIGH_RANGE_START = 0x7000_0000


@dataclass(frozen=True, slots=True)
class IdMaps:
    """The two maps of a user namespace; ``setgroups`` is False where the kernel demands that it be denied."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]
    setgroups: bool = True

    @property
    def shifted(self) -> bool:
        """True if uid 0 inside is another uid in the parent, so that files need an ID-mapped mount."""
        return any(m.inside == 0 and m.outside != 0 for m in self.uids)


def own_maps() -> IdMaps:
    """Return the maps of the caller's own user namespace (all ids to themselves in the machine's first one)."""
    denied = Path("/proc/self/setgroups").read_text().strip() == "deny"
    uids, gids = (parse_id_map(Path(f"/proc/self/{name}").read_text()) for name in ("uid_map", "gid_map"))
    return IdMaps(uids, gids, setgroups=not denied)


def container_maps(own: IdMaps) -> IdMaps:
    """Return the maps for a container made by a caller that has all capabilities in a user namespace with maps ``own``.

    Where the caller's namespace reaches the high range (root on the machine), the container lives there. Elsewhere the
    caller's ids are unprivileged outside already, and the container has the same ones. A line must not span two lines
    of the parent, so the parent's lines are kept.
    """
    uids, gids = (_high_or_same(mapping) for mapping in (own.uids, own.gids))
    return IdMaps(uids, gids, setgroups=own.setgroups)


def _high_or_same(own: tuple[IdMapping, ...]) -> tuple[IdMapping, ...]:
    end = HIGH_RANGE_START + CONTAINER_IDS
    if any(m.inside <= HIGH_RANGE_START and end <= m.inside + m.count for m in own):
        return (IdMapping(0, HIGH_RANGE_START, CONTAINER_IDS),)
    return tuple(IdMapping(m.inside, m.inside, m.count) for m in own)


def subordinate_ranges(file: Path, user: str, uid: int) -> tuple[tuple[int, int], ...]:
    """Return the ``(start, count)`` ranges that ``file`` (/etc/subuid or /etc/subgid) grants to ``user``. See: subuid(5)."""
    try:
        lines = file.read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return ()
    fields = [line.split(":") for line in lines if line.count(":") == 2]
    return tuple((int(start), int(count)) for name, start, count in fields if name in (user, str(uid)))


def user_maps() -> tuple[IdMaps, bool]:
    """Return the widest maps that the calling ordinary user may have, and whether newuidmap is needed for them.

    With a range: uid 0 is the user, 1 to 65535 come from /etc/subuid. Without: uid 0 is the user, nothing else.
    """
    from shutil import which  # only here: the launcher of root, which needs none of it, keeps its memory small

    uid, gid = os.geteuid(), os.getegid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    uid_ranges = subordinate_ranges(Path("/etc/subuid"), user, uid)
    gid_ranges = subordinate_ranges(Path("/etc/subgid"), user, uid)
    if uid_ranges and gid_ranges and which("newuidmap") and which("newgidmap"):
        uids, gids = (
            (IdMapping(0, own, 1), IdMapping(1, start, min(count, CONTAINER_IDS - 1)))
            for own, (start, count) in ((uid, uid_ranges[0]), (gid, gid_ranges[0]))
        )
        return IdMaps(uids, gids), True
    return IdMaps((IdMapping(0, uid, 1),), (IdMapping(0, gid, 1),), setgroups=False), False


def write_maps(pid: int, maps: IdMaps, *, with_helpers: bool = False) -> None:
    """Give the user namespace of process ``pid`` its maps, directly or through newuidmap and newgidmap.

    Raises: OSError with EPERM when the caller may not map these ids (AppArmor's restriction of unprivileged user
    namespaces answers here too), EINVAL for a line that the parent does not cover.
    """
    uid_text, gid_text = ("\n".join(map(str, m)) for m in (maps.uids, maps.gids))
    if with_helpers:
        import subprocess

        for helper, text in (("newuidmap", uid_text), ("newgidmap", gid_text)):
            done = subprocess.run([helper, str(pid), *text.split()], capture_output=True, check=False)
            if done.returncode:
                raise PermissionError(1, f"{helper}: {done.stderr.decode(errors='replace').strip()}")
        return
    if not maps.setgroups:
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/uid_map", uid_text)
    _write(f"/proc/{pid}/gid_map", gid_text)


def _write(path: str, text: str) -> None:
    # One write(2): the kernel takes a map once, whole.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def main() -> int:
    """Print who this process is in its user namespace, and who root of a container of its would be outside."""
    own = own_maps()
    print("this process's own user namespace (inside, outside, how many):")
    print(*(f"  {mapping}" for mapping in own.uids), sep="\n")
    maps, with_helpers = (container_maps(own), False) if os.geteuid() == 0 else user_maps()
    print("a container made by it:")
    print(*(f"  {mapping}" for mapping in maps.uids), sep="\n")
    writer = "newuidmap, for ids of /etc/subuid" if with_helpers else "this process itself"
    root = next((m.outside for m in maps.uids if m.inside == 0), None)
    print(f"written by {writer}; uid 0 inside is uid {root} outside")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
