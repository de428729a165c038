"""pack, verify and export as they are typed: bad words are refused before any work, and what is done is said."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import RegInputError
from tools.__main__ import app
from tools.export import Agreement, Exported


def run(*words):
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_packs_are_listed_under_a_release_that_is_looked_at_first(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr("tools.pack.pack_all", lambda names, out, weights: [out / f"{name}.zip" for name in names])
    monkeypatch.setattr("tools.pack.names_of", lambda asked: ["a", "b"] if asked == "all" else [asked])
    monkeypatch.setattr("tools.catalog.add_release", lambda archives, release: listed.append((archives, release)))
    monkeypatch.setattr("tools.history.untagged", lambda folders: " ".join(path.name for path in folders))
    archives = [tmp_path / "a.zip", tmp_path / "b.zip"]
    result = run("pack", "all", "--out", str(tmp_path), "--release", "me/bundles/v1")
    assert result.stdout.split() == [str(path) for path in archives] and result.stderr == "a b\n"
    assert listed == [(archives, "me/bundles/v1")]
    with pytest.raises(RegInputError, match="expected OWNER/REPO/TAG"):
        run("pack", "all", "--out", str(tmp_path), "--release", "v1")
    assert len(listed) == 1


@pytest.mark.parametrize(("sound", "status"), [(True, 0), (False, 1)])
def test_verify_ends_with_1_if_something_is_wrong(monkeypatch, sound, status):
    monkeypatch.setattr("tools.verify.verify_all", lambda asked, say: say(asked) or sound)
    result = run("verify", "all")
    assert (result.exit_code, result.stdout) == (status, "all\n")


def test_export_says_size_seconds_and_difference(tmp_path, monkeypatch):
    asked = []

    def export(*words):
        asked.append(words)
        agreements = [Agreement((32, 32, 48), 2e-6, 3.04, 0.5, 0.25)]
        return Exported(tmp_path / "x.onnx", False, 1.25, 12.5, agreements)

    monkeypatch.setattr("tools.export.export", export)
    said = run("export", "eoir", "--format", "onnx", "--out", str(tmp_path), "--size", "32x32x48").stdout
    assert asked == [("eoir", "onnx", Path(tmp_path), None, [32, 32, 48])]
    assert said.splitlines() == [
        f"{tmp_path}/x.onnx: 1.2 MB, 32x32x48 only, exported in 12.5 s",
        "32x32x48: 0.25 s, torch 0.50 s; differs by at most 2.0e-06 voxel of 3.04",
    ]
    with pytest.raises(RegInputError, match="--size got '32,32', expected whole numbers between 'x'"):
        run("export", "eoir", "--format", "onnx", "--size", "32,32")
    assert run("export", "eoir").exit_code == 2
