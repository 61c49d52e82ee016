r"""The kernel contract: one function, two ways to call it, the same result.

A kernel is a function `kernel(job, *, input, output, …)` and a program `python -m kernels NAME --input … --output …`
with the same arguments. It tells its progress, measures, and writes its outputs through `Job`. After it returns,
`run` checks every output, brings it to disk, gives it its final name, and writes `<output>.manifest.json` last, beside
the first output of its schema that was asked for: where the manifest lies, the outputs are whole.

On stdout come lines of this grammar, from the program and from `run` alike, which regular expressions of a workflow
can capture::

    line     = progress | metric | warning | product
    progress = "progress" SP fraction SP phase [SP text]     fraction 0.00 to 1.00
    metric   = "metric" SP name SP value                     name [a-z][a-z0-9_]*, value to the end of the line
    warning  = "warning" SP code SP sentence                 code one of `kernels.cautions.Code`
    product  = "product" SP path                             control characters escaped

Progress comes at most four times a second, besides the first and last line. Metric, warning and product lines
come at the end, also (without products) when an output failed its own check. Exit codes: see `kernels.errors`.

Several ranks (`kernels.ranks`) run a kernel that says it is `parallel`; rank 0 speaks, checks and publishes for all of
them, and every rank gets the same result.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kernels import devices, manifest, outputs, registry
from kernels.cautions import Caution
from kernels.errors import Exit, KernelError, PeerFailed, Terminated, printable
from kernels.job import Job, Metric, ProgressCallback
from kernels.ranks import Ranks
from kernels.spec import KernelSpec

__all__ = [
    "KernelError",
    "KernelResult",
    "PeerFailed",
    "Product",
    "metric_line",
    "product_line",
    "progress_line",
    "run",
    "warning_line",
]


@dataclass(frozen=True, slots=True)
class Product:
    """One output under its final name. `shape` and `dtype` are empty where they mean nothing."""

    path: str
    bytes: int
    checksum: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    finite_fraction: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class KernelResult:
    """What a successful run gave. `timings` are seconds of wall clock by phase; `manifest` is a path or empty;
    `inputs` are the paths that it has read, as they were given."""

    kernel: str
    products: tuple[Product, ...] = ()
    metrics: dict[str, Metric] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    manifest: str = ""
    warnings: tuple[Caution, ...] = ()
    inputs: tuple[str, ...] = ()


def progress_line(fraction: float, phase: str, text: str = "") -> str:
    return printable(f"progress {fraction:.2f} {phase} {text}".rstrip())


def metric_line(name: str, value: Metric) -> str:
    shown = f"{value:.7g}" if isinstance(value, float) else printable(value)
    return f"metric {name} {shown}"


def warning_line(caution: Caution) -> str:
    return f"warning {caution.code} {caution.sentence}"


def product_line(product: Product) -> str:
    return f"product {printable(product.path)}"


def to_stdout(line: str) -> None:
    """Print a line at once. A reader that went away (`| head`) must not end a reconstruction."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(
    name: str,
    arguments: Mapping[str, Any],
    *,
    progress: ProgressCallback | None = None,
    say: Callable[[str], None] | None = to_stdout,
) -> KernelResult:
    """Run kernel `name` in this process.

    Parameters
    ----------
    name
        A registered name, such as `tomography.reconstruct`.
    arguments
        By schema name; strings are cast, an empty string for an optional argument means "not given".
    progress
        Called with (fraction, phase, text) at most four times a second.
    say
        Takes each line of the grammar above; None: nobody does.

    Raises
    ------
    KernelError
        For every failure a user can act on, with sentence, exit code, class word and the metrics known by then. No
        half output is left in any case, also not after KeyboardInterrupt or `Terminated`.
    PeerFailed
        A KernelError: another of several ranks has failed, which raises why.
    """
    spec = registry.get(name)
    bound = spec.bind(arguments)
    ranks = Ranks.here()
    if ranks.size > 1 and not spec.parallel:
        raise KernelError(f"{name} runs as one process, and {ranks.size} ranks were started. Ask for one rank.")
    tell = say if say and ranks.first else lambda line: None

    def on_progress(fraction: float, phase: str, text: str) -> None:
        tell(progress_line(fraction, phase, text))
        if progress:
            progress(fraction, phase, text)

    job = Job(on_progress if ranks.first else None, ranks)
    interrupted = False
    try:
        result = _work(spec, bound, job)
    except BaseException as error:
        raised = ranks.fail(error)
        interrupted = _was_interrupted(raised)
        if isinstance(raised, KernelError):
            raised.metrics.update(job.metrics)
            for line in _measured(job.metrics, job.warnings):
                tell(line)
        if raised is error:
            raise
        raise raised from error
    finally:
        for staged in job.staged:
            outputs.discard(staged, interrupted=interrupted)
        ranks.part()
    job.progress(1.0, "done")
    for line in _measured(result.metrics, result.warnings):
        tell(line)
    for product in result.products:
        tell(product_line(product))
    return result


