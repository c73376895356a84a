"""Virtual machines: a guest kernel of its own under QEMU, booted from what the distribution ships.

See: `labkit.vm.accel` for the question whether the CPU may help, `labkit.vm.kernel` for what is booted.
"""
