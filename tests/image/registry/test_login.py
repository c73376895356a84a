"""Logging in: challenges, tokens, credentials on disk, and passwords that stay where they belong."""

from __future__ import annotations

import base64
import json
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidSpec, InvalidState
from labkit.image import ImageStore, Reference
from labkit.image.registry.challenge import Challenge, parse_challenges
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.credentials import Credentials, CredentialsFile, credentials_file
from labkit.image.registry.failures import RegistryError
from labkit.image.registry.push import push
from labkit.image.registry.repository import Repository
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
from labkit.image.registry.transport import is_loopback
from tests.image.registry.liar import Liar, answer
from tests.image.registry.test_access import ALICE, with_accounts
from tests.image.registry.test_push import put_image
from tests.image.registry.wire import Wire, blob

ALICE_CREDENTIALS = Credentials(*ALICE.split(":"))

CHALLENGES = {
    'Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push"': [
        ("bearer", {"realm": "https://a/token", "service": "s", "scope": "repository:a/b:pull,push"})
    ],
    'Basic realm="a \\"quoted\\" word"': [("basic", {"realm": 'a "quoted" word'})],
    "BASIC Realm=plain": [("basic", {"realm": "plain"})],
    'Bearer realm="x" , service = y, Basic realm="z"': [
        ("bearer", {"realm": "x", "service": "y"}), ("basic", {"realm": "z"}),
    ],
    "Negotiate, Basic realm=a": [("negotiate", {}), ("basic", {"realm": "a"})],
    'Bearer realm="a",realm="b"': [("bearer", {"realm": "a"})],
    'realm="without a scheme"': [],
    "": [],
    "Basic": [("basic", {})],
}  # fmt: skip


@pytest.mark.parametrize("text", CHALLENGES)
def test_a_challenge_is_read(text: str) -> None:
    assert parse_challenges([text]) == [Challenge(scheme, found) for scheme, found in CHALLENGES[text]]


@given(st.lists(st.text(max_size=200), max_size=3))
def test_whatever_a_header_holds_it_is_read_without_an_error(texts: list[str]) -> None:
    for challenge in parse_challenges(texts):
        assert challenge.scheme == challenge.scheme.lower()


def test_a_very_long_header_is_read_quickly() -> None:
    assert len(parse_challenges(["Basic " + 'a="' * 100_000, "," * 100_000, "a" * 100_000])) <= 3


def test_credentials_are_kept_in_dockers_format_for_the_owner_only(tmp_path: Path) -> None:
    file = CredentialsFile(tmp_path / "state" / "credentials.json")
    assert file.get("localhost:5000") is None
    file.set("localhost:5000", Credentials("alice", "pass:word"))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    document = json.loads(file.path.read_text())
    assert base64.b64decode(document["auths"]["localhost:5000"]["auth"]) == b"alice:pass:word"
    assert file.get("localhost:5000") == Credentials("alice", "pass:word")
    assert file.registries() == ["localhost:5000"]
    assert "pass" not in repr(file.get("localhost:5000"))
    assert file.remove("localhost:5000")
    assert not file.remove("localhost:5000")
    assert file.get("localhost:5000") is None


def test_dockers_own_file_can_be_read_and_what_else_it_holds_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({
        "auths": {
            "https://index.docker.io/v1/": {"auth": base64.b64encode(b"hub:secret").decode()},
            "https://other.example/v2/": {"username": "bob", "password": "word"},
            "broken.example": {"auth": "!!!"}, "helper.example": {},
        },
        "credsStore": "desktop", "HttpHeaders": {"X": "y"},
    }))  # fmt: skip
    file = CredentialsFile(path)
    assert file.get("docker.io") == Credentials("hub", "secret")
    assert file.get("other.example") == Credentials("bob", "word")
    assert file.get("broken.example") is file.get("helper.example") is file.get("none.example") is None
    file.set("new.example", Credentials("carol", "x"))
    document = json.loads(path.read_text())
    assert (document["credsStore"], document["HttpHeaders"], len(document["auths"])) == ("desktop", {"X": "y"}, 5)


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}'])
def test_a_damaged_file_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(text)
    with pytest.raises(InvalidState, match="log in again"):
        CredentialsFile(path).get("x")


