"""The folder of studies: MONAI Label's, with every id checked and nothing outside of it read or written."""

import os
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from common.errors import RegInputError
from common.preflight import check_image, check_label

from .parameters import EXTENSIONS, checked_id, extension_of

__all__ = ["FINAL", "Studies", "UnknownStudyError"]

FINAL = DefaultLabelTag.FINAL.value


class UnknownStudyError(RegInputError):
    """There is no study, or no label, of that id."""


class Studies(LocalDatastore):
    """Images in a folder, approved labels in ``labels/final`` and proposed ones in ``labels/original``.

    Args:
        folder: the studies.
        auto_reload: see files that others put into it while the server runs.
        read_only: as MONAI Label has it.
    """

    def __init__(self, folder: str, auto_reload: bool = False, read_only: bool = False) -> None:
        self.folder = Path(folder).resolve()
        patterns = tuple(f"*{extension}" for extension in EXTENSIONS)
        super().__init__(str(self.folder), extensions=patterns, auto_reload=auto_reload, read_only=read_only)

    def image_path(self, image_id: object, name: str = "image") -> Path:
        """Where a study's image lies.

        Args:
            image_id: of the study.
            name: of the parameter that holds it, for the message.

        Raises:
            UnknownStudyError: if there is none of that id, or its file lies outside of the folder.
            RegInputError: if it can be no id.
        """
        path = self._file(checked_id(image_id, name))
        if path is None:
            raise UnknownStudyError(
                f"{name} is '{image_id}', expected the id of one of the {len(self.list_images())} studies; see "
                "/datastore/?output=all for them."
            )
        return path

    def final_label(self, image_id: str) -> Path:
        """Where a study's approved label map lies; UnknownStudyError if it has none."""
        path = self._file(image_id, FINAL)
        if path is None:
            raise UnknownStudyError(
                f"the study '{image_id}' has no label with the tag '{FINAL}', expected one to carry over; save one, or "
                "name another study."
            )
        return path

    def labelled(self) -> list[str]:
        """Ids of the studies with an approved label, those excepted whose files are not inside the folder."""
        return [name for name in sorted(self.get_labeled_images()) if self._file(name) and self._file(name, FINAL)]

    def label_folder(self, tag: str) -> Path:
        """Where label maps of a tag lie."""
        return Path(self._datastore.label_path(checked_id(tag, "tag")))

    def _file(self, study: str, tag: str | None = None) -> Path | None:
        """A study's image, or its label map of a tag, if there is one and it lies in the folder, links followed."""
        uri = super().get_image_uri(study) if tag is None else super().get_label_uri(study, tag)
        path = Path(uri).resolve() if uri else None
        return path if path is not None and path.is_relative_to(self.folder) and path.is_file() else None

    # what MONAI Label's own endpoints call

    def get_image_uri(self, image_id: str) -> str:
        """As :meth:`image_path`."""
        return str(self.image_path(image_id))

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Where a label map lies; UnknownStudyError if there is none."""
        path = self._file(checked_id(label_id, "label"), checked_id(label_tag, "tag"))
        if path is None:
            raise UnknownStudyError(f"the study '{label_id}' has no label with the tag '{label_tag}'; name another.")
        return str(path)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take an uploaded image in, if it can be registered and its id is new."""
        checked_id(image_id, "image")
        extension_of(image_filename, "image")
        if image_id in self.list_images():
            raise RegInputError(f"there is a study '{image_id}', expected a new id; choose another one.")
        check_image(image_filename, 3)
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Take a label map in, if it lies on its image's grid."""
        image, _ = self.image_path(image_id), checked_id(label_tag, "tag")
        extension_of(label_filename, "label")
        check_label(label_filename, check_image(image, 3))
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def remove_image(self, image_id: str) -> None:
        """Remove a study and its labels."""
        self.image_path(image_id)
        super().remove_image(image_id)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label map."""
        os.unlink(self.get_label_uri(label_id, label_tag))
        self.refresh()
