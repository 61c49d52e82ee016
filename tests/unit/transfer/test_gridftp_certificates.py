"""GridFTP by certificate (`gsiftp://`): real servers, a real authority of the tests' own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from orchestrator.model import FailureClass
from orchestrator.transfer.base import TransferError, TransferRefused, TransferReport
from orchestrator.transfer.gridftp import copy as gridftp_copy
from tests.gridftp import Certificates, Gridftp, missing
from tests.unit.transfer.copies import noise, tree

WHY = missing() or ("" if shutil.which("openssl") else "openssl is not installed")
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates") / "made")


@pytest.fixture(scope="module")
def servers(certificates: Certificates) -> Iterator[tuple[Gridftp, Gridftp]]:
    with Gridftp(certificates=certificates) as one, Gridftp(certificates=certificates) as other:
        yield one, other


@pytest.fixture(scope="module")
def user(certificates: Certificates) -> dict[str, str]:
    return certificates.make("user")


@pytest.fixture
def as_user(user: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in user.items():
        monkeypatch.setenv(name, value)


def copy(source: str | Path, destination: str | Path) -> TransferReport:
    return gridftp_copy(str(source), str(destination), token="r.1")


@pytest.mark.usefixtures("as_user")
def test_every_way(servers: tuple[Gridftp, Gridftp], tmp_path: Path) -> None:
    one, other = servers
    source = noise(tmp_path / "a", 300_000)
    copy(source, one.url("new/b"))
    copy(one.url("new/b"), other.url("c"))
    report = copy(other.url("c"), tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == source.read_bytes()
    assert report.checksum == "xxh3:" + xxhash.xxh3_128_hexdigest(source.read_bytes())
    assert os.listdir(one.root / "new") == ["b"]


@pytest.mark.usefixtures("as_user")
def test_names_pass_byte_for_byte(servers: tuple[Gridftp, Gridftp], tmp_path: Path) -> None:
    one, other = servers
    names = [b"ok\xff.h5", "é x".encode(), b"-rf", b"100%41", b"\xff\xf4\x86"]
    for number, name in enumerate(names):
        noise(tmp_path / "s" / os.fsdecode(name), 100 + number, seed=number)
    copy(tmp_path / "s", one.url("t"))
    copy(one.url("t"), other.url("t"))
    copy(other.url("t"), tmp_path / "u")
    assert tree(other.root / "t") == tree(tmp_path / "s") == tree(tmp_path / "u")
    for name in (b"a\nb", b"a\rb", b"\x1b[2J"):
        with pytest.raises(TransferRefused, match="cannot be carried"):
            copy(noise(tmp_path / os.fsdecode(name), 10), one.url(b"odd/" + name))
    assert not (one.root / "odd").exists()


@pytest.mark.parametrize(
    ("case", "clause"),
    [
        ("stranger", "Could not map /O=Trial/CN=stranger"),
        ("expired", "has expired"),
        ("none", "there is neither a proxy at"),
        ("unreadable", "cannot be used"),
        ("other authority", "in certificate chain"),
    ],
)
def test_who_is_not_let_in(
    case: str,
    clause: str,
    servers: tuple[Gridftp, Gridftp],
    user: dict[str, str],
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = dict(user)
    if case == "stranger":
        given = certificates.make("stranger")
    elif case == "expired":
        given = certificates.make("user2", days=-1)
    elif case == "none":
        given["X509_USER_CERT"] = str(tmp_path / "nowhere")
    elif case == "unreadable":
        given["X509_USER_CERT"] = str(noise(tmp_path / "noise", 100))
    else:
        given["X509_CERT_DIR"] = str(Certificates(tmp_path / "another").trusted)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TransferError, match=clause) as caught:
        copy(noise(tmp_path / "a", 10), servers[0].url("never"))
    assert caught.value.failure is FailureClass.AUTHENTICATION, str(caught.value)
    assert not (servers[0].root / "never").exists()


@pytest.mark.usefixtures("as_user")
def test_a_server_without_certificates(tmp_path: Path) -> None:
    with Gridftp() as plain, pytest.raises(TransferError) as caught:
        copy(noise(tmp_path / "a", 10), plain.url("b").replace("ftp://127.0.0.1", "gsiftp://localhost"))
    assert caught.value.failure is FailureClass.AUTHENTICATION
