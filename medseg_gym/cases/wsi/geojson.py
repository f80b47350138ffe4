"""Read GeoJSON of QuPath: polygons in pixels of full resolution, by class."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_gym.cases.drawn import ring
from medseg_gym.cases.drawn.shapes import extent, number, polygon
from medseg_gym.cases.files.access.guards import read_json
from medseg_gym.cases.files.access.json_values import kind_of, require_kind
from medseg_gym.cases.files.defects import Damaged

_WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")


@dataclass
class Drawing:
    """The polygons on a slide.

    Args:
        polygons: (label, place in the file, polygon) each.
        flat: Number of points and lines.
        defects: What cannot be used, as dicts.
    """

    polygons: list[tuple[str, str, list[Any]]] = field(default_factory=list)
    flat: int = 0
    defects: list[dict[str, Any]] = field(default_factory=list)


def read_geojson(path: Path, name: str, size: tuple[int, int]) -> Drawing:
    """Read a file.

    Args:
        path: The file.
        name: Its path relative to the root.
        size: (H, W) of the slide at full resolution.

    Raises:
        Damaged: It cannot be used as a whole.
    """
    document = read_json(path, name)
    if isinstance(document, dict):
        if document.get("type") == "Feature":
            document = [document]
        elif "features" in document:
            document = document["features"]
        else:
            raise Damaged(name, "is no GeoJSON: neither 'features' nor a Feature")
    features = require_kind(document, list, "'features'", name)
    drawing = Drawing()
    for at, feature in enumerate(features):
        place = f"features[{at}]"
        try:
            _read_feature(feature, name, place, size, drawing)
        except Damaged as error:
            drawing.defects.append(error.defect.as_dict())
    return drawing


def _read_feature(
    feature: Any, name: str, place: str, size: tuple[int, int], drawing: Drawing
) -> None:
    require_kind(feature, dict, "", name, place)
    geometry = require_kind(feature.get("geometry"), dict, "'geometry'", name, place)
    kind = geometry.get("type")
    if kind in _WITHOUT_AREA:
        drawing.flat += 1
        return
    if kind not in ("Polygon", "MultiPolygon"):
        raise Damaged(name, f"a geometry is {kind!r}, expected Polygon or MultiPolygon", place)
    label = _label(feature, name, place)
    parts = require_kind(geometry.get("coordinates"), list, "'coordinates'", name, place)
    for rings in [parts] if kind == "Polygon" else parts:
        require_kind(rings, list, "a polygon", name, place)
        if not rings:
            raise Damaged(name, "a polygon has no corners; remove it", place)
        shape = polygon([_ring(one, name, place) for one in rings])
        left, top, right, bottom = extent(shape)
        height, width = size
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            cause = f"lies outside of its slide ({width} x {height}): x {left:g} to {right:g}"
            raise Damaged(name, f"{cause}, y {top:g} to {bottom:g}", place)
        drawing.polygons.append((label, place, shape))


def _label(feature: dict[str, Any], name: str, place: str) -> str:
    properties = require_kind(feature.get("properties") or {}, dict, "'properties'", name, place)
    named = properties.get("classification")
    label = named.get("name") if isinstance(named, dict) else named
    label = label or properties.get("name")
    if not isinstance(label, str) or not label.strip():
        what = kind_of(label)
        raise Damaged(name, f"its class is {what}; give it a classification in QuPath", place)
    return label.strip()


def _ring(points: Any, name: str, place: str) -> list[float]:
    flat: list[float] = []
    for point in require_kind(points, list, "a ring", name, place):
        if not isinstance(point, list) or len(point) < 2:
            raise Damaged(name, f"a point is {str(point)[:40]!r}, expected [x, y]", place)
        flat += (number(value, "a coordinate", name, place) for value in point[:2])
    if len(flat) > 2 and flat[:2] == flat[-2:]:  # closed by a repeated corner
        del flat[-2:]
    return ring(flat, name, place)
