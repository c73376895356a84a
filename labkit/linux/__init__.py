"""The kernel's door: constants, system calls, descriptors, /proc parsers and feature probes.

This is the only room of labkit that uses ``ctypes``, and it needs only the standard library, because the
launcher (one small process, started once) imports it.
"""
