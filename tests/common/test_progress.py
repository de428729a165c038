import pytest

from common.progress import step_bar


def test_the_bar_counts_steps_and_shows_the_terms(capsys):
    with step_bar("pair", 2) as report:
        report(1, {"mse": 0.5, "ssim": 0.25})
        report(1, {"mse": 0.125, "ssim": 0.0625})
    line = capsys.readouterr().err.split("\r")[-1]
    assert "pair: 100%" in line and "2/2" in line and "mse=0.1250, ssim=0.0625" in line


def test_it_can_be_left_out(capsys):
    with step_bar("pair", 1, show=False) as report:
        report(1, {"mse": 0.5})
    assert capsys.readouterr().err == ""


def test_an_error_closes_it(capsys):
    with pytest.raises(ArithmeticError), step_bar("pair", 2):
        raise ArithmeticError
    assert capsys.readouterr().err.endswith("\n")
