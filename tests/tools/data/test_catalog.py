"""Every data set that is offered says where it comes from, under what licence, and by one name."""

import re

import pytest

from common.errors import RegInputError
from tools.data.catalog import find_source, sources

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


@pytest.mark.parametrize("name", ["lung-ct", "lung_ct", "Lung-CT"])
def test_a_source_is_found_by_its_name(name):
    assert find_source(name).name == "lung-ct"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(RegInputError, match="no data set 'malk', expected malc;"):
        find_source("malk")


def test_a_name_that_resembles_none_is_answered_with_all():
    with pytest.raises(RegInputError, match=" or ".join(source.name for source in ALL)):
        find_source("zzzzzz")
