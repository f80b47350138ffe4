"""Scans that people open from their disks: each owner's own, while they are open.

Nothing of them is kept beyond that: the files lie in a temporary folder of the service, under
numbers instead of their names, and are removed with the scan or with the service.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock

from medseg_gym.cases.dicom.facts import read_facts
from medseg_gym.cases.dicom.scan import read_series
from medseg_gym.cases.files import Damaged
from medseg_gym.cases.npz import NpzVolume
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VolumeSource
from medseg_gym.cases.volumes import Volume, require
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.errors import CaseError
from medseg_gym.play.stores.damage import without_folders
from medseg_gym.play.volumes.uploads import NPZ, ScanLimits, Upload
from medseg_gym.serving.errors import ServiceError

MAX_SCANS = 8
"""Scans that an owner can have open."""

UPLOAD_SECONDS = 600.0
"""An upload that nothing was added to for so long is given up."""

SCAN_SECONDS = 6 * 3600.0
"""A scan that nobody plays is closed after so long."""


@dataclass(frozen=True)
class ScanOptions:
    """Settings of reading a scan.

    Args:
        target: What to segment, in words.
        modality: CT, MRI, ... or "".
        window: As `parse_window` reads it; "" is the usual one.
        axis: "auto", "axial", "coronal" or "sagittal".
        series: SeriesInstanceUID, where a folder holds several; "" for the only one.
        label: Value of the target in the labels of an .npz; None takes all that are not 0.
    """

    target: str
    modality: str = ""
    window: str = ""
    axis: str = "auto"
    series: str = ""
    label: int | None = None


@dataclass(frozen=True, eq=False)
class OwnScan:
    """An open scan.

    Args:
        case: As it was read.
        upload: Its files, which a SEG refers to.
        left_out: Counts of what the reader left out, by reason.
    """

    case: VolumeCase
    upload: Upload
    left_out: dict[str, int]


class OwnScans(VolumeSource):
    """The open scans of one owner."""

    name = "your own scans"

    def __init__(self) -> None:
        self.scans: list[OwnScan] = []

    @property
    def keys(self) -> Sequence[str]:
        """Keys, in index order."""
        return [scan.case.key for scan in self.scans]

    @property
    def targets(self) -> tuple[str, ...]:
        """Target texts."""
        return tuple(dict.fromkeys(scan.case.target for scan in self.scans))

    def __getitem__(self, index: int) -> VolumeCase:
        return self.scans[index].case


class ScanBook:
    """Uploads and open scans of all owners.

    Args:
        limits: Bounds of each owner.
        playing: Says whether somebody plays a volume now.
    """

    def __init__(self, limits: ScanLimits, playing: Callable[[VolumeCase], bool]) -> None:
        self.limits = limits
        self._playing = playing
        self._uploads: dict[tuple[str, str], Upload] = {}
        self._owners: dict[str, OwnScans] = {}
        self._folder: TemporaryDirectory[str] | None = None
        self._lock = RLock()
        self._closed = False

    def of(self, owner: str) -> OwnScans:
        """Return the open scans of an owner."""
        return self._owners.setdefault(owner, OwnScans())

    def begin(self, owner: str) -> str:
        """Begin an upload, and give up an owner's others; its id.

        Raises:
            ServiceError: 409, too many scans are open.
        """
        with self._lock:
            if self._closed:
                raise ServiceError("the service is shutting down", 503, retry_after=5)
            if len(self.of(owner).scans) >= MAX_SCANS:
                raise ServiceError(
                    f"{MAX_SCANS} of your scans are open; remove one that you need no more", 409
                )
            for other in [id for who, id in self._uploads if who == owner]:
                self.give_up(owner, other)
            id = secrets.token_hex(8)
            folder = self._root() / id
            folder.mkdir()
            self._uploads[owner, id] = Upload(folder)
            return id

    def _root(self) -> Path:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="medseg-scans-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def add(
        self, owner: str, id: str, number: int, suffix: str, offset: int, content: bytes
    ) -> None:
        """Append a part to a file of an upload; see `Upload.add`.

        Raises:
            ServiceError: 404, too many files or bytes, or not the next part.
        """
        if number >= self.limits.files:
            raise ServiceError(
                f"a scan may have {self.limits.files} files; open the folder of one series", 413
            )
        with self._lock:
            upload = self._upload(owner, id)
            held = sum(up.nbytes for (who, _), up in self._uploads.items() if who == owner)
            held += sum(scan.upload.nbytes for scan in self.of(owner).scans)
            upload.add(number, suffix, offset, content, self.limits.nbytes - held)

    def _upload(self, owner: str, id: str) -> Upload:
        upload = self._uploads.get((owner, id))
        if upload is None:
            raise ServiceError("this upload is not there any more; send the scan again", 404)
        return upload

    def give_up(self, owner: str, id: str) -> None:
        """Remove an upload; one that is not there is no fault."""
        with self._lock:
            upload = self._uploads.pop((owner, id), None)
        if upload is not None:
            upload.remove()

    def finish(self, owner: str, id: str, options: ScanOptions) -> tuple[int, dict[str, int]]:
        """Read an upload as a scan; one that cannot be used is removed.

        Returns:
            Position among the owner's scans, and counts of what was left out by reason.

        Raises:
            ServiceError: It cannot be used; the message holds no folder of this machine.
        """
        with self._lock:
            upload = self._upload(owner, id)
            del self._uploads[owner, id]
        try:
            case, left_out = self._read(owner, upload, options)
        except BaseException as error:
            upload.remove()
            if isinstance(error, CaseError):
                text = without_folders(str(error), [upload.folder])
                raise ServiceError(text.replace("--series UID", "in the field below")) from error
            raise
        with self._lock:
            scans = self.of(owner).scans
            scans.append(OwnScan(replace(case, key=f"scan-{id}"), upload, left_out))
            return len(scans) - 1, left_out

    def _read(
        self, owner: str, upload: Upload, options: ScanOptions
    ) -> tuple[VolumeCase, dict[str, int]]:
        path, is_dicom = upload.scan()
        target, modality, window, axis = (
            options.target, options.modality, options.window, options.axis,
        )  # fmt: skip
        if is_dicom:
            require("DICOM", "pydicom", "nibabel")
            self._check(owner, self._frames(upload))
            return read_series(path, target, None, modality, window, axis, options.series)
        if path.suffix == NPZ:
            volume = NpzVolume(path, needs_labels=False)
            self._check(owner, math.prod(volume.layout.shape))
            return volume.case(target, modality, window, options.label), {}
        require(path.suffix, "nibabel")
        self._check(owner, math.prod(int(n) for n in Volume(path).header.shape))
        return read_volume_file(path, target, None, modality, window, axis), {}

    @staticmethod
    def _frames(upload: Upload) -> int:
        """Voxels of all images, by their headers alone."""
        voxels = 0
        for number in upload.suffixes:
            path = upload.path(number)
            facts = read_facts(path, path.name)
            if facts["kind"] == "image":
                voxels += facts["rows"] * facts["columns"] * facts["frames"]
        if not voxels:
            kinds = "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha), .npz or DICOM"
            raise Damaged("", f"nothing in it is a scan: open {kinds}")
        return voxels

    def _check(self, owner: str, voxels: int) -> None:
        if voxels > self.limits.voxels:
            raise ServiceError(
                f"the scan has {voxels} voxels, and {self.limits.voxels} are taken; crop it, or "
                "resample it to larger voxels",
                413,
            )
        with self._lock:
            held = sum(scan.case.image.size for scan in self.of(owner).scans)
        if held + voxels > 2 * self.limits.voxels:
            raise ServiceError(
                "together with your other open scans it has too many voxels; remove one that you "
                "need no more",
                413,
            )

    def remove(self, owner: str, key: str) -> VolumeCase:
        """Close a scan and remove its files.

        Raises:
            ServiceError: 404.
        """
        with self._lock:
            scans = self.of(owner).scans
            for scan in scans:
                if scan.case.key == key:
                    scans.remove(scan)
                    break
            else:
                raise ServiceError("this scan is not open", 404)
        scan.upload.remove()
        return scan.case

    def close_idle(self) -> None:
        """Give up uploads that stopped, and close scans that nobody has played for long."""
        now = time.monotonic()
        with self._lock:
            stale = [k for k, up in self._uploads.items() if now - up.used > UPLOAD_SECONDS]
            for owner, id in stale:
                self.give_up(owner, id)
            for owner, own in self._owners.items():
                for scan in list(own.scans):
                    if self._playing(scan.case):
                        scan.upload.used = now
                    elif now - scan.upload.used > SCAN_SECONDS:
                        self.remove(owner, scan.case.key)

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            self._closed = True
            self._uploads.clear()
            self._owners.clear()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None
