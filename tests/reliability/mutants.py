"""One change of our own code, the tests that belong to it, and whether they notice.

A :class:`Mutant` replaces a text that stands exactly once in its file. A :class:`Copy` of the last commit is where
mutants are tried, one at a time; the checkout stays as it is.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.context import BaseContext
from pathlib import Path

__all__ = ["KILLED", "SURVIVED", "TIMED_OUT", "Copy", "Mutant", "module_tests", "unpack_commit"]

KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"
LIMIT_S = 900  # of the tests of one module, which take two minutes at most on a busy core
PASSED, INTERRUPTED = 0, 2  # exit statuses of pytest; between them failures, the latter where an import fails
# a process imports these once for all runs
PRELOADED = """pytest hypothesis torch monai.data monai.engines monai.handlers monai.inferers monai.losses monai.metrics
monai.networks.blocks monai.networks.nets monai.transforms nibabel itk SimpleITK scipy.ndimage skimage numba matplotlib
nitransforms""".split()

# modules without tests under their own name, by the modules whose tests try them
TESTED_BY = {
    "first_order": ("warp_cpu", "ssim_cpu", "lncc"),
    "itk_images": ("volumes", "dicom"),
    "itk_parts": ("map_files",),
    "lncc_autograd": ("lncc", "lncc_cpu", "lncc_separable"),
    "lncc_kernels_cuda": ("lncc_cuda",),
    "point_formats": ("points",),
    "quality_view": ("quality_signals",),
    "smooth_cpu": ("smooth",),
}

INTERPRETED = "tests/common/test_lncc_cuda.py"  # without a GPU its tests run in triton's interpreter alone


@dataclass(frozen=True)
class Mutant:
    """A change of one file.

    Attributes:
        path: the file, from the repository's root.
        before: a text that stands in it exactly once.
        after: what comes in its place.
        name: what is wrong then, for people.
    """

    path: str
    before: str
    after: str
    name: str = ""

    def change(self, source: str) -> str:
        """The file's text with the change.

        Raises:
            LookupError: unless the text stands there exactly once: the file has changed since.
        """
        found = source.count(self.before)
        if found != 1:
            raise LookupError(
                f"{self.path} holds {self.before!r} {found} times, expected once; "
                "write the mutant anew, or draw others by `python -m tests.reliability.drawn_mutants`."
            )
        return source.replace(self.before, self.after)


def module_tests(path: str, root: Path) -> list[str]:
    """The files of tests, from the root, that belong to a module of ``common``.

    Raises:
        LookupError: if there is none.
    """
    module = Path(path).stem
    files = [f"tests/common/test_{name}.py" for name in TESTED_BY.get(module, (module,))]
    if missing := [file for file in files if not (root / file).is_file()]:
        raise LookupError(f"{path} has no tests in {missing}, expected some; say in TESTED_BY whose tests try it.")
    return files


def unpack_commit(source: Path, folder: Path) -> None:
    """Put the last commit of the checkout ``source`` into ``folder``."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=source, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


class Copy:
    """A copy of the repository, where tests are run on one mutant at a time.

    Args:
        root: the copy's folder, which is left as it was found.
        context: how processes start: by default from one that has imported the libraries already.
        limit_s: seconds after which the tests of one mutant are given up.
    """

    def __init__(self, root: Path, context: BaseContext | None = None, limit_s: float = LIMIT_S) -> None:
        self.root, self.limit_s = root, limit_s
        self.context = context or prepared_context()

    def check(self, files: Iterable[str]) -> None:
        """Raise RuntimeError unless these tests pass without a mutant, without which no failure says anything."""
        interpreted = {INTERPRETED} & set(files)
        for group in (sorted(set(files) - interpreted), sorted(interpreted)):
            status, output = self.run(group, limit_s=None) if group else (PASSED, "")
            if status != PASSED:
                raise RuntimeError(f"without a mutant the tests end with status {status}, expected 0: {output[-2000:]}")

    def verdict(self, mutant: Mutant) -> str:
        """``KILLED``, ``SURVIVED`` or ``TIMED_OUT``, by the tests of the mutant's module.

        Raises:
            LookupError: if the mutant does not fit the code.
            RuntimeError: if pytest could not run tests at all.
        """
        path = self.root / mutant.path
        source = path.read_text(encoding="utf-8")
        changed = mutant.change(source)
        try:
            path.write_text(changed, encoding="utf-8")
            # numba keeps what it compiled of a function although one that it calls has changed
            cache = "compiled_anew" if "@compiled" in source else "compiled"
            status, output = self.run(module_tests(mutant.path, self.root), self.limit_s, cache)
        finally:
            path.write_text(source, encoding="utf-8")
            shutil.rmtree(self.root / "compiled_anew", ignore_errors=True)
        if status is None:
            return TIMED_OUT
        if status > INTERRUPTED:
            raise RuntimeError(f"pytest ended with status {status}, expected tests that pass or fail: {output[-2000:]}")
        return SURVIVED if status == PASSED else KILLED  # below 0 it died by a signal

    def run(self, files: list[str], limit_s: float | None, cache: str = "compiled") -> tuple[int | None, str]:
        """Status and output of pytest on these files, up to the first failure; no status after ``limit_s`` seconds.

        What numba compiles is kept in the folder ``cache`` of the copy.
        """
        output = self.root / "output.txt"
        process = self.context.Process(target=run_tests, args=(self.root, cache, files, output))
        process.start()
        process.join(limit_s)
        if process.exitcode is None:
            with suppress(ProcessLookupError):  # it did not come as far as having a group of its own
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
            return None, ""
        return process.exitcode, output.read_text(encoding="utf-8", errors="replace")


def prepared_context() -> BaseContext:
    """Processes forked from one that has imported what is not ours, which takes longer than many a module's tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_tests(root: Path, cache: str, files: list[str], output: Path) -> None:
    """In a process of its own: run pytest in ``root`` on the packages that lie there, and exit with its status."""
    os.setsid()  # so that what the tests start can be ended with them
    os.chdir(root)
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    packages = [str(root), *map(str, sorted((root / "bundles").glob("*")))]
    os.environ |= {"PYTHONPATH": os.pathsep.join(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ |= {"NUMBA_CACHE_DIR": str(root / cache), "OMP_NUM_THREADS": "1"}
    if INTERPRETED in files:
        os.environ["TRITON_INTERPRET"] = "1"  # triton, which nothing preloaded imports, reads it when it is imported
    sys.path[:0] = packages
    sys.dont_write_bytecode = True  # a file that changes twice within a second would be taken for the former one
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("common", "tests", "tools")]:
        del sys.modules[name]
    import pytest

    sys.exit(int(pytest.main(["-x", "-n0", "-p", "no:cacheprovider", *files])))
