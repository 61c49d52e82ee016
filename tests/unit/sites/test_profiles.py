"""Site profiles: strict, described, and wrong ones named by file and key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SettingsError
from sites import loader, schema
from sites.loader import load

MINIMAL = '[identity]\nname = "mine"\ncontact = "ops@example.org"\n'


def wrong(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(str(path))
    assert caught.value.exit_code == 78
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_shipped_local_site() -> None:
    site = load("local")
    assert (site.name, site.scheduler.kind, site.launcher.kind) == ("local", "local", "none")
    assert site.policies.allow_shell_text is False
    assert site.node.cores_here() == len(os.sched_getaffinity(0))
    assert site.commands_here() == 4 * len(os.sched_getaffinity(0))
    assert site.node.memory_bytes_here() > 1 << 28
    assert os.path.isabs(site.paths.scratch)
    written = load("local").model_dump(exclude={"identity"})
    defaults = loader.parse(MINIMAL).model_dump(exclude={"identity"})
    assert written == defaults  # the file shows the defaults, it does not differ from them


def test_names_and_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for place in ("a", "b"):
        (tmp_path / place / "mine.toml").write_text(MINIMAL + f'title = "{place}"\n')
    places = [tmp_path / "a", tmp_path / "b"]
    assert load("mine", places).identity.title == "a"
    assert load("mine", reversed(places)).identity.title == "b"
    assert load(str(tmp_path / "b" / "mine.toml")).identity.title == "b"
    assert load("local", places).name == "local"
    (tmp_path / "a" / "local.toml").write_text(MINIMAL.replace("mine", "local"))
    assert load("local", places).identity.contact == "ops@example.org"  # a site's own profile goes first
    with pytest.raises(SettingsError, match=r"no site 'lokal' .* Did you mean 'local'"):
        load("lokal", places)
    (tmp_path / "a" / "other.toml").write_text(MINIMAL)
    with pytest.raises(SettingsError, match=r"'identity\.name' is 'mine' and the file is 'other\.toml'"):
        load("other", places)
    assert loader.names(places) == ["local", "mine", "other"]


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("nodes = 3\n" + MINIMAL, "the key 'nodes' is not known. Did you mean 'node'?"),
        (MINIMAL + "[node]\ncors = 3", "the key 'node.cors' is not known. Did you mean 'cores'?"),
        (MINIMAL + "[policies]\nallow_shel_text = true", "Did you mean 'allow_shell_text'?"),
        ('[identity]\nname = "mine"', "the key 'identity.contact' is missing."),
        ("", "the key 'identity' is missing."),
        ('[identity]\nname = "Mine"\ncontact = "x"', "the key 'identity.name' is wrong"),
        (MINIMAL + '[node]\ncores = "3"', "the key 'node.cores' is wrong"),
        (MINIMAL + "[node]\ncores = -1", "greater than or equal to 0 (it is -1)"),
        (MINIMAL + "[node]\ncores = true", "the key 'node.cores' is wrong"),
        (MINIMAL + "[policies]\nallow_shell_text = 1", "the key 'policies.allow_shell_text' is wrong"),
        (MINIMAL + '[scheduler]\nkind = "locl"', "Did you mean 'local'?"),
        (MINIMAL + '[paths]\nscratch = "here"', "a path here is absolute or begins with ~"),
        (MINIMAL + "[limits]\nlog_cap_bytes = 1", "the key 'limits.log_cap_bytes' is wrong"),
        ("node = 3\n" + MINIMAL, "the key 'node' is wrong"),
        ("[identity\n", "is not TOML"),
        ("a = " + "[" * 5000, "mine.toml"),
        (MINIMAL + "#" * (1 << 20), "larger than"),
        (MINIMAL + "x = 1\ny = 2\n[node]\nz = 3", "(2 more)"),
    ],
)
def test_wrong_profiles(tmp_path: Path, text: str, clause: str) -> None:
    assert clause in wrong(tmp_path, text)


def test_unreadable_profiles(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'x = "\xff"')
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("latin", "folder", "pipe", "gone"):
        with pytest.raises(SettingsError, match=name):
            load(str(tmp_path / f"{name}.toml"))


def test_home_is_expanded_and_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/beam")
    site = loader.parse(
        MINIMAL + '[paths]\nscratch = "~/x/../y"\n[node]\ncores = 100000\n[policies]\ncommands = 3'
    )
    assert site.paths.scratch == "/home/beam/y"
    assert site.node.cores_here() == len(os.sched_getaffinity(0))
    assert site.commands_here() == 3
    with pytest.raises(ValueError, match="frozen"):
        site.node.cores = 3  # type: ignore[misc]


@given(st.text())
def test_any_text_is_a_profile_or_a_settings_error(text: str) -> None:
    try:
        sentence = str(loader.parse(text))
    except SettingsError as error:
        sentence = str(error)
    assert sentence.isprintable()


# ---------------------------------------------------------------------------------------------------- schema


def parts(model: Any) -> Iterator[Any]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, schema.Part):
            yield from parts(field.annotation)


def test_every_field_is_described_and_every_table_strict() -> None:
    tables = list(parts(schema.SiteProfile))
    assert len(tables) == 9
    for table in tables:
        assert table.model_config["extra"] == "forbid"
        for name, field in table.model_fields.items():
            assert (field.description or "").endswith("."), (table, name)


def test_the_committed_schema_is_current() -> None:
    assert schema.SCHEMA_FILE.read_text() == schema.json_schema(), (
        "python -m sites.schema > sites/schema.json"
    )


def test_pydantic_is_imported_only_to_load() -> None:
    script = "import sys, sites.loader; print('pydantic' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"
