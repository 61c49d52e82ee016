"""Tokens: made, listed, revoked by an administrator."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends, Request, Response

from orchestrator import codec
from orchestrator.errors import Denied
from orchestrator.service import permission
from orchestrator.service.http import shapes
from orchestrator.service.http.context import Here, Permit, bearer
from orchestrator.service.permission import Action
from orchestrator.store import tokens as store
from orchestrator.store.tokens import Token

router = APIRouter(tags=["tokens"], dependencies=[Depends(Permit(Action.ADMINISTER))])
own_router = APIRouter(tags=["tokens"])


@own_router.get("/token", dependencies=[Depends(Permit(Action.ASK_SELF))], response_model=shapes.TokenShape)
def own(request: Request, here: Here) -> shapes.TokenShape:
    """The token that asks: whose it is, what it may, and until when."""
    found = store.find(here.database, bearer(request.headers.get("authorization", "")), now=time.time())
    if found is None:
        raise Denied("This token has just been revoked.")
    return _shape(found)


@router.get("/tokens", response_model=list[shapes.TokenShape])
def ls(here: Here) -> list[shapes.TokenShape]:
    """All tokens, without their secrets."""
    return [_shape(token) for token in store.ls(here.database)]


@router.post("/tokens", status_code=201, response_model=shapes.TokenMade)
def create(asked: shapes.TokenRequest, here: Here) -> shapes.TokenMade:
    """A new token; its text is shown this once."""
    permission.check_role(asked.role, asked.site)
    now = time.time()
    made, text = store.create(
        here.database, name=asked.name, role=asked.role, site=asked.site, now=now, expires_at=now + asked.lasts_s
    )
    return shapes.TokenMade(**_shape(made).model_dump(), token=text)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke(token_id: str, here: Here) -> Response:
    """It is of no use any more, within seconds."""
    store.revoke(here.database, token_id, now=time.time())
    return Response(status_code=204)


def _shape(token: Token) -> shapes.TokenShape:
    return shapes.TokenShape(
        id=token.id,
        name=token.name,
        role=token.role,
        site=token.site,
        created_at=codec.iso(token.created_at),
        expires_at=codec.iso(token.expires_at),
        revoked_at=codec.iso(token.revoked_at),
    )
