"""The settings: one strict tree, file < environment < flags.

`BEAMWAY_HOME` is where all state of one installation lives; two of them never meet. The file is `settings.toml` in it.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import SettingsError, nearest

SECRETS = (
    "BEAMWAY_TOKEN",
    "BEAMWAY_DATABASE",
    "BEAMWAY_GLOBUS_SECRET",
)  # of the environment: no command or worker gets these


class Secret:
    """A text that shows itself nowhere: not in a log, not in an error. `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(…)" if self._text else "Secret()"

    def __bool__(self) -> bool:
        return bool(self._text)

    def reveal(self) -> str:
        return self._text


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every field may stand in `settings.toml`, or in the environment as `BEAMWAY_<NAME>`."""

    home: Path
    database: str = ""  # SQLAlchemy URL; empty: SQLite in the home directory
    site: str = "local"  # site of stages that name none
    idle_exit_s: float = 300.0  # a service that a command started by itself ends after so long without work
    workflows: tuple[str, ...] = field(default=())  # directories searched for definitions before the standard ones

    runs: str = ""  # where runs keep logs and exit records: the services and agents of one store share it
    url: str = ""  # of the service to ask, or several between commas; empty: the service of this home
    token: Secret = field(default_factory=Secret)  # what this client or agent is known by there

    globus_client: str = ""  # id of the confidential client that moves files between Globus collections
    globus_secret: Secret = field(default_factory=Secret)

    @property
    def workflow_directories(self) -> list[Path]:
        """Where definitions are looked for by name: the settings' directories, the home's, the standard ones."""
        import workflows

        own = [Path(w).expanduser() for w in self.workflows]
        return [*own, self.home / "workflows", Path(workflows.__file__).parent]

    @property
    def site_directories(self) -> list[Path]:
        return [self.home / "sites"]

    @property
    def addresses(self) -> list[str]:
        """Of the services in `url`."""
        return [a.strip().rstrip("/") for a in self.url.split(",") if a.strip()]

    @property
    def runs_directory(self) -> Path:
        return Path(self.runs).expanduser().absolute() if self.runs else self.home / "runs"

    @property
    def globus_directory(self) -> Path:
        """Where notes and tokens of Globus transfers are kept."""
        return self.home / "globus"

    @property
    def database_url(self) -> str:
        if not self.database and "?" in str(self.home):
            raise SettingsError(f"The home directory {self.home} holds a '?', which a database address cannot.")
        return self.database or f"sqlite:///{self.home}/beamway.db"


def default_home() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(data) / "beamway"


def load(home: Path | None = None) -> Settings:
    """Read the settings; an unknown name or a wrong type is refused with the nearest that exists."""
    home = (home or Path(os.environ.get("BEAMWAY_HOME") or default_home())).expanduser().absolute()
    settings = Settings(home=home)
    path = home / "settings.toml"
    if path.exists():
        settings = replace(settings, **_from_file(path))
    return replace(settings, **_from_environment())


def ensure_home(home: Path) -> None:
    """Make the home directory, readable by its owner alone."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "runs").mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(
            f"The home directory {home} cannot be used: {error.strerror}.", "Set BEAMWAY_HOME to a writable directory."
        ) from error


_KINDS: dict[str, type] = {
    "database": str,
    "site": str,
    "idle_exit_s": float,
    "workflows": tuple,
    "runs": str,
    "url": str,
    "token": Secret,
    "globus_client": str,
    "globus_secret": Secret,
}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}.") from error
    return {name: _typed(name, value, str(path)) for name, value in values.items()}


def _from_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _KINDS:
        text = os.environ.get(f"BEAMWAY_{name.upper()}")
        if text:
            found[name] = _typed(name, text.split(os.pathsep) if name == "workflows" else text, "environment")
    return found


def _typed(name: str, value: Any, where: str) -> Any:
    if name not in _KINDS:
        raise SettingsError(f"{where}: there is no setting {name!r}.{nearest(name, _KINDS)}")
    kind = _KINDS[name]
    try:
        if kind is tuple:
            return tuple(str(v) for v in value)
        if isinstance(value, bool) or (kind in (str, Secret) and not isinstance(value, str)):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError):
        shown = "that" if kind is Secret else repr(value)
        raise SettingsError(f"{where}: setting {name!r} must be a {kind.__name__}, not {shown}.") from None


assert set(_KINDS) == {f.name for f in fields(Settings)} - {"home"}
