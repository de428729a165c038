"""Every data set that is offered says where it comes from, under what licence, and by one name."""

import re
from functools import partial

import pytest
from typer.testing import CliRunner

from common.errors import RegInputError
from tools.__main__ import app
from tools.data import catalog
from tools.data.catalog import find_source, sources
from tools.data.fetch import links
from tools.data.source import RemoteFile
from tools.data_commands import prepare

from .fetch.loopback import send, serve, status

ALL = sources()


def test_names_are_unique_and_as_they_are_typed():
    names = [source.name for source in ALL]
    assert names == sorted(set(names)) and {"lung-ct", "malc"} <= set(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.name)
def test_a_source_says_what_a_person_has_to_know(source):
    assert source.title and source.license and source.page.startswith("http")
    assert re.search(r"\b(19|20)\d\d\b", source.citation)  # the year
    assert source.files or source.terms  # what cannot be fetched says how to get it
    assert callable(source.prepare)


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.name)
def test_files_are_named_safely_and_fetched_by_https_or_from_drive(source):
    names = [file.name for file in source.files]
    assert len(names) == len({name.lower() for name in names})
    for file in source.files:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", file.name)
        assert re.match(r"https://[^/]+/.|drive:[\w-]+$", file.url)
        assert file.size is None or file.size > 0
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.md5 is None or re.fullmatch(r"[0-9a-f]{32}", file.md5)


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.name)
def test_the_command_that_prepares_a_source_exists_and_is_told(source):
    command = source.command or source.name
    assert command in {one.name or one.callback.__name__.replace("_", "-") for one in prepare.registered_commands}
    assert CliRunner().invoke(app, ["data", "prepare", command, "--help"]).exit_code == 0
    told = CliRunner().invoke(app, ["data", "info", source.name])
    assert told.exit_code == 0 and source.page in told.output and source.citation in told.output
    for file in source.files:
        assert file.url in told.output and all(text in told.output for text in (file.sha256, file.md5) if text)


def test_the_list_has_a_line_a_source():
    lines = CliRunner().invoke(app, ["data", "list"]).output.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *(source.name for source in ALL)]
    accesses = {line.split()[0]: {"open", "accept", "login"} & set(line.split()) for line in lines[1:]}
    assert "login" in accesses["malc"] and "open" in accesses["lung-ct"]


class TestLinks:
    """``data links``; how servers are asked is tested with ``tools.data.fetch.links``."""

    def ask(self, monkeypatch, server, size):
        file = RemoteFile("a.zip", f"{server.url}/a.zip", size=size)
        monkeypatch.setattr(catalog, "sources", lambda: [ALL[0]._replace(files=(file,))])
        monkeypatch.setattr(links, "check_links", partial(links.check_links, allow_http=True))
        return CliRunner().invoke(app, ["data", "links"])

    def test_a_file_that_is_there_with_its_size_is_told_and_passes(self, monkeypatch):
        with serve(send(b"12345")) as server:
            result = self.ask(monkeypatch, server, 5)
        assert result.exit_code == 0 and "a.zip is there: 5 bytes" in result.output

    def test_another_size_ends_with_1(self, monkeypatch):
        with serve(send(b"12345")) as server:
            result = self.ask(monkeypatch, server, 6)
        assert result.exit_code == 1 and "has 5 bytes, expected 6" in result.output

    def test_a_file_that_is_gone_ends_with_1(self, monkeypatch):
        with serve(status(404)) as server:
            result = self.ask(monkeypatch, server, 5)
        assert result.exit_code == 1 and "404" in result.output


@pytest.mark.parametrize("name", ["lung-ct", "lung_ct", "Lung-CT"])
def test_a_source_is_found_by_its_name(name):
    assert find_source(name).name == "lung-ct"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(RegInputError, match="no data set 'malk', expected malc;"):
        find_source("malk")


def test_a_name_that_resembles_none_is_answered_with_all():
    with pytest.raises(RegInputError, match=" or ".join(source.name for source in ALL)):
        find_source("zzzzzz")
