"""Which pairs of files are to be registered, and what comes along with them."""

from .datalist import read_datalist
from .errors import RegInputError
from .naming import unique_names

__all__ = ["pairs_to_register"]


def pairs_to_register(
    dataset_dir: str | None = None,
    section: str = "testing",
    fixed: str | None = None,
    moving: str | None = None,
    **parts: str | None,
) -> list[dict[str, str]]:
    """One pair of files where they are named, else the pairs of a section of a data set.

    Args:
        dataset_dir: folder that holds ``datalist.json``.
        section: "validation" or "testing".
        fixed: path of the fixed image; wins over the data set.
        moving: path of the moving image.
        parts: of ``fixed_label`` and ``moving_label`` (scored, the second warped along), ``fixed_mask`` and
            ``moving_mask`` (where an image counts, on its grid), ``fixed_points`` and ``moving_points`` (landmark files
            in mm; the first are carried over, both together are scored).

    Returns:
        A dictionary for each pair: paths, with the names of the arguments as keys, and ``name``, that of its results'
        folder: ``<fixed>__<moving>``, and more where two pairs would share one.

    Raises:
        RegInputError: if only one of the two images is named, or something comes along with none.
    """
    given = {key: str(value) for key, value in parts.items() if value is not None}
    if (fixed is None) != (moving is None):
        raise RegInputError(f"fixed is {fixed} and moving is {moving}, expected both or none; name the other image.")
    if fixed is not None:
        return with_names([{"fixed": str(fixed), "moving": str(moving), **given}])
    if given:
        raise RegInputError(
            f"{', '.join(given)} is given without fixed and moving, expected the pair it belongs to; name "
            "both images, or put it into the datalist."
        )
    return with_names(read_datalist(dataset_dir, section))


def with_names(pairs: list[dict[str, str]]) -> list[dict[str, str]]:
    """The pairs, each with its folder's ``name``."""
    names = unique_names([(pair["fixed"], pair["moving"]) for pair in pairs])
    return [{**pair, "name": name.folder} for pair, name in zip(pairs, names, strict=True)]
