"""The list of packed bundles, as MONAI and `regbundles fetch` read it."""

import hashlib
import json
import urllib.request
import zipfile
from types import SimpleNamespace

import pytest
from monai.bundle import download, get_all_bundles_list, get_bundle_info

from common.errors import RegInputError
from tools.alone import served
from tools.catalog import add_release
from tools.pack import pack
from tools.releases import find_release

from .toy import edit_json, write, write_toy


@pytest.fixture
def archives(tmp_path):
    names = ("eoir_v0.6.0.zip", "lku_net_v0.3.0.zip", "eoir_v0.7.1.zip")
    for name in names:
        write(tmp_path / "dist" / name, name)
    return [tmp_path / "dist" / name for name in names]


def test_each_zip_has_its_hash_and_its_address_in_the_release(archives, tmp_path):
    catalog = tmp_path / "models" / "model_info.json"
    add_release(archives[:1], "me/bundles/v1", catalog)
    assert json.loads(catalog.read_text()) == {
        "eoir_v0.6.0": {
            "checksum": hashlib.sha256(b"eoir_v0.6.0.zip").hexdigest(),
            "source": "https://github.com/me/bundles/releases/download/v1/eoir_v0.6.0.zip",
        }
    }


def test_earlier_releases_stay_and_names_are_sorted(archives, tmp_path):
    catalog = tmp_path / "model_info.json"
    add_release(archives[2:], "me/bundles/v2", catalog)
    add_release(archives[:2], "me/bundles/v1", catalog)
    assert list(json.loads(catalog.read_text())) == ["eoir_v0.6.0", "eoir_v0.7.1", "lku_net_v0.3.0"]


def test_a_version_with_another_content_is_refused_and_the_list_stays(archives, tmp_path):
    catalog = tmp_path / "model_info.json"
    add_release(archives[:1], "me/bundles/v1", catalog)
    before = catalog.read_bytes()
    add_release(archives[:1], "me/bundles/v1", catalog)
    assert catalog.read_bytes() == before
    archives[0].write_text("other")
    with pytest.raises(RegInputError, match=r"eoir_v0\.6\.0 is in model_info\.json with the SHA-256"):
        add_release([archives[1], archives[0]], "me/bundles/v2", catalog)
    assert catalog.read_bytes() == before


@pytest.mark.parametrize("release", ["bundles/v1", "me/bundles/v1/x", "me/bun dles/v1", ""])
def test_another_form_of_release_is_refused(archives, tmp_path, release):
    with pytest.raises(RegInputError, match="expected OWNER/REPO/TAG"):
        add_release(archives, release, tmp_path / "model_info.json")
    assert not (tmp_path / "model_info.json").exists()


def test_monai_lists_and_describes_what_is_in_it(archives, tmp_path, monkeypatch):
    """By its own commands, the answer of raw.githubusercontent.com put in their way."""
    add_release(archives, "me/bundles/v1", tmp_path / "model_info.json")
    asked = []

    def get(url, **options):
        asked.append(url)
        return SimpleNamespace(raise_for_status=lambda: None, text=(tmp_path / "model_info.json").read_text())

    monkeypatch.setattr("monai.bundle.scripts.requests", SimpleNamespace(get=get))
    listed = get_all_bundles_list(repo="me/bundles", tag="v1")
    assert sorted(listed) == [("eoir", "0.7.1"), ("lku_net", "0.3.0")]
    assert get_bundle_info("eoir", version="0.6.0", repo="me/bundles", tag="v1")["browser_download_url"].endswith(
        "/eoir_v0.6.0.zip"
    )
    assert set(asked) == {"https://raw.githubusercontent.com/me/bundles/v1/models/model_info.json"}


class ToLoopback(urllib.request.HTTPSHandler):
    """Asks a server of this machine for what is asked of any by https."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def https_open(self, request: urllib.request.Request):
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self.url}{request.selector}")


def test_monai_downloads_the_newest_from_the_release_that_it_names(tmp_path, monkeypatch):
    """By its own command, both of GitHub's hosts on this machine: the list at its tag, the zip in its release."""
    toy = write_toy(tmp_path)
    release = tmp_path / "served" / "me" / "bundles" / "releases" / "download" / "v1"
    options = {"common_dir": tmp_path / "common", "history": False}
    packed = [pack("toy", release, toy.parent, **options)]
    edit_json(toy / "configs" / "metadata.json", version="0.1.1", changelog={"0.1.1": "newer"})
    packed.append(pack("toy", release, toy.parent, **options))
    add_release(packed, "me/bundles/v1", tmp_path / "served" / "me" / "bundles" / "v1" / "models" / "model_info.json")
    with served(tmp_path / "served") as url:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), ToLoopback(url))

        def get(asked: str, **options):
            with opener.open(asked) as answer:
                return SimpleNamespace(raise_for_status=lambda: None, text=answer.read().decode())

        monkeypatch.setattr("urllib.request._opener", opener)
        monkeypatch.setattr("monai.bundle.scripts.requests", SimpleNamespace(get=get))
        download(name="toy", source="github", repo="me/bundles/v1", bundle_dir=tmp_path / "got", progress=False)
    names = zipfile.ZipFile(packed[1]).namelist()
    found = {str(path.relative_to(tmp_path / "got")) for path in (tmp_path / "got").rglob("*") if path.is_file()}
    assert found == {*names, "toy_v0.1.1.zip"}
    assert (tmp_path / "got" / "toy_v0.1.1.zip").read_bytes() == packed[1].read_bytes()


def test_fetch_finds_the_newest_in_it(archives, tmp_path):
    catalog = tmp_path / "model_info.json"
    add_release(archives, "me/bundles/v1", catalog)
    found = find_release("eoir", str(catalog), None, None, None)
    assert (found.version, found.file.sha256) == ("0.7.1", hashlib.sha256(b"eoir_v0.7.1.zip").hexdigest())
