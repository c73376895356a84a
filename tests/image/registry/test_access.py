"""Who may do what at a registry with accounts: challenges, tokens, basic credentials, and what the file of accounts gives away."""

from __future__ import annotations

import base64
import json
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import InvalidSpec, InvalidState
from labkit.image.registry.server.accounts import Accounts, Scrypt
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
from tests.image.registry.wire import Wire, blob, digest_of

CHEAP = Scrypt(n=16)
ALICE, BOB = "alice:correct horse", "bob:battery staple"


def with_accounts(folder: Path) -> Path:
    accounts = Accounts(folder / "accounts.json", cost=CHEAP)
    for user in (ALICE, BOB):
        accounts.set(*user.split(":"))
    return folder


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = with_accounts(tmp_path_factory.mktemp("registry"))
    with RegistryServer(folder, RegistrySettings(port=0)) as running:
        Wire(running.address, ALICE).push_image("alice/web", "1")
        yield running


@pytest.fixture
def nobody(guarded_server: RegistryServer) -> Wire:
    return Wire(guarded_server.address)


@pytest.fixture
def alice(guarded_server: RegistryServer) -> Wire:
    return Wire(guarded_server.address, ALICE)


@pytest.fixture
def bob(guarded_server: RegistryServer) -> Wire:
    return Wire(guarded_server.address, BOB)


def token(wire: Wire, scope: str, **query: str) -> str:
    got = wire.ask("GET", "/token", service="labkit", scope=scope, **query)
    assert got.status == 200
    assert got.json["token"] == got.json["access_token"]
    return str(got.json["token"])


def bearer(wire: Wire, value: str) -> Wire:
    return Wire(wire.address, headers={"Authorization": f"Bearer {value}"})


def test_a_password_is_stored_as_its_scrypt_hash_that_only_the_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "accounts.json"
    accounts = Accounts(path)
    accounts.set("alice", "correct horse")
    accounts.set("bob", "correct horse")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert "correct" not in text
    assert base64.b64encode(b"correct horse").decode() not in text
    stored = json.loads(text)
    kind, n, r, p, salt, found = stored["alice"].split("$")
    assert (kind, int(n) * int(r) * 128, p) == ("scrypt", 32 << 20, "1")
    import hashlib

    expected = hashlib.scrypt(
        b"correct horse", salt=base64.b64decode(salt), n=int(n), r=int(r), p=1, maxmem=1 << 27, dklen=32
    )
    assert base64.b64decode(found) == expected
    assert stored["alice"] != stored["bob"]
    assert accounts.is_right("alice", "correct horse")
    assert not accounts.is_right("alice", "correct horsf")
    assert not accounts.is_right("carol", "correct horse")


def test_a_wrong_name_takes_as_long_as_a_wrong_password(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "accounts.json")
    accounts.set("alice", "correct horse")

    def quickest(name: str) -> float:
        times = []
        for _ in range(3):
            begun_s = time.perf_counter()
            assert not accounts.is_right(name, "wrong password")
            times.append(time.perf_counter() - begun_s)
        return min(times)

    assert 0.5 < quickest("alice") / quickest("carol") < 2


def test_accounts_are_removed_and_passwords_changed_at_once(tmp_path: Path) -> None:
    accounts, other = (Accounts(tmp_path / "accounts.json", cost=CHEAP) for _ in range(2))
    assert not accounts.in_use
    accounts.set("alice", "correct horse")
    assert other.is_right("alice", "correct horse")
    accounts.set("alice", "another horse")
    assert not other.is_right("alice", "correct horse")
    accounts.remove("alice")
    assert other.names() == []
    assert not other.is_right("alice", "another horse")
    assert other.in_use
    with pytest.raises(InvalidState, match="no account alice"):
        accounts.remove("alice")


@pytest.mark.parametrize(
    ("name", "password"),
    [("Alice", "long enough"), ("a/b", "long enough"), ("", "long enough"), ("alice", "short"), ("alice", "x" * 2000),
     ("alice", "with\nnewline"), ("../x", "long enough"), ("_x", "long enough")],
)  # fmt: skip
def test_an_account_that_cannot_be_is_refused(tmp_path: Path, name: str, password: str) -> None:
    with pytest.raises(InvalidSpec):
        Accounts(tmp_path / "accounts.json", cost=CHEAP).set(name, password)
    assert not (tmp_path / "accounts.json").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"alice": 1}', '{"alice": "x"}'])
