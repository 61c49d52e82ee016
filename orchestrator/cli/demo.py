"""The command `demo`: a scan of a known object, reconstructed and checked through the whole product.

May be cut off at any moment and asked for again: a run that is not over is gone on with, a whole scan is used again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import session
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.model import Placing, Run

SIZES = {
    "standard": {"columns": "512", "rows": "64", "angles": "721"},
    "small": {"columns": "256", "rows": "8", "angles": "361"},
}


@click.command()
@click.option("--directory", default="demo", show_default=True, type=click.Path(), help="Where its files go.")
@click.option("--size", default="standard", show_default=True, type=click.Choice(list(SIZES)), help="Of the scan.")
@click.option("--facility", is_flag=True, help="Compute at a facility: GridFTP servers and a Slurm, started for it.")
@session.placing_options
@json_option
@click.pass_context
def demo(
    context: click.Context, /, directory: str, size: str, facility: bool, as_json: bool, **placing: str | None
) -> None:
    """Make a scan of a known object, reconstruct it, and check the result against the truth."""
    from orchestrator.cli import progress

    if facility:
        if any(placing.values()):
            context.fail("--facility says itself where it runs.")
        _require_facility()
    where = _directory(directory)
    begun = time.monotonic()
    if facility:
        ended, scan_s, home = _at_facility(where, size, as_json)
        _end(context, ended, _record(ended, where, scan_s, time.monotonic() - begun), as_json=as_json, home=home)
        return
    with session.client() as client:
        run_id = _unfinished(client, where)
        scan_s = 0.0
        if run_id:
            _say(as_json, f"Going on with run {run_id}, which was cut off.")
        else:
            scan_s = _scan(where, size, as_json)
            run_id = _submit(client, where, session.placing(placing))
            _say(as_json, f"Reconstructing as run {run_id}.")
        ended = progress.follow(client, run_id, quiet=as_json)
    _end(context, ended, _record(ended, where, scan_s, time.monotonic() - begun), as_json=as_json)


def _end(context: click.Context, run: Run, record: dict[str, Any], *, as_json: bool, home: str = "") -> None:
    """Tell how it went. `home`: of the run, where it is not the usual one."""
    from orchestrator.cli import formats, progress

    if as_json:
        formats.emit(record)
        context.exit(0 if run.status.value == "done" else 1)
    _report(run, record, home)
    progress.require_done(run)


def _require_facility() -> None:
    from orchestrator.cli import demo_facility
    from orchestrator.errors import SettingsError

    if reason := demo_facility.missing():
        raise SettingsError(f"There can be no facility on this machine. {reason}", "`beamway demo` does without.")


def _at_facility(where: Path, size: str, as_json: bool) -> tuple[Run, float, str]:
    """The run, the seconds that its scan took, and its home."""
    from orchestrator.cli import demo_facility, progress

    session.quiet_logs()
    scan_s = _scan(where, size, as_json)
    _say(as_json, "Starting a Slurm with a reservation, and a GridFTP server at each end.")
    with demo_facility.standing(where) as there:
        _say(as_json, f"The scan lands in {there.beamline}, which is watched.")
        run_id = demo_facility.begun(there, where / "scan.h5", where / "scan_truth.h5")
        _say(as_json, f"There, reconstructed in the reservation, and home, as run {run_id}.")
        return progress.follow(there.client, run_id, quiet=as_json), scan_s, str(there.home)


def _directory(text: str) -> Path:
    from orchestrator.errors import InputError

    where = Path(text).absolute()
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The directory {where} cannot be made: {error.strerror}.", "Name another.") from error
    return where


def _say(as_json: bool, text: str) -> None:
    if not as_json:
        click.echo(text)


# -------------------------------------------------------------------------------------------------------- the scan


def _scan(where: Path, size: str, as_json: bool) -> float:
    """Make the scan unless it is there; the seconds it took."""
    from orchestrator.errors import RunFailed

    shape = SIZES[size]
    text = f"{shape['columns']} × {shape['columns']} × {shape['rows']}, {shape['angles']} angles"
    if _whole(where, shape):
        _say(as_json, f"The scan is there already: {text}.")
        return 0.0
    _say(as_json, f"Making a scan of a known object: {text}, with noise, dead pixels and the axis off centre.")
    begun = time.monotonic()
    words = [w for name, value in shape.items() for w in (f"--{name}", value)]
    argv = [sys.executable, "-m", "kernels", "tomography.simulate", "--output", str(where / "scan.h5"), *words]
    terminal = sys.stdout.isatty() and not as_json
    last = ""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = line.strip() or last
            if terminal and line.startswith("progress "):
                click.echo(f"\r  {float(line.split()[1]):4.0%}", nl=False)
    if terminal:
        click.echo("\r      \r", nl=False)
    if process.returncode:
        raise RunFailed(f"The scan could not be made: {last.rstrip('.')}.", "Look at the free space and the memory.")
    return time.monotonic() - begun


def _whole(where: Path, shape: dict[str, str]) -> bool:
    """Was a scan of this shape made here before, and do its files have the size that its manifest says?"""
    try:
        manifest = json.loads((where / "scan.h5.manifest.json").read_text(encoding="utf-8"))
        same = all(str(manifest["arguments"][name]) == value for name, value in shape.items())
        return same and all(os.stat(o["path"]).st_size == o["bytes"] for o in manifest["outputs"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _true_axis(where: Path) -> float | None:
    try:
        manifest = json.loads((where / "scan.h5.manifest.json").read_text(encoding="utf-8"))
        return float(manifest["metrics"]["rotation_axis_true"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


# --------------------------------------------------------------------------------------------------------- the run


def _unfinished(client: Client, where: Path) -> str:
    """The id of the run that an earlier demo here started and that is not over; empty when there is none."""
    from orchestrator.errors import NotFound
    from orchestrator.model import RUN_ENDED

    try:
        run_id = str(uuid.UUID(json.loads((where / "run.json").read_text(encoding="utf-8"))["run"]))
        return "" if client.run(run_id).status in RUN_ENDED else run_id
    except (OSError, ValueError, LookupError, TypeError, AttributeError, NotFound):
        return ""


def _submit(client: Client, where: Path, placing: Placing) -> str:
    """Start the run; its id is written down first, so that a demo that is cut off finds it again."""
    arguments = {
        "filePath": str(where / "scan.h5"),
        "truthPath": str(where / "scan_truth.h5"),
        "outputDir": str(where / "results"),
    }
    plan = client.plan(client.definition("tomography"), arguments, directory=str(where), placing=placing)
    run_id = str(uuid.uuid4())
    part = where / "run.json.part"
    part.write_text(json.dumps({"run": run_id}) + "\n", encoding="utf-8")
    os.replace(part, where / "run.json")
    return client.submit(plan, run_id=run_id)


# ------------------------------------------------------------------------------------------------------ the report


def _record(run: Run, where: Path, scan_s: float, total_s: float) -> dict[str, Any]:
    from orchestrator import records

    measured: dict[str, Any] = {}
    for metrics in records.metrics(run).values():
        measured |= metrics
    return {
        **records.run_record(run),
        "directory": str(where),
        "scan_s": round(scan_s, 3),
        "total_s": round(total_s, 3),
        "axis": measured.get("rotation_axis"),
        "axis_truth": _true_axis(where),
        "relative_error": measured.get("relative_rmse"),
    }


def _report(run: Run, record: dict[str, Any], home: str = "") -> None:
    from orchestrator.cli import formats, progress, runs

    if not sys.stdout.isatty():  # on a terminal the live table has ended in this one
        click.echo(progress.stage_table(run))
    runs.print_outputs(run)
    click.echo()
    axis, truth, error = record["axis"], record["axis_truth"], record["relative_error"]
    if axis is not None and truth is not None:
        click.echo(f"axis   found {axis:.2f}, true {truth:.2f}: off by {abs(axis - truth):.3f} pixels")
    if error is not None:
        click.echo(f"error  {error:.2%} of the truth (relative RMSE)")
    scan = f", of that {formats.duration(record['scan_s'])} for the scan" if record["scan_s"] else ""
    click.echo(f"time   {formats.duration(record['total_s'])}{scan}")
    click.echo()
    click.echo("Next:")
    ours = f"BEAMWAY_HOME={home} " if home else ""
    good = run.status.value == "done"
    after = ("beamway run tomography --help", "the same with a scan of yours")
    again = (f"beamway retry {run.id}", "run again what did not pass")
    for command, what in (
        (f"{ours}beamway show {run.id}", "what each stage cost"),
        (f"{ours}beamway why {run.id}", "how it ended, and what was checked"),
        *(
            []
            if home
            else [after if good else again, ("beamway down", "end the service; it ends by itself after a while")]
        ),
    ):
        click.echo(f"  {command:<52}  {what}")
