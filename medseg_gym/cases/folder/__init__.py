"""Folders of images and masks that belong together by name: binary, index, instance or colour."""

from medseg_gym.cases.files import FileCaseSource, open_split
from medseg_gym.cases.folder.layout import FolderLayout

__all__ = ["FolderLayout", "load"]


def load(argument: str, split: str) -> FileCaseSource:
    """Open a split for `load_cases("folder:ARGUMENT", split)`.

    Args:
        argument: Path of the folder, and options: see `FolderLayout`.
        split: "train", "val" or "test".

    Raises:
        CaseError: The data cannot be used.
    """
    return open_split(FolderLayout, argument, split)
