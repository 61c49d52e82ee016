"""Fits find the parameters that made g2, with errors that are right, and say why where there is nothing to find."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kernels.xpcs.analysis.dispersion import power_law
from kernels.xpcs.analysis.relaxation import MODELS, PARAMETERS, fit, gradient, model
from kernels.xpcs.lags import lags

DELAYS = lags(5000).frames * 1e-3
TRUE = {
    "simple": np.array([1.01, 0.2, 0.05]),
    "stretched": np.array([1.0, 0.15, 0.2, 0.7]),
    "double": np.array([1.0, 0.3, 0.01, 0.6, 0.55]),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_gradient_is_that_of_the_model(kind: str, logarithmic: bool) -> None:
    p, times = TRUE[kind], [n.startswith("tau") for n in PARAMETERS[kind]]
    found = gradient(kind, DELAYS, p, logarithmic=logarithmic)
    for n in range(len(p)):
        step = np.zeros(len(p))
        step[n] = 1e-6 * p[n]
        slope = (model(kind, DELAYS, p + step) - model(kind, DELAYS, p - step)) / (2 * step[n])
        factor = p[n] if logarithmic and times[n] else 1.0
        np.testing.assert_allclose(found[:, n], slope * factor, atol=1e-6 * np.abs(slope * factor).max())


@pytest.mark.parametrize("kind", MODELS)
def test_without_noise_the_parameters_come_back(kind: str) -> None:
    found = fit(DELAYS, model(kind, DELAYS, TRUE[kind]), np.full(len(DELAYS), 1e-3), kind)
    assert found.fitted, found.why
    np.testing.assert_allclose(found.values, TRUE[kind], rtol=1e-5)
    np.testing.assert_allclose(found.curve(DELAYS), model(kind, DELAYS, TRUE[kind]), atol=1e-8)
    assert found.chi2 < 1e-6
    assert found.parameter("tau")[0] == pytest.approx(TRUE[kind][2], rel=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_the_errors_are_those_that_repetition_shows(kind: str) -> None:
    random = np.random.default_rng(3)
    err = 5e-4 * (1 + DELAYS / DELAYS[-1])
    found = [
        fit(DELAYS, model(kind, DELAYS, TRUE[kind]) + err * random.standard_normal(len(err)), err, kind)
        for _ in range(40)
    ]
    assert all(each.fitted for each in found)
    pulls = np.array([(each.values - TRUE[kind]) / each.errors for each in found])
    assert np.abs(pulls.mean(0)).max() < 0.6
    assert ((pulls.std(0) > 0.7) & (pulls.std(0) < 1.35)).all()
    assert np.mean([each.chi2 for each in found]) == pytest.approx(1, abs=0.15)


def test_a_model_that_is_not_true_has_a_large_chi2() -> None:
    g2 = model("double", DELAYS, TRUE["double"])
    assert fit(DELAYS, g2, np.full(len(DELAYS), 1e-3), "simple").chi2 > 10


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ([1.0, 0.0, 0.1], "no decay"),
        ([1.0, 0.2, 1e-4], "over before the first delay|no decay"),
        ([1.0, 0.2, 1e3], "beyond the last delay|no decay"),
        ([1.0, -0.2, 0.1], "no decay"),
    ],
)
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_not_there_is_not_fitted(kind: str, parameters: list[float], why: str) -> None:
    noise = 1e-3 * np.random.default_rng(1).standard_normal(len(DELAYS))
    found = fit(DELAYS, model("simple", DELAYS, np.array(parameters)) + noise, np.full(len(DELAYS), 1e-3), kind)
    assert not found.fitted
    assert re.search(why + "|apart|one decay|do not tell", found.why), found.why
    assert np.isnan(found.values).all()


def test_delays_without_a_known_uncertainty_are_left_out() -> None:
    g2, err = model("simple", DELAYS, TRUE["simple"]), np.full(len(DELAYS), 1e-3)
    g2[3], err[5], g2[9], err[9] = np.nan, 0, 1e6, np.nan
    found = fit(DELAYS, g2, err, "simple")
    assert found.points == len(DELAYS) - 3
    np.testing.assert_allclose(found.values, TRUE["simple"], rtol=1e-5)
    few = fit(DELAYS[:3], g2[:3], err[:3], "simple")
    assert "3 delays" not in few.why or not few.fitted
    assert "too few for 3 parameters" in few.why


def test_the_power_law_of_relaxation_times() -> None:
    random = np.random.default_rng(5)
    q = np.geomspace(2e-3, 3e-2, 20)
    true, pulls = 3e-6 * q**-2.0, []
    for _ in range(100):
        err = 0.05 * true
        found = power_law(q, true + err * random.standard_normal(len(q)), err)
        pulls.append(
            ((found.exponent + 2) / found.exponent_err, np.log(found.scale / 3e-6) * found.scale / found.scale_err)
        )
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.4
    assert (np.std(pulls, axis=0) < 1.3).all()
    assert (np.std(pulls, axis=0) > 0.65).all()
    np.testing.assert_allclose(power_law(q, true, 0.01 * true).curve(q), true, rtol=1e-10)


def test_bins_that_were_not_fitted_are_no_part_of_the_power_law() -> None:
    q = np.array([0.01, 0.02, 0.03, np.nan])
    tau = np.array([np.nan, 4.0, 1.0, 2.0])
    found = power_law(q, tau, 0.1 * tau)
    assert found.points == 2
    assert found.exponent == pytest.approx(np.log(1 / 4) / np.log(1.5))
    assert "two are the least" in power_law(q[:2], tau[:2], tau[:2]).why
