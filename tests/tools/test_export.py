"""Networks for other programs: what is written equals torch at more than one size, or is not kept."""

import pytest
import torch
from torch import nn

from common.errors import RegEnvError, RegInputError, RegNumericsError
from tools.export import example_image, export, runner, takes_any_size, to_onnx

from .toy import METADATA, edit_json, write, write_toy


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy with a weight of 3: it displaces by three times the mean of both images."""
    monkeypatch.setattr("common.spatial.SCALE", 1, raising=False)
    folder = write_toy(tmp_path)
    torch.save({"weight": torch.full((1,), 3.0)}, folder / "models" / "model.pt")
    return folder


def test_torchscript_equals_torch_and_takes_any_size(toy, tmp_path):
    found = export(str(toy), "torchscript", tmp_path / "out")
    assert found.path == tmp_path / "out" / "toy_v0.1.0.ts" and found.any_size
    assert [one.size for one in found.agreements] == [(4, 4, 4), (16, 16, 16)]
    assert max(one.difference for one in found.agreements) == 0 and found.agreements[0].largest > 0.3
    image = torch.rand(1, 2, 5, 6, 7)
    expected = 3 * image.mean(1, keepdim=True).expand(1, 3, 5, 6, 7)
    assert torch.allclose(runner(found.path)(image), expected, atol=1e-6)


def test_the_size_and_the_weights_are_those_that_are_asked_for(toy, tmp_path):
    torch.save({"weight": torch.full((1,), 5.0)}, tmp_path / "other.pt")
    found = export(str(toy), "torchscript", tmp_path / "out", tmp_path / "other.pt", (20, 18, 17))
    assert found.agreements[0].size == (20, 18, 17) and found.agreements[0].largest > 2


def test_what_differs_from_torch_is_not_kept(toy, tmp_path):
    text = (toy / "toy_bundle" / "network.py").read_text()
    wrong = text.replace("return self.weight", "return (1.001 if torch.jit.is_scripting() else 1.0) * self.weight")
    write(toy / "toy_bundle" / "network.py", wrong)
    with pytest.raises(RegNumericsError, match="the exported network differs from torch by"):
        export(str(toy), "torchscript", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_not_trained_is_refused_with_its_reason(toy, tmp_path):
    edit_json(toy / "configs" / "metadata.json", untrained="it is a toy")
    with pytest.raises(RegInputError, match="toy cannot be exported, because it is a toy"):
        export(str(toy), "onnx", tmp_path / "out")


def test_another_form_and_missing_weights_are_refused(toy, tmp_path):
    with pytest.raises(RegInputError, match="--format got 'trt', expected onnx or torchscript"):
        export(str(toy), "trt", tmp_path / "out")
    (toy / "models" / "model.pt").unlink()
    with pytest.raises(RegInputError, match=r"model\.pt is missing, expected trained weights"):
        export(str(toy), "torchscript", tmp_path / "out")


@pytest.mark.parametrize("size", [(32, 32), (32, 0, 32), (32, 32, 32, 32), (-32, 32, 32)])
def test_a_size_that_makes_no_pair_is_refused(toy, tmp_path, size):
    with pytest.raises(RegInputError, match=r"--size got .*expected three numbers of 16 or more"):
        export(str(toy), "torchscript", tmp_path / "out", size=size)


def test_a_missing_package_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(RegEnvError, match=r"needs onnxruntime.*pip install onnx onnxscript onnxruntime"):
        export(str(toy), "onnx", tmp_path / "out")


def test_the_pair_has_the_size_of_the_metadata_and_no_steps():
    image = example_image(METADATA, (32, 32, 32))
    assert example_image(METADATA).shape == (1, 2, 4, 4, 4) and image.shape == (1, 2, 32, 32, 32)
    assert 0 <= image.min() and image.max() <= 1
    assert image.diff(dim=2).abs().max() < 0.5


@pytest.mark.slow  # 10 s of one core
def test_onnx_equals_torch_and_takes_any_size(toy, tmp_path):
    found = export(str(toy), "onnx", tmp_path / "out")
    assert found.path.name == "toy_v0.1.0.onnx" and found.any_size
    assert [one.size for one in found.agreements] == [(4, 4, 4), (16, 16, 16)]
    assert max(one.difference for one in found.agreements) < 1e-6
    import onnx

    model = onnx.load(found.path)
    onnx.checker.check_model(model)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "pred"]


class Counting(nn.Module):
    """As many passes as the image has slices: no graph holds that for every size."""

    def forward(self, image):
        for _ in range(len(image[0, 0])):
            image = image + 1
        return image


@pytest.mark.slow
def test_what_cannot_keep_sizes_open_is_exported_for_one_size(tmp_path):
    image = torch.rand(1, 2, 4, 5, 6)
    assert to_onnx(Counting(), image, tmp_path / "x.onnx") is False
    assert torch.allclose(runner(tmp_path / "x.onnx")(image), image + 4, atol=1e-5)


def test_a_file_that_is_right_for_one_size_only_does_not_take_any(monkeypatch):
    """As an unrolled loop is: it answers at another size, and wrongly, or not at all."""
    pair = example_image(METADATA, (16, 16, 16))

    def wrong(image):
        return image + (image.shape != pair.shape)

    def refusing(image):
        if image.shape != pair.shape:
            raise ArithmeticError(image.shape)
        return image

    for run, right in ((lambda image: image, True), (wrong, False), (refusing, False)):
        monkeypatch.setattr("tools.export.runner", lambda path, run=run: run)
        assert takes_any_size(nn.Identity(), None, pair) is right
