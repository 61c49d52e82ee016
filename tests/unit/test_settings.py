from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import settings
from orchestrator.errors import SettingsError


def test_file_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.toml").write_text('idle_exit_s = 5\nsite = "here"\nworkflows = ["/a", "/b"]\n')
    monkeypatch.setenv("BEAMWAY_SITE", "there")
    loaded = settings.load(tmp_path)
    assert (loaded.idle_exit_s, loaded.site, loaded.workflows) == (5.0, "there", ("/a", "/b"))
    assert loaded.database_url == f"sqlite:///{tmp_path}/beamway.db"


def test_home_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAMWAY_HOME", str(tmp_path / "h"))
    assert settings.load().home == tmp_path / "h"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("idle_exit = 5", "idle_exit_s"),
        ("idle_exit_s = 'soon'", "must be a float"),
        ("site = 3", "must be a str"),
        ("site = ", "settings.toml"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SettingsError, match=expected):
        settings.load(tmp_path)


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="BEAMWAY_HOME"):
        settings.ensure_home(tmp_path / "file" / "home")
