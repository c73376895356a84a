"""``labkit setup vm``: the emulator and the guest kernels, found or fetched, unpacked once, and tried.

::

    QEMU               installed by apt-get as root; without root unpacked into the cache with the libraries it needs
    micro kernel       the distribution's kernel for clouds, unpacked from its package into the cache
    host-root kernel   the distribution's generic kernel, which has the 9p file system
    distribution       when asked for: a disk with a small Debian (`labkit.vm.setup_disk`)

Kernels are never installed, as root neither: that would change what the machine boots next time. Each thing is tried before it
counts: QEMU runs a boot ROM, a kernel must be an ELF file and have the modules that guests need. Where there is no apt, a kernel of
the machine's own that may be read will do.

Leaves out: other emulators; kernels for machines of another kind than this one.
See: `labkit.vm.packages`, `labkit.setup.archives`, docs/adr/0012.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from labkit.errors import FeatureMissing, LabkitError
from labkit.setup import apt
from labkit.setup.archives import archives, unpack
from labkit.setup.parts import cache_folder, find_program
from labkit.setup.progress import Progress, Step
from labkit.units import MiB, format_bytes
from labkit.vm.accel import accelerator, find_qemu, rom_command, software_emulation
from labkit.vm.bootrom import ROMS
from labkit.vm.kernel import GuestKernel, Kind, find_kernel, kernel_folder, store_kernel
from labkit.vm.modules import with_dependencies
from labkit.vm.packages import CANDIDATES, NEEDED_MODULES, PATTERN, QEMU_PACKAGES, installed_kernels, place_of
from labkit.vm.setup_disk import set_up_disk
from labkit.vm.vmlinux import unpack_kernel

__all__ = ["KERNEL_BYTES", "QEMU_BYTES", "fetch_kernel", "set_up", "try_qemu"]

#: Room on the disk that a kernel and its package, or QEMU with its libraries, take at most while they are unpacked.
KERNEL_BYTES, QEMU_BYTES = 400 * MiB, 600 * MiB
_TITLES: dict[Kind, str] = {"micro": "guest kernel for micro VMs", "hostroot": "guest kernel for host-root VMs"}
_ROM_LIMIT_S = 20.0


def set_up(progress: Progress, *, again: bool = False, distribution: bool = False) -> list[str]:
    """Get what is missing (all kernels anew if ``again``); return a sentence for each thing that could not be had.

    ``distribution``: a disk with a small Debian, too.
    """
    tasks: list[tuple[str, Callable[[Step], None]]] = [("QEMU", _get_qemu)]
    tasks += [(title, _kernel_task(kind, again=again)) for kind, title in _TITLES.items()]
    if distribution:
        tasks.append(("disk with a distribution", partial(set_up_disk, again=again)))
    progress.total = len(tasks)
    lacking = []
    for title, carry_out in tasks:
        with progress.step(title) as step:
            try:
                carry_out(step)
            except LabkitError as error:
                step.result = "not to be had"
                lacking.append(str(error))
            except OSError as error:
                step.result = "failed"
                lacking.append(f"{title} could not be set up: {error.filename}: {error.strerror}.")
    return lacking


def try_qemu(qemu: Path) -> None:
    """Let ``qemu`` emulate the boot ROM. Raises: FeatureMissing if it does not come to its end."""
    rom = ROMS.get(platform.machine())
    if rom is None:
        raise FeatureMissing(f"labkit has guests for x86-64 and arm64, and this machine is {platform.machine()}.")
    with tempfile.NamedTemporaryFile(prefix="labkit-rom-") as file:
        file.write(rom.content())
        file.flush()
        command = rom_command(qemu, rom, rom.boards[-1], file.name, software_emulation().qemu_arguments)
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ROM_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise FeatureMissing(f"{qemu} did not run a boot ROM within {_ROM_LIMIT_S:.0f} s.") from error
    if (done.returncode, done.stdout) != (rom.status, rom.greeting):
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise FeatureMissing(f"{qemu} is there, but does not work: {said[-1]}.", remedy="Install QEMU anew.")


def _get_qemu(step: Step) -> None:
    try:
        qemu = find_qemu()
        step.result = "already there"
    except FeatureMissing:
        qemu = _install_qemu(step)
    try_qemu(qemu)
    step.notes.append(f"guests run under {accelerator(again=True)}. {accelerator().reason}".rstrip())


def _install_qemu(step: Step) -> Path:
    """Get QEMU by the best way this user has. Raises: FeatureMissing."""
    is_arm = platform.machine() == "aarch64"
    package = "qemu-system-arm" if is_arm else QEMU_PACKAGES["apt-get"]
    reason = ""
    if apt.can_install(euid=os.geteuid()):
        reason = apt.install([package], step).get(package, "")
        if not reason:
            return find_qemu()
    if not apt.can_download():
        raise FeatureMissing("There is no QEMU on this machine.", remedy=_install_remedy())
    _check_room(QEMU_BYTES)
    folder = cache_folder() / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    with archives(step) as source:
        needed = source.fetch(lambda: source.closure(package))
        step.announce(f"{package} with {len(needed) - 1} packages that it needs, unpacked into the cache")
        for archive in needed:
            if reason := apt.run_or_reason(["dpkg-deb", "--extract", str(archive), str(folder)], step):
                raise FeatureMissing(f"{archive.name} could not be unpacked: {reason}.", remedy="Try again.")
    _wrap(folder / "usr/bin" / f"qemu-system-{platform.machine()}", folder)
    return find_qemu()


def _wrap(program: Path, root: Path) -> None:
    """Put a script in the place of ``program`` that starts it with the libraries below ``root``.

    Only this program may see them: set for everybody, they would reach programs that have their own.
    """
    real = program.with_name(f"{program.name}.real")
    if not real.exists():
        program.rename(real)
    libraries = ":".join(
        f"{root}/{place}"
        for place in (f"usr/lib/{platform.machine()}-linux-gnu", f"lib/{platform.machine()}-linux-gnu")
    )
    program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{real}" "$@"\n')
    program.chmod(0o755)


def _install_remedy() -> str:
    manager = next((name for name in QEMU_PACKAGES if shutil.which(name)), "")
    if not manager:
        return f"Install it with the system's package manager (Debian calls it {QEMU_PACKAGES['apt-get']})."
    verb = {"pacman": "-S", "apk": "add"}.get(manager, "install")
    return f"Run `{'' if os.geteuid() == 0 else 'sudo '}{manager} {verb} {QEMU_PACKAGES[manager]}`."


def _kernel_task(kind: Kind, *, again: bool) -> Callable[[Step], None]:
    def carry_out(step: Step) -> None:
        try:
            found = None if again else find_kernel(kind)
        except LabkitError:
            found = None  # missing or damaged: either way it is fetched
        if found is None:
            found = fetch_kernel(kind, step)
        else:
            step.result = f"already there: Linux {found.release}"

    return carry_out


def fetch_kernel(kind: Kind, step: Step) -> GuestKernel:
    """Get the kernel of ``kind`` from its package, or from this machine where there is no apt, and try its parts.

    Raises: FeatureMissing if there is none, GuestError if it is not what it should be; OSError.
    """
    _check_room(KERNEL_BYTES)
    new = kernel_folder(kind).with_name(f"{kind}.{os.getpid()}.new")
    try:
        release, image, package = _from_package(kind, new, step) if apt.can_download() else _from_machine(kind, new)
        step.show("unpacking the kernel")
        if apt.can_download():
            _get_unpacker(new, step)
        unpacked = unpack_kernel(image.read_bytes(), name=image.name)
        shutil.rmtree(new / "vmlinuz", ignore_errors=True)  # the packed one, out of a package
        with_dependencies(GuestKernel(image, release, new / "modules"), NEEDED_MODULES[kind])
        shutil.rmtree(kernel_folder(kind), ignore_errors=True)
        new.rename(kernel_folder(kind))
        step.result = f"Linux {release} ({package}), {format_bytes(len(unpacked))} unpacked"
        return store_kernel(kind, unpacked, release=release, package=package)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _from_package(kind: Kind, folder: Path, step: Step) -> tuple[str, Path, str]:
    names = CANDIDATES.get(platform.machine(), {}).get(kind, ())
    with archives(step) as source:

        def find() -> list[str]:
            for name in names:
                try:
                    if packages := source.related(name, PATTERN):
                        return packages
                except FeatureMissing:
                    continue  # this distribution has no such package: the next name
            raise FeatureMissing(f"No package source of this machine has a guest kernel ({' or '.join(names)}).")

        found = source.fetch(find)
        step.announce(", ".join(path.name.partition("_")[0] for path in found))
        for archive in found:
            unpack(archive, folder, place_of)
    image = next(iter(sorted((folder / "vmlinuz").glob("*"))), None)
    if image is None:
        raise FeatureMissing(f"{found[0].name} holds no kernel.")
    return image.name, image, found[0].name.partition("_")[0]


def _get_unpacker(folder: Path, step: Step) -> None:
    """Get the program zstd where Ubuntu's modules are packed with it and there is none; one file, into the cache."""
    if find_program("zstd") is not None or next(folder.rglob("*.ko.zst"), None) is None:
        return
    if reason := apt.download(["zstd"], cache_folder() / "parts", step):
        raise FeatureMissing(f"The kernel is packed with zstd, which is not to be had here: {reason['zstd']}.")


