"""`xpcs.fit`: relaxation times out of g2, and how they depend on q."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError, printable
from kernels.io.nexus import add_entry, add_process, check_nexus, new_file
from kernels.io.picture import check_picture
from kernels.job import Job
from kernels.xpcs.analysis.dispersion import PowerLaw, power_law
from kernels.xpcs.analysis.relaxation import PARAMETERS, Relaxation
from kernels.xpcs.analysis.relaxation import fit as fit_one
from kernels.xpcs.curves import Curves, read_curves
from kernels.xpcs.jobs.multitau import VERSION
from kernels.xpcs.pictures import draw_g2


def fit(
    job: Job,
    *,
    input: str,
    output: str,
    picture: str | None,
    model: str,
    first_delay: float | None,
    last_delay: float | None,
) -> None:
    """Fit every g2 of the result file `input`; arguments as in the schema.

    Reports `bins`, `fitted` (how many of them could be), `chi2` (median of the reduced), and of the power law of the
    first step of the second axis `tau_exponent` and `tau_exponent_error`; those are `none` where there is none.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the input; 2 when no delay is left; 73, 74 for outputs.
    """
    curves = _within(read_curves(input), first_delay, last_delay)
    fits = []
    with job.phase("fit"):
        for n in range(len(curves.bins)):
            fits.append(fit_one(curves.delay_s, curves.g2[:, n], curves.g2_err[:, n], model))
            job.progress(0.9 * (n + 1) / len(curves.bins), "fit", f"{n + 1}/{len(curves.bins)} bins")
    laws = _laws(curves, fits)
    said = {"input": input, "model": model, "firstDelay": first_delay, "lastDelay": last_delay}
    part = job.stage(output, check=check_nexus, shape=(len(fits), len(PARAMETERS[model])), dtype="float64")
    with new_file(part) as file:
        entry = add_entry(file, f"relaxation in {printable(Path(input).name)}", "tau")
        _add_times(entry, curves, fits)
        _add_fits(entry, curves, fits, model)
        _add_laws(entry, laws, curves.q_unit)
        add_process(entry, "xpcs.fit", VERSION, said)
    if picture:
        draw_g2(job.stage(picture, check=check_picture), curves, fits, laws)
    good = [each.chi2 for each in fits if each.fitted]
    job.metric("bins", len(fits))
    job.metric("fitted", len(good))
    job.metric("chi2", float(np.median(good)) if good else "none")
    job.metric("tau_exponent", laws[0].exponent if laws[0].fitted else "none")
    job.metric("tau_exponent_error", laws[0].exponent_err if laws[0].fitted else "none")


def _within(curves: Curves, first: float | None, last: float | None) -> Curves:
    low, high = first or 0.0, float("inf") if last is None else last
    inside = (curves.delay_s >= low) & (curves.delay_s <= high)
    if not inside.any():
        there = f"{curves.delay_s[0]:.4g} to {curves.delay_s[-1]:.4g} s" if len(curves.delay_s) else "none"
        raise KernelError(f"No delay lies between {low:g} and {high:g} s; there are {there}.")
    return curves._replace(delay_s=curves.delay_s[inside], g2=curves.g2[inside], g2_err=curves.g2_err[inside])


def _laws(curves: Curves, fits: Sequence[Relaxation]) -> list[PowerLaw]:
    """One for each step of the second axis."""
    tau = np.array([each.parameter("tau") for each in fits])
    steps = range(int(curves.other.max()) + 1)
    return [power_law(curves.q[mine], *tau[mine].T) for mine in (curves.other == n for n in steps)]


def _add_times(entry: h5py.Group, curves: Curves, fits: Sequence[Relaxation]) -> None:
    """Relaxation times over q, which viewers show first."""
    group = entry.create_group("tau")
    known = np.isfinite(curves.q).all()
    axis = "q" if known else "bin"
    group.attrs.update({"NX_class": "NXdata", "signal": "tau", "axes": [axis], "title": "relaxation time"})
    tau = np.array([each.parameter("tau") for each in fits])
    group["tau"], group["tau_errors"] = tau.T
    group["tau"].attrs["units"] = "s"
    group[axis] = curves.q if known else curves.bins
    group[axis].attrs["units"] = curves.q_unit if known else ""


def _add_fits(entry: h5py.Group, curves: Curves, fits: Sequence[Relaxation], model: str) -> None:
    group = entry.create_group("g2")
    group.attrs.update({"NX_class": "NXcollection", "model": model})
    group["bin"], group["label"] = curves.bins, _text(curves.labels)
    for n, name in enumerate(PARAMETERS[model]):
        group[name] = np.array([each.values[n] for each in fits])
        group[f"{name}_errors"] = np.array([each.errors[n] for each in fits])
        if name.startswith("tau"):
            group[name].attrs["units"] = group[f"{name}_errors"].attrs["units"] = "s"
    group["reduced_chi2"] = np.array([each.chi2 for each in fits])
    group["delays_used"] = np.array([each.points for each in fits])
    group["not_fitted_because"] = _text([each.why for each in fits])
    group["delay"], group["g2"], group["g2_errors"] = curves.delay_s, curves.g2, curves.g2_err
    group["delay"].attrs["units"] = "s"
    group["fit"] = np.stack([each.curve(curves.delay_s) for each in fits], axis=1)


def _add_laws(entry: h5py.Group, laws: Sequence[PowerLaw], unit: str) -> None:
    group = entry.create_group("power_law")
    group.attrs.update({"NX_class": "NXcollection", "formula": "tau = scale * q ** exponent", "unit of q": unit})
    for name in ("exponent", "exponent_err", "scale", "scale_err", "chi2", "points"):
        group[name] = np.array([getattr(law, name) for law in laws])
    group["not_fitted_because"] = _text([law.why for law in laws])


def _text(words: Sequence[str]) -> NDArray[np.object_]:
    return np.array(list(words), h5py.string_dtype())
