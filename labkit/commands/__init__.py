"""The subcommands of ``labkit``, one module each: ``add_arguments(parser)`` and ``run(args)``, which returns the exit status.

They parse, call and print; what they call lives in the rooms below.

See: `labkit.cli`.
"""
