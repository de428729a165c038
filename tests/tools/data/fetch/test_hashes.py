import pytest

from tools.data.fetch.hashes import Hashes, hash_finding, hashes_of, record, recorded
from tools.data.source import RemoteFile

ABC = Hashes(
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "900150983cd24fb0d6963f7d28e17f72"
)  # FIPS 180-2, appendix B.1; RFC 1321, appendix A.5
OTHER = "0" * 64


def test_hashes_are_those_of_the_standards(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert hashes_of(tmp_path / "abc", quiet=True) == ABC


@pytest.mark.parametrize(
    ("published", "known", "right"),
    [
        ({}, None, True),
        ({"sha256": ABC.sha256.upper()}, OTHER, True),
        ({"sha256": OTHER}, ABC.sha256, False),
        ({"md5": ABC.md5}, ABC.sha256, True),
        ({"md5": ABC.md5}, OTHER, False),
        ({"md5": "0" * 32}, ABC.sha256, False),
        ({}, OTHER, False),
    ],
)
def test_what_is_published_and_what_was_noted_both_count_unless_a_sha256_is_published(published, known, right):
    finding = hash_finding(ABC, RemoteFile("abc", "https://example.org", **published), known)
    assert (finding is None) is right


@pytest.mark.parametrize("text", ["", "abc", f"{OTHER[:-1]}  a", "\xff"])
def test_a_note_that_is_none_is_not_believed(tmp_path, text):
    (tmp_path / "a.sha256").write_text(text, encoding="latin-1")
    assert recorded(tmp_path / "a") is None


def test_a_note_is_read_as_it_was_written(tmp_path):
    record(tmp_path / "a", ABC.sha256)
    assert recorded(tmp_path / "a") == ABC.sha256
