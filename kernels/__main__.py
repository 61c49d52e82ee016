"""`python -m kernels NAME --argument value …`: run one kernel as a program.

`python -m kernels` lists the kernels, `python -m kernels NAME --help` its arguments. A value is taken as it is, also
when it begins with `-`; `--rotationAxis 255.5`, `--rotationAxis=255.5` and `--rotation-axis 255.5` are the same.
"""

from __future__ import annotations

import re
import signal
import sys
from types import FrameType

from kernels import ranks, registry
from kernels.errors import Exit, KernelError, PeerFailed, Terminated, printable
from kernels.spec import KernelArgument, KernelSpec


def main(words: list[str] | None = None) -> int:
    """Run the program and return its exit code."""
    words = sys.argv[1:] if words is None else words
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_list())
            return Exit.DONE if words else Exit.USAGE
        spec = registry.get(words[0])
        if any(word in ("-h", "--help") for word in words[1:]):
            print(_help(spec))
            return Exit.DONE
        return _run(spec, parse(spec, words[1:]))
    except KernelError as error:
        return _fail(error)


def parse(spec: KernelSpec, words: list[str]) -> dict[str, str]:
    """The arguments in `words`, by schema name, unchecked."""
    known = {argument.parameter.replace("_", "-"): argument.name for argument in spec.schema}
    given: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            raise KernelError(f"{spec.name}: expected --ARGUMENT VALUE, got {printable(word)!r}.")
        name, equals, value = word[2:].partition("=")
        name = known.get(name, name)
        if not equals:
            try:
                value = next(rest)
            except StopIteration:
                raise KernelError(f"{spec.name}: --{printable(name)} has no value.") from None
        if name in given:
            raise KernelError(f"{spec.name}: --{printable(name)} is given twice.")
        given[name] = value
    return given


def _run(spec: KernelSpec, arguments: dict[str, str]) -> int:
    from kernels import contract

    signal.signal(signal.SIGTERM, _terminate)
    try:
        contract.run(spec.name, arguments)
    except PeerFailed as error:
        return error.exit_code  # the one that failed says why
    except KernelError:
        raise
    except Terminated:
        print("error user error: ended by SIGTERM; no half output is left.", file=sys.stderr)
        return Exit.TERMINATED
    except KeyboardInterrupt:
        print("error user error: interrupted; no half output is left.", file=sys.stderr)
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- the program's last line of defence: a bug has its own exit code
        sys.excepthook(type(error), error, error.__traceback__)
        return _fail(KernelError(f"{spec.name} has a bug: {type(error).__name__}; see the traceback above.", Exit.BUG))
    return Exit.DONE


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _fail(error: KernelError) -> int:
    print(f"error {error.failure}: {error.sentence}", file=sys.stderr, flush=True)
    return int(error.exit_code)


def _list() -> str:
    width = max(len(name) for name in registry.names())
    rows = (f"  {name:{width}}  {registry.summary(name)}" for name in registry.names())
    return "usage: python -m kernels NAME --argument value …\n\n" + "\n".join(rows)


def _help(spec: KernelSpec) -> str:
    lines = [f"{spec.name} {spec.version}: {spec.summary}", ""]
    for argument in spec.schema:
        lines += [
            f"  --{argument.name} {argument.type.upper()}{_note(argument)}",
            f"      {argument.description}",
        ]
    return re.sub(r"[ \t]+$", "", "\n".join(lines), flags=re.MULTILINE)


def _note(argument: KernelArgument) -> str:
    notes = ["required"] if argument.required else []
    if argument.choices:
        notes.append("one of " + ", ".join(str(c) for c in argument.choices))
    if argument.default is not None:
        notes.append(f"default {argument.default}")
    return f"  ({'; '.join(notes)})" if notes else ""


if __name__ == "__main__":
    ranks.leave(main())
