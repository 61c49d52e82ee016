"""Places at sites: the path for who works there, the way for a transfer."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import BeamwayError, UserError
from orchestrator.transfer import gridftp_server, places
from orchestrator.transfer.base import TransferRefused
from sites import loader
from sites.schema import SiteProfile

RAW = "6c54cade-bde5-45c1-bdea-f4bd71dba2cc"
HPC = "9d6d994a-6d04-11e5-ba46-22000b92c6ec"


def site(name: str, *doors: tuple[str, str, str], more: str = "") -> SiteProfile:
    text = f'[identity]\nname = "{name}"\ncontact = "ops"\n{more}'
    for kind, endpoint, root in doors:
        text += f'[[doors]]\nkind = "{kind}"\nendpoint = "{endpoint}"\nroot = "{root}"\n'
    return loader.parse(text)


SITES = {
    "local": site("local"),
    "beamline": site("beamline", ("globus", RAW, "/data"), ("gridftp", "dtn.beamline.org:2811", "/data")),
    "hpc": site("hpc", ("gridftp", "dtn.hpc.gov:2811", "/"), ("globus", HPC, "/pscratch/")),
    "archive": site("archive", ("gridftp", "ftp://tape:2121", "/")),
    "lab": site("lab", ("rsync", "me@lab", "/data")),
    "old": site("old", ("globus", "alcf#dtn", "/")),
    "cluster": site("cluster", more='[[paths.map]]\nhere = "/data"\nthere = "/mnt/data"\n'),
    "island": site("island", more='[paths]\nshared = ["/own"]\n'),
}


def way(source: str | list[str], to: str, at: str = "local") -> tuple[str | list[str], str]:
    found = places.routed({"from": source, "to": to, "checks": "size"}, at, SITES.__getitem__)
    assert found["checks"] == "size"
    return found["from"], found["to"]


@pytest.mark.parametrize(
    ("source", "to", "expected"),
    [
        # both have a Globus door, and that is the first of the source
        ("site://beamline/data/a.h5", "site://hpc/pscratch/in/", (f"globus://{RAW}/a.h5", f"globus://{HPC}/in/")),
        # on the way back GridFTP is the first of the source
        (
            "site://hpc/pscratch/rec.zarr",
            "site://beamline/data/",
            ("gsiftp://dtn.hpc.gov:2811/pscratch/rec.zarr", "gsiftp://dtn.beamline.org:2811/"),
        ),
        # out of reach of the collection of one: the way that both have
        (
            "site://beamline/data/a.h5",
            "site://hpc/home/x",
            ("gsiftp://dtn.beamline.org:2811/a.h5", "gsiftp://dtn.hpc.gov:2811/home/x"),
        ),
        ("site://beamline/data/a.h5", "site://archive/t", ("gsiftp://dtn.beamline.org:2811/a.h5", "ftp://tape:2121/t")),
        # a path of the host where the stage runs
        ("/raw/a 1.h5", "site://hpc/pscratch/a 1.h5", ("/raw/a 1.h5", "gsiftp://dtn.hpc.gov:2811/pscratch/a%201.h5")),
        ("site://hpc/pscratch/x", "rel/x", ("gsiftp://dtn.hpc.gov:2811/pscratch/x", "rel/x")),
        ("site://lab/data/a b", "/x/a", ("ssh://me@lab/a%20b", "/x/a")),
        ("/x/a", "site://lab/data/", ("/x/a", "ssh://me@lab/")),
        # an address decides the way
        (f"globus://{RAW}/a", "site://hpc/pscratch/a", (f"globus://{RAW}/a", f"globus://{HPC}/a")),
        # no door: what both see
        ("/raw/a", "site://cluster/mnt/data/a", ("/raw/a", "/data/a")),
        ("/raw/a", "/b/a", ("/raw/a", "/b/a")),
    ],
)
def test_the_way_between_two_sites(source: str, to: str, expected: tuple[str, str]) -> None:
    assert way(source, to) == expected


def test_all_of_a_list_go_one_way() -> None:
    sources = ["site://beamline/data/a", "site://beamline/data/b"]
    assert way(sources, "site://hpc/pscratch/")[0] == [f"globus://{RAW}/a", f"globus://{RAW}/b"]
    assert way(["/own/a", sources[1]], "site://hpc/pscratch/") == (
        ["/own/a", "gsiftp://dtn.beamline.org:2811/b"],
        "gsiftp://dtn.hpc.gov:2811/pscratch/",
    )


def test_who_works_at_the_site_itself_needs_no_server_there() -> None:
    assert way("site://archive/t/a", "site://hpc/pscratch/a", at="hpc") == (
        "ftp://tape:2121/t/a",
        "gsiftp://dtn.hpc.gov:2811/pscratch/a",
    )
    assert way("site://hpc/pscratch/a", "/tmp/a", at="hpc") == ("/pscratch/a", "/tmp/a")


@pytest.mark.parametrize(
    ("source", "to", "words"),
    [
        ("site://island/data/a", "site://hpc/pscratch/a", "'site://island/data/a' is reached by nothing known here"),
        (f"globus://{RAW}/a", "site://archive/a", "No way leads"),
        ("site://lab/data/a", "site://lab/data/b", "is reached by rsync"),
        ("site://old/a", "site://hpc/pscratch/a", "wants the UUID"),
        ("site://hpc/a/../b", "/x", "'..'"),
        ("site://hpc", "/x", "reads site://NAME/path"),
        ("site:///x", "/x", "reads site://NAME/path"),
    ],
)
def test_what_has_no_way_is_one_sentence(source: str, to: str, words: str) -> None:
    with pytest.raises(BeamwayError) as refused:
        way(source, to)
    assert words in str(refused.value)
    assert isinstance(refused.value, TransferRefused | UserError)


def test_a_name_of_any_bytes_comes_through_a_server() -> None:
    source, _ = way("site://hpc/pscratch/100% \udcff?#.h5", "/x")
    assert isinstance(source, str)
    assert gridftp_server.address(source).path == "/pscratch/100% \udcff?#.h5"


def test_which_site_sees_a_path_alone() -> None:
    asked: list[str] = []

    def profile(name: str) -> SiteProfile:
        asked.append(name)
        if name not in SITES:
            raise UserError(f"There is no site {name!r}.")
        return SITES[name]

    apart = places.apart(profile)
    for name, path, alone in (
        ("local", "/data/a", False),
        ("cluster", "/data/a", False),
        ("beamline", "/data/a", True),  # behind a door
        ("beamline", "/home/a", False),
        ("archive", "/x", True),
        ("island", "/own/a", False),
        ("island", "/data/a", True),
        ("nowhere", "/data/a", False),
        ("../x.toml", "/data/a", False),
    ):
        assert apart(name, path) == (name if alone else ""), (name, path)
    assert "../x.toml" not in asked


def test_who_works_there_opens_the_path() -> None:
    given: dict[str, Any] = {"input": "site://hpc/pscratch/./a.h5", "n": 3, "more": ["site://cluster/mnt/data/b"]}
    assert places.at_hand(given, "hpc", SITES.__getitem__) == {"input": "/pscratch/a.h5", "n": 3, "more": ["/data/b"]}
    left = places.at_hand(given, "local", SITES.__getitem__)
    assert left["input"] == given["input"]
    with pytest.raises(UserError, match=r"runs at site 'local', and 'site://hpc/…' lies at site 'hpc'"):
        places.check_at_hand(left, "local")
    places.check_at_hand({"note": "a site:// of no name"}, "local")