def _from_machine(kind: Kind, folder: Path) -> tuple[str, Path, str]:
    for release, image, modules in installed_kernels():
        try:
            with_dependencies(GuestKernel(image, release, modules), NEEDED_MODULES[kind])
        except LabkitError:
            continue  # it lacks something: perhaps an older one does not
        _copy_modules(modules, folder)
        return release, image, "this machine's own kernel"
    raise FeatureMissing(
        "There is neither apt-get here to fetch a guest kernel with, nor a kernel in /lib/modules or /boot that this user may read and that"
        f" has the modules {', '.join(NEEDED_MODULES[kind])}.",
        remedy="Install the distribution's kernel package with its modules, readable for you.",
    )


def _copy_modules(modules: Path, folder: Path) -> None:
    for path in modules.rglob("*"):
        place = place_of(PurePosixPath("lib/modules/any") / path.relative_to(modules))
        if place is not None and path.is_file():
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _check_room(needed_bytes: int) -> None:
    """Raises: FeatureMissing if the disk of the cache has less than ``needed_bytes`` left."""
    place = next(path for path in (cache_folder(), *cache_folder().parents) if path.is_dir())
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise FeatureMissing(
            f"The disk of {place} has {format_bytes(free_bytes)} left, and this takes up to {format_bytes(needed_bytes)}.",
            remedy="Make room, or set XDG_CACHE_HOME to a folder on another disk.",
        )