def test_a_damaged_file_of_accounts_is_said_and_lets_nobody_in(tmp_path: Path, text: str) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(text)
    with pytest.raises(InvalidState, match=re.escape(str(path))):
        Accounts(path).names()


# The rules


def test_who_is_not_logged_in_reads_and_does_not_write(nobody: Wire) -> None:
    # The base answers 401 even so: it is how a client learns that it can log in.
    got = nobody.ask("GET", "/v2/")
    assert (got.status, got.code) == (401, "UNAUTHORIZED")
    assert got.headers["WWW-Authenticate"] == f'Bearer realm="http://{nobody.address}/token",service="labkit"'
    reading = bearer(nobody, token(nobody, "repository:alice/web:pull,push"))
    assert reading.ask("GET", "/v2/").status == 200
    assert reading.ask("GET", "/v2/alice/web/manifests/1").status == 200
    assert nobody.ask("GET", "/v2/alice/web/tags/list").status == 200
    assert nobody.ask("GET", "/v2/_catalog").json == {"repositories": ["alice/web"]}
    for wire in (nobody, reading):
        for method, path in (
            ("POST", "/v2/alice/web/blobs/uploads/"), ("PUT", "/v2/alice/web/manifests/2"),
            ("DELETE", "/v2/alice/web/manifests/1"), ("DELETE", f"/v2/alice/web/blobs/{digest_of(b'')}"),
            ("PATCH", "/v2/alice/web/blobs/uploads/x"), ("GET", "/v2/alice/web/blobs/uploads/x"),
        ):  # fmt: skip
            got = wire.ask(method, path)
            assert (got.status, got.code) == (401, "UNAUTHORIZED")
            what = "delete" if method == "DELETE" else "push"
            assert f'scope="repository:alice/web:pull,{what}"' in got.headers["WWW-Authenticate"]


def test_an_account_writes_below_its_own_name_only(alice: Wire, bob: Wire) -> None:
    alice.push_image("alice/app", "1")
    bob.push_image("bob/app/deep", "1")
    for name in ("alice/app", "alice", "alicex/app", "library/app", "conformance/x"):
        got = bob.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert (got.status, got.code) == (403, "DENIED")
    assert bob.ask("GET", "/v2/alice/app/manifests/1").status == 200
    assert bob.ask("DELETE", "/v2/alice/app/manifests/1").status == 403


def test_a_token_allows_what_it_says_and_no_more(alice: Wire) -> None:
    pull_only = bearer(alice, token(alice, "repository:alice/web:pull"))
    assert pull_only.ask("POST", "/v2/alice/web/blobs/uploads/").status == 401
    other = bearer(alice, token(alice, "repository:alice/other:pull,push"))
    assert other.ask("POST", "/v2/alice/web/blobs/uploads/").status == 401
    assert other.ask("GET", "/v2/alice/web/manifests/1").status == 401
    both = bearer(alice, token(alice, "repository:alice/web:pull,push repository:bob/x:push"))
    location = both.ask("POST", "/v2/alice/web/blobs/uploads/").headers["Location"]
    assert both.ask("DELETE", location).status == 204
    assert both.ask("POST", "/v2/bob/x/blobs/uploads/").status == 403
    everything = bearer(alice, token(alice, "repository:alice/web:*"))
    alice.push_image("alice/web", "gone")
    assert everything.ask("DELETE", "/v2/alice/web/manifests/gone").status == 202


