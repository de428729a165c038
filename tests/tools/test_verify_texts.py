"""Licences, the data's terms and documentation of a bundle."""

import pytest

from tools.repository import REPOSITORY
from tools.verify_texts import docs_finding, licence_finding

from .toy import METADATA, README, write, write_toy

NAMES = sorted(path.parents[1].name for path in REPOSITORY.glob("bundles/*/configs/metadata.json"))


@pytest.fixture
def toy(tmp_path):
    return write_toy(tmp_path)


def test_a_bundle_with_all_of_them_has_no_finding(toy):
    assert licence_finding(toy, METADATA) is None
    assert docs_finding(toy) is None


def test_an_unknown_licence_and_one_that_metadata_do_not_name_are_found(toy):
    assert licence_finding(toy, METADATA | {"copyright": "nobody"}) == (
        "LICENSE is Apache-2.0, which the metadata's copyright does not name"
    )
    write(toy / "LICENSE", "do what you like")
    assert licence_finding(toy, METADATA).startswith("LICENSE is none of Apache-2.0, MIT")


def test_missing_terms_of_the_data_are_found(toy):
    (toy / "docs" / "data_license.txt").unlink()
    assert licence_finding(toy, METADATA).startswith("docs/data_license.txt is missing")


def test_a_config_for_a_data_set_needs_its_terms(toy):
    for name in ("lung_ct", "oasis", "wide"):  # the last one is no data set
        write(toy / "configs" / f"{name}.json", "{}")
    write(toy / "docs" / "data_license.txt", "OASIS: the OASIS data use agreement.")
    assert (
        licence_finding(toy, METADATA) == "docs/data_license.txt has no terms of lung ct, for which there are configs"
    )
    write(toy / "docs" / "data_license.txt", "OASIS: the OASIS data use agreement. Lung-CT: CC BY 4.0.")
    assert licence_finding(toy, METADATA) is None


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("# Toy\n", "Toy\n", "does not begin with a title"),
        ("## Limits\n", "## Borders\n", "docs/README.md has no ## Limits"),
        ("## Limits\n", "### Limits\n", "docs/README.md has no ## Limits"),
        ("## Training\n", "## Run\n", "docs/README.md has no ## Training or Commands"),
        ("It is a toy.\n", "", "## Limits of docs/README.md is empty"),
    ],
)
def test_documentation_without_what_people_look_for_is_found(toy, old, new, finding):
    assert old in README
    write(toy / "docs" / "README.md", README.replace(old, new, 1))
    assert finding in docs_finding(toy)


def test_commands_stand_for_training(toy):
    write(toy / "docs" / "README.md", README.replace("## Training", "## Commands"))
    assert docs_finding(toy) is None
