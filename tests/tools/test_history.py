"""Whether a bundle still is what its version was, asked of repositories made for it."""

import json
import os
import subprocess

import pytest

from common.errors import RegInputError
from tools.history import changed_since_version, untagged
from tools.pack import pack
from tools.repository import REPOSITORY

from .toy import edit_json, write, write_toy

WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(folder, *words):
    environment = os.environ | WHO | {"GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(
        ["git", *words], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def commit(root):
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "x")


@pytest.fixture
def toy(tmp_path):
    """The toy in a repository, its version 0.1.0 committed; what runs write is ignored."""
    folder = write_toy(tmp_path)
    write(
        tmp_path / ".gitignore", "bundles/*/models/\nbundles/*/eval/\n__pycache__/\n.cache/\nout/\n*label_train.json\n"
    )
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return folder


def finding(toy):
    return changed_since_version(toy, toy.parent.parent / "common")


def raise_version(toy, version, line="x"):
    edit_json(toy / "configs" / "metadata.json", version=version, changelog={version: line} if line else {})


def change(toy, file="toy_bundle/network.py"):
    with (toy / file).open("a") as stream:
        stream.write("\n# changed\n")


def test_what_its_version_was_passes_and_what_runs_left_does_not_count(toy):
    write(toy / "models" / "last.pt", "x")
    write(toy / "eval" / "metrics.csv", "x")
    assert finding(toy) is None


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize(
    "file", ["toy_bundle/network.py", "configs/train.json", "docs/README.md", "LICENSE", "toy_bundle/new.py"]
)
def test_any_change_needs_another_version(toy, file, committed):
    change(toy, file)
    if committed:
        commit(toy.parent.parent)
    assert f"toy/{file} changed since: raise the version, or say in its line, what is new" in finding(toy)


def test_other_words_in_the_metadata_tell_of_nothing(toy):
    change(toy)
    edit_json(toy / "configs" / "metadata.json", description="another toy")
    commit(toy.parent.parent)
    assert "toy/configs/metadata.json, toy/toy_bundle/network.py changed since" in finding(toy)


def test_a_deleted_file_is_a_change_and_many_are_counted(toy):
    (toy / "docs" / "README.md").unlink()
    for k in range(4):
        change(toy, f"toy_bundle/new_{k}.py")
    assert "toy/docs/README.md, toy/toy_bundle/new_0.py, toy/toy_bundle/new_1.py and 2 more changed" in finding(toy)


def test_a_new_version_may_differ_until_it_is_committed_and_then_no_more(toy):
    change(toy)
    raise_version(toy, "0.2.0")
    change(toy)
    assert finding(toy) is None
    commit(toy.parent.parent)
    assert finding(toy) is None
    change(toy)
    assert "version 0.2.0 and its line in the changelog are of commit" in finding(toy)


def test_a_version_that_no_tag_holds_may_grow_with_its_line(toy):
    """Told before or in the commit of the change; what comes after the last word is not told."""
    change(toy)
    raise_version(toy, "0.1.0", "x; and more")
    assert finding(toy) is None
    commit(toy.parent.parent)
    assert finding(toy) is None
    change(toy, "docs/README.md")
    assert "toy/docs/README.md changed since" in finding(toy)


def test_a_version_that_was_there_before_another_one_does_not_come_back(toy):
    raise_version(toy, "0.2.0")
    commit(toy.parent.parent)
    raise_version(toy, "0.1.0")
    assert "version 0.1.0 was there before another one" in finding(toy)


def test_the_line_in_the_changelog_is_not_enough_once_a_tag_holds_the_version(toy):
    git(toy.parent.parent, "tag", "v0.1.0")
    raise_version(toy, "0.1.0", "x; and more")
    for _ in range(2):  # not committed, and committed
        assert "was tagged v0.1.0, and toy/configs/metadata.json changed since: raise the version and" in finding(toy)
        git(toy.parent.parent, "commit", "--quiet", "--allow-empty", "--all", "--message", "x")


def test_common_may_change_until_a_tag_holds_the_version(toy):
    root = toy.parent.parent
    write(root / "common" / "spatial.py", "SCALE = 2\n")
    assert finding(toy) is None
    assert untagged([toy]) == "no tag holds toy 0.1.0 yet: two zips of that version may differ until it is tagged"
    git(root, "tag", "v0.1.0")
    assert untagged([toy]) is None
    assert "version 0.1.0 was tagged v0.1.0, and common/spatial.py changed since" in finding(toy)
    raise_version(toy, "0.1.1")
    assert "no tag holds toy 0.1.1 yet" in untagged([toy, toy])
    commit(root)
    assert finding(toy) is None and "no tag holds toy 0.1.1 yet" in untagged([toy])


def test_a_tag_of_an_earlier_version_says_nothing_of_the_next(toy):
    root = toy.parent.parent
    git(root, "tag", "v0.1.0")
    raise_version(toy, "0.2.0")
    commit(root)
    write(root / "common" / "spatial.py", "SCALE = 2\n")
    assert finding(toy) is None


def test_the_first_tag_counts_where_several_hold_the_version(toy):
    root = toy.parent.parent
    git(root, "tag", "v0.1.0")
    change(toy)
    commit(root)
    git(root, "tag", "v0.1.1")
    assert "was tagged v0.1.0" in finding(toy)


def test_without_a_repository_there_is_nothing_to_compare_with(tmp_path):
    toy = write_toy(tmp_path)
    assert finding(toy) is None and untagged([toy]) is None


def test_pack_refuses_what_changed_and_takes_it_with_a_new_version_and_its_line(toy):
    change(toy)
    for prepare, message in (
        (lambda: None, r"0\.1\.0 and its line in the changelog are of commit"),
        (lambda: raise_version(toy, "0.2.0", line=None), r"0\.2\.0 is not in the changelog"),
    ):
        prepare()
        with pytest.raises(RegInputError, match=message):
            pack("toy", toy.parent.parent / "out", toy.parent, common_dir=toy.parent.parent / "common")
    raise_version(toy, "0.2.0")
    assert pack("toy", toy.parent.parent / "out", toy.parent, common_dir=toy.parent.parent / "common").is_file()


@pytest.mark.parametrize(
    "name", sorted(path.parents[1].name for path in REPOSITORY.glob("bundles/*/configs/metadata.json"))
)
def test_no_bundle_of_this_collection_changed_without_a_new_version(name):
    folder = REPOSITORY / "bundles" / name
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    assert changed_since_version(folder, REPOSITORY / "common") is None
