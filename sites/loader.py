"""Site profiles from TOML. Whatever is wrong with one is a `SettingsError` that names the file, the key and
what was meant.

A name is looked up as `NAME.toml` in the given directories, first one first, and then among the profiles
shipped here; anything with a `/` or ending in `.toml` is a path.
"""

from __future__ import annotations

import os
import tomllib
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from orchestrator.errors import SettingsError, nearest
from sites import rules

if TYPE_CHECKING:
    from sites.schema import SiteProfile

SHIPPED = Path(__file__).parent
_LARGEST_BYTES = 1 << 20
_MOST_TOLD = 8  # problems in one sentence; of more the number is told
_MOST_SHOWN = 60  # characters of a wrong value


def load(name_or_path: str, directories: Iterable[str | Path] = ()) -> SiteProfile:
    """The profile of that name, or in that file."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return parse(read(Path(name_or_path)), name_or_path)
    places = [*map(Path, directories), SHIPPED]
    for place in places:
        path = place / f"{name_or_path}.toml"
        if path.is_file():
            profile = parse(read(path), str(path))
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
    """The profile written in `text`; `source` is how errors call it. The error names every problem there is."""
    from pydantic import ValidationError

    from sites.schema import SiteProfile

    try:
        tree = tomllib.loads(text)
    except ValueError as error:  # also what an integer of thousands of digits raises
        raise SettingsError(f"{source} is not TOML: {error}.") from error
    except RecursionError as error:
        raise SettingsError(f"{source} is nested too deeply.") from error
    try:
        profile = SiteProfile.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise SettingsError(f"{source}: {_told([_sentence(p, SiteProfile) for p in problems])}") from error
    broken = [f"the key '{key}' {what}" for key, what in rules.broken(profile)]
    if broken:
        raise SettingsError(f"{source}: {_told(broken)}")
    return profile


def fallbacks(profile: SiteProfile) -> tuple[rules.Fallback, ...]:
    """What to do in turn when a reservation is gone or full."""
    return tuple(rules.fallback(text) for text in profile.policies.fallback)


def _told(problems: Sequence[str]) -> str:
    """One line of text with every problem in it, up to a limit."""
    clauses = [p if p.endswith((".", "?")) else f"{p}." for p in problems[:_MOST_TOLD]]
    if len(problems) > _MOST_TOLD:
        clauses.append(f"({len(problems) - _MOST_TOLD} more)")
    return " Also ".join(clauses)


def read(path: Path) -> str:
    """The text of a profile file, within its limits."""
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


def _sentence(problem: Any, model: Any) -> str:
    where = problem["loc"]
    key = _key(where)
    if problem["type"] == "extra_forbidden":
        return f"the key '{key}' is not known.{nearest(str(where[-1]), _keys(_at(model, where[:-1])))}"
    if problem["type"] == "missing":
        return f"the key '{key}' is missing."
    shown = problem["input"]
    seen = f" (it is {_short(shown)})" if isinstance(shown, str | int | float | bool) else ""
    suggestion = nearest(shown[:_MOST_SHOWN], _choices(_at(model, where))) if isinstance(shown, str) else ""
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"the key '{key}' is wrong: {message[:1].lower()}{message[1:]}{seen}.{suggestion}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _key(where: Iterable[str | int]) -> str:
    """`queues[0].use`, as one would point at it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")


def _at(annotation: Any, where: Iterable[str | int]) -> Any:
    """The type of what stands at `where` below a value of this type; None where nothing is known to stand."""
    for part in where:
        annotation = _bare(annotation)
        if isinstance(part, int) or get_origin(annotation) is dict:
            annotation = get_args(annotation)[-1] if get_args(annotation) else None
            continue
        fields = getattr(annotation, "model_fields", {})
        annotation = next((f.annotation for name, f in fields.items() if part in (name, f.alias)), None)
    return _bare(annotation)


def _bare(annotation: Any) -> Any:
    """The type without `Annotated` and without `| None`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        else:
            return annotation


def _keys(annotation: Any) -> list[str]:
    return [f.alias or name for name, f in getattr(annotation, "model_fields", {}).items()]


def _choices(annotation: Any) -> list[str]:
    return [c for c in get_args(annotation) if isinstance(c, str)] if get_origin(annotation) is Literal else []
