"""The portable half of a container's description: what comes from the image, unless the client says otherwise.

See: Docker Engine API, "ContainerConfig"; OCI Image Specification, config.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from labkit.engine.spec.fields import FLAG, INT, OBJECT, TEXT, TEXT_MAP, TEXTS, WORDS, checked
from labkit.engine.wire.errors import BadParameter
from labkit.errors import InvalidSpec

__all__ = ["command_of", "parse_config", "parse_signal", "with_image"]

_TABLE = {
    "Hostname": TEXT, "Domainname": TEXT, "User": TEXT, "AttachStdin": FLAG, "AttachStdout": FLAG, "AttachStderr": FLAG,
    "ExposedPorts": OBJECT, "Tty": FLAG, "OpenStdin": FLAG, "StdinOnce": FLAG, "Env": TEXTS, "Cmd": WORDS,
    "Healthcheck": OBJECT, "ArgsEscaped": FLAG, "Image": TEXT, "Volumes": OBJECT, "WorkingDir": TEXT,
    "Entrypoint": WORDS, "NetworkDisabled": FLAG, "MacAddress": TEXT, "OnBuild": TEXTS, "Labels": TEXT_MAP,
    "StopSignal": TEXT, "StopTimeout": INT, "Shell": TEXTS,
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": [], "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
}  # fmt: skip
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?\Z")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z")


def parse_config(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description in a create request, checked and complete. Raises: BadParameter."""
    config = _DEFAULTS | checked(body, _TABLE, "Config")
    if config["Hostname"] and not _HOSTNAME.match(config["Hostname"]):
        raise BadParameter(f"invalid hostname format: {config['Hostname']}")
    if config["WorkingDir"] and not config["WorkingDir"].startswith("/"):
        raise BadParameter(
            f"the working directory '{config['WorkingDir']}' is invalid, it needs to be an absolute path"
        )
    for entry in config["Env"]:
        if entry.startswith("=") or not entry:
            raise BadParameter(f"invalid environment variable: {entry}")
    if config.get("StopSignal"):
        parse_signal(config["StopSignal"])
    config["ExposedPorts"] = {_full_port(port): {} for port in config.get("ExposedPorts") or {}} or None
    if config["ExposedPorts"] is None:
        del config["ExposedPorts"]
    for volume in config["Volumes"] or {}:
        if not volume.startswith("/") or volume == "/":
            raise BadParameter(f"invalid volume specification: '{volume}': the path must be absolute and not /")
    return config


def _full_port(text: str) -> str:
    match = _PORT.match(text)
    if match is None or not 0 < int(match.group(1)) < 1 << 16:
        raise BadParameter(f'invalid port specification: "{text}"')
    return text if match.group(3) else f"{text}/tcp"


def with_image(config: dict[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` with what it leaves open taken from the image's own. ``image`` is an image's ``config`` object."""
    merged = dict(config)
    for name in ("User", "WorkingDir", "StopSignal", "Shell", "OnBuild"):
        if not merged.get(name) and image.get(name):
            merged[name] = image[name]
    own = {entry.partition("=")[0] for entry in config["Env"]}
    merged["Env"] = config["Env"] + [e for e in image.get("Env") or [] if e.partition("=")[0] not in own]
    merged["Labels"] = {**(image.get("Labels") or {}), **config["Labels"]}
    for name in ("ExposedPorts", "Volumes"):
        if image.get(name) or merged.get(name):
            merged[name] = {**(image.get(name) or {}), **(merged.get(name) or {})}
    if config["Entrypoint"] is None:
        # Somebody who names an entry point does not mean the image's command as its arguments.
        if config["Cmd"] is None or config["Cmd"] == []:
            merged["Cmd"] = image.get("Cmd")
        merged["Entrypoint"] = image.get("Entrypoint")
    elif config["Entrypoint"] == [""]:
        merged["Entrypoint"] = None
    if not merged.get("Healthcheck") and image.get("Healthcheck"):
        merged["Healthcheck"] = dict(image["Healthcheck"])
    return merged


def command_of(config: Mapping[str, Any]) -> list[str]:
    """Return the words to execute. Raises: BadParameter if neither client nor image says any."""
    words = [*(config["Entrypoint"] or []), *(config["Cmd"] or [])]
    if not words or not words[0]:
        raise BadParameter("no command specified")
    return words


def parse_signal(text: str) -> int:
    """Return the number of ``KILL``, ``SIGKILL`` or ``9``. Raises: InvalidSpec."""
    import signal

    name = text.strip().upper()
    if name.isdigit():
        if 0 < int(name) <= 64:
            return int(name)
    else:
        full = name if name.startswith("SIG") else f"SIG{name}"
        if full in signal.Signals.__members__:
            return int(signal.Signals[full])
        offset = re.fullmatch(r"SIGRTM(IN\+|AX-)(\d{1,2})", full)
        if offset:
            number = 34 + int(offset.group(2)) if offset.group(1) == "IN+" else 64 - int(offset.group(2))
            if 34 <= number <= 64:
                return number
    raise InvalidSpec(f"invalid signal: {text}")
