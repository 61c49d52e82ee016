"""The command line: parse, ask the client, format. What goes wrong is one line and an exit code, made here.

Nothing heavy is imported before a command's body runs, so that `beamway --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from orchestrator.errors import BeamwayError

INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell names an end by SIGINT and by SIGPIPE
PROGRAM, COMPLETE = "beamway", "_BEAMWAY_COMPLETE"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C at a moment about which the user should know more than that."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence, self.hint = sentence, hint


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _invoke(words)
    except BeamwayError as error:
        return _say(words, error.sentence, error.hint, error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else PROGRAM
        return _say(words, error.format_message(), f"`{command} --help` shows how.", error.exit_code)
    except click.ClickException as error:
        return _say(words, error.format_message(), "", error.exit_code)
    except Interrupted as error:
        return _say(words, error.sentence, error.hint, INTERRUPTED)
    except (KeyboardInterrupt, click.Abort):
        return _say(words, "Interrupted.", "", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush does not fail too
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the one place that may: a user never sees a traceback
        from orchestrator.cli.crash import kept

        sentence = f"This is a fault of Beamway, not yours: {type(error).__name__}: {error}"
        return _say(words, sentence, kept(error), BeamwayError.exit_code)


def _invoke(words: list[str]) -> int:
    from orchestrator.cli.app import cli

    if COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, PROGRAM, COMPLETE, os.environ[COMPLETE])
    try:
        with cli.make_context(PROGRAM, words) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        sys.stdout.flush()
        return end.exit_code
    return 0


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _say(words: list[str], sentence: str, hint: str, exit_code: int) -> int:
    """One line on stderr; with --json an object on stdout instead."""
    from orchestrator.errors import printable

    sentence, hint = _sentence(printable(sentence)), printable(hint)
    try:
        if "--json" in words:
            import json

            print(json.dumps({"error": {"sentence": sentence, "hint": hint, "exit_code": exit_code}}), flush=True)
        else:
            print(f"{PROGRAM}: {sentence} {hint}".rstrip(), file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody reads; the exit code still tells
    return exit_code
