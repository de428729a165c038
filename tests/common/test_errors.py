import errno
import subprocess
import sys

import pytest

from common.errors import RegEnvError, RegInputError, RegNumericsError, first_line, in_one_line, mendable, sentence_of


@pytest.mark.parametrize(
    ("kind", "status", "family"),
    [(RegInputError, 2, ValueError), (RegEnvError, 3, OSError), (RegNumericsError, 4, ArithmeticError)],
)
def test_each_error_has_its_exit_status_and_standard_family(kind, status, family):
    assert kind.exit_status == status and issubclass(kind, family)


def test_the_sentence_is_found_behind_wrappers():
    try:
        try:
            raise RegInputError("a.nii.gz is empty.")
        except RegInputError as error:
            raise RuntimeError("Failed to instantiate") from error
    except RuntimeError as error:
        assert sentence_of(error) == "a.nii.gz is empty."


@pytest.mark.parametrize(("code", "told"), [(errno.ENOSPC, True), (errno.EFBIG, True), (errno.ENOENT, False)])
def test_a_full_disk_that_nobody_foresaw_is_a_sentence_too(code, told):
    try:
        try:
            raise OSError(code, "why", "events.out")
        except OSError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as error:
        found = mendable(error)
    assert isinstance(found, RegEnvError) == told
    assert not told or str(found) == "events.out could not be written (why); free space or choose another folder."


def test_other_errors_have_no_sentence():
    assert sentence_of(KeyError("x")) is None and sentence_of(None) is None


def test_an_uncaught_error_ends_with_its_sentence():
    program = (
        "from common.errors import RegInputError, print_sentence_last\n"
        "print_sentence_last()\n"
        "try:\n    raise RegInputError('the sentence.')\n"
        "except RegInputError as error:\n    raise RuntimeError('wrapped') from error\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "the sentence."


def test_an_error_is_told_in_one_line_even_if_it_says_nothing():
    assert (
        first_line(ValueError("what was found\nand a dump")) == "what was found"
        and first_line(KeyError()) == "KeyError"
    )


def test_what_an_error_says_in_lines_becomes_one():
    assert (
        in_one_line(RuntimeError("itk.hxx:462:\nITK ERROR: H5Dclose failed\n"))
        == "itk.hxx:462: ITK ERROR: H5Dclose failed"
    )
    assert in_one_line(ValueError()) == "ValueError"


@pytest.mark.parametrize("kind", [RegInputError, RegEnvError, RegNumericsError])
def test_a_name_that_breaks_lines_does_not_break_the_sentence(kind):
    """Nor may it move a terminal's cursor, or turn the writing round."""
    assert str(kind("a\nb\r\x1b[2J\u202ec é名 cannot be opened")) == r"a\nb\r\x1b[2J\u202ec é名 cannot be opened"
