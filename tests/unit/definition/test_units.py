from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.definition.units import duration_s, size_bytes


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        ("90", 90),
        ("90 s", 90),
        ("10 min", 600),
        ("2 hours", 7200),
        ("1.5 h", 5400),
        ("3 days", 259_200),
        ("01:30:00", 5400),
        ("1-12:00:00", 129_600),
        (" 5 Min ", 300),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert duration_s(value) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "x", "10:00", "1 fortnight", "-1", -1, "nan", math.nan, math.inf, 1e12, True, None, [], "9" * 400, "٣"],
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"Write seconds|A duration"):
        duration_s(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (10.0, 10),
        ("1000", 1000),
        ("500 MB", 500_000_000),
        ("16GiB", 16 * 2**30),
        ("1.5 kb", 1500),
        ("2 T", 2 * 10**12),
        ("7 B", 7),
    ],
)
def test_sizes(value: object, size: int) -> None:
    assert size_bytes(value) == size


@pytest.mark.parametrize(
    "value", ["", "MB", "1 i", "1 XB", "-1 MB", -1, math.nan, math.inf, 2**62, True, None, "9" * 400]
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match=r"Write bytes|A size"):
        size_bytes(value)


@given(st.text(max_size=20) | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.integers()))
def test_anything_is_a_quantity_or_a_value_error(value: object) -> None:
    for read in (duration_s, size_bytes):
        try:
            seen = read(value)
        except ValueError:
            continue
        assert seen >= 0
