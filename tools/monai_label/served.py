"""Which bundles a server offers: each is a model under its folder's name."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import RegInputError

from ..register import bundle_folder
from ..repository import REPOSITORY

__all__ = ["ServedBundle", "all_bundles", "serve_bundles"]

logger = logging.getLogger(__name__)

LOADER = "checkpoint.LoadWeights"  # the handler of an inference.json that needs trained weights


@dataclass(frozen=True)
class ServedBundle:
    """A bundle, in the repository, packed or downloaded.

    Attributes:
        root: its folder.
        package: of its code, such as "eoir_bundle".
        version: of its metadata.
        description: likewise, for the viewer.
        labels: value of each label by its name, background left out.
        loader: its handler that loads weights, as its config has it; None if it needs none.
    """

    root: Path
    package: str
    version: str
    description: str
    labels: dict[str, int]
    loader: dict | None

    @property
    def name(self) -> str:
        """What the viewer calls the model."""
        return self.root.name

    @property
    def weights(self) -> Path | None:
        """Where its trained weights are, there or not; None if it needs none."""
        return None if self.loader is None else self.root / "models" / "model.pt"

    @property
    def ready(self) -> bool:
        """Whether it can register as it is."""
        return self.weights is None or self.weights.is_file()


def serve_bundles(names: Sequence[str]) -> list[ServedBundle]:
    """The bundles of these names or folders.

    Raises:
        RegInputError: if there is no such bundle, its weights are missing, or two share a name or a package.
    """
    bundles = [read_bundle(bundle_folder(name)) for name in names]
    for bundle in bundles:
        if not bundle.ready:
            raise RegInputError(f"{bundle.weights} is missing, expected trained weights; train the bundle first.")
    for index, bundle in enumerate(bundles):
        for other in bundles[:index]:
            check_distinct(other, bundle)
    return bundles


def all_bundles() -> list[ServedBundle]:
    """The repository's bundles that can register as they are; the log names those that lack weights."""
    folders = sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/configs/inference.json"))
    bundles = [read_bundle(folder) for folder in folders]
    for bundle in bundles:
        if not bundle.ready:
            logger.warning("%s is left out: %s is missing; its train.json makes it.", bundle.name, bundle.weights)
    return [bundle for bundle in bundles if bundle.ready]


def check_distinct(first: ServedBundle, second: ServedBundle) -> None:
    """Raise RegInputError for one name, or for one package: the second would get the first one's code."""
    for what in ("name", "package"):
        value = getattr(second, what)
        if getattr(first, what) == value:
            raise RegInputError(
                f"{first.root} and {second.root} have the same {what} '{value}', expected each once in a server; leave "
                "one of them out."
            )


def read_bundle(root: Path) -> ServedBundle:
    """What a bundle's folder says of itself.

    Raises:
        RegInputError: if it has no package of its own, or metadata without label names.
    """
    package = next((path.parent.name for path in sorted(root.glob("*_bundle/__init__.py"))), None)
    try:
        metadata = json.loads((root / "configs" / "metadata.json").read_text())
        outputs = metadata["network_data_format"]["post_processed_outputs"]["pred"]
        labels = {name: int(value) for value, name in outputs["channel_def"].items() if name.lower() != "background"}
        handlers = json.loads((root / "configs" / "inference.json").read_text()).get("handlers", [])
        about = (metadata["version"], metadata["description"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise RegInputError(
            f"{root} cannot be served ({type(error).__name__}: {error}), expected configs/inference.json, and "
            "configs/metadata.json with version, description and label names; see a bundle of this collection."
        ) from error
    if package is None:
        raise RegInputError(f"{root} has no package, expected a folder <name>_bundle in it; fetch the bundle again.")
    loader = next((handler for handler in handlers if str(handler.get("_target_", "")).endswith(LOADER)), None)
    return ServedBundle(root, package, *about, labels, loader)
