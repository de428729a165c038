"""Arrays come out of pickles of every age; nothing else does, and nothing in them runs."""

import builtins
import os
import pickle
import re
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from common.errors import RegInputError
from tools.data import pickles
from tools.data.pickles import read_arrays

IMAGE = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
LABEL = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write(folder, content) -> Path:
    path = folder / "subject_1.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "arrays",
    [
        (IMAGE, LABEL),
        [IMAGE.astype(np.float64), LABEL.astype(np.uint8)],
        (np.asfortranarray(IMAGE), LABEL.astype(">i4")),
        (IMAGE[::2, :, 1:], LABEL.T),
        (IMAGE.astype(np.float16), LABEL > 3),
    ],
    ids=["tuple", "list", "fortran and big endian", "views", "half and bool"],
)
def test_what_numpy_pickles_is_read(tmp_path, arrays, protocol):
    found = read_arrays(write(tmp_path, pickle.dumps(arrays, protocol)), 2)
    for expected, array in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype and array.flags.writeable


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_names_of_numpys_modules_before_and_since_version_2_are_known(tmp_path, module):
    content, count = re.subn(rb"numpy\._?core\.multiarray", module, pickle.dumps((IMAGE, LABEL), 2))
    assert count
    np.testing.assert_array_equal(read_arrays(write(tmp_path, content), 2)[1], LABEL)


def test_a_pickle_of_python_2_is_read(tmp_path):
    """Its bytes are strings, which the other pickles have not: written opcode by opcode."""
    voxels = np.array([[1, 200], [255, 0]], np.uint8).tobytes()
    content = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x02\x86"
    content += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    content += b"U\x04" + voxels + b"tb\x85."
    (found,) = read_arrays(write(tmp_path, content), 1)
    assert found.tolist() == [[1, 200], [255, 0]]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("function", ["system", "eval", "exec", "getattr", "__import__"])
def test_a_hostile_pickle_runs_nothing(tmp_path, monkeypatch, function, protocol):
    """Read by pickle itself, each of these leaves the canary (the first two are shown to)."""
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    program = "open('canary', 'w').close()"
    calls = {
        "system": Call(os.system, "touch canary"),
        "eval": Call(builtins.eval, program),
        "exec": Call(builtins.exec, program),
        "getattr": Call(builtins.getattr, "text", "join"),
        "__import__": Call(builtins.__import__, "canary_module"),
    }
    content = pickle.dumps((IMAGE, calls[function]), protocol)
    if function in ("system", "eval"):
        pickle.loads(content)
        assert canary.exists()
        canary.unlink()
    with pytest.raises(RegInputError, match=f"it asks for .*{function}.*nothing in it was run"):
        read_arrays(write(tmp_path, content), 2)
    assert not canary.exists()


def test_numpys_own_loader_of_pickles_is_refused(tmp_path):
    """``numpy.load`` would read a second, unrestricted pickle."""
    with pytest.raises(RegInputError, match=r"it asks for numpy\.\S*load"):
        read_arrays(write(tmp_path, b"\x80\x02cnumpy\nload\nX\x05\x00\x00\x00x.npy\x85R."), 1)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (np.array([IMAGE, None], dtype=object), "type object"),
        (np.array(["a"]), "type <U1"),
        (np.zeros(2, [("x", "f4")]), r"values of type|asks for"),
        (OrderedDict(), "it asks for collections.OrderedDict"),
        ({"image": IMAGE}, r"\['list', 'dict'\]|dict"),
        ("text", "str"),
        (np.float32(1), r"it asks for numpy\._?core.multiarray.scalar"),
    ],
)
def test_anything_but_arrays_of_numbers_is_refused(tmp_path, item, text):
    with pytest.raises(RegInputError, match=text):
        read_arrays(write(tmp_path, pickle.dumps((IMAGE, item))), 2)


@pytest.mark.parametrize("count", [1, 4])
def test_another_number_of_arrays_is_refused(tmp_path, count):
    with pytest.raises(RegInputError, match=f"expected {count} arrays"):
        read_arrays(write(tmp_path, pickle.dumps((IMAGE, LABEL))), count)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps((IMAGE, LABEL))[:-40],
        pickle.dumps((IMAGE, LABEL))[:9],
        b"",
        b"not a pickle",
        b"\x80\x05" + pickle.dumps(7),
        b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"short.",
        pickle.dumps(7),
    ],
    ids=["cut", "head", "empty", "text", "number", "lying length", "one number"],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, content):
    with pytest.raises(RegInputError, match="is no pickle of numpy arrays") as caught:
        read_arrays(write(tmp_path, content), 2)
    assert "\n" not in str(caught.value)


def test_a_long_table_is_refused_before_it_is_made(tmp_path):
    """The unpickler itself would fill 16 GiB for this entry."""
    with pytest.raises(RegInputError, match="entry 1000000000 of its table"):
        read_arrays(write(tmp_path, b"\x80\x02K\x01r" + struct.pack("<I", 10**9) + b"."), 1)


def test_other_encodings_are_refused(tmp_path):
    """A codec such as zlib would make gigabytes of a few bytes."""
    content = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R."
    with pytest.raises(RegInputError, match="the encoding zlib"):
        read_arrays(write(tmp_path, content), 1)


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """What a name stands for can be given attributes, which must not outlive the file."""
    mark = b"\x80\x02cnumpy.core.numeric\n_frombuffer\nN}X\x06\x00\x00\x00markedK\x01s\x86b."
    with pytest.raises(RegInputError):
        read_arrays(write(tmp_path, mark), 1)
    assert not hasattr(pickles.from_buffer, "marked")


def test_a_file_over_the_limit_is_not_read(tmp_path, monkeypatch):
    path = write(tmp_path, pickle.dumps((IMAGE, LABEL)))
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(RegInputError, match="bytes, expected at most 100"):
        read_arrays(path, 2, max_bytes=100)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(RegInputError, match="cannot be read"):
        read_arrays(tmp_path / "no.pkl", 2)
