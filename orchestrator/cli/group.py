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


class _Unnamed(click.Context):
    """Of the command that is meant where none is named: it goes by the name of its group."""

    @property
    def command_path(self) -> str:
        return super().command_path.rstrip()


class Main(click.Command):
    """What is meant when no command of a `Noun` is named; its name is empty."""

    context_class = _Unnamed

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        assert ctx.parent is not None
        group = ctx.parent.command
        assert isinstance(group, click.Group)
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.get_short_help_str(70)) for name, c in group.commands.items() if name])


class Noun(Commands):
    """A group with a `Main` command: all words that name no other one are for that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else ["", *args])