def _measured(metrics: Mapping[str, Metric], warnings: Iterable[Caution]) -> list[str]:
    return [*(metric_line(name, value) for name, value in metrics.items()), *map(warning_line, warnings)]


def _was_interrupted(error: BaseException) -> bool:
    """Whether the same run may do better another time, and so may go on with what this one has written."""
    if isinstance(error, KernelError):
        return error.exit_code in (Exit.TRANSIENT, Exit.INTERRUPTED, Exit.TERMINATED)
    return isinstance(error, Terminated | KeyboardInterrupt)


def _work(spec: KernelSpec, bound: dict[str, Any], job: Job) -> KernelResult:
    """Call the kernel and bring its outputs to their names."""
    started, ranks = datetime.now(UTC), job.ranks
    try:
        _refuse_clashes(spec, bound)
        module, function = spec.call.split(":")
        kernel = getattr(importlib.import_module(module), function)
        if ranks.size > 1:
            from kernels import compiled

            compiled.use_at_most(ranks.cores)
        kernel(job, **{argument.parameter: bound[argument.name] for argument in spec.schema})
        ranks.meet()  # nothing is published before all have done their part
        result = ranks.told(_finish(spec, bound, job, started) if ranks.first else None)
        assert result is not None
        return result
    except OSError as error:
        raise outputs.failed_write(error, job.staged, spec.name) from error
    except MemoryError as error:
        sentence = f"{spec.name} ran out of memory; give it more or a lower memoryGB."
        raise KernelError(sentence, Exit.TRANSIENT) from error


def _refuse_clashes(spec: KernelSpec, bound: Mapping[str, Any]) -> None:
    """No two outputs under one name, and none in the place of an input."""
    taken: dict[str, str] = {}
    for argument in sorted(spec.schema, key=lambda a: a.role == "output"):
        value = bound[argument.name]
        if argument.role == "value" or not value:
            continue
        place = os.path.realpath(value)
        if argument.role == "output" and place in taken:
            raise KernelError(f"{spec.name}: {taken[place]!r} and {argument.name!r} are the same file {value!r}.")
        taken[place] = argument.name


def _finish(spec: KernelSpec, bound: dict[str, Any], job: Job, started: datetime) -> KernelResult:
    with job.phase("check"):
        for staged in job.staged:
            if staged.check:
                staged.check(staged.part)
        sums = [manifest.checksum(staged.part) for staged in job.staged]
    record = None
    if main := next((bound[a.name] for a in spec.schema if a.role == "output" and bound[a.name]), ""):
        record = outputs.claim(f"{main}.manifest.json")
        record.final.unlink(missing_ok=True)
        job.staged.append(record)
    products = []
    with job.phase("publish"):
        for staged, (digest, size) in zip(job.staged, sums, strict=False):
            outputs.publish(staged)
            shape = staged.facts.get("shape", ())
            finite = staged.facts.get("finiteFraction")
            products.append(
                Product(
                    path=str(staged.final),
                    bytes=size,
                    checksum=digest,
                    shape=tuple(int(n) for n in shape) if isinstance(shape, tuple) else (),
                    dtype=str(staged.facts.get("dtype", "")),
                    finite_fraction=float(finite) if isinstance(finite, int | float) else None,
                    description=str(staged.facts.get("description", "")),
                )
            )
    if record:
        manifest.write(record.part, _record(spec, bound, job, started, products))
        outputs.publish(record)
    return KernelResult(
        spec.name,
        tuple(products),
        dict(job.metrics),
        dict(job.timings),
        str(record.final) if record else "",
        tuple(job.warnings),
        _inputs(spec, bound, job),
    )


def _inputs(spec: KernelSpec, bound: dict[str, Any], job: Job) -> tuple[str, ...]:
    return (*(bound[a.name] for a in spec.schema if a.role == "input" and bound[a.name]), *job.inputs)


def _record(
    spec: KernelSpec, bound: dict[str, Any], job: Job, started: datetime, products: list[Product]
) -> dict[str, Any]:
    return {
        "format": manifest.FORMAT,
        "kernel": spec.name,
        "version": spec.version,
        "arguments": bound,
        "startedAt": started.isoformat(),
        "endedAt": datetime.now(UTC).isoformat(),
        "inputs": [manifest.input_facts(path) for path in _inputs(spec, bound, job)],
        "outputs": [
            {
                "path": p.path,
                "bytes": p.bytes,
                "checksum": p.checksum,
                "shape": list(p.shape),
                "dtype": p.dtype,
                "finiteFraction": p.finite_fraction,
                "description": p.description,
            }
            for p in products
        ],
        "metrics": job.metrics,
        "warnings": [caution._asdict() for caution in job.warnings],
        "timings": {name: round(seconds, 4) for name, seconds in job.timings.items()},
        "provenance": {**manifest.provenance(), "ranks": job.ranks.size, "devices": list(devices.visible())},
    }
