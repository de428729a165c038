import subprocess
import sys

import pytest
from typer.testing import CliRunner

from common.errors import RegEnvError, RegInputError, RegNumericsError
from tools import __main__ as command
from tools.arguments import numbers

RUN = CliRunner()


@pytest.mark.parametrize(
    "words",
    [
        ["data", "prepare", "malc", "--raw", "r", "--out", "o", "--typo", "3"],
        ["pack", "eoir", "--typo", "3"],
        ["benchmark", "lncc", "--typo", "3"],
        ["verify", "eoir", "--typo"],
        ["nothing"],
    ],
)
def test_an_unknown_flag_is_refused_before_any_work(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = RUN.invoke(command.app, words)
    assert result.exit_code == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "status"), [(RegInputError, 2), (RegEnvError, 3), (RegNumericsError, 4)])
def test_an_error_is_one_sentence_and_its_exit_status(kind, status, monkeypatch, capsys):
    def fail():
        raise kind("found this, expected that; do so.")

    monkeypatch.setattr(command, "app", fail)
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == status and capsys.readouterr().err == "found this, expected that; do so.\n"


def test_an_error_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(command, "app", lambda: {}["missing"])
    with pytest.raises(KeyError):
        command.main()


def test_a_path_that_looks_like_a_number_stays_a_path(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("tools.data.malc.prepare", lambda raw, out, *rest: seen.append((raw, out)))
    RUN.invoke(command.app, ["data", "prepare", "malc", "--raw", "0123", "--out", "1e3"])
    assert seen == [("0123", "1e3")]


def test_a_missing_folder_ends_with_one_line_and_status_2(tmp_path):
    words = ["data", "prepare", "malc", "--raw", str(tmp_path / "no"), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "tools", *words], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "no" in done.stderr
    assert not (tmp_path / "out").exists()


def test_sizes_that_are_no_numbers_are_named():
    with pytest.raises(RegInputError, match="--sizes got '10xa'"):
        numbers("10xa", "x", "--sizes")
