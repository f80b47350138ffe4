"""README.md of the pack, for people."""

from __future__ import annotations

from PIL import Image

from scripts.samples.origins import ORIGINS
from scripts.samples.pack import Pack


def write_readme(pack: Pack) -> None:
    """Write README.md from the same tables as the index."""
    lines = [
        "# Sample cases",
        "",
        "Real images, cut from data that Python packages carry; nothing is synthetic. Made by",
        "`python -m scripts.samples.build`; do not edit by hand. They show how things work: a few",
        "volumes, hence no ground for clinical or statistical claims.",
        "",
        "| split | group | target | cases | mask area, % of image | multi-part |",
        "|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, ...], list[float]] = {}
    for case in pack.cases:
        with Image.open(pack.path / case["image"]) as image:
            share = 100 * case["area"] / (image.width * image.height)
        split = pack.groups[case["group"]]["split"]
        one_of_several = "" if case["single_box"] else "yes"
        rows.setdefault((split, case["group"], case["target"], one_of_several), []).append(share)
    for (split, group, target, one_of_several), shares in rows.items():
        area = f"{min(shares):.2f} to {max(shares):.2f}"
        lines.append(
            f"| {split} | {group} | {target} | {len(shares)} | {area} | {one_of_several} |"
        )
    lines += [
        "",
        'Multi-part targets are apart: `load_cases("samples:multi-part", "train")`.',
        "",
        "## Volumes",
        "",
    ]
    for name, facts in pack.groups.items():
        size = "pixel size unknown"
        if facts["spacing"]:
            size = "{:g} x {:g} mm a pixel (row, column)".format(*facts["spacing"])
        lines.append(f"- **{name}** ({facts['modality']}, from {facts['origin']}): {size}; window")
        lines.append(f"  {facts['window']}.")
        lines += [f"  {note}" for note in facts["notes"]]
    lines += ["", "## Where they come from", ""]
    for o in ORIGINS:
        lines.append(f"- **{o.requirement}**, {o.licence} ([text](licenses/{o.name}.txt)).")
        lines.append(f"  {o.masks}")
    (pack.path / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
