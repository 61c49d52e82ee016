"""The list of kernels, their schemas, and how arguments are bound."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import registry
from kernels.__main__ import parse
from kernels.errors import KernelError, printable


def test_importing_the_registry_imports_nothing_heavy() -> None:
    heavy = ["numpy", "numba", "h5py", "zarr", "scipy", "PIL", "orchestrator"]
    code = f"import sys, kernels.registry; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("name", registry.names())
def test_every_kernel_takes_what_its_schema_says(name: str) -> None:
    spec = registry.get(name)
    module, function = spec.call.split(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert list(parameters) == ["job", *(a.parameter for a in spec.schema)]
    for argument in spec.schema:
        assert argument.description
        if argument.default is not None:
            assert argument.cast(name, argument.default) == argument.default


def test_an_unknown_kernel_is_a_key_error_that_suggests() -> None:
    with pytest.raises(registry.UnknownKernel, match=r"Did you mean 'tomography\.reconstruct'\?") as caught:
        registry.get("tomography.reconstuct")
    assert isinstance(caught.value, KeyError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("other", "name"), registry.ALIASES.items())
def test_another_name_is_the_same_kernel(other: str, name: str) -> None:
    assert registry.get(other) is registry.get(name)
    assert registry.get(name).name == name  # and no name of one stands for another
    assert registry.summary(other) == f"another name of {name}"
    assert {other, name} <= set(registry.names())


def test_strings_are_cast_and_empty_ones_mean_not_given() -> None:
    bound = registry.get("tomography.reconstruct").bind(
        {"input": Path("a.h5"), "output": b"b\xff.zarr", "rotationAxis": "", "binning": "2", "circle": "false"}
    )
    assert bound["input"] == "a.h5"
    assert bound["output"] == "b\udcff.zarr"
    assert bound["rotationAxis"] is None
    assert bound["binning"] == 2
    assert bound["circle"] is False
    assert bound["filter"] == "ramp"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"output": "b"}, "argument 'input' is missing"),
        ({"input": "", "output": "b"}, "argument 'input' is empty"),
        ({"input": "a", "output": "b", "rotationaxis": "3"}, "Did you mean 'rotationAxis'"),
        ({"input": "a", "output": "b", "rotationAxis": "left"}, "must be a finite number, not 'left'"),
        ({"input": "a", "output": "b", "rotationAxis": "nan"}, "must be a finite number"),
        ({"input": "a", "output": "b", "binning": "3"}, "must be one of 1, 2, 4, 8"),
        ({"input": "a", "output": "b", "binning": True}, "must be a whole number"),
        ({"input": "a", "output": "b", "filter": "cosin"}, "Did you mean 'cosine'"),
        ({"input": "a", "output": "b", "circle": "3"}, "must be true or false"),
        ({"input": "a", "output": "b", "memoryGB": "-1"}, "must be at least 0.01"),
        ({"input": "a\0b", "output": "b"}, "must be a path"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(KernelError) as caught:
        registry.get("tomography.reconstruct").bind(arguments)
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 2
    assert caught.value.failure == "user error"


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["input", "output", "binning"]), st.text(), max_size=5))
def test_binding_never_fails_otherwise(arguments: dict[str, str]) -> None:
    said = None
    try:
        bound = registry.get("tomography.reconstruct").bind(arguments)
    except KernelError as error:
        said = error.sentence
    assert said == printable(said) if said else bound["input"] == arguments["input"]


def test_the_command_line_takes_values_as_they_are() -> None:
    spec = registry.get("tomography.reconstruct")
    given_ = parse(spec, ["--input", "-x.h5", "--output=--y", "--rotation-axis", "-1", "--memoryGB", "1"])
    assert given_ == {"input": "-x.h5", "output": "--y", "rotationAxis": "-1", "memoryGB": "1"}
    for words in (["input"], ["--input"], ["--input", "a", "--input", "b"]):
        with pytest.raises(KernelError):
            parse(spec, words)
