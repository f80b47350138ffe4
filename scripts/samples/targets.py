"""Target texts of the samples."""

from __future__ import annotations

MASS, NODULE = "lung mass in chest CT", "lung nodule in chest CT"
TUMOUR, BREAST = "enhancing brain tumour in T1 MRI", "breast lesion in MRI"
RIGHT, LEFT, VERTEBRA = "right lung in chest CT", "left lung in chest CT", "vertebra in chest CT"
NUCLEUS = "cell nucleus in fluorescence microscopy"
RIBS, TISSUE = "ribs and sternum in chest CT", "soft tissue in chest CT"
NUCLEI = "all cell nuclei in fluorescence microscopy"
TARGETS = (MASS, NODULE, TUMOUR, BREAST, RIGHT, LEFT, VERTEBRA, NUCLEUS, RIBS, TISSUE, NUCLEI)
