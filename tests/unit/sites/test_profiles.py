"""Site profiles: strict, described, and wrong ones named by file and key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SettingsError
from sites import loader, schema
from sites.loader import load
from sites.rules import Fallback

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
        ("x = 1\ny = 2\n" + MINIMAL + "[node]\nz = 3", "'node.z' is not known. Also the key 'x' is not known. Also"),
        ("".join(f"x{n} = 1\n" for n in range(11)) + MINIMAL, "Also (3 more)"),
        (MINIMAL + "x = 1" + "0" * 5000, "mine.toml"),
        (MINIMAL + '[scheduler]\nkind = "' + "x" * 9999 + '"', "xxx…"),
        (MINIMAL + '[[queues]]\nname = "a"\nuse = "regualr"', "the key 'queues[0].use' is wrong"),
        (MINIMAL + '[[queues]]\nname = "a"\nuse = "regualr"', "Did you mean 'regular'?"),
        (MINIMAL + '[[doors]]\nkind = "local"\nrot = "/"', "'doors[0].rot' is not known. Did you mean 'root'?"),
        (MINIMAL + '[[doors]]\nkind = "gridfpt"', "Did you mean 'gridftp'?"),
        (MINIMAL + '[[doors]]\nkind = "gridftp"', "'doors[0].endpoint' is missing: a door of kind 'gridftp' needs one"),
        (MINIMAL + '[[doors]]\nkind = "gridftp"\nendpoint = "host"', "does not read HOST:PORT"),
        (MINIMAL + "[node]\ngpus = 2", "the key 'node' is wrong: a node with gpus also says what they are"),
        (MINIMAL + '[node.accelerator]\nkind = "cud"', "Did you mean 'cuda'?"),
        (MINIMAL + '[[queues]]\nname = "a"\n[queues.node]\ncors = 1', "'queues[0].node.cors' is not known. Did you"),
        (MINIMAL + "[scheduler.environment]\nA = 3", "the key 'scheduler.environment.A' is wrong"),
        (MINIMAL + "[[maintenance]]\nform = 2026-01-01T00:00:00Z", "Did you mean 'from'?"),
        (MINIMAL + "queues = 3", "the key 'identity.queues' is not known"),
        ("queues = [3]\n" + MINIMAL, "the key 'queues[0]' is wrong"),
    ],
)
def test_wrong_profiles(tmp_path: Path, text: str, clause: str) -> None:
    assert clause in wrong(tmp_path, text)


QUEUES = """
[[queues]]
name = "short"
use = "debug"
default_walltime_s = 600
max_walltime_s = 600
[[queues]]
name = "long"
max_nodes = 4
"""


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ('[[queues]]\nname = "short"', "the key 'queues[2].name' is 'short', as that of queues[0] is."),
        ('[[reservations]]\nname = "r"\n' * 2, "the key 'reservations[1].name' is 'r'"),
        ('[[reservations]]\nname = "r"\nqueue = "shrt"', "does not have, 'shrt'. Did you mean 'short'?"),
        (
            '[[reservations]]\nname = "r"\nfrom = 2026-01-02T00:00:00Z\nuntil = 2026-01-01T00:00:00Z',
            "the key 'reservations[0].until' is not after its `from`.",
        ),
        (
            "[[maintenance]]\nfrom = 2026-01-02T00:00:00Z\nuntil = 2026-01-02T00:00:00Z",
            "the key 'maintenance[0].until' is not after its `from`.",
        ),
        ("[[maintenance]]\nfrom = 2026-01-02T00:00:00\nuntil = 2026-01-02T00:00:00Z", "names its time zone"),
        ('[accounts]\ndefault = "m1"\nallowed = ["m2"]', "'accounts.default' is 'm1', which accounts.allowed does not"),
        ('[[queues]]\nname = "x"\nmin_nodes = 3\nmax_nodes = 2', "below min_nodes of the same queue (2 < 3)"),
        ('[[queues]]\nname = "x"\nmax_walltime_s = 60', "default_walltime_s' is above max_walltime_s"),
        ('[scheduler]\nkind = "slurm"\n[execution]\nblock_nodes = 9', "queue 'long' allows 4"),
        ('min_nodes = 2\n[scheduler]\nkind = "slurm"', "queue 'long' takes no job of fewer than 2 nodes"),
        ('[[queues]]\nname = "x"\nmin_walltime_s = 7200', "default_walltime_s' is below min_walltime_s"),
        (
            'max_walltime_s = 3600\n[scheduler]\nkind = "slurm"\n[execution]\nblock_walltime_s = 7200.0',
            "'execution.block_walltime_s' is 7200, and queue 'long' allows 3600",
        ),
        ('[policies]\nfallback = ["wait ten min"]', "'wait ten min' does not read `wait NUMBER UNIT`"),
        ('[policies]\nfallback = ["wait 3 moons"]', "a unit of s, min, h or d"),
        ('[policies]\nfallback = ["quue debug"]', "is none of `wait 10 min`"),
        ('[policies]\nfallback = ["quue debug"]', "Did you mean 'queue'?"),
        (
            '[policies]\nfallback = ["queue realtime"]',
            "names a queue or use that this profile does not have, 'realtime'",
        ),
        ('[policies]\nfallback = ["site mine"]', "names this site itself"),
        ('[policies]\nfallback = ["site a b"]', "is none of"),
        ('[policies]\nfallback = [""]', "the key 'policies.fallback[0]' is wrong"),
        ('[[paths.map]]\nhere = "/a"\nthere = "/b"\n' * 2, "the key 'paths.map[1].here' is '/a'"),
    ],
)
def test_rules_between_keys(tmp_path: Path, text: str, clause: str) -> None:
    assert clause in wrong(tmp_path, MINIMAL + QUEUES + text)


def test_every_broken_rule_is_told(tmp_path: Path) -> None:
    told = wrong(tmp_path, MINIMAL + QUEUES + '[policies]\nfallback = ["fly", "queue nope", "site mine"]')
    assert told.count("the key 'policies.fallback[") == 3


def test_fallbacks_are_typed() -> None:
    text = MINIMAL + QUEUES + '[policies]\nfallback = ["wait 10 min", "wait  1.5 h", "queue debug", "site polaris"]'
    assert loader.fallbacks(loader.parse(text)) == (
        Fallback("wait", seconds=600.0),
        Fallback("wait", seconds=5400.0),
        Fallback("queue", name="debug"),
        Fallback("site", name="polaris"),
    )


def test_the_queue_that_is_taken() -> None:
    site = loader.parse(MINIMAL + QUEUES + '[[queues]]\nname = "fast"\nnamed = false\nqos = "fast"\nuse = "realtime"')
    taken = {word: site.queue(word) for word in ("", "debug", "long", "realtime", "demand")}
    assert {w: q.name for w, q in taken.items() if q} == {
        "": "long",
        "debug": "short",
        "long": "long",
        "realtime": "fast",
    }
    assert [q.partition for q in site.queues] == ["short", "long", ""]


def test_unreadable_profiles(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'x = "\xff"')
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("latin", "folder", "pipe", "gone"):
        with pytest.raises(SettingsError, match=name):
            load(str(tmp_path / f"{name}.toml"))


def test_home_is_expanded_and_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/beam")
    site = loader.parse(MINIMAL + '[paths]\nscratch = "~/x/../y"\n[node]\ncores = 100000\n[policies]\ncommands = 3')
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
    """Every table of the tree, once for each place it stands in."""
    yield model
    for field in model.model_fields.values():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, schema.Part):
                yield from parts(inner)


def test_every_field_is_described_and_every_table_strict() -> None:
    tables = list(parts(schema.SiteProfile))
    assert set(tables) == {t for t in vars(schema).values() if isinstance(t, type) and issubclass(t, schema.Part)} - {
        schema.Part
    }
    for table in tables:
        assert table.model_config["extra"] == "forbid"
        for name, field in table.model_fields.items():
            assert (field.description or "").endswith("."), (table, name)


def test_the_committed_schema_is_current() -> None:
    assert schema.SCHEMA_FILE.read_text() == schema.json_schema(), "python -m sites.schema > sites/schema.json"


def test_pydantic_is_imported_only_to_load() -> None:
    script = "import sys, sites.loader; print('pydantic' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


# --------------------------------------------------------------------------------------------------- shipped


FACILITIES = ["aurora", "perlmutter", "polaris"]
TEMPLATES = ["beamline-sge", "beamline-slurm"]


@pytest.mark.parametrize("name", loader.names())
def test_shipped_profiles(name: str) -> None:
    site = load(name)
    assert site.identity.title
    assert site.identity.description
    loader.fallbacks(site)
    if not site.local:
        assert site.queues
        assert site.queue("regular") is site.queue()


def test_what_is_shipped() -> None:
    assert loader.names() == sorted([*FACILITIES, *TEMPLATES, "local"])


@pytest.mark.parametrize("name", FACILITIES)
def test_facts_of_facilities_have_a_source_and_a_day(name: str) -> None:
    identity = load(name).identity
    assert identity.documentation.startswith("https://docs.")
    assert identity.checked is not None
    assert identity.owner


@pytest.mark.parametrize("name", ["aurora", "polaris"])
def test_alcf_jobs_name_their_file_systems(name: str) -> None:
    site = load(name)
    assert site.scheduler.options[0] == "-l"
    assert site.scheduler.options[1].startswith("filesystems=")
    assert all(q.min_walltime_s == 300 for q in site.queues)


def test_perlmutter_jobs_name_a_qos_and_no_partition() -> None:
    for queue in load("perlmutter").queues:
        assert (queue.partition, bool(queue.qos)) == ("", True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_say_what_to_change(name: str) -> None:
    text = (loader.SHIPPED / f"{name}.toml").read_text()
    assert text.startswith("# A template")
    assert text.count("# yours") > 5
