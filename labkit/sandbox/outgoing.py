"""Outgoing connections for a sandbox whose policy allows them: out to the world, not to the machine and not to its neighbours.

The student is root of the inner network namespace, so a filter there would be theirs to remove. It stands one namespace further out, in that
of the sandbox's first user namespace, where nobody else is::

    inner (the student's)         outer (nobody's)                     the machine
    eth0  10.9.0.2 ------------- labkit-up 10.9.0.1
                                  nftables: drop private addresses
                                  tap0 10.0.2.100 ------------------- slirp4netns, an ordinary process

slirp4netns reads packets from the tap and makes the connections itself, as an ordinary program of whoever runs the server. It refuses the
machine's loopback; the filter refuses every private and special address. Names are asked of 10.0.2.3, which slirp4netns passes on.

Leaves out: IPv6, incoming connections, pasta.
See: slirp4netns(1), nft(8), veth(4), RFC 6890.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from contextlib import ExitStack

from labkit.errors import FeatureMissing, SetupError
from labkit.linux.fds import pipe
from labkit.linux.proc import parse_id_map
from labkit.setup.parts import search_path

__all__ = ["NAME_SERVER", "Outgoing", "missing_programs"]

NAME_SERVER = "10.0.2.3"
#: Addresses that are somebody's own network, or special (RFC 6890).
_PRIVATE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "224.0.0.0/3",
)  # fmt: skip
_PROGRAMS = {"slirp4netns": "slirp4netns", "nft": "nftables", "ip": "iproute2", "nsenter": "util-linux"}
_TIMEOUT_S = 10.0
_RULES = f"""
table inet labkit {{
  chain input {{ type filter hook input priority 0; policy drop; iif lo accept; ct state established,related accept; }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "labkit-up" ip daddr {NAME_SERVER} meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "labkit-up" ip daddr {{ {", ".join(_PRIVATE)} }} reject
    iifname "labkit-up" oifname "tap0" meta nfproto ipv4 accept
  }}
}}
table ip labkit-nat {{
  chain out {{ type nat hook postrouting priority 100; oifname "tap0" masquerade; }}
}}
"""
_OUTER = """set -e
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link add labkit-up type veth peer name eth0 netns {kernel_pid}
ip address add 10.9.0.1/24 dev labkit-up
ip link set labkit-up up
nft -f -
"""
_INNER = """set -e
ip address add 10.9.0.2/24 dev eth0
ip link set eth0 up
ip route add default via 10.9.0.1
"""


def missing_programs() -> str:
    """Return the packages that outgoing connections need and this machine lacks, as text; "" if all are there."""
    path = search_path(os.environ.get("PATH", os.defpath))
    return ", ".join(package for name, package in _PROGRAMS.items() if shutil.which(name, path=path) is None)


class Outgoing:
    """The way out of one sandbox: made by `start`, closed with it."""

    def __init__(self) -> None:
        self._resources = ExitStack()

    def start(self, sandbox_pid: int, kernel_pid: int) -> None:
        """Connect the namespaces of both processes and start slirp4netns. Raises: SetupError, FeatureMissing."""
        lacking = missing_programs()
        if lacking:
            raise FeatureMissing(
                'The policy says network.mode = "outgoing", which needs programs that are not there.',
                remedy=f'Install {lacking}, or set it to "none".',
            )
        with self._resources as on_failure:
            # The filter is there before anything could pass it.
            _run_in(sandbox_pid, _OUTER.format(kernel_pid=kernel_pid), _RULES)
            self._start_slirp(sandbox_pid)
            _run_in(kernel_pid, _INNER, "")
            self._resources = on_failure.pop_all()

    def _start_slirp(self, sandbox_pid: int) -> None:
        ready_r, ready_w = pipe()
        exit_r, exit_w = pipe()
        namespaces = f"/proc/{sandbox_pid}/ns"
        give_up = [] if _is_root_there(sandbox_pid) else ["--enable-sandbox"]  # who has power outside gives it up
        with ready_r, ready_w, exit_r:
            process = subprocess.Popen(
                [
                    "slirp4netns", "--configure", "--mtu=1500", "--disable-host-loopback", "--enable-seccomp", *give_up,
                    f"--ready-fd={ready_w.number}", f"--exit-fd={exit_r.number}", f"--userns-path={namespaces}/user",
                    "--netns-type=path", f"{namespaces}/net", "tap0",
                ],
                pass_fds=(ready_w.number, exit_r.number), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, env={"PATH": search_path(os.defpath)}, cwd="/",
            )  # fmt: skip
            ready_w.close()
            # It ends when the other end of this pipe is closed: also when this program is killed.
            self._resources.callback(process.wait, 10)
            self._resources.callback(process.stderr.close if process.stderr else int)
            self._resources.enter_context(exit_w)
            poll = select.poll()
            poll.register(ready_r, select.POLLIN)
            if not poll.poll(_TIMEOUT_S * 1000) or not os.read(ready_r.number, 1):
                process.kill()
                said = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
                raise SetupError(
                    f"slirp4netns did not start: {said.splitlines()[-1] if said else 'no answer'}.", step="slirp4netns"
                )

    def close(self) -> None:
        """End slirp4netns; safe to call twice."""
        self._resources.close()


def _run_in(pid: int, script: str, text: str) -> None:
    """Run a shell script as root of the user and network namespaces of ``pid``."""
    keep = ["--preserve-credentials"] if _is_root_there(pid) else []
    done = subprocess.run(
        ["nsenter", f"--target={pid}", "--user", "--net", *keep, "--", "sh", "-c", script],
        input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd="/",
        env={"PATH": search_path(os.defpath)},
    )  # fmt: skip
    if done.returncode:
        raise SetupError(
            f"labkit could not set up the sandbox's way out: {done.stderr.strip()}.", step="outgoing network"
        )


def _is_root_there(pid: int) -> bool:
    """Tell whether uid 0 in the user namespace of ``pid`` is who we are already; the machine's root has to become it."""
    with open(f"/proc/{pid}/uid_map") as file:
        lines = parse_id_map(file.read())
    return any(line.inside == 0 and line.outside == os.geteuid() for line in lines)
