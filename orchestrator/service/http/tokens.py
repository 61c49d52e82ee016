"""Tokens: made, listed, revoked by an administrator."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends, Response

from orchestrator import codec
from orchestrator.service import permission
from orchestrator.service.http import shapes
from orchestrator.service.http.context import Here, Permit
from orchestrator.service.permission import Action
from orchestrator.store import tokens as store
from orchestrator.store.tokens import Token

router = APIRouter(tags=["tokens"], dependencies=[Depends(Permit(Action.ADMINISTER))])


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
