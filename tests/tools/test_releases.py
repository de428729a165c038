"""Which zip a name or an address means, and by which hash it is known."""

import json

import pytest

from common.errors import RegEnvError, RegInputError
from tools import releases
from tools.data.fetch.web import Patience
from tools.releases import Way, catalog_of, find_release, hosts_of

from .data.fetch.loopback import send, serve, status

SUM, OTHER = "a" * 64, "b" * 64
WAY = Way(allow_http=True, patience=Patience(read_s=20.0, tries=2, pause_s=0.01))
CATALOG = {
    f"toy_v{version}": {"checksum": SUM, "source": f"https://example.org/toy_v{version}.zip"}
    for version in ("0.1.0", "0.9.0", "0.10.0")
} | {"toy_two_v0.1.0": {"checksum": OTHER, "source": "https://example.org/toy_two_v0.1.0.zip"}, "note": "x"}


@pytest.fixture
def catalog(tmp_path):
    """Writes a catalog and answers with its path."""

    def write(content):
        path = tmp_path / "model_info.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return write


def found(asked, source=None, version=None, sha256=None):
    return find_release(asked, source, version, sha256, WAY)


def refused(words, *arguments, kind=RegInputError):
    with pytest.raises(kind, match=words) as caught:
        found(*arguments)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_the_newest_version_is_taken_by_number_and_any_on_request(catalog):
    path = catalog(CATALOG)
    assert found("toy", path).version == "0.10.0"
    chosen = found("toy", path, "0.9.0")
    assert (chosen.file.url, chosen.file.sha256) == ("https://example.org/toy_v0.9.0.zip", SUM)
    assert chosen.file.name == "toy_v0.9.0.zip"
    assert found("toy_two", path).file.sha256 == OTHER


def test_a_catalog_is_read_from_a_server_too():
    with serve(send(json.dumps(CATALOG).encode())) as server:
        assert found("toy", f"{server.url}/models/model_info.json").version == "0.10.0"


def test_this_collections_own_catalog_is_the_default(catalog, monkeypatch):
    refused("no catalog .*--source", "toy")
    monkeypatch.setattr(releases, "CATALOG", catalog(CATALOG))
    assert found("toy").version == "0.10.0"


def test_a_release_on_github_has_its_catalog_where_monai_looks_for_it():
    assert catalog_of("a/b/v1.0") == "https://raw.githubusercontent.com/a/b/v1.0/models/model_info.json"
    assert "release-assets.githubusercontent.com" in hosts_of("https://github.com/a/b/releases/download/v1/x.zip")
    assert hosts_of("https://example.org/x.zip") == hosts_of("https://[half") == ()


@pytest.mark.parametrize("source", ["a/b", "../b/c/d", "a b/c/d", "", "catalog"])
def test_a_source_of_no_known_form_is_named(source):
    refused("--source got", "toy", source)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CATALOG | {"toy_v0.10.0": {"source": "https://example.org/toy_v0.10.0.zip"}}, "no SHA-256"),
        (CATALOG | {"toy_v0.10.0": {"checksum": "c" * 40, "source": "https://a/toy_v0.10.0.zip"}}, "no SHA-256"),
        (CATALOG | {"toy_v0.10.0": {"checksum": SUM}}, "no address"),
        (CATALOG | {"toy_v0.10.0": {"checksum": SUM, "source": "https://a/evil.sh"}}, "no address"),
        ({"other_v0.1.0": {}}, "no toy, expected one of: no version"),
        ([], "no table"),
        (b"\xff\xfe", "no catalog that can be read"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_catalog_that_does_not_say_all_is_refused(catalog, content, words):
    refused(words, "toy", catalog(content))


def test_versions_that_are_there_are_told(catalog):
    refused(r"no toy 1\.0\.0, expected one of: 0\.1\.0, 0\.9\.0, 0\.10\.0", "toy", catalog(CATALOG), "1.0.0")


@pytest.mark.parametrize("line", [f"{SUM}  toy_v0.1.0.zip", f"{SUM} *toy_v0.1.0.zip"])
def test_an_address_has_its_hash_in_the_list_beside_it(line):
    with serve(send(f"{OTHER}  other_v0.1.0.zip\n{line}\n".encode())) as server:
        release = found(f"{server.url}/v1/toy_v0.1.0.zip?raw=true")
        assert server.requests[0].path == "/v1/SHA256SUMS"
    assert (release.name, release.version, release.file.sha256) == ("toy", "0.1.0", SUM)


@pytest.mark.parametrize("content", [b"\n", f"{SUM}  other.zip\n".encode(), b"x  toy_v0.1.0.zip\n", b"\xff"])
def test_a_list_without_its_hash_is_refused(content):
    with serve(send(content)) as server:
        refused("has no SHA-256 of|is no text", f"{server.url}/toy_v0.1.0.zip")


def test_two_hashes_of_one_name_are_refused():
    with serve(send(f"{SUM}  toy_v0.1.0.zip\n{OTHER}  toy_v0.1.0.zip\n".encode())) as server:
        refused("has no SHA-256 of", f"{server.url}/toy_v0.1.0.zip")


def test_without_a_list_the_hash_can_be_given():
    with serve(status(404)) as server:
        refused("404.*--sha256", f"{server.url}/toy_v0.1.0.zip", kind=RegEnvError)
        before = len(server.requests)
        assert found(f"{server.url}/toy_v0.1.0.zip", sha256="A" * 64).file.sha256 == SUM
        assert len(server.requests) == before
    refused("64 hexadecimal", "https://example.org/toy_v0.1.0.zip", None, None, "abc")


@pytest.mark.parametrize(
    "name", ["toy.zip", "toy_v1.zip", "Toy_v0.1.0.zip", "..%2ftoy_v0.1.0.zip", "toy_v0.1.0.zip/", ""]
)
def test_an_address_that_names_no_packed_bundle_is_refused(name):
    refused("no packed bundle by its name", f"https://example.org/{name}")


def test_an_address_goes_with_no_catalog():
    refused("no --source or --version", "https://example.org/toy_v0.1.0.zip", "a/b/c")
    refused("no packed bundle", "https://[half")
    refused("not a public https", "file:///x/toy_v0.1.0.zip")
