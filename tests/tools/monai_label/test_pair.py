import pytest

from common.errors import RegEnvError, RegInputError, RegNumericsError
from tools.monai_label.pair import ours


class ForeignError(Exception):
    """An error of a packed bundle's own ``common``: no subclass of ours, with the same exit status."""

    def __init__(self, text: str, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


@pytest.mark.parametrize("kind", [RegInputError, RegEnvError, RegNumericsError])
def test_an_error_of_a_packed_bundle_becomes_the_same_one_of_ours(kind):
    found = ours(ForeignError("a sentence.", kind.exit_status))
    assert type(found) is kind and str(found) == "a sentence."


def test_the_sentence_is_found_behind_what_others_wrap_around_it():
    error = RuntimeError("Failed to instantiate")
    error.__cause__ = RegInputError("a sentence.")
    assert ours(error) is error.__cause__


def test_an_error_that_nobody_foresaw_stays_as_it_is():
    error = RuntimeError("x")
    assert ours(error) is error
