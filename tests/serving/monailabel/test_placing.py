"""Voxels of a file and places on the slices of its case are two names of the same thing."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_gym.cases.volumes import AXES, VolumeGeometry
from medseg_gym.prompts import AddBox
from medseg_gym.serving.monailabel.parameters import Parameters, place

SHAPE = (7, 5, 6)
ORIENTATIONS = [
    np.diag(signs)[list(order)]
    for order in permutations(range(3))
    for signs in product((-1.0, 1.0), repeat=3)
]
voxel = st.tuples(*(st.integers(0, n - 1) for n in SHAPE))


def geometry_of(turn: np.ndarray, axis: str) -> VolumeGeometry:
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.8, 1.1, 2.0)
    return VolumeGeometry.of(SHAPE, affine, axis)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ORIENTATIONS), st.sampled_from(AXES), st.lists(voxel, min_size=1, max_size=4)
)
def test_a_point_is_on_its_own_voxel(turn, axis, points) -> None:
    geometry = geometry_of(turn, axis)
    placed = place(Parameters(foreground=tuple(points)), SHAPE, geometry.view, False)
    _, height, width = geometry.view.shape
    for point, prompt in zip(points, placed.prompts, strict=True):
        stored = np.zeros(SHAPE, bool)
        stored[tuple(point)] = True
        ((where, row, column),) = np.argwhere(geometry.shown(stored))
        at = prompt.prompt
        assert (prompt.slice, int(at.y * height), int(at.x * width)) == (where, row, column)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.sampled_from(AXES), voxel, voxel)
def test_a_box_encloses_its_own_voxels(turn, axis, one, other) -> None:
    geometry = geometry_of(turn, axis)
    low, high = np.minimum(one, other), np.maximum(one, other)
    box = tuple(map(float, low)), tuple(map(float, high))
    placed = place(Parameters(box=box), SHAPE, geometry.view, False)
    stored = np.zeros(SHAPE, bool)
    stored[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True
    places = np.argwhere(geometry.shown(stored))
    (first, top, left), (last, bottom, right) = places.min(0), places.max(0)
    _, height, width = geometry.view.shape
    (prompt,) = placed.prompts
    assert (placed.first, placed.last) == (first, last) and first <= prompt.slice <= last
    drawn = prompt.prompt
    assert isinstance(drawn, AddBox)
    corners = (drawn.x1 * width, drawn.y1 * height, drawn.x2 * width, drawn.y2 * height)
    np.testing.assert_allclose(corners, (left, top, right + 1, bottom + 1), atol=1e-9)


@given(st.sampled_from(ORIENTATIONS), voxel)
def test_2d_requests_stay_on_the_slice_of_the_third_axis(turn, point) -> None:
    for axis in AXES:
        geometry = geometry_of(turn, axis)
        if geometry.view.order[0] != 2:
            continue
        placed = place(Parameters(foreground=(point,)), SHAPE, geometry.view, True)
        assert placed.first == placed.last == placed.prompts[0].slice
        assert geometry.view.stored_index(placed.first) == point[2]
