"""Set-up of the course: system parts, virtual environment, packages, kernelspec.

It needs nothing beyond the standard library: it runs before there is an environment.

See: docs/adr/0002 and 0003.
"""
