"""How loops compiled by numba run on the CPU: compiled once, kept on disk, spread over torch's number of threads.

Kernels take the range of planes that they are responsible for, ``kernel(first, last, *arguments)``, and release the
interpreter lock. Plain threads share them out: numba's own parallel loops take seconds longer to compile and bring a
second OpenMP runtime, which does not survive a fork. numba is optional; without it torch does the work.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

__all__ = ["compiled", "numba_found", "plain", "slabs", "usable"]

MIN_VOXELS = 4096  # of a thread's share: handing out a smaller one costs as much as the work


@cache
def numba_found() -> bool:
    """Whether numba can be imported, which takes half a second, and its NUMBA_DISABLE_JIT does not switch it off."""
    try:
        import numba
    except ModuleNotFoundError:
        return False
    except (ImportError, OSError) as error:  # too old for this numpy, or a library that does not load
        warnings.warn(f"numba is installed but cannot be imported ({error}); torch does its work.", stacklevel=2)
        return False
    return not numba.config.DISABLE_JIT


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels can take these: on the CPU, float32 or float64 throughout, outside of compilers and vmap."""
    # numba last: asking imports it
    return plain(*tensors) and all(tensor.device.type == "cpu" for tensor in tensors) and numba_found()


def plain(*tensors: Tensor) -> bool:
    """Whether these are arrays and nothing else: float32 or float64 throughout, outside of compilers and vmap."""
    first = tensors[0]
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and first.dtype in (torch.float32, torch.float64)
        and all(t.dtype == first.dtype and t.layout == torch.strided for t in tensors)
        and all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)  # subclasses expect their own kind back
        and not any(torch._C._functorch.is_functorch_wrapped_tensor(t) or t.is_neg() for t in tensors)
    )


def compiled(function: Callable) -> Callable:
    """Compile at the first call for the types that come, and keep the result on disk where there is a place for it."""
    import numba

    # no fastmath that assumes numbers to be finite: kernels meet NaN and have to know
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside this file nor in the home directory can anything be written
        return numba.njit(**options)(function)


def slabs(kernel: Callable, planes: int, voxels: int, arguments: Callable[[int], Sequence]) -> list:
    """Run a kernel over all planes, a slab a thread; the results in the order of the planes.

    Args:
        kernel: called as ``kernel(first, last, *arguments(k))`` for slab k of planes first to last - 1.
        planes: how many there are.
        voxels: of all planes together, which limits how many threads are worth waking.
        arguments: the rest of a slab's arguments; slab 0 always exists.
    """
    count = slab_count(planes, voxels)
    bounds = [k * planes // count for k in range(count + 1)]
    if count == 1:
        return [kernel(0, planes, *arguments(0))]
    pool = thread_pool(os.getpid(), torch.get_num_threads())
    later = [pool.submit(kernel, bounds[k], bounds[k + 1], *arguments(k)) for k in range(1, count)]
    try:
        first = kernel(0, bounds[1], *arguments(0))
    finally:
        rest = [future.result() for future in later]
    return [first, *rest]


def slab_count(planes: int, voxels: int) -> int:
    """How many threads :func:`slabs` uses."""
    return max(1, min(torch.get_num_threads(), planes, voxels // MIN_VOXELS))


@cache
def thread_pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Idle threads of this process (a forked one has lost its parent's); the caller's own is the last one."""
    return ThreadPoolExecutor(max(threads - 1, 1), thread_name_prefix=f"kernels-{process}")
