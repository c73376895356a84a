"""Options of ``docker run`` beyond the defaults: each is looked at from inside the container."""

from __future__ import annotations

import docker
import pytest
from docker.errors import APIError

from tests.engine.support import IMAGE
from tests.support import requires

pytestmark = requires("program:busybox", "userns")


@requires("root")
def test_further_groups(client: docker.DockerClient) -> None:
    said = client.containers.run(IMAGE, "id", user="1000", group_add=["10", "root"])
    assert said.startswith(b"uid=1000(user) gid=1000(user)")
    assert set(said.strip().partition(b"groups=")[2].split(b",")) >= {b"10", b"0(root)"}


def test_volumes_of_another_container(client: docker.DockerClient) -> None:
    client.volumes.create("shared")
    client.containers.create(IMAGE, "true", name="holder", volumes={"shared": {"bind": "/data"}})
    client.containers.run(IMAGE, ["sh", "-c", "echo x > /data/file"], volumes_from=["holder"])
    assert client.containers.run(IMAGE, ["cat", "/data/file"], volumes_from=["holder:ro"]) == b"x\n"
    with pytest.raises(docker.errors.ContainerError):
        client.containers.run(IMAGE, ["touch", "/data/file2"], volumes_from=["holder:ro"])


@requires("root")
def test_links_are_names_in_etc_hosts(client: docker.DockerClient) -> None:
    client.containers.run(IMAGE, "sleep 60", name="target", detach=True)
    said = client.containers.run(IMAGE, ["grep", "alias", "/etc/hosts"], links={"target": "alias"})
    assert said.split()[1:] == [b"alias", client.containers.get("target").id[:12].encode(), b"target"]


@requires("root")
def test_sysctls_of_the_own_network(client: docker.DockerClient) -> None:
    said = client.containers.run(
        IMAGE, ["cat", "/proc/sys/net/ipv4/ip_default_ttl"], sysctls={"net.ipv4.ip_default_ttl": "33"}
    )
    assert said == b"33\n"
    with pytest.raises(APIError, match="not allowed"):
        client.containers.run(IMAGE, "true", sysctls={"kernel.panic": "1"})


def test_privileged_is_all_power_over_nothing_of_the_machine(client: docker.DockerClient) -> None:
    script = "mount -t tmpfs x /tmp && echo mounted; echo 1 > /proc/sys/kernel/panic && echo bad; ls -l /dev/sd* /dev/vd* 2>/dev/null; mknod /tmp/d b 254 0 && echo bad"
    said = client.containers.run(IMAGE, ["sh", "-c", f"{{ {script}; }} 2>/dev/null; true"], privileged=True)
    assert said == b"mounted\n"


def test_a_health_check_says_how_the_container_is(client: docker.DockerClient) -> None:
    import time

    check = {
        "test": ["CMD-SHELL", "test -e /tmp/well"],
        "interval": 200_000_000,
        "retries": 2,
        "timeout": 5_000_000_000,
    }
    container = client.containers.run(
        IMAGE, ["sh", "-c", "sleep 1; touch /tmp/well; sleep 60"], detach=True, healthcheck=check
    )
    seen = []
    deadline_s = time.monotonic() + 30
    while "healthy" not in seen and time.monotonic() < deadline_s:
        container.reload()
        status = container.attrs["State"]["Health"]["Status"]
        if status not in seen:
            seen.append(status)
        time.sleep(0.05)
    assert seen[-1] == "healthy"
    assert seen[0] in ("starting", "unhealthy")
    assert container.attrs["State"]["Health"]["Log"][-1]["ExitCode"] == 0


def test_a_restart_policy_counts(client: docker.DockerClient) -> None:
    import time

    container = client.containers.run(
        IMAGE, ["sh", "-c", "exit 3"], detach=True, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}
    )
    deadline_s = time.monotonic() + 30
    while True:
        container.reload()
        if container.status == "exited" and container.attrs["RestartCount"] == 2:
            break
        assert time.monotonic() < deadline_s, container.attrs["State"]
        time.sleep(0.05)
    assert container.attrs["State"]["ExitCode"] == 3


def test_what_is_not_offered_is_refused_with_a_reason(client: docker.DockerClient) -> None:
    refused = [
        {"devices": ["/dev/null:/dev/x"]}, {"pid_mode": "host"}, {"ipc_mode": "host"}, {"uts_mode": "host"}, {"cgroup_parent": "/x"},
        {"network_mode": "container:x"}, {"device_cgroup_rules": ["c 1:3 r"]},
    ]  # fmt: skip
    for options in refused:
        with pytest.raises(APIError, match="not offered"):
            client.containers.create(IMAGE, "true", **options)