@pytest.mark.parametrize("name", ["", "a:b"])
def test_a_name_that_the_format_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidSpec):
        CredentialsFile(tmp_path / "c").set("x", Credentials(name, "p"))


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("[::1]", True), ("a.localhost", True),
     ("example.org", False), ("10.0.0.1", False), ("localhost.example.org", False), ("0.0.0.0", False), ("", False)],
)  # fmt: skip
def test_this_machine_is_told_from_others(host: str, *, is_here: bool) -> None:
    assert is_loopback(host) is is_here


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_a_client_logs_in_when_it_must_and_only_then(tmp_path: Path, store: ImageStore, scheme: str) -> None:
    with RegistryServer(with_accounts(tmp_path / "r"), RegistrySettings(port=0, scheme=scheme)) as server:
        name = f"{server.address}/alice/web:1"
        put_image(store, name, blob(1000))
        with pytest.raises(RegistryError, match=r"unauthorized.*log in with `labkit registry login`") as caught:
            push(Reference.parse(name), store)
        assert (caught.value.status, caught.value.code) == (401, "UNAUTHORIZED")
        with RegistryClient(server.address, credentials=Credentials("alice", "wrong password")) as client:
            with pytest.raises(RegistryError, match="unauthorized"):
                client.ping()
            with pytest.raises(RegistryError, match="unauthorized"):
                push(Reference.parse(name), store, client=client)
        with RegistryClient(server.address, credentials=ALICE_CREDENTIALS) as client:
            client.ping()
            push(Reference.parse(name), store, client=client)
            with pytest.raises(RegistryError, match=r"denied.*below"):
                push(Reference.parse(f"{server.address}/bob/web:1"), store, source=name, client=client)
            assert list(client.catalog()) == ["alice/web"]
            Repository(client, "alice/web").delete_manifest("1")
        credentials_file().set(server.address, ALICE_CREDENTIALS)
        push(Reference.parse(name), store)
        with RegistryClient(server.address, credentials=Credentials("x", "y" * 9)) as client:
            assert client.base == f"http://{server.address}"


def test_a_token_is_used_until_it_is_too_old_and_then_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RegistryServer(with_accounts(tmp_path), RegistrySettings(port=0, anonymous_pull=False)) as server:
        Wire(server.address, ALICE).push_image("alice/web", "1")
        fetched = []
        token = server._access.token
        monkeypatch.setattr(server._access, "token", lambda *a: fetched.append(1) or token(*a))
        with RegistryClient(server.address, credentials=ALICE_CREDENTIALS) as client:
            repository = Repository(client, "alice/web")
            for _ in range(5):
                repository.manifest("1")
            assert len(fetched) == 1
            import time

            now = time.monotonic
            monkeypatch.setattr("labkit.image.registry.auth.time.monotonic", lambda: now() + 295)
            repository.manifest("1")
            assert len(fetched) == 2
            # The registry is started anew and knows no token of before.
            server._access._secret = b"x" * 32
            repository.manifest("1")
            assert len(fetched) == 3


