import time

import pytest

from common.stopwatch import Stopwatch


def test_steps_of_one_name_add_up_and_keep_their_order():
    watch = Stopwatch({"read": 1.0})
    with watch.step("align"):
        time.sleep(0.02)
    with watch.step("read"):
        time.sleep(0.01)
    watch.add("align", 2.0)
    assert list(watch.seconds) == ["read", "align"]
    assert 1.01 <= watch.seconds["read"] < 1.5 and 2.02 <= watch.seconds["align"] < 2.5


def test_a_step_that_fails_took_time_too():
    watch = Stopwatch()
    with pytest.raises(ValueError, match="no"), watch.step("read"):
        raise ValueError("no")
    assert watch.seconds["read"] >= 0
