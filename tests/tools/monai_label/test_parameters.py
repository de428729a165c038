import json

import pytest

from common.errors import RegInputError
from tools.monai_label.parameters import Asked, Training, checked_id, extension_of, read_params


def read(**values) -> Asked:
    return read_params(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{}", '{"moving": "most similar"}', '{"moving": null, "label_info": []}'])
def test_what_is_left_open_has_its_default(text):
    assert read_params(text) == Asked()


def test_a_viewers_words_and_lists_are_understood():
    """Slicer sends the chosen option, another client the whole list; numbers and flags may come as text."""
    asked = read(
        moving=["a", "b"], atlases="3", store="true", save_label=True, result_extension=".nrrd", device=["cpu"]
    )
    assert asked == Asked("a", 3, "auto", True, "original", True, ".nrrd", "cpu")


@pytest.mark.parametrize(
    "value", ["../x", "/x", "a/b", "a\\b", ".x", "", "a b", "a\n", "a\0", "ä", "x" * 129, 3, None, []]
)
def test_an_id_is_a_name(value):
    with pytest.raises(RegInputError, match="it is no path"):
        checked_id(value, "moving")


@pytest.mark.parametrize("value", ["sub-01_T1w", "1.2.840.113", "A", "_x", "x" * 128])
def test_usual_ids_pass(value):
    assert checked_id(value, "moving") == value


@pytest.mark.parametrize(
    "values",
    [
        {"atlases": 0},
        {"atlases": 21},
        {"atlases": 1.5},
        {"atlases": True},
        {"atlases": "x"},
        {"atlases": [{}]},
        {"store": "perhaps"},
        {"store": 1},
        {"save_label": {}},
        {"label_tag": "../x"},
        {"label_tag": 4},
        {"result_extension": ".exe"},
        {"result_extension": {}},
        {"affine": "/etc/passwd"},
        {"affine": {}},
        {"device": "gpu"},
        {"device": {}},
        {"moving": 5},
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(values):
    with pytest.raises(RegInputError, match=rf"^{next(iter(values))} is .*, expected"):
        read(**values)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "{", "nan"])
def test_params_that_are_no_object_are_refused(text):
    with pytest.raises(RegInputError, match=r"^params is"):
        read_params(text)


def test_infinite_and_nan_numbers_are_refused():
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        with pytest.raises(RegInputError, match="atlases is"):
            read_params(f'{{"atlases": {number}}}')
        with pytest.raises(RegInputError, match="val_split is"):
            Training.read({"val_split": float(number)})


def test_a_training_has_epochs_and_a_share():
    assert Training.read({}) == Training(5, 0.25, None)
    assert Training.read({"max_epochs": "2", "val_split": 0.5, "gpus": "all"}) == Training(2, 0.5, None)
    with pytest.raises(RegInputError, match="max_epochs is 0"):
        Training.read({"max_epochs": 0})


@pytest.mark.parametrize(("name", "extension"), [("a.nii.gz", ".nii.gz"), ("A.NII", ".nii"), ("../b.v2.nrrd", ".nrrd")])
def test_an_upload_is_known_by_its_extension(name, extension):
    assert extension_of(name, "image") == extension


@pytest.mark.parametrize("name", [None, "", "a", "a.zip", "a.nii.gz/../b.sh"])
def test_another_extension_is_refused(name):
    with pytest.raises(RegInputError, match=r"^the image is"):
        extension_of(name, "image")
