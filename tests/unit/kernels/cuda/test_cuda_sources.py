"""All CUDA sources pass NVIDIA's own compiler, for an old and a newer GPU; a broken one does not."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

import kernels
from kernels.cuda.sources import text
from kernels.hedm.farfield.cuda import search as farfield
from kernels.hedm.frames.cuda import scan
from kernels.hedm.nearfield.cuda import search as nearfield
from kernels.tomography.cuda import steps
from kernels.xpcs.cuda import multitau, twotime
from tests.unit.kernels.cuda import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason="nvidia-cuda-nvrtc-cu12 is not installed")

SOURCES = sorted(Path(str(resources.files(kernels))).rglob("*.cu"))
COMPILED = {
    steps.SOURCE: (steps.KERNELS, [steps.options(taps) for taps in (4, 5, 6)]),
    multitau.SOURCE: (
        multitau.KERNELS,
        [multitau.options(per_level, width) for per_level, width in ((1, 1), (4, 1), (4, 2), (4, 4), (64, 4))],
    ),
    twotime.SOURCE: (twotime.KERNELS, [twotime.options(width) for width in (1, 2)]),
    **{source: (names, [farfield.options(source)]) for source, names in farfield.KERNELS.items()},
    **{source: (names, [nearfield.options(n) for n in (1, 2, 8)]) for source, names in nearfield.KERNELS.items()},
    scan.SOURCE: (scan.KERNELS, [scan.options(kind) for kind in scan.KINDS]),
}


def test_all_sources_are_known_here() -> None:
    assert set(SOURCES) == set(COMPILED)


@pytest.mark.parametrize("architecture", ["compute_80", "sm_80", "sm_90"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_sources_compile(source: Path, architecture: str) -> None:
    names, all_options = COMPILED[source]
    for options in all_options:
        made = nvrtc.compiled(text(source), options, architecture)
        for name in names:
            assert name.encode() in made


@pytest.mark.parametrize("source", nearfield.KERNELS, ids=lambda path: path.name)
def test_the_search_of_orientations_fuses_nothing(source: Path) -> None:
    """Else it rounds otherwise than the CPU."""
    code, options = text(source), nearfield.options(2)
    assert b"fma." not in nvrtc.compiled(code, options, "compute_80")
    assert b"fma." in nvrtc.compiled(code, [word for word in options if "fmad" not in word], "compute_80")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("__syncthreads();", "__syncthreads()", "expected a"),
        ("sincospif(", "sinecospif(", "sinecospif"),
        ("const float2 *cells, int pairs", "const float3 *cells, int pairs", "cannot be used to initialize"),
    ],
)
def test_a_broken_source_is_refused(right: str, wrong: str, said: str) -> None:
    code = steps.SOURCE.read_text(encoding="utf-8")
    assert right in code
    with pytest.raises(nvrtc.CompileError, match=said):
        nvrtc.compiled(code.replace(right, wrong, 1), steps.options(5), "compute_80")


def test_more_shared_memory_than_a_block_may_have_is_refused() -> None:
    code = steps.SOURCE.read_text(encoding="utf-8")
    options = [word.replace("-DPAIRS=4", "-DPAIRS=32") for word in steps.options(5)]
    with pytest.raises(nvrtc.CompileError):
        nvrtc.compiled(code, options, "sm_90")
