"""Site profiles from TOML. Whatever is wrong with one is a `SettingsError` that names the file, the key and
what was meant.

A name is looked up as `NAME.toml` in the given directories, first one first, and then among the profiles
shipped here; anything with a `/` or ending in `.toml` is a path.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from orchestrator.errors import SettingsError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sites.schema import SiteProfile

SHIPPED = Path(__file__).parent
_LARGEST_BYTES = 1 << 20


def load(name_or_path: str, directories: Iterable[str | Path] = ()) -> SiteProfile:
    """The profile of that name, or in that file."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return parse(_read(Path(name_or_path)), name_or_path)
    places = [*map(Path, directories), SHIPPED]
    for place in places:
        path = place / f"{name_or_path}.toml"
        if path.is_file():
            profile = parse(_read(path), str(path))
            if profile.name != name_or_path:
                sentence = f"{path}: key 'identity.name' is '{profile.name}' and the file is '{path.name}'."
                raise SettingsError(sentence, "Make them the same.")
            return profile
    known = names(places)
    looked = ", ".join(map(str, places))
    raise SettingsError(f"There is no site '{name_or_path}' in {looked}.{nearest(name_or_path, known)}")


def names(directories: Iterable[str | Path] = (SHIPPED,)) -> list[str]:
    """The names of the profiles in `directories`, sorted."""
    return sorted({p.stem for place in directories for p in Path(place).glob("*.toml")})


def parse(text: str, source: str = "<text>") -> SiteProfile:
    """The profile written in `text`; `source` is how errors call it."""
    from pydantic import ValidationError

    from sites.schema import SiteProfile

    try:
        return SiteProfile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{source} is not TOML: {error}.") from error
    except RecursionError as error:
        raise SettingsError(f"{source} is nested too deeply.") from error
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SettingsError(f"{source}: {_sentence(problems[0], SiteProfile)}{more}") from error


def _read(path: Path) -> str:
    try:
        if os.path.exists(path) and not path.is_file():
            raise SettingsError(f"The site profile '{path}' is not a file.")
        with path.open("rb") as file:
            raw = file.read(_LARGEST_BYTES + 1)
        if len(raw) > _LARGEST_BYTES:
            raise SettingsError(f"The site profile '{path}' is larger than {_LARGEST_BYTES} bytes.")
        return raw.decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"The site profile '{path}' cannot be read: {reason}.") from error


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *above, last = problem["loc"]
        return f"the key '{key}' is not known.{nearest(str(last), _fields(model, above))}"
    if problem["type"] == "missing":
        return f"the key '{key}' is missing."
    shown = problem["input"]
    seen = f" (it is {shown!r})" if isinstance(shown, str | int | float | bool) else ""
    suggestion = nearest(shown, _choices(model, problem["loc"])) if isinstance(shown, str) else ""
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"the key '{key}' is wrong: {message[:1].lower()}{message[1:]}{seen}.{suggestion}"


def _fields(model: type[BaseModel], above: Iterable[Any]) -> list[str]:
    """The keys that are known in the table at `above`."""
    for part in above:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return list(model.model_fields)


def _choices(model: type[BaseModel], where: Iterable[Any]) -> list[str]:
    *above, last = where
    for part in above:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return [c for c in get_args(model.model_fields[last].annotation) if isinstance(c, str)]
