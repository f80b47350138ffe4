"""index.json: every case, and where it comes from."""

from __future__ import annotations

import json

from scripts.samples.origins import ORIGINS
from scripts.samples.pack import Pack
from scripts.samples.targets import TARGETS
from scripts.samples.volumes import MIN_PIXELS


def write_index(pack: Pack) -> None:
    """Write index.json: one line a case, so that a change reads well in a diff."""
    origins = {
        o.name: {
            "package": o.requirement,
            "licence": o.licence,
            "licence_file": f"licenses/{o.name}.txt",
            "masks": o.masks,
            "sha256": o.files,
        }
        for o in ORIGINS
    }
    cases = ",\n".join("  " + json.dumps(case) for case in pack.cases)
    head = {
        "format": 1,
        "about": "Real images; see README.md beside this file. Made by scripts/samples/build.py.",
        "targets": list(TARGETS),
        "notes": [f"Slices with under {MIN_PIXELS} labelled pixels are left out."],
        "origins": origins,
        "groups": pack.groups,
    }
    text = json.dumps(head, indent=1)[:-2] + f',\n "cases": [\n{cases}\n ]\n}}\n'
    json.loads(text)
    (pack.path / "index.json").write_text(text, encoding="utf-8")
