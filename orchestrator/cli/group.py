"""A group of commands that keeps their order and names the nearest one for a mistyped name."""

from __future__ import annotations

import click


class Commands(click.Group):
    """The commands in the order they were added, and the nearest one for a mistyped name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            from orchestrator.errors import nearest

            ctx.fail(f"There is no command {args[0]!r}.{nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)
