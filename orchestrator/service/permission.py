"""Who may do what over HTTP: the one place where it is decided. What is not allowed here is denied."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from orchestrator.errors import ArgumentError, Denied, nearest
from orchestrator.store.experiments import Part
from orchestrator.store.tokens import Token


class Role(StrEnum):
    VIEWER = "viewer"  # reads
    USER = "user"  # and runs the workflows that are there, and cancels or retries its own runs
    AUTHOR = "author"  # and runs definitions of its own (any command as the service's account), and watches directories
    OPERATOR = "operator"  # and cancels or retries everyone's runs, and removes, archives and restores copies
    ADMIN = "admin"  # and makes and revokes tokens, and stops the service
    AGENT = "agent"  # serves its one site, and nothing else


class Action(StrEnum):
    READ = "read"
    RUN = "run"
    DEFINE = "define"
    WATCH = "watch directories"
    CHANGE_OWN = "change one's own runs"
    CHANGE_ANY = "change anyone's runs"
    CHANGE_FILES = "change experiments and files"  # of those experiments in which one has a part that allows it
    ANY_EXPERIMENT = "see and change any experiment"
    RETAIN = "remove, archive, restore or pin copies"
    ADMINISTER = "administer"
    SERVE = "serve a site"
    ASK_SELF = "ask who it is known as"


_READS = frozenset({Action.READ, Action.ASK_SELF})
_USES = _READS | {Action.RUN, Action.CHANGE_OWN, Action.CHANGE_FILES}
_WRITES = _USES | {Action.DEFINE, Action.WATCH}
_OPERATES = _WRITES | {Action.CHANGE_ANY, Action.ANY_EXPERIMENT, Action.RETAIN}
ALLOWED: dict[Role, frozenset[Action]] = {
    Role.VIEWER: _READS,
    Role.USER: _USES,
    Role.AUTHOR: _WRITES,
    Role.OPERATOR: _OPERATES,
    Role.ADMIN: _OPERATES | {Action.ADMINISTER},
    Role.AGENT: frozenset({Action.SERVE, Action.ASK_SELF}),
}


class Principal(Struct, frozen=True):
    """Who asks."""

    name: str
    role: Role
    site: str = ""  # of an agent


def of(token: Token) -> Principal:
    """Raises Denied for a role that this version does not know."""
    try:
        return Principal(token.name, Role(token.role), token.site)
    except ValueError:
        raise Denied(f"The token of {token.name!r} has a role that is not known here.") from None


def check(who: Principal, action: Action, *, owner: str = "", site: str = "") -> None:
    """Raises Denied. `owner`: whose run is to be changed; `site`: which is to be served."""
    allowed = ALLOWED[who.role]
    if action is Action.CHANGE_OWN and owner != who.name:
        action = Action.CHANGE_ANY
    if action not in allowed:
        raise Denied(f"{who.name!r} ({who.role.value}) may not {action.value}.", "Ask whoever runs this service.")
    if action is Action.SERVE and site != who.site:
        raise Denied(f"{who.name!r} may serve site {who.site!r}, not {site!r}.")


def check_part(who: Principal, part: Part | None, needed: Part, experiment: str) -> None:
    """Raises Denied. `part`: that of this person in the experiment; `needed`: the least that will do."""
    if Action.ANY_EXPERIMENT in ALLOWED[who.role]:
        return
    ladder = list(Part)
    if part is None:  # also where there is no such experiment, so that nobody learns which there are
        raise Denied(f"{who.name!r} has no part in an experiment {experiment!r}.", "One of its owners can change that.")
    if needed is not Part.VIEWER:
        check(who, Action.CHANGE_FILES)
    if ladder.index(part) < ladder.index(needed):
        raise Denied(
            f"{who.name!r} is a {part.value} of experiment {experiment!r}; this takes the role {needed.value!r}.",
            "One of its owners can change that.",
        )


def seen_by(who: Principal) -> str | None:
    """As whom they look at runs and arrivals; None for those who see all."""
    return None if sees_all(who) else who.name


def sees_all(who: Principal) -> bool:
    """Any experiment, whoever has a part in it."""
    return Action.ANY_EXPERIMENT in ALLOWED[who.role]


def check_role(role: str, site: str) -> None:
    """Raises ArgumentError for a role that does not exist, or that does not go with the site."""
    roles = [r.value for r in Role]
    if role not in roles:
        raise ArgumentError(f"There is no role {role!r}.{nearest(role, roles)}", f"Roles: {', '.join(roles)}.")
    if (role == Role.AGENT) != bool(site):
        raise ArgumentError("An agent's token names its site (--site), and no other token does.")
