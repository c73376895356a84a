"""Set-up of the course: system parts, virtual environment, packages, kernelspec; and ``make lab``'s JupyterLab.

Only `labkit.setup.lab` needs anything beyond the standard library: the rest runs before there is an environment.

See: docs/adr/0002-one-environment.md, docs/adr/0003-set-up-without-root.md.
"""
