"""An installed copy has the page's parts."""

from pathlib import Path

from setuptools import Distribution
from setuptools.command.build_py import build_py
from setuptools.config.pyprojecttoml import apply_configuration

from tools.report.page import ASSETS, SCRIPTS
from tools.repository import REPOSITORY


def test_a_wheel_holds_every_part(monkeypatch):
    """As setuptools itself lists the files of a package."""
    monkeypatch.chdir(REPOSITORY)
    command = build_py(apply_configuration(Distribution(), "pyproject.toml"))
    command.ensure_finalized()
    command.manifest_files = {}  # no MANIFEST.in: what git tracks goes into no wheel by itself
    files = {Path(name).name for name in command.find_data_files("tools.report", "tools/report")}
    assert files == {path.name for path in ASSETS.iterdir()}
    assert files == {"index.html", "index.css", *(f"{name}.js" for name in SCRIPTS)}
