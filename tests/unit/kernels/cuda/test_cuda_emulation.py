"""The emulated GPU is as strict as it claims to be: what would go wrong on a device shows here."""

from __future__ import annotations

import ctypes
import shutil
from typing import Any

import numpy as np
import pytest

from tests.unit.kernels.cuda.emulated import Device, build

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

ONE = (ctypes.c_uint * 3)(1, 1, 1)


def launched(source: str, name: str, threads: int, *arrays: np.ndarray[Any, Any], backwards: bool = False) -> int:
    """Run one block of a kernel on arrays, which it changes; 0 where nothing was wrong."""
    held = [np.array(array.ctypes.data) for array in arrays]
    pointers = (ctypes.c_void_p * len(held))(*(each.ctypes.data for each in held))
    block = (ctypes.c_uint * 3)(threads, 1, 1)
    return int(getattr(build(source, ()), f"launch_{name}")(ONE, block, pointers, int(backwards)))


@needs_compiler
def test_a_barrier_that_some_threads_leave_out_is_refused() -> None:
    source = 'extern "C" __global__ void some(float *a) { if (threadIdx.x) __syncthreads(); a[0] = 1; }'
    device = Device()
    cupy = device.modules()["cupy"]
    kernel = cupy.RawModule(code=source, options=()).get_function("some")

    def launched() -> None:
        kernel((1, 1, 1), (2, 1, 1), (cupy.asarray(np.zeros(1, np.float32)),))
        device.finish()

    with pytest.raises(AssertionError, match="some"):
        launched()


@needs_compiler
def test_a_write_beyond_an_array_and_a_wrong_type_are_refused() -> None:
    source = 'extern "C" __global__ void far(float *a, int n) { a[n] = 1; }'
    device = Device()
    cupy = device.modules()["cupy"]
    kernel = cupy.RawModule(code=source, options=()).get_function("far")
    array = cupy.asarray(np.zeros(4, np.float32))

    def launched(number: Any) -> None:
        kernel((1, 1, 1), (1, 1, 1), (array, number))
        device.finish()

    launched(np.int32(3))
    for wrong in (3, np.int64(3), np.float32(3)):
        with pytest.raises(AssertionError, match="far takes"):
            launched(wrong)
    with pytest.raises(AssertionError, match="beyond an array"):
        launched(np.int32(4))


@needs_compiler
def test_a_missing_barrier_shows_in_the_order_of_threads() -> None:
    source = """extern "C" __global__ void next(const float *a, float *b) {
        __shared__ float held[8];
        held[threadIdx.x] = a[threadIdx.x];
        %s
        b[threadIdx.x] = held[(threadIdx.x + 1) %% 8];
    }"""
    values = np.arange(8, dtype=np.float32)
    same = {}
    for barrier in ("", "__syncthreads();"):
        library = build(source % barrier, ())
        made = []
        for backwards in (0, 1):
            out = np.zeros(8, np.float32)
            held = [np.array(array.ctypes.data) for array in (values, out)]
            pointers = (ctypes.c_void_p * 2)(*(each.ctypes.data for each in held))
            one = (ctypes.c_uint * 3)(1, 1, 1), (ctypes.c_uint * 3)(8, 1, 1)
            assert library.launch_next(*one, pointers, backwards) == 0
            made.append(out)
        same[barrier] = np.array_equal(*made)
    assert same == {"": False, "__syncthreads();": True}


