"""Private things in files: each kind is found, what looks like it and is none is not, and nothing is repeated."""

import pytest

from tools.private import PATTERNS, private_parts
from tools.repository import REPOSITORY

# put together here, so that no search of this repository finds a secret in it
FOUND = [
    ("/home/" + "someone/data", "a home folder"),
    ("path = '/Users/" + "someone'", "a home folder"),
    ("C:" + "\\Users\\someone", "a home folder"),
    ('{"path": "D:' + '\\\\Users\\\\someone"}', "a home folder"),
    ("-----BEGIN RSA PRIVATE " + "KEY-----", "a private key"),
    ("-----BEGIN PRIVATE " + "KEY-----", "a private key"),
    ("key: AKIA" + "ABCDEFGHIJ234567", "an AWS key"),
    ("ghp_" + "a1B2" * 9, "a GitHub token"),
    ("github_pat_" + "1" * 22, "a GitHub token"),
    ("glpat-" + "x" * 20, "a GitLab token"),
    ("AIza" + "b" * 35, "a Google key"),
    ("hf_" + "Q" * 34, "a Hugging Face token"),
    ("xoxb-" + "1234567890-abc", "a Slack token"),
    ("sk-" + "a" * 24, "an API key"),
    ("eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + "." + "c" * 12, "a signed token"),
    ("https://user:" + "secret@example.org/x", "an address with a password"),
    ("password = '" + "hunter22'", "a password"),
    ('"API_KEY": "' + 'abcdef123"', "a password"),
]
FINE = [
    "see /homepage/x and the root/ folder",
    "https://example.org/home/page",
    "https://example.org:8080/x@y",
    "`password=<yours>` or `--token {TOKEN}`",
    'password = os.environ["PASSWORD"]',
    "password: '$PASSWORD'",
    "task-specific, risk-averse and disk-based, ghp_short, AKIAshort",
    "-----BEGIN CERTIFICATE-----",
]


@pytest.mark.parametrize(("line", "what"), FOUND)
def test_what_is_private_is_named_with_its_line_and_not_repeated(line, what):
    found = list(private_parts(f"first\n\nthird {line}\n".encode(), "docs/README.md"))
    assert f"docs/README.md, line 3, holds {what}" in found
    assert not any(line in text for text in found)


def test_every_kind_is_tried():
    assert {what for _, what in FOUND} == set(PATTERNS)


@pytest.mark.parametrize("line", FINE)
def test_what_is_not_private_passes(line):
    assert list(private_parts(line.encode(), "x")) == []


def test_it_is_found_between_bytes_that_are_no_text():
    assert list(private_parts(b"\x89PNG\xff\x00 /home/" + b"someone\x00\xfe", "x.png")) == [
        "x.png, line 1, holds a home folder"
    ]


@pytest.mark.parametrize("folder", ["bundles", "common"])
def test_what_is_packed_here_holds_nothing_private(folder):
    skipped = {"__pycache__", "eval", "models"}
    files = [path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and not skipped & set(path.parts)]
    assert files
    assert [part for path in files for part in private_parts(path.read_bytes(), str(path))] == []
