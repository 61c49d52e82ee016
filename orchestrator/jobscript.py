r"""The text of a batch script, the same for every scheduler: claim the token, prepare, run, leave a record.

The record is written by rename at the very end, whatever ended the script short of SIGKILL: `key=value` lines (`job`,
`host`, `started`, `ended`, `signal`, `status`, `step`). A job without one did not end by itself. Of two jobs of one
token only the one that claims it first runs; the other ends at once, so nothing is ever computed twice.

While it runs it touches `record`.beat, so that a job whose node was lost under it can be told from one that computes.

SIGTERM, SIGUSR1 and SIGUSR2 are what schedulers send before they kill (before the walltime is over, at preemption, at a
cancel), SIGALRM is a timer's word that the walltime is nearly over: they are handed to the payload as SIGTERM, which
gets the time that is left to end in order. Some schedulers send them to the whole process group: the payload is started
with USR1 and USR2 ignored, so that they do not end it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

JOB_ID = "${SLURM_JOB_ID:-${PBS_JOBID:-${JOB_ID:-$$}}}"
BEAT, BEAT_S = ".beat", 20
LOOK_S = 0.2
DUPLICATE = 0  # exit status of a job whose token is claimed: it has nothing to say


class Record(Struct, frozen=True):
    """What a script said of its own end. `step` is `init` when the environment could not be prepared, else `run`."""

    job: str = ""
    host: str = ""
    started: float = 0.0
    ended: float = 0.0
    signal: str = ""  # the signal that asked it to end, empty when it ended by itself
    status: int | None = None
    step: str = ""


def body(
    argv: Sequence[str],
    *,
    record: str,
    init: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """The script that runs `argv` and leaves `record` (and `record`.claim) behind.

    `init` are lines of the site's profile (`module load …`), run in the script's own shell; the first that fails ends
    it, with `step` `init`. Everything else is quoted: no argument is ever read as shell text.
    """
    # The names begin with `bw_`: the lines of a profile and its modules have variables of their own.
    lines = [
        f"bw_record={shlex.quote(record)}",
        f'bw_job="{JOB_ID}"',
        'bw_started="$(date +%s)"; bw_signal=; bw_child=; bw_step=init; bw_status=',
        'if ! mkdir "$bw_record.claim" 2>/dev/null; then',
        '  if [ ! -d "$bw_record.claim" ]; then echo "beamway: cannot write $bw_record.claim" >&2; exit 73; fi',
        '  if [ "$(cat "$bw_record.claim/job" 2>/dev/null)" != "$bw_job" ]; then',
        '    echo "beamway: this token is claimed by job $(cat "$bw_record.claim/job" 2>/dev/null); nothing to do" >&2',
        f"    exit {DUPLICATE}",
        "  fi",
        "fi",
        'printf "%s" "$bw_job" >"$bw_record.claim/job"',
        "bw_leave() {",
        '  bw_status="${bw_status:-$?}"',
        "  trap '' TERM ALRM USR1 USR2",
        '  kill -KILL "$bw_beat" 2>/dev/null',
        '  printf "job=%s\\nhost=%s\\nstarted=%s\\nended=%s\\nsignal=%s\\nstep=%s\\nstatus=%s\\n" "$bw_job" \\',
        '    "$(hostname)" "$bw_started" "$(date +%s)" "$bw_signal" "$bw_step" "$bw_status" >"$bw_record.part.$$" \\',
        '    && mv -f "$bw_record.part.$$" "$bw_record"',
        f'  rm -f "$bw_record{BEAT}"',
        # Grid Engine reads 99 as "run it again" and 100 as "keep it in error"; the record holds the truth.
        '  case "$bw_status" in 99|100) exit 1;; esac',
        "}",
        "exec 9<> <(:)",  # nothing ever comes of it: `read -t` is a sleep without a process
        # Of one process: a `sleep` would outlive the script, and some schedulers wait for it.
        "(trap '' TERM ALRM USR1 USR2",
        f'  while kill -0 $$ 2>/dev/null; do : >"$bw_record{BEAT}"; read -r -t {BEAT_S} -u 9; done',
        ") </dev/null >/dev/null 2>&1 &",
        'bw_beat=$!; disown "$bw_beat"',
        "trap bw_leave EXIT",
        "bw_asked() {",
        '  bw_signal="$1"',
        '  if [ "$bw_step" = init ]; then exit 143; fi',
        '  if [ -n "$bw_child" ]; then kill -TERM "$bw_child" 2>/dev/null; fi',
        "}",
        'for bw_name in TERM ALRM USR1 USR2; do trap "bw_asked $bw_name" "$bw_name"; done',
    ]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted((environment or {}).items())]
    lines += [f"{{ {line}\n}} || exit" for line in init]
    lines += [
        "bw_step=run",
        f"(trap '' USR1 USR2; exec 9>&-; exec -- {shlex.join(argv)}) &",
        "bw_child=$!",
        'if [ -n "$bw_signal" ]; then kill -TERM "$bw_child" 2>/dev/null; fi',  # it came before there was a child
        # To look, and not to `wait`: when a signal ends it while the child ends, Bash 5.2 loses the child, and the next
        # `wait` hangs (one of ten cancels) until the scheduler kills the script before it has left its record.
        f'while kill -0 "$bw_child" 2>/dev/null; do read -r -t {LOOK_S} -u 9; done',
        'wait "$bw_child"; bw_status=$?',  # what the child said, also when a signal came as it ended
        'exit "$bw_status"',
    ]
    return "\n".join(lines) + "\n"


def forbid(record: str) -> None:
    """Let no job of this record begin."""
    with contextlib.suppress(OSError):
        os.makedirs(f"{record}.claim", mode=0o700, exist_ok=True)


def read(path: str) -> Record | None:
    """The record at `path`; None when there is none or it is not whole."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    if "status" not in values:
        return None
    return Record(
        values.get("job", ""),
        values.get("host", ""),
        _number(values.get("started", "")),
        _number(values.get("ended", "")),
        values.get("signal", ""),
        int(values["status"]) if values["status"].isdecimal() else None,
        values.get("step", ""),
    )


def _number(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
