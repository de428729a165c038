"""Whether a bundle's version and changelog tell of what is in it, by git, which keeps every version that there was.

Two rules. A version that a tag holds is out: people may have it, packed with the ``common`` of that tag, so neither the
bundle's folder nor ``common`` may differ from it, and what is new needs a new version. A version that no tag holds is
in the making: it may grow, and its line in the changelog has to grow with it, so the folder may not differ from the
last commit that changed the version or that line; ``common`` tells of itself, and may change under one version: until
a tag holds it, two zips of it may differ, which ``pack`` says. Uncommitted changes count as committed ones do. Where
git knows nothing of the folder there is nothing to compare with.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

__all__ = ["changed_since_version", "untagged"]

METADATA = "./configs/metadata.json"  # relative to the bundle, for git too
SHOWN = 3  # changed files in a message


def changed_since_version(folder: Path, common_dir: Path) -> str | None:
    """What a bundle's version and changelog do not tell of, ``None`` if nothing.

    Args:
        folder: the bundle's; its metadata has a version and a line of it in the changelog.
        common_dir: the ``common`` that is packed with it.
    """
    now = entry_in((folder / METADATA).read_text(encoding="utf-8"))
    commits = {commit: entry_at(folder, commit) for commit in commits_of(folder)}
    earlier = [commit for commit, entry in commits.items() if entry[0] == now[0]]
    if not earlier:
        return None
    if next(iter(commits.values()))[0] != now[0]:
        return f"version {now[0]} was there before another one (commit {earlier[0][:9]}): take a new one"
    tag = tag_of(folder, now[0], earlier[-1])
    if tag is not None:
        changed = [*changed_files(folder, tag), *changed_files(common_dir, tag)]
        return told(changed, f"version {now[0]} was tagged {tag}", "raise the version and say in the changelog")
    same = list(takewhile(lambda commit: commits[commit] == now, commits))
    changed = changed_files(folder, same[-1]) if same else []
    where = f"version {now[0]} and its line in the changelog are of commit {same[-1][:9]}" if same else ""
    return told(list(changed), where, "raise the version, or say in its line")


def untagged(folders: Iterable[Path]) -> str | None:
    """A warning about the bundles whose version no tag holds, in one line; ``None`` if there are none."""
    versions = {folder: entry_in((folder / METADATA).read_text(encoding="utf-8"))[0] for folder in folders}
    found = [f"{folder.name} {version}" for folder, version in versions.items() if is_untagged(folder, version)]
    if not found:
        return None
    return f"no tag holds {', '.join(found)} yet: two zips of that version may differ until it is tagged"


def is_untagged(folder: Path, version: str) -> bool:
    """Whether git knows a bundle, and no tag that has it in this version."""
    commits = commits_of(folder)
    earlier = [commit for commit in commits if entry_at(folder, commit)[0] == version]
    return bool(commits) and not (earlier and tag_of(folder, version, earlier[-1]))


def tag_of(folder: Path, version: str, first: str) -> str | None:
    """The earliest tag that has a bundle in a version, ``first`` being the version's first commit."""
    tags = git(folder, "tag", "--contains", first, "--sort=creatordate").split()
    return next((tag for tag in tags if entry_at(folder, tag)[0] == version), None)


def told(changed: list[str], where: str, remedy: str) -> str | None:
    """The finding about files that changed, ``None`` without any."""
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"{where}, and {', '.join(changed[:SHOWN])}{more} changed since: {remedy}, what is new" if changed else None


def commits_of(folder: Path) -> list[str]:
    """The commits that touched a bundle's metadata, newest first."""
    return git(folder, "log", "--format=%H", "--", METADATA).split()


def entry_at(folder: Path, commit: str) -> tuple[str | None, str | None]:
    """What a bundle's metadata said in a commit, see :func:`entry_in`; nothing if there was no such bundle."""
    try:
        return entry_in(git(folder, "show", f"{commit}:{METADATA}"))
    except ValueError:  # no file, or no JSON
        return None, None


def entry_in(metadata: str) -> tuple[str | None, str | None]:
    """The version in the text of a metadata.json, and its line in the changelog."""
    content = json.loads(metadata)
    return content.get("version"), content.get("changelog", {}).get(content.get("version"))


def changed_files(folder: Path, commit: str) -> Iterator[str]:
    """Files below a folder, ``<its name>/...``, that differ from a commit's or are new; not those that git ignores."""
    tracked = git(folder, "diff", "--name-only", "--relative", "-z", commit, "--", ".")
    new = git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", ".")
    yield from (f"{folder.name}/{file}" for file in (tracked + new).split("\0") if file)


def git(folder: Path, *words: str) -> str:
    """What a git command says in a folder; nothing where git or the repository is missing, or the command fails."""
    around = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # a hook's are another's
    try:
        done = subprocess.run(["git", *words], cwd=folder, env=around, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.decode(errors="replace")
