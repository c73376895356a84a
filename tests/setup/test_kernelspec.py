"""The kernelspec and the settings, as Jupyter's own programs see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from labkit.setup import kernelspec


def test_jupyter_finds_the_kernel_below_the_prefix(tmp_path: Path) -> None:
    folder = kernelspec.install(tmp_path, Path("/some/python"))
    environment = {**os.environ, "JUPYTER_PATH": str(tmp_path / "share/jupyter"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "jupyter_client.kernelspecapp", "list", "--json"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(listed.stdout)["kernelspecs"][kernelspec.NAME]
    assert Path(found["resource_dir"]) == folder
    assert found["spec"]["argv"][0] == "/some/python"
    assert found["spec"]["display_name"] == "Python (labkit sandbox)"


def test_the_kernel_starts_and_answers(tmp_path: Path) -> None:
    kernelspec.install(tmp_path, Path(sys.executable))
    script = (
        "import sys\nfrom jupyter_client.manager import start_new_kernel\n"
        f"manager, client = start_new_kernel(kernel_name={kernelspec.NAME!r})\n"
        "reply = client.execute_interactive('import sys; print(sys.executable)', timeout=30)\n"
        "client.stop_channels(); manager.shutdown_kernel(now=True)\n"
        "print(reply['content']['status'])\n"
    )
    environment = {**os.environ, "JUPYTER_PATH": str(tmp_path / "share/jupyter"), "HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=90
    )
    assert result.stdout.splitlines() == [sys.executable, "ok"]


def test_jupyterlab_reads_the_settings_that_keep_the_news_away_and_render_text(tmp_path: Path) -> None:
    kernelspec.install(tmp_path, Path(sys.executable))
    script = (
        "import sys\nfrom jupyterlab_server.settings_utils import _get_overrides\n"
        "found = _get_overrides(sys.argv[1])[0]\n"
        "print(found['@jupyterlab/apputils-extension:notification'])\n"
        "print(found['@jupyterlab/docmanager-extension:plugin'])\n"
    )
    folder = tmp_path / "share/jupyter/lab/settings"
    result = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "{'checkForUpdates': False, 'fetchNews': 'false'}",
        "{'defaultViewers': {'markdown': 'Markdown Preview'}}",
    ]
