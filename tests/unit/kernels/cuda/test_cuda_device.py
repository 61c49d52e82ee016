"""Who computes when there are several ranks, and how much is tried when memory runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kernels.cuda.device import Cuda, agreed, choose, failed, open_device
from kernels.cuda.memory import as_many, too_small
from kernels.cuda.sources import functions
from kernels.errors import Exit, KernelError
from kernels.job import Job
from kernels.ranks import Ranks
from tests.unit.kernels.cuda.emulated import CompileException, Device


class _Two(Ranks):
    """This rank and another, which says `other`."""

    def __init__(self, other: str) -> None:
        super().__init__()
        self._other = other

    def gathered(self, value: Any) -> list[Any]:
        return [value, self._other]


@pytest.mark.parametrize(
    ("given", "other", "kind", "reason"),
    [("0", "gpu", "gpu", None), ("0", "cpu", "cpu", "another rank has no GPU"), ("", "gpu", "cpu", None)],
)
def test_ranks_take_the_gpu_all_or_none(
    monkeypatch: pytest.MonkeyPatch, given: str, other: str, kind: str, reason: str | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    Device().install(monkeypatch)
    job = Job(ranks=_Two(other))
    choice = agreed(job, choose("auto", open_device))
    assert choice.kind == kind
    assert isinstance(choice.ready, Cuda) == (kind == "gpu")
    assert job.metrics["device"] == kind
    assert str(job.metrics.get("device_reason")).startswith(str(reason))


def test_what_does_not_fit_is_the_cpus_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    cuda = _opened(monkeypatch, 1000)

    def prepare() -> None:
        raise too_small(cuda, "Frames", 5000, "take device cpu")

    assert choose("cpu", prepare).reason == ""
    assert choose("auto", prepare).kind == "cpu"
    assert choose("auto", prepare).reason.startswith("Frames need about 5e-06 GB of the GPU, and Emulated GPU has")
    with pytest.raises(KernelError, match="take device cpu") as caught:
        choose("gpu", prepare)
    assert caught.value.exit_code == Exit.USAGE
    assert too_small(cuda, "Frames", 500, "").exit_code == Exit.TRANSIENT


@pytest.mark.parametrize(("memory", "found"), [(1692, 64), (1691, 32), (796, 32), (795, 16), (123, 5), (40, None)])
def test_half_is_tried_until_it_fits(monkeypatch: pytest.MonkeyPatch, memory: int, found: int | None) -> None:
    cuda = _opened(monkeypatch, memory)

    def make(count: int) -> Any:
        first = cuda.cupy.cuda.alloc(8 * count)
        return count, first, cuda.cupy.cuda.alloc(max(1, 20 * count - 100))  # the second may not fit

    if found is None:
        with pytest.raises(MemoryError):
            as_many(cuda, 64, make, least=5)
    else:
        assert as_many(cuda, 64, make, least=5)[0] == found


def test_a_failure_is_one_sentence() -> None:
    error = failed(RuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error\nand more"))
    assert error.sentence.endswith("ECC error): try again, or take device cpu.")
    assert error.exit_code == Exit.TRANSIENT


def test_a_compiler_that_refuses_a_source_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = _opened(monkeypatch, 1000)

    def refuse(**_: object) -> None:
        raise CompileException("nvrtc: error: invalid value for --gpu-architecture\nand more")

    monkeypatch.setattr(cuda.cupy, "RawModule", refuse)
    with pytest.raises(RuntimeError, match="invalid value for --gpu-architecture"):
        functions(cuda, Path(__file__), (), ())


def _opened(monkeypatch: pytest.MonkeyPatch, memory: int) -> Cuda:
    Device(memory).install(monkeypatch)
    return open_device()