@needs_compiler
def test_lanes_of_a_warp_exchange_what_they_have() -> None:
    """Two warps, of which the second has a barrier's worth more to do: sums, votes and values of others."""
    source = """extern "C" __global__ void meet(const int *a, int *sums, int *votes, int *others) {
        int lane = threadIdx.x % 32, sum = a[threadIdx.x];
        for (int n = threadIdx.x / 32; n >= 0; n--)
            for (int other = 16; other; other /= 2) {
                int more = __shfl_xor_sync(~0u, sum, other);
                sum = n ? sum : sum + more;
            }
        sums[threadIdx.x] = sum;
        votes[threadIdx.x] = (int)__ballot_sync(~0u, a[threadIdx.x] > 50);
        __syncthreads();
        others[threadIdx.x] = __shfl_sync(~0u, a[threadIdx.x], lane / 2);
    }"""
    a = np.random.default_rng(1).integers(0, 100, 64).astype(np.int32)
    for backwards in (False, True):
        sums, votes, others = (np.zeros(64, np.int32) for _ in range(3))
        assert launched(source, "meet", 64, a, sums, votes, others, backwards=backwards) == 0
        for warp in (slice(0, 32), slice(32, 64)):
            assert (sums[warp] == a[warp].sum()).all()
            bits = np.packbits(a[warp] > 50, bitorder="little").view(np.int32)
            assert (votes[warp] == bits).all()
            assert (others[warp] == a[warp][np.arange(32) // 2]).all()


@needs_compiler
@pytest.mark.parametrize(
    ("body", "threads"),
    [
        ("if (threadIdx.x % 2) __syncwarp();", 32),  # some lanes
        ("if (threadIdx.x % 2) __syncwarp();\n else __syncwarp();", 32),  # not the same place
        ("__syncwarp();", 40),  # a warp that is not whole
        ("if (threadIdx.x < 32) __syncthreads();", 64),  # a warp of two
    ],
)
def test_a_meeting_that_some_lanes_leave_out_is_refused(body: str, threads: int) -> None:
    source = f'extern "C" __global__ void some(float *a) {{ {body}\n a[0] = 1; }}'
    assert launched(source, "some", threads, np.zeros(1, np.float32)) == 1


@needs_compiler
def test_a_missing_meeting_shows_in_the_order_of_lanes() -> None:
    source = """extern "C" __global__ void next(float *a) {
        float mine = a[(threadIdx.x + 1) %% 32];
        %s
        a[threadIdx.x] = mine;
    }"""
    same = {}
    for between in ("", "__syncwarp();"):
        made = [np.arange(32, dtype=np.float32) for _ in range(2)]
        for backwards, array in enumerate(made):
            assert launched(source % between, "next", 32, array, backwards=bool(backwards)) == 0
        same[between] = np.array_equal(*made)
    assert same == {"": False, "__syncwarp();": True}


@needs_compiler
def test_bytes_are_multiplied_by_fours() -> None:
    source = """extern "C" __global__ void dot(const unsigned *a, const unsigned *b, unsigned *c) {
        c[0] = __dp4a(a[0], b[0], c[0]);
    }"""
    bytes_, sums = np.array([[255, 0, 3, 200], [255, 9, 7, 100]], np.uint8), np.array([5], np.uint32)
    a, b = (row.copy().view(np.uint32) for row in bytes_)
    assert launched(source, "dot", 1, a, b, sums) == 0
    assert sums[0] == 5 + 255 * 255 + 21 + 20000


def test_the_emulation_has_nothing_that_cupy_has_not() -> None:
    """Where CuPy is installed; it needs no device for that."""
    cupy, cupyx = pytest.importorskip("cupy"), pytest.importorskip("cupyx")
    emulated = Device().modules()
    for name in vars(emulated["cupy"]).keys() - {"__name__", "__doc__", "__package__", "__loader__", "__spec__"}:
        assert hasattr(cupy, name)
    for name in set(vars(emulated["cupy"].cuda)) - {"cufft"}:
        assert hasattr(cupy.cuda, name)
    for name in vars(emulated["cupy"].cuda.runtime):
        assert hasattr(cupy.cuda.runtime, name)
    assert issubclass(cupy.cuda.compiler.CompileException, Exception)
    assert hasattr(cupyx, "empty_pinned")
    for method in ("copy_from_host_async", "copy_to_host_async", "memset_async"):
        assert hasattr(cupy.cuda.MemoryPointer, method)
    assert hasattr(cupy.cuda.Stream, "wait_event")
