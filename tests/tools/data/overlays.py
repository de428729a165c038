"""One training step of eoir by one of its overlays, on a data set that was prepared."""

from pathlib import Path

from monai.bundle import ConfigParser
from torch import Tensor

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "bundles" / "eoir" / "configs"


def take_a_step(overlay: str, dataset: Path, crop: tuple[int, int, int] | None = None) -> dict[str, Tensor]:
    """Load the first pair as the overlay's data pipeline does and descend its loss once; the pair.

    Args:
        overlay: its name in bundles/eoir/configs.
        dataset: folder of ``datalist.json``.
        crop: voxels of the middle of the pair that the step is taken on, for speed.
    """
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / f"{overlay}.json")])
    parser.update({"bundle_root": str(CONFIGS.parent), "dataset_dir": str(dataset), "channels": 4, "device": "cpu"})
    pair = next(iter(parser.get_parsed_content("train::dataloader")))
    assert len(parser.get_parsed_content("validate::dataset")) > 0
    image, target = parser.get_parsed_content("prepare_batch")(pair if crop is None else cropped(pair, crop))
    view, optimizer = (parser.get_parsed_content(name) for name in ("train::view", "optimizer"))
    before = [parameter.detach().clone() for parameter in view.parameters()]
    loss = parser.get_parsed_content("loss")(view(image), target)
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and all(parameter.isfinite().all() for parameter in view.parameters())
    assert any((old != new).any() for old, new in zip(before, view.parameters(), strict=True))
    return pair


def cropped(pair: dict, size: tuple[int, int, int]) -> dict:
    """The middle of every volume of a pair."""
    volumes = {key: value for key, value in pair.items() if isinstance(value, Tensor) and value.ndim == 5}
    starts = [(n - m) // 2 for n, m in zip(volumes["fixed"].shape[2:], size, strict=True)]
    box = (slice(None), slice(None), *(slice(s, s + m) for s, m in zip(starts, size, strict=True)))
    return {key: value[box] for key, value in volumes.items()}
