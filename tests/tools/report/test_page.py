import json
import re

import pytest

from tools.report.index import write_index
from tools.report.page import as_json, compact, url

from .folders import write_pair


def test_the_page_is_one_file_and_names_its_own_program(tmp_path):
    write_pair(tmp_path / "p")
    write_index(tmp_path, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert not re.search(r"\son\w+=", text.split("<script")[0])  # no handler in the markup
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", text)


def test_json_cannot_end_its_element():
    text = as_json({"name": "</script><!-- & "})
    assert not set("<>&") & set(text) and json.loads(text) == {"name": "</script><!-- & "}


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (0.1234567, 0.12346), (2.0, 2), (float("inf"), "Infinity"), (-1e-9, -1e-9)]
)
def test_numbers_are_short(value, expected):
    assert compact(value) == expected


def test_an_address_keeps_slashes_and_hides_everything_else():
    assert url("a b/c#d%?:é") == "a%20b/c%23d%25%3F%3A%C3%A9"
