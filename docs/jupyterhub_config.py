"""JupyterHub for a class of labkit on one machine; docs/workshop.md explains it, and tests/sandbox/test_server_hub.py starts it.

Load it from a configuration of your own, which says how students log in and as whom their servers run::

    load_subconfig("/opt/labkit/docs/jupyterhub_config.py")
    c.JupyterHub.authenticator_class = "nativeauthenticator.NativeAuthenticator"
"""

import sys

c = get_config()  # noqa: F821 - JupyterHub's

# The student's server. -I: nothing is imported from the folder it starts in, which is the student's home.
c.Spawner.cmd = [sys.executable, "-I", "-m", "labkit.sandbox.server_hub"]
c.Spawner.default_url = "/lab/tree/00_start_here.ipynb"
c.Spawner.args = [
    # A kernel that nobody has used for an hour ends, and its sandbox with it.
    "--MappingKernelManager.cull_idle_timeout=3600",
    "--MappingKernelManager.cull_interval=300",
    "--Application.log_level=WARN",
]
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120

# A class comes at once; the machine starts so many servers at a time, and the others wait in a queue.
c.JupyterHub.concurrent_spawn_limit = 10
c.JupyterHub.cleanup_servers = True
