"""Data sets without splits."""

from __future__ import annotations

from workplace import Workplace

from steps.arguments import SMALL
from steps.step import step


@step("small data sets: a folder without splits, one image with its truth")
def check_small_data(place: Workplace) -> None:
    place.python(
        "from pathlib import Path; from PIL import Image; from cases import Squares\n"
        "for name in ('images', 'masks'): Path('data', name).mkdir(parents=True)\n"
        "for case in Squares:\n"
        "    Image.fromarray(case.image).save(f'data/images/{case.key}.png')\n"
        "    Image.fromarray(case.mask).save(f'data/masks/{case.key}.png')\n"
    )
    for number, cases in enumerate(
        ("folder:data?target=bright square", "image:square.png?truth=truth.png&target=square")
    ):
        place.medseg("eval", "--policy", "oracle-box", "--cases", cases, "--split", "all", *SMALL,
                     "--out", f"out/small{number}")  # fmt: skip
