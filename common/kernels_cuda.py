"""When kernels compiled by triton run: on a GPU, or for tests on the CPU in triton's interpreter (TRITON_INTERPRET=1).

triton comes with torch's builds for CUDA and is optional. It builds a small library with the host's C compiler at the
first use; where that or a kernel fails, torch does the work, after one warning.
"""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from .kernels_cpu import plain

__all__ = ["interpreted", "or_else", "triton_found", "usable"]

failures: list[Exception] = []  # why the kernels are not tried again in this process


@cache
def triton_found() -> bool:
    """Whether triton can be imported."""
    try:
        import triton  # noqa: F401
    except ModuleNotFoundError:
        return False
    except (ImportError, OSError) as error:  # a library that does not load
        warnings.warn(f"triton is installed but cannot be imported ({error}); torch does its work.", stacklevel=2)
        return False
    return True


def interpreted() -> bool:
    """Whether triton runs kernels in its interpreter, which takes tensors of any device."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels can take these: on one GPU, float32 or float64 throughout, outside of compilers and vmap."""
    device = tensors[0].device
    return (
        plain(*tensors)
        and all(tensor.device == device for tensor in tensors)
        and triton_found()  # late: it imports triton
        and (device.type == "cuda" or interpreted())
    )


def or_else(kernels: Callable, substitute: Callable) -> Callable:
    """``kernels``, until they cannot be built: then one warning, and ``substitute`` for the rest of the process."""

    def run(*args, **kwargs):
        if not failures:
            try:
                return kernels(*args, **kwargs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # no C compiler, an older GPU, too many registers: each has its own class
                failures.append(error)
                reason = str(error).strip().splitlines() or [""]
                warnings.warn(
                    f"triton's kernels do not run here ({type(error).__name__}: {reason[0]}); torch does their work.",
                    stacklevel=2,
                )
        return substitute(*args, **kwargs)

    return run
