"""Find the modality in a file name or a sentence."""

from __future__ import annotations

import re

_WORDS = {
    "CT": ("ct", "cect", "ncct", "cbct", "tomography"),
    "MRI": ("mri", "mr", "flair", "adc", "dwi", "t1", "t2", "t1c", "t1ce", "t1gd", "t1w", "t2w"),
    "X-ray": ("xray", "cxr", "radiograph", "radiography", "mammography", "mammogram"),
    "ultrasound": ("ultrasound", "us", "echocardiography", "sonography"),
    "fundus": ("fundus",),
    "endoscopy": ("endoscope", "endoscopy", "colonoscopy", "gastroscopy", "cystoscopy"),
    "microscopy": ("pathology", "histopathology", "microscopy", "histology"),
    "dermoscopy": ("dermoscopy", "dermoscope", "dermatoscopy"),
    "OCT": ("oct",),
}
_OF_WORD = {word: name for name, words in _WORDS.items() for word in words}


def modality_of(*texts: str) -> str:
    """Return the modality that the first text with a single one names, or "".

    Args:
        texts: File names or sentences, the more reliable ones first.

    Returns:
        A word as in `Case.modality`; pathology counts as "microscopy", and what BiomedParse has
        beyond those six is called "dermoscopy" and "OCT".
    """
    for text in texts:
        words = re.findall(r"[a-z0-9]+", re.sub(r"x[- ]?ray", "xray", text.lower()))
        modalities = dict.fromkeys(_OF_WORD[word] for word in words if word in _OF_WORD)
        if len(modalities) == 1:
            return next(iter(modalities))
    return ""