@pytest.mark.parametrize("user", ["alice:wrong", "carol:correct horse", ":", "alice:", ":correct horse"])
def test_a_wrong_password_is_401_with_a_way_to_log_in(guarded_server: RegistryServer, user: str) -> None:
    wire = Wire(guarded_server.address, user)
    got = wire.ask("GET", "/v2/")
    assert (got.status, got.code) == (401, "UNAUTHORIZED")
    assert got.headers["WWW-Authenticate"].startswith("Bearer ")
    if user != ":":
        assert wire.ask("GET", "/token", scope="repository:alice/web:pull").status == 401


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !!!", "Basic YWxpY2U=", "Bearer", "Bearer x", "Bearer x.y", "Bearer .", "Digest x", "Basic /////w==",
     "Bearer " + "x" * 5000, "\u00e4"],
)  # fmt: skip
def test_a_header_that_is_none_is_401(guarded_server: RegistryServer, header: str) -> None:
    got = Wire(guarded_server.address, headers={"Authorization": header}).ask("GET", "/v2/alice/web/tags/list")
    assert (got.status, got.code) == (401, "UNAUTHORIZED")


def test_a_forged_or_old_token_is_401(alice: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    value = token(alice, "repository:alice/web:pull,push")
    payload, _, signature = value.partition(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["access"] == {"alice/web": ["pull", "push"]}
    claims["access"] = {"bob/x": ["push"]}
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert bearer(alice, f"{forged}.{signature}").ask("GET", "/v2/").status == 401
    assert bearer(alice, value).ask("GET", "/v2/").status == 200
    now = time.time()
    monkeypatch.setattr("labkit.image.registry.server.access.time.time", lambda: now + 301)
    assert bearer(alice, value).ask("GET", "/v2/").status == 401


def test_what_the_reader_may_not_see_is_not_mounted(tmp_path: Path) -> None:
    settings = RegistrySettings(port=0, anonymous_pull=False)
    with RegistryServer(with_accounts(tmp_path), settings) as server:
        nobody, alice, bob = (Wire(server.address, user) for user in ("", ALICE, BOB))
        digest = alice.push("alice/web", blob())
        assert nobody.ask("GET", f"/v2/alice/web/blobs/{digest}").status == 401
        assert nobody.ask("GET", "/v2/_catalog").status == 401
        reading = bearer(nobody, token(nobody, "repository:alice/web:pull"))
        assert reading.ask("GET", f"/v2/alice/web/blobs/{digest}").status == 401
        assert bob.ask("POST", "/v2/bob/web/blobs/uploads/", mount=digest, **{"from": "alice/web"}).status == 201


def test_a_removed_account_loses_its_token_at_once(tmp_path: Path) -> None:
    with RegistryServer(with_accounts(tmp_path), RegistrySettings(port=0, anonymous_pull=False)) as server:
        alice = Wire(server.address, ALICE)
        holder = bearer(alice, token(alice, "repository:alice/web:pull,push"))
        location = holder.ask("POST", "/v2/alice/web/blobs/uploads/").headers["Location"]
        assert holder.ask("DELETE", location).status == 204
        server.accounts.remove("alice")
        assert holder.ask("POST", "/v2/alice/web/blobs/uploads/").status == 401


def test_the_basic_scheme_can_be_asked_for(tmp_path: Path) -> None:
    with RegistryServer(with_accounts(tmp_path), RegistrySettings(port=0, scheme="basic")) as server:
        got = Wire(server.address).ask("GET", "/v2/")
        assert got.headers["WWW-Authenticate"] == 'Basic realm="labkit"'
        assert Wire(server.address, ALICE).ask("GET", "/v2/").status == 200


def test_without_accounts_it_stays_on_this_machine(tmp_path: Path) -> None:
    with pytest.raises(InvalidState, match=r"no accounts.*adduser.*--open"):
        RegistryServer(tmp_path, RegistrySettings(host="0.0.0.0", port=0))
    RegistryServer(tmp_path, RegistrySettings(host="0.0.0.0", port=0, open_to_all=True)).close()
    RegistryServer(with_accounts(tmp_path), RegistrySettings(host="0.0.0.0", port=0)).close()


@pytest.mark.parametrize("settings", [RegistrySettings(scheme="digest"), RegistrySettings(certificate=Path("x"))])
def test_settings_that_cannot_be_are_refused(tmp_path: Path, settings: RegistrySettings) -> None:
    with pytest.raises(InvalidSpec):
        RegistryServer(tmp_path, settings)
