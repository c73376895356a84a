"""A Compose file becomes a project; PyYAML reads the text, and everything said after it is labkit's."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.compose.load import find_file, load_project, start_order
from labkit.compose.model import Health, Mount, Port, Project
from labkit.errors import InvalidSpec


def load(folder: Path, text: str, **variables: str) -> Project:
    file = folder / "compose.yaml"
    file.write_text(text)
    return load_project(file, environment=variables)


WEB = """
name: shop
services:
  web:
    build: {context: ./web, args: {VERSION: 2}}
    ports: ["127.0.0.1:8080:80", "9000-9001:9000-9001/udp", {target: 443, published: 8443}]
    environment: [A=1, FROM_OUTSIDE, NOT_SET, "TEXT=a=b"]
    volumes: ["data:/data", "./src:/src:ro", "/cache", {type: tmpfs, target: /scratch}]
    depends_on: {db: {condition: service_healthy}}
    networks: {front: {aliases: [www]}, back: }
    restart: on-failure:3
    stop_grace_period: 1m30s
    mem_limit: 64mb
  db:
    image: busybox
    command: sh -c 'sleep 1000'
    healthcheck: {test: [CMD, "true"], interval: 2s, retries: 4}
    networks: [back]
    deploy: {replicas: 2, resources: {limits: {cpus: "0.5", memory: 32M, pids: 50}}}
    restart: no
networks: {front: , back: {internal: true, ipam: {config: [{subnet: 10.9.0.0/24}]}}}
volumes: {data: }
"""


def test_every_form_of_a_key_is_understood(tmp_path: Path) -> None:
    project = load(tmp_path, WEB, FROM_OUTSIDE="yes")
    web, db = project.services["web"], project.services["db"]
    assert web.ports == (
        Port(80, 8080, "127.0.0.1"),
        Port(9000, 9000, "", "udp"),
        Port(9001, 9001, "", "udp"),
        Port(443, 8443),
    )
    assert web.environment == {"A": "1", "FROM_OUTSIDE": "yes", "TEXT": "a=b"}
    assert web.mounts == (
        Mount("volume", "/data", "data"), Mount("bind", "/src", str(tmp_path / "src"), read_only=True),
        Mount("volume", "/cache"), Mount("tmpfs", "/scratch"),
    )  # fmt: skip
    assert (web.restart, web.restart_retries, web.stop_grace_period_s, web.memory_bytes) == (
        "on-failure",
        3,
        90,
        64 << 20,
    )
    assert web.build is not None and (web.build.context, web.build.args) == (str(tmp_path / "web"), {"VERSION": "2"})
    assert web.image == "shop-web"
    assert db.command == ("sh", "-c", "sleep 1000")
    assert db.healthcheck == Health(("CMD", "true"), 2, 0, 0, 4)
    assert (db.replicas, db.cpus, db.memory_bytes, db.pids, db.restart) == (2, 0.5, 32 << 20, 50, "no")
    assert project.networks["back"].internal and project.networks["back"].subnet == "10.9.0.0/24"
    assert project.volumes["data"].name == "shop_data"
    assert start_order(project.services) == ["db", "web"]


def test_a_service_without_networks_is_on_the_default_one(tmp_path: Path) -> None:
    project = load(tmp_path, "name: p\nservices: {a: {image: x}, b: {image: x, network_mode: none}}\n")
    assert list(project.services["a"].networks) == ["default"] and project.networks["default"].name == "p_default"
    assert project.services["b"].networks == {}


def test_profiles_choose_services(tmp_path: Path) -> None:
    text = "services: {a: {image: x}, debug: {image: y, profiles: [debug]}}\n"
    assert list(load(tmp_path, text).services) == ["a"]
    assert list(load(tmp_path, text, COMPOSE_PROFILES="debug").services) == ["a", "debug"]


def test_the_name_is_the_folder_s_if_nobody_gives_one(tmp_path: Path) -> None:
    folder = tmp_path / "My Shop_1"
    folder.mkdir()
    assert load(folder, "services: {a: {image: x}}").name == "myshop_1"
    assert load(folder, "services: {a: {image: x}}", COMPOSE_PROJECT_NAME="other").name == "other"
    assert find_file(folder) == folder / "compose.yaml"


def test_env_file_values_are_overruled_by_the_environment_key(tmp_path: Path) -> None:
    (tmp_path / "web.env").write_text("A=file\nB=file\n")
    (tmp_path / ".env").write_text("TAG=3\n")
    project = load(tmp_path, "services: {a: {image: 'x:${TAG}', env_file: web.env, environment: {B: key}}}")
    assert project.services["a"].environment == {"A": "file", "B": "key"}
    assert project.services["a"].image == "x:3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "describes no services"),
        ("services: [a]", "services: this must be a mapping"),
        ("services: {a: {imgae: x}}", r"services\.a\.imgae: there is no such key"),
        ("services: {a: {}}", r"services\.a: a service needs an image or a build"),
        ("services: {a: {image: x, ports: ['80:80:80:80']}}", r"services\.a\.ports\[0\]: '80:80:80:80' is no port"),
        ("services: {a: {image: x, ports: ['70000:80']}}", "outside 1 to 65535"),
        ("services: {a: {image: x, ports: ['1-3:1-2']}}", "3 host ports for 2"),
        ("services: {a: {image: x, volumes: ['data:/d']}}", "'data' is not among the file's volumes"),
        ("services: {a: {image: x, volumes: ['./d:rel']}}", "no absolute path"),
        ("services: {a: {image: x, volumes: ['/d', '/d']}}", "mounted on twice"),
        ("services: {a: {image: x, depends_on: [b]}}", "there is no other service 'b'"),
        ("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}", "in a circle"),
        (
            "services: {a: {image: x, depends_on: {b: {condition: service_healthy}}}, b: {image: x}}",
            "has no healthcheck",
        ),
        ("services: {a: {image: x, networks: [n]}}", "'n' is not among the file's networks"),
        ("services: {a: {image: x, restart: sometimes}}", "'sometimes' is none of no, always"),
        ("services: {a: {image: x, mem_limit: 64Q}}", r"services\.a\.mem_limit: '64q'"),
        ("services: {a: {image: x, stop_grace_period: soon}}", "'soon' is no duration"),
        ("services: {a: {image: x, environment: {A: [1]}}}", r"services\.a\.environment\.A: this must be a text"),
        ("services: {a: {image: x, hostname: yes}}", "YAML reads it as true"),
        ("services: {a: {image: x, command: 'a \"b'}}", "cannot be split into words"),
        ("services: {a: {image: x, deploy: {replicas: -1}}}", "-1 is not between 0 and 100"),
        ("services: {a: {image: x, container_name: n, scale: 2}}", "cannot all be named 'n'"),
        ("services: {a: {image: x, ports: ['80:80'], scale: 2}}", "cannot all have the same host port"),
        ("services: {a: {image: x, privileged: true}}", "the engine refuses it"),
        ("services: {a: {image: x}}\nsecrets: {s: {}}", "use a bind mount"),
        ("services: {a: {image: x}}\nnetworks: {n: {driver: overlay}}", "there are bridges only"),
        ("services: {a: {image: '${IMAGE:?which}'}}", "IMAGE is required: which"),
        ("services: {a: {image: x}\nvolumes: ]", "line 2 is no YAML"),
        ("name: Big\nservices: {a: {image: x}}", "'Big' is no project name"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        load(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"There is no compose\.yaml"):
        find_file(tmp_path)
    with pytest.raises(InvalidSpec, match="cannot be read"):
        load_project(tmp_path / "compose.yaml")
