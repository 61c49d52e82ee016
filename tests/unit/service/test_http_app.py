"""The interface over HTTP, without a service behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from immutables import Map

from orchestrator import wire
from orchestrator.errors import ArgumentError, Denied, SettingsError
from orchestrator.model import Run
from orchestrator.service import permission
from orchestrator.service.http import describe, listening
from orchestrator.service.permission import ALLOWED, Action, Principal, Role
from orchestrator.store.experiments import Part
from tests.unit.cli import cli_samples

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_description_is_the_interface() -> None:
    committed = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert committed == describe.text(), "python -m orchestrator.service.http.describe >docs/openapi.json"


def test_a_route_without_a_permission_stops_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.service.http import app

    monkeypatch.setattr(app, "_add_health", lambda made: made.get("/open")(lambda: 1))
    with pytest.raises(AssertionError, match="/open"):
        describe.text()


@pytest.mark.parametrize("action", list(Action))
def test_what_a_role_may_grows_with_the_role(action: Action) -> None:
    ladder = [Role.VIEWER, Role.USER, Role.AUTHOR, Role.OPERATOR, Role.ADMIN]
    may = [action in ALLOWED[role] for role in ladder]
    assert may == sorted(may)
    assert (action in ALLOWED[Role.AGENT]) == (action in (Action.SERVE, Action.ASK_SELF))


def test_an_agent_serves_its_own_site_and_a_user_changes_its_own_runs() -> None:
    agent = Principal("a", Role.AGENT, "far")
    permission.check(agent, Action.SERVE, site="far")
    with pytest.raises(Denied):
        permission.check(agent, Action.SERVE, site="near")
    ann = Principal("ann", Role.USER)
    permission.check(ann, Action.CHANGE_OWN, owner="ann")
    with pytest.raises(Denied):
        permission.check(ann, Action.CHANGE_OWN, owner="bob")
    permission.check(Principal("op", Role.OPERATOR), Action.CHANGE_OWN, owner="bob")


@pytest.mark.parametrize(("role", "site"), [("usr", ""), ("agent", ""), ("user", "far")])
def test_roles_and_sites_that_do_not_go_together(role: str, site: str) -> None:
    with pytest.raises(ArgumentError):
        permission.check_role(role, site)


@pytest.mark.parametrize(
    ("address", "encrypted", "fine"),
    [
        ("127.0.0.1:8787", False, True),
        ("localhost:0", False, True),
        ("[::1]:80", False, True),
        ("0.0.0.0:8787", False, False),
        ("host.example:8787", False, False),
        ("0.0.0.0:8787", True, True),
        ("8787", True, False),
        ("host:port", True, False),
        ("host:99999", True, False),
    ],
)
def test_tokens_never_travel_in_the_clear_unasked(address: str, encrypted: bool, fine: bool) -> None:
    if fine:
        assert listening.parse(address, encrypted=encrypted)[1] >= 0
    else:
        with pytest.raises(SettingsError):
            listening.parse(address, encrypted=encrypted)


def test_a_run_is_the_same_after_the_way_over_the_wire() -> None:
    run = cli_samples.done()
    odd = "caf\udce9.h5"
    there = wire.unpack(wire.pack(_with(run, odd)))
    assert there == _with(run, odd)
    assert set(wire.Document.__struct_fields__) - {"captured"} == set(Run.__struct_fields__) - {"item_variables"}


def _with(run: Run, name: str) -> Run:
    from msgspec.structs import replace

    return replace(run, item_variables=Map({(name, "v"): "1"}), files=(name,))


def test_a_part_in_an_experiment_is_needed_and_bounded_by_the_role_of_the_token() -> None:
    ann, operator, viewer = (Principal("ann", r) for r in (Role.USER, Role.OPERATOR, Role.VIEWER))
    permission.check_part(ann, Part.MEMBER, Part.VIEWER, "e")
    permission.check_part(operator, None, Part.OWNER, "e")
    permission.check_part(viewer, Part.OWNER, Part.VIEWER, "e")
    for who, part, needed in (
        (ann, None, Part.VIEWER),
        (ann, Part.VIEWER, Part.MEMBER),
        (ann, Part.MEMBER, Part.OWNER),
        (viewer, Part.OWNER, Part.MEMBER),
        (Principal("a", Role.AGENT, "far"), Part.OWNER, Part.MEMBER),
    ):
        with pytest.raises(Denied):
            permission.check_part(who, part, needed, "e")
