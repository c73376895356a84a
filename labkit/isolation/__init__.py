"""One file a mechanism: namespaces, idmap, mounts, overlay, cgroups, capabilities, seccomp, network.

Each module shows one thing that Linux does and nothing else; `labkit.container` puts them together. The modules that
the launcher and the container's init import need only the standard library.
"""
