"""Containerfiles, each with the files of its context, that labkit and other programs must understand alike.

`BASE` stands for a small image with busybox. ``FILES`` is the context that all share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["BASE", "BUILDS", "FILES", "PARSED", "Case", "write_context"]

BASE = "localhost/labkit-base:1"


@dataclass(frozen=True)
class Case:
    """One build: its Containerfile, arguments, target."""

    name: str
    text: str
    build_args: dict[str, str] = field(default_factory=dict)
    target: str = ""
    #: False: only read, as another case is built that shows the same.
    built: bool = True


#: path -> (content, mode); a content that begins with "->" is a symbolic link.
FILES = {
    "app.py": ("print('app')\n", 0o644),
    "run.sh": ("#!/bin/sh\necho run\n", 0o755),
    "secret.key": ("do not copy\n", 0o600),
    "conf/a.conf": ("a\n", 0o644),
    "conf/b.conf": ("b\n", 0o640),
    "conf/deep/c.conf": ("c\n", 0o644),
    "conf/link.conf": ("->a.conf", 0o777),
    "data/one.txt": ("1\n", 0o644),
    "data/two.txt": ("2\n", 0o644),
    "data/three.md": ("3\n", 0o644),
    "with space.txt": ("s\n", 0o644),
    "link.py": ("->app.py", 0o777),
    ".dockerignore": ("*.key\nconf/deep\n", 0o644),
}


def write_context(folder: Path) -> Path:
    """Write the shared context into ``folder``."""
    for name, (content, mode) in FILES.items():
        path = folder / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if content.startswith("->"):
            path.symlink_to(content[2:])
        else:
            path.write_text(content)
            path.chmod(mode)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    return folder


BUILDS = (
    Case("nothing but a base", f"FROM {BASE}\n"),
    Case("scratch", "FROM scratch\nCOPY app.py /app.py\n"),
    Case("shell form", f"FROM {BASE}\nCMD echo $HOME\nENTRYPOINT exec top -b\n"),
    Case("exec form", f'FROM {BASE}\nENTRYPOINT ["/bin/echo", "a b"]\nCMD ["-n", "x"]\n'),
    Case("an entrypoint alone", f'FROM {BASE}\nENTRYPOINT ["/bin/cat"]\n', built=False),
    Case("env", f"FROM {BASE}\nENV A=1 B=\"two words\" C=x\\ y\nENV D=$A-${{B}}-\\$A E='$A'\nENV F old form here\n", built=False),
    Case("env again", f"FROM {BASE}\nENV A=1\nENV B=2\nENV A=3$A PATH=/opt:$PATH\n"),
    Case("defaults", f"FROM {BASE}\nENV A=${{N:-dflt}} B=${{N:+set}} HAVE=yes\nENV C=${{HAVE:+set}} D=${{HAVE:-no}}\n"),
    Case("arguments", f"FROM {BASE}\nARG V=1\nARG W\nENV V2=$V W2=$W\nRUN echo $V $W > /v\n", {"V": "7", "W": "x"}),
    Case("a global argument", "ARG TAG=1\nARG NAME=labkit-base\nFROM localhost/$NAME:${TAG}\nARG TAG\nENV T=$TAG N=$NAME\n", built=False),
    Case("env wins over arg", f"FROM {BASE}\nENV V=env\nARG V=arg\nRUN echo $V > /v\nENV W=$V\n"),
    Case("workdir", f"FROM {BASE}\nWORKDIR /a\nWORKDIR b/c\nENV D=d\nWORKDIR $D\nRUN pwd > where\n"),
    Case("user", f"FROM {BASE}\nRUN mkdir -m 777 /w\nUSER 1000:1001\nRUN id -u > /w/id; id -g >> /w/id\n"),
    Case("user by name", f"FROM {BASE}\nRUN mkdir -m 777 /w\nUSER nobody\nRUN id -u > /w/id\n", built=False),
    Case("labels", f"FROM {BASE}\nLABEL a=1 \"b c\"=\"d e\"\nLABEL a=2 f=${{g:-h}}\nLABEL multi=\"one \\\n two\"\n"),
    Case("ports", f"FROM {BASE}\nENV P=9000\nEXPOSE 80 53/udp\nEXPOSE $P/tcp\n"),
    Case("volumes", f'FROM {BASE}\nRUN mkdir /xy /data /more\nVOLUME /data /more\nVOLUME ["/xy"]\n'),
    Case("stop signal", f"FROM {BASE}\nSTOPSIGNAL SIGQUIT\n"),
    Case("shell", f'FROM {BASE}\nSHELL ["/bin/sh", "-ec"]\nRUN echo a > /a\n'),
    Case("copy a file", f"FROM {BASE}\nCOPY app.py /srv/app.py\nCOPY run.sh /srv/\nCOPY app.py /newdir/sub/\n"),
    Case("copy to the working folder", f"FROM {BASE}\nWORKDIR /w\nCOPY app.py run.sh ./\nCOPY app.py x\n", built=False),
    Case("copy a folder", f"FROM {BASE}\nCOPY conf /etc/conf\nCOPY data/ /data/\n"),
    Case("copy everything", f"FROM {BASE}\nCOPY . /ctx/\n"),
    Case("copy by pattern", f"FROM {BASE}\nCOPY data/*.txt /d/\nCOPY data/t??.txt conf/[ab].conf /e/\n"),
    Case("copy names with spaces", f'FROM {BASE}\nCOPY ["with space.txt", "/s p/"]\nCOPY with?space.txt /t\n'),
    Case("copy onto a folder", f"FROM {BASE}\nRUN mkdir -p /there/app.py.d && ln -s there /link\nCOPY app.py /there\nCOPY app.py /link/b.py\n"),
    Case("copy with an owner", f"FROM {BASE}\nCOPY --chown=5:6 data /d\nCOPY --chown=nobody:nobody app.py /srv/a/b.py\n"),
    Case("copy with a mode", f"FROM {BASE}\nCOPY --chmod=711 app.py /a.py\n", built=False),
    Case("copy a link", f"FROM {BASE}\nCOPY link.py /copied.py\nCOPY conf/link.conf /c/\n"),
    Case("stages", f"FROM {BASE} AS one\nRUN echo built > /out\nFROM scratch AS two\nCOPY --from=one /out /in\nFROM two\nCOPY --from=0 /bin/busybox /b\n"),
    Case("target", f"FROM {BASE} AS one\nENV STAGE=one\nFROM one AS two\nENV STAGE=two\nFROM two AS three\nRUN false\n", target="two"),
    Case("copy from an image", f"FROM scratch\nCOPY --from={BASE} /bin/busybox /bin/\n"),
    Case("a stage on a stage", f"FROM {BASE} AS b\nENV A=1\nWORKDIR /x\nFROM b\nENV B=$A\nRUN pwd > p\n"),
    Case("run in exec form", f'FROM {BASE}\nRUN ["/bin/sh", "-c", "echo $0 > /z"]\nRUN ["touch", "/a b"]\n'),
    Case("run and delete", f"FROM {BASE}\nRUN echo 1 > /one; mkdir /d; echo 2 > /d/two\nRUN rm /one; rm -r /d; mkdir /d; echo 3 > /d/three\n"),
    Case("modes and links", f"FROM {BASE}\nRUN touch /f; chmod 4751 /f; chown 12:34 /f; ln -s /f /s; mkdir -m 1777 /t\n"),
    Case("continued lines", f"FROM {BASE}\nRUN echo a \\\n    # a comment\n    && echo b \\\n\n    > /ab\nENV A=1 \\\n    B=2\n"),
    Case("add", f"FROM {BASE}\nADD app.py /x/\nADD conf /y\n"),
    Case("add an archive", f"FROM {BASE}\nRUN mkdir /t\nADD pack.tar.gz /t/\nADD pack.tar.gz /u/\nCOPY pack.tar.gz /v/\n"),
    Case("another escape", f"# escape=`\nFROM {BASE}\nENV A=C `\n    B=2\n"),
    Case("lower case", f"from {BASE}\nrun echo hi > /hi\nenv a=b\ncmd [\"x\"]\n", built=False),
    Case("a maintainer", f"FROM {BASE}\nMAINTAINER Somebody <s@example.org>\n", built=False),
)  # fmt: skip

#: Only read, not built: what the oracles for the parser get besides `BUILDS`.
PARSED = (
    "FROM a\nHEALTHCHECK --interval=5m --timeout=3s CMD curl -f http://localhost/ || exit 1\n",
    "FROM a\nHEALTHCHECK NONE\n",
    "FROM --platform=linux/amd64 a AS b\nCOPY --from=x --chown=1:2 a b c/\n",
    "FROM a\nRUN --mount=type=cache,target=/c \\\n  --network=none make all\n",
    "FROM a\nRUN <<EOF\necho one\n# not a comment\nEOF\nUSER x\n",
    "FROM a\nCOPY <<a.txt <<'b.txt' /d/\none\na.txt\ntwo $X\nb.txt\n",
    "FROM a\nRUN <<-END cat > /x\n\tone\n\tEND\nCMD x\n",
    "FROM a\nRUN echo \"a # b\" # c\nRUN x;\\\n#c\n y\n",
    "FROM a\nCMD [\"a\", \"b\"\nCMD ['a']\nCMD [ \"a\" , \"b\\n\\u00e9\" ]\n",
    "FROM a\nENV a=b\\\n  c=d\nLABEL x=\"y\\\nz\"\n",
    "\n\n# c\nFROM a\n\n\nRUN b\n   \n#d\n   RUN c\n",
    "FROM a\r\nRUN b \\\r\n  c\r\n",
)  # fmt: skip