def test_many_threads_share_a_token(tmp_path: Path) -> None:
    with RegistryServer(with_accounts(tmp_path), RegistrySettings(port=0, anonymous_pull=False)) as server:
        Wire(server.address, ALICE).push_image("alice/web", "1")
        with RegistryClient(server.address, credentials=ALICE_CREDENTIALS) as client:
            found: list[str] = []
            threads = [
                threading.Thread(target=lambda: found.append(Repository(client, "alice/web").manifest("1").media_type))
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 8


REALMS = {
    "plain HTTP to another host": "http://registry.invalid/token",
    "no address": "nonsense",
    "a file": "file:///etc/passwd",
    "nothing": "",
}


@pytest.mark.parametrize("what", REALMS)
def test_a_password_does_not_go_where_it_could_be_read(liar: Liar, what: str) -> None:
    challenge = f'WWW-Authenticate: Bearer realm="{REALMS[what]}",service="x"'
    liar.serve("GET /v2/", answer("401 Unauthorized", b"{}", challenge))
    with RegistryClient(liar.address, credentials=ALICE_CREDENTIALS) as client, pytest.raises(RegistryError):
        client.ping()
    assert not any("Authorization" in head for head in liar.asked)


def test_plain_HTTP_is_spoken_with_this_machine_only_unless_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("client", "auth"):
        monkeypatch.setattr(f"labkit.image.registry.{place}.is_loopback", lambda _: False)
    seen: list[tuple[str, str, int]] = []
    settings = RegistrySettings(port=0, scheme="basic")
    with RegistryServer(with_accounts(tmp_path), settings, watch=lambda *request: seen.append(request)) as server:
        client = RegistryClient(server.address, credentials=ALICE_CREDENTIALS)
        with client, pytest.raises(RegistryError, match=r"does not speak TLS.*--insecure"):
            client.ping()
        assert seen == []
        with RegistryClient(server.address, credentials=ALICE_CREDENTIALS, insecure=True) as client:
            assert client.base == f"http://{server.address}"
            client.ping()
        assert [status for _, _, status in seen] == [401, 200]


TOKENS = {
    "no JSON": answer("200 OK", b"<html>"),
    "no token": answer("200 OK", b"{}"),
    "a list": answer("200 OK", b"[]"),
    "a number": answer("200 OK", b'{"token": 5}'),
    "a header in it": answer("200 OK", b'{"token": "x\\r\\nX: y"}'),
    "too long": answer("200 OK", b'{"token": "' + b"x" * 70_000 + b'"}'),
    "refused": answer("403 Forbidden", b'{"errors":[{"code":"DENIED"}]}'),
    "of no use": answer("200 OK", b'{"token": "useless"}'),
}


@pytest.mark.parametrize("what", TOKENS)
def test_a_token_that_is_none_is_refused(liar: Liar, what: str) -> None:
    challenge = f'WWW-Authenticate: Bearer realm="http://{liar.address}/token",service="x"'
    liar.serve("GET /v2/", answer("401 Unauthorized", b"{}", challenge))
    liar.serve("GET /token", TOKENS[what])
    with RegistryClient(liar.address) as client, pytest.raises(RegistryError):
        client.ping()
    assert len(liar.asked) < 6


def test_a_list_that_goes_round_in_circles_is_given_up(liar: Liar) -> None:
    liar.serve("GET /v2/_catalog", answer("200 OK", b'{"repositories": ["a"]}', 'Link: </v2/_catalog?n=1>; rel="next"'))
    with RegistryClient(liar.address) as client, pytest.raises(RegistryError, match="circles"):
        list(client.catalog())
    liar.serve("GET /v2/a/tags/list", answer("200 OK", b'{"tags": []}', 'Link: <http://127.0.0.1:1/x>; rel="next"'))
    with RegistryClient(liar.address) as client, pytest.raises(RegistryError, match="another host"):
        list(Repository(client, "a").tags())


def test_lists_are_read_to_their_end(server: RegistryServer, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.image.registry.server.manifest_routes._MOST_LISTED", 2)
    manifest, digest = wire.push_image("alice/web", "t0")
    for number in range(1, 5):
        wire.put("alice/web", f"t{number}", manifest)
    with RegistryClient(server.address) as client:
        repository = Repository(client, "alice/web")
        assert list(repository.tags()) == ["t0", "t1", "t2", "t3", "t4"]
        assert list(client.catalog(matching="web")) == ["alice/web"]
        assert list(client.catalog(matching="bob")) == []
        assert repository.referrers(digest) == []
        found = repository.find_manifest("t3")
        assert found is not None
        assert found.digest == digest
        assert repository.find_manifest("t9") is None
        repository.delete_manifest("t3")
        assert "t3" not in list(repository.tags())
        with pytest.raises(RegistryError, match="manifest unknown"):
            repository.delete_manifest("t3")
