"""A place at a site, `site://NAME/path`: what it is called by who works there, and the way that data take to it.

The path is the site's own, letter by letter. Who works at that site opens it; a transfer goes through a door of its
profile. So a workflow names sites and paths, and the profiles alone know collections and servers. Pure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchestrator.errors import BeamwayError, UserError
from orchestrator.transfer.base import TransferRefused

if TYPE_CHECKING:
    from sites.schema import Door, SiteProfile

SCHEME = "site://"
HERE = "here"  # the way of a path that whoever carries the transfer out opens by itself
_WAYS = {"globus": "globus", "gsiftp": "gridftp", "ftp": "gridftp", "ssh": "rsync"}
_WITHIN = re.compile(r"site://[^/\s]+/")

Profiles = Callable[[str], "SiteProfile"]


def is_place(text: Any) -> bool:
    return isinstance(text, str) and text.startswith(SCHEME)


def parse(text: str) -> tuple[str, str]:
    """The site and the path."""
    site, slash, path = text.removeprefix(SCHEME).partition("/")
    if not site or not slash:
        raise UserError(f"'{text}' is not a place at a site.", "It reads site://NAME/path.")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UserError(f"The path of '{text}' holds '..'.", "Name the place itself.")
    return site, slash + "/".join(parts) + ("/" if parts and path.endswith("/") else "")


# ---------------------------------------------------------------------------------------------------- who works there


def at_hand(value: Any, at: str, profiles: Profiles) -> Any:
    """The value with each place that a stage at site `at` sees as the path there; other places stay as they are."""
    if isinstance(value, Mapping):
        return {key: at_hand(item, at, profiles) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [at_hand(item, at, profiles) for item in value]
    if not is_place(value):
        return value
    site, path = parse(value)
    return _here(profiles(site), path) if _sees(site, path, at, profiles) else value


def in_command(text: str, at: str) -> str:
    """The text of a command with the places at its own site as the paths that they are there."""
    return text.replace(f"{SCHEME}{at}/", "/")


def check_at_hand(value: Any, at: str) -> None:
    """Refuse a place at another site: a stage that is no transfer cannot open it."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            check_at_hand(item, at)
    elif isinstance(value, str) and (found := _WITHIN.search(value)):
        sentence = f"The stage runs at site '{at}', and '{found[0]}…' lies at site '{parse(found[0])[0]}'."
        raise UserError(sentence, "Fetch it with a transfer stage first, or run the stage there.")


def apart(profiles: Profiles) -> Callable[[str, str], str]:
    """(site, path) → that site, when nobody else sees what is there under this path; else empty, as for a site without
    a profile: under one path all the others see one file."""
    known = cache(profiles)

    def of(site: str, path: str) -> str:
        with suppress(BeamwayError):
            return "" if "/" in site or _sees(site, path, "", known) else site
        return ""

    return of


def _sees(site: str, path: str, at: str, profiles: Profiles) -> bool:
    """A path behind a door is elsewhere, whatever `shared` says: by default that is everything."""
    if site == at:
        return True
    profile = profiles(site)
    return not _doors(profile, path) and any(_below(path, os.path.expanduser(f)) for f in profile.paths.shared)


def _here(profile: SiteProfile, path: str) -> str:
    """As the service calls it; the agent there makes the site's own name of it again."""
    for pair in profile.paths.map:
        if _below(path, pair.there):
            return pair.here + path[len(pair.there) :]
    return path


# ---------------------------------------------------------------------------------------------------------- transfers


def routed(transfer: Mapping[str, Any], at: str, profiles: Profiles) -> dict[str, Any]:
    """The arguments of a transfer stage that runs at site `at`, with a path or an address for each place.

    All ends have to be reached in one way: on this host, by Globus, by GridFTP, or by rsync, which wants one side here.
    Where several would do, the first door of the source's profile decides.
    """
    given, to = transfer["from"], transfer["to"]
    sources = [given] if isinstance(given, str) else list(given)
    if not any(map(is_place, (*sources, to))):
        return dict(transfer)
    ends = [_ways(end, at, profiles) for end in (*sources, to)]
    if all(HERE in end for end in ends):
        return _spelled(transfer, [end[HERE] for end in ends])
    for way in dict.fromkeys(way for end in ends for way in end if way != HERE):
        if all(spelled := _by(way, ends)):
            return _spelled(transfer, spelled)
    told = "; ".join(f"'{end}' {_told(ways)}" for end, ways in zip((*sources, to), ends, strict=True))
    raise TransferRefused(
        f"No way leads from one end of the transfer to the other: {told}.",
        "Give the profiles of both sites a door of the same kind, see [[doors]].",
    )


def _by(way: str, ends: Sequence[Mapping[str, str]]) -> list[str]:
    """How the ends are spelled for one way; empty where it does not lead."""
    if way == "rsync":
        *sources, to = ends
        if HERE in to:
            return [*(end.get(way, "") for end in sources), to[HERE]]
        return [*(end.get(HERE, "") for end in sources), to.get(way, "")]
    return [end.get(way) or (end.get(HERE, "") if way == "gridftp" else "") for end in ends]


def _spelled(transfer: Mapping[str, Any], ends: Sequence[str]) -> dict[str, Any]:
    *sources, to = ends
    return {**transfer, "from": sources[0] if isinstance(transfer["from"], str) else sources, "to": to}


def _told(ways: Mapping[str, str]) -> str:
    by = [way if way != HERE else "the host of the stage" for way in ways]
    return f"is reached by {' and by '.join(by)}" if by else "is reached by nothing known here"


def _ways(end: str, at: str, profiles: Profiles) -> dict[str, str]:
    """way → how the end is spelled for it, the best way first."""
    if not is_place(end):
        if way := _WAYS.get(end.partition("://")[0].lower() if "://" in end else ""):
            return {way: end}
        if not os.path.isabs(end) or ".." in end.split("/"):
            return {HERE: end}
        end = f"{SCHEME}{at}{end}"
    site, path = parse(end)
    profile = profiles(site)
    ways: dict[str, str] = {}
    for door in _doors(profile, path):
        ways.setdefault(door.kind, _through(door, path, site))
    if _sees(site, path, at, profiles):
        ways[HERE] = _here(profile, path)
    return ways


def _doors(profile: SiteProfile, path: str) -> list[Door]:
    return [d for d in profile.doors if d.kind != "local" and _below(path, d.root)]


def _through(door: Door, path: str, site: str) -> str:
    inside = "/" + path[len(door.root.rstrip("/")) :].lstrip("/")
    if door.kind == "gridftp":
        server = door.endpoint if "://" in door.endpoint else f"gsiftp://{door.endpoint}"
        return server + quote(os.fsencode(inside))
    if door.kind == "rsync":
        return f"ssh://{door.endpoint}{quote(os.fsencode(inside))}"
    if not is_collection(door.endpoint):
        raise TransferRefused(
            f"The Globus door of site '{site}' is '{door.endpoint}', and Globus wants the UUID of the collection.",
            "The collection's page at app.globus.org shows it.",
        )
    return f"globus://{door.endpoint.lower()}{inside}"


def is_collection(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) is not None


def _below(path: str, folder: str) -> bool:
    folder = folder.rstrip("/")
    return not folder or path == folder or path.startswith(folder + "/")
