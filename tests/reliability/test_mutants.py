"""Do our tests notice when our code is wrong?

Every mutant is tried on a copy of the last commit by the default tests of its own module alone. The tests that are not
slow hold that the lists fit the code.
"""

from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.reliability import drawn_mutants
from tests.reliability.kernel_bugs import KERNEL_BUGS
from tests.reliability.mutants import KILLED, SURVIVED, TIMED_OUT, Copy, Mutant, module_tests, unpack_commit
from tests.reliability.seeded_bugs import BUGS
from tools.repository import REPOSITORY

SEEDED = {
    f"{bug} ({mutant.name or Path(mutant.path).stem})": mutant for bug, places in BUGS.items() for mutant in places
}
KERNELS = {f"GPU kernels: {mutant.name}": mutant for mutant in KERNEL_BUGS}
DRAWN = {f"{Path(m.path).stem}: {m.after.splitlines()[-1].strip()}": m for m in drawn_mutants.read()}
QUICK = ("axes swapped (warp)", "one squaring too few (flow)", "+3 lost (regularity)", "cropped one off (determinants)")


def cases(full: bool) -> dict[str, Mutant]:
    """What is tried: everything that a test can notice, or a few of the seeded bugs."""
    if full:
        return SEEDED | KERNELS | {name: mutant for name, mutant in DRAWN.items() if not mutant.equivalent}
    return {name: SEEDED[name] for name in QUICK}


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases(metafunc.config.getoption("--full", False)))


@pytest.fixture(scope="module")
def copy(tmp_path_factory, pytestconfig) -> Copy:
    """The last commit, whose tests pass."""
    root = tmp_path_factory.mktemp("mutants")
    unpack_commit(REPOSITORY, root)
    copy = Copy(root)
    mutants = cases(pytestconfig.getoption("--full", False)).values()
    copy.check(file for mutant in mutants for file in module_tests(mutant.path, root))
    return copy


@pytest.mark.slow
def test_a_wrong_line_is_noticed(copy, ledger, case):
    verdict = copy.verdict(cases(full=True)[case])
    ledger.tell("mutants of our code", case, verdict == KILLED)
    assert verdict == KILLED


def test_there_are_twelve_seeded_bugs_and_sixty_drawn_mutants_under_names_of_their_own():
    assert len(BUGS) == 12 and len(DRAWN) == len(drawn_mutants.read()) >= 60
    assert len(SEEDED) == sum(len(places) for places in BUGS.values()) and len(KERNELS) == len(KERNEL_BUGS) >= 12


@pytest.mark.parametrize("name", SEEDED | KERNELS | DRAWN)
def test_a_mutant_fits_the_code_and_makes_another_program_of_it(name):
    mutant = (SEEDED | KERNELS | DRAWN)[name]
    source = (REPOSITORY / mutant.path).read_text(encoding="utf-8")
    assert drawn_mutants.meaning(mutant.change(source)) not in ("", drawn_mutants.meaning(source))
    assert module_tests(mutant.path, REPOSITORY)


MODULE = "def larger(a, b):\n    return a if a > b else b\n"
TESTS = "from common.numbers import larger\n\ndef test_larger():\n    assert larger(1, 2) == 2\n"


@pytest.fixture
def small(tmp_path) -> Copy:
    """A repository of one function and one test."""
    for name, text in {"common/numbers.py": MODULE, "tests/common/test_numbers.py": TESTS}.items():
        folder = (tmp_path / name).parent
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (tmp_path / name).write_text(text)
    (tmp_path / "tests/__init__.py").touch()
    return Copy(tmp_path, get_context("spawn"), limit_s=600)


def test_a_mutant_that_no_test_sees_survives_and_one_that_fails_is_killed(small):
    small.check(["tests/common/test_numbers.py"])
    assert small.verdict(Mutant("common/numbers.py", "a > b", "a >= b")) == SURVIVED
    assert small.verdict(Mutant("common/numbers.py", "a > b", "a < b")) == KILLED
    assert (small.root / "common/numbers.py").read_text() == MODULE
    assert not list(small.root.rglob("__pycache__"))


@pytest.mark.slow
def test_what_cannot_be_imported_is_killed_and_what_never_ends_times_out(small):
    assert small.verdict(Mutant("common/numbers.py", "return", "return return")) == KILLED
    small.limit_s = 5
    assert (
        small.verdict(Mutant("common/numbers.py", "    return", "    while True:\n        a\n    return")) == TIMED_OUT
    )
    assert (small.root / "common/numbers.py").read_text() == MODULE


@pytest.mark.slow
def test_failures_say_nothing_where_the_code_fails_already_or_no_test_runs(small):
    (small.root / "tests/common/test_numbers.py").write_text(TESTS.replace("== 2", "== 1"))
    with pytest.raises(RuntimeError, match="status 1"):
        small.check(["tests/common/test_numbers.py"])
    (small.root / "tests/common/test_numbers.py").write_text("")
    with pytest.raises(RuntimeError, match="status 5"):
        small.verdict(Mutant("common/numbers.py", "a > b", "a < b"))


@pytest.mark.parametrize("before", ["a < b", "b"])
def test_a_mutant_that_no_longer_fits_is_refused(before):
    with pytest.raises(LookupError, match="expected once"):
        Mutant("common/numbers.py", before, "c").change(MODULE)


def test_a_module_without_tests_is_refused(tmp_path):
    with pytest.raises(LookupError, match="has no tests"):
        module_tests("common/numbers.py", tmp_path)


def test_a_line_that_stands_twice_is_told_apart_by_those_before_it():
    source = "a = 1\nreturn b\nc = 2\nreturn b\n"
    assert drawn_mutants.difference(source, "a = 1\nreturn b\nc = 2\nreturn d\n") == (
        "c = 2\nreturn b",
        "c = 2\nreturn d",
    )


def test_annotations_mean_nothing():
    meaning = drawn_mutants.meaning
    assert meaning("def f(a: int | None) -> int: return a") == meaning("def f(a: int & None) -> str: return a")
    assert meaning("def f(a): return a") != meaning("def f(a): return -a") and meaning("return return") == ""


def test_drawing_keeps_what_is_listed_and_fits():
    """Only what no longer fits would ask the tool, which need not be installed."""
    listed = drawn_mutants.read()
    assert drawn_mutants.draw(REPOSITORY, listed) == listed
