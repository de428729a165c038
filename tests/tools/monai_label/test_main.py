import socket

import pytest

from tools.monai_label.__main__ import main


def exit_of(monkeypatch, *words: str) -> int:
    """The exit status of the command."""
    monkeypatch.setattr("sys.argv", ["monai_label", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_a_port_that_is_taken_costs_a_sentence(monkeypatch, capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert exit_of(monkeypatch, "serve", "--studies", tmp_path, "--bundle", "svf", "--port", port) == 3
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--bundle", "unet"], "the bundle is 'unet'"),
        (["--bundle", "svf", "--bundle", "svf"], "have the same name 'svf'"),
        (["--bundle", "svf", "--atlases", "0"], "--atlases is 0, expected 1 to 20"),
        (["--bundle", "svf", "--studies", "/nowhere"], "/nowhere is no folder"),
    ],
)
def test_what_cannot_be_served_costs_a_sentence_before_a_server_starts(monkeypatch, capsys, tmp_path, words, sentence):
    assert exit_of(monkeypatch, "serve", "--studies", str(tmp_path), *words) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_flag_is_refused(monkeypatch, tmp_path):
    assert exit_of(monkeypatch, "serve", "--studies", str(tmp_path), "--verbose") == 2
