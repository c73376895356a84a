"""Set-up of the course: system parts, virtual environment, packages, kernelspec; and ``make lab``'s JupyterLab.

Only `labkit.setup.lab` needs anything beyond the standard library: the rest runs before there is an environment.

See: docs/adr/0002, 0003 and 0004.
"""
