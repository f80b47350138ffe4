"""Mask files: alpha, colour, indices; what agrees is read, what contradicts itself is refused."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from defect_corpus.images import encoded, image
from defect_corpus.parquet_defects import rows
from image_writing import chunk, exif, png, tiff
from PIL import Image

from medseg_gym.cases import Case, CaseError, load_cases
from medseg_gym.cases.check import check_cases
from medseg_gym.cases.files import index_dataset
from medseg_gym.cases.folder import FolderFormat
from medseg_gym.cases.image_files.masks import as_mask, read_labels
from medseg_gym.cases.image_files.one_image import read_case
from medseg_gym.cases.writers import convert_cases

SQUARE = np.zeros((20, 24), bool)
SQUARE[3:9, 5:17] = True
OTHER = np.zeros((20, 24), bool)
OTHER[10:18, 2:8] = True


def levels(where: np.ndarray | int, low: int = 0, high: int = 255) -> np.ndarray:
    """A channel: `high` where it is true, or one value everywhere."""
    if isinstance(where, int):
        return np.full(SQUARE.shape, where, np.uint8)
    return np.where(where, high, low).astype(np.uint8)


def with_alpha(colour: np.ndarray, alpha: np.ndarray, channels: int, depth: int = 8) -> bytes:
    """A grey (2) or colour (4) PNG with alpha."""
    stacked = np.dstack([colour] * (channels - 1) + [alpha])
    return png(stacked.astype(np.uint16) * 257 if depth == 16 else stacked, depth)


FORMS = list(itertools.product((2, 4), (8, 16)))


@pytest.mark.parametrize(("channels", "depth"), FORMS)
@pytest.mark.parametrize(
    ("colour", "alpha"),
    [
        (levels(0), levels(SQUARE)),
        (levels(255), levels(SQUARE)),
        (levels(77), levels(SQUARE, 0, 128)),
        (levels(SQUARE), levels(255)),
        (levels(SQUARE), levels(0)),
        (levels(SQUARE, 0, 1), levels(200)),
        (levels(SQUARE), levels(SQUARE)),
        (levels(SQUARE), levels(SQUARE, 0, 128)),
    ],
)
def test_the_channel_that_varies_is_the_mask(channels, depth, colour, alpha):
    labels = read_labels(with_alpha(colour, alpha, channels, depth), "m.png")
    assert np.array_equal(as_mask(labels, "m.png"), SQUARE)


@pytest.mark.parametrize(("channels", "depth"), FORMS)
def test_a_file_in_which_nothing_varies_is_as_its_colour_says(channels, depth):
    for colour, alpha, full in ((0, 255, False), (0, 0, False), (255, 255, True), (9, 255, True)):
        content = with_alpha(levels(colour), levels(alpha), channels, depth)
        assert (as_mask(read_labels(content, "m"), "m") == full).all(), (colour, alpha)
    with pytest.raises(CaseError, match=r"contradict.*mask_channel=alpha or mask_channel=colour"):
        read_labels(with_alpha(levels(255), levels(0), channels, depth), "m.png")


@pytest.mark.parametrize(("channels", "depth"), FORMS)
@pytest.mark.parametrize(
    ("colour", "alpha"),
    [
        (levels(SQUARE), levels(OTHER)),
        (levels(SQUARE), levels(~SQUARE)),
        (levels(SQUARE, 128), levels(SQUARE)),
    ],
)
def test_two_different_masks_in_one_file_are_refused_until_one_is_chosen(
    channels, depth, colour, alpha
):
    content = with_alpha(colour, alpha, channels, depth)
    with pytest.raises(CaseError, match=r"mask_channel=alpha or mask_channel=colour"):
        read_labels(content, "m.png")
    for channel, drawn in (("alpha", alpha), ("colour", colour), ("color", colour)):
        labels = read_labels(content, "m.png", channel=channel)
        assert np.array_equal(as_mask(labels, "m.png"), drawn > 0)


def test_alpha_that_is_asked_for_must_be_there():
    with pytest.raises(CaseError, match=r"no alpha channel"):
        read_labels(encoded(levels(SQUARE)), "m.png", channel="alpha")


def test_a_transparent_grey_or_colour_counts_as_alpha():
    for value, content in (
        (0, png(levels(SQUARE), 8, chunk(b"tRNS", b"\0\0"))),
        (255, png(levels(SQUARE), 8, chunk(b"tRNS", b"\0\xff"))),
        (0, png(np.dstack([levels(SQUARE)] * 3), 8, chunk(b"tRNS", bytes(6)))),
        (255, png(SQUARE.astype(np.uint8), 1, chunk(b"tRNS", b"\0\1"))),
        (0, png(SQUARE * 3, 2, chunk(b"tRNS", b"\0\0"))),
    ):
        if value:
            with pytest.raises(CaseError, match="mask_channel"):
                read_labels(content, "m.png")
        else:
            assert np.array_equal(as_mask(read_labels(content, "m"), "m"), SQUARE)


# colour tables ------------------------------------------------------------------------------------

BLACK, WHITE, RED, GREEN = b"\0\0\0", b"\xff\xff\xff", b"\xff\0\0", b"\0\xff\0"


def paletted(table: bytes, depth: int, index: np.ndarray = SQUARE, opacity: bytes = b"") -> bytes:
    """A palette PNG."""
    extras = chunk(b"PLTE", table) + (chunk(b"tRNS", opacity) if opacity else b"")
    return png(index.astype(np.uint8), depth, extras, palette=True)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("table", "opacity"),
    [
        (BLACK + WHITE, b""),
        (BLACK + RED, b""),
        (GREEN + RED, b""),
        (WHITE + RED, b""),
        (BLACK + RED, b"\0\xff"),
        (GREEN + RED, b"\0\x80"),
        (BLACK + RED, b"\x80\x80"),
        (BLACK + RED, b"\xff\x80"),
    ],
)
def test_the_indices_of_a_palette_are_a_binary_mask(depth, table, opacity):
    labels = read_labels(paletted(table, depth, opacity=opacity), "m.png")
    assert np.array_equal(as_mask(labels, "m.png"), SQUARE)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_that_shows_the_opposite_of_its_indices_is_refused(depth):
    for table in (WHITE + BLACK, RED + BLACK):
        with pytest.raises(CaseError, match="mask_channel=index or mask_channel=colour"):
            read_labels(paletted(table, depth), "m.png")
        by_index = read_labels(paletted(table, depth), "m.png", channel="index")
        by_colour = read_labels(paletted(table, depth), "m.png", channel="colour")
        assert np.array_equal(by_index > 0, SQUARE)
        assert np.array_equal(by_colour.any(axis=2), ~SQUARE)
    with pytest.raises(CaseError, match="mask_channel=index or mask_channel=alpha"):
        read_labels(paletted(GREEN + RED, depth, opacity=b"\xff\0"), "m.png")


@pytest.mark.parametrize("format", ["BMP", "GIF", "TIFF", "PNG"])
def test_an_inverted_palette_is_refused_in_every_format(format):
    drawn = Image.fromarray(SQUARE.astype(np.uint8))
    drawn.putpalette(WHITE + BLACK)
    with pytest.raises(CaseError, match="mask_channel=index"):
        read_labels(encoded(drawn, format), "m")


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_index_kinds_take_indices_and_colour_kinds_take_colours(tmp_path, depth):
    index = SQUARE.astype(np.uint8) + 2 * OTHER.astype(np.uint8)
    for number, opacity in enumerate((b"", b"\0\xff\xff", b"\xff\0")):
        content = paletted(BLACK + RED + GREEN, depth, index, opacity)
        assert np.array_equal(read_labels(content, "m", kind="index"), index)
        if number < 2:
            root = folder(tmp_path / str(number), {"masks/a.png": content})
            read = cases(root, "?kind=color&labels=ff0000:polyp,00ff00:tool")
            by_target = {case.target: case.mask for case in read}
            assert np.array_equal(by_target["polyp"], SQUARE)
            assert np.array_equal(by_target["tool"], OTHER)


def test_a_threshold_is_for_the_greys_of_a_palette(tmp_path):
    index = SQUARE.astype(np.uint8) + 2 * OTHER.astype(np.uint8)
    content = paletted(BLACK + b"\x30" * 3 + b"\xc0" * 3, 2, index)
    (case,) = cases(folder(tmp_path, {"masks/a.png": content}), "?target=x&threshold=127")
    assert np.array_equal(case.mask, OTHER)


# values -------------------------------------------------------------------------------------------


def folder(root: Path, files: dict[str, bytes]) -> Path:
    """A data set of one image and these files."""
    for name, content in {"images/a.png": encoded(image()), **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def cases(root: Path, options: str) -> list[Case]:
    """All cases of a folder."""
    data = index_dataset(FolderFormat, f"{root}{options}")
    assert not data.bad, data.bad
    return [data.case(record) for record in data.records]


@pytest.mark.parametrize("top", [1, 2, 128, 255, 257, 65535])
def test_any_two_values_are_a_binary_mask_in_every_format(tmp_path, top):
    kind = np.uint8 if top < 256 else np.uint16
    content = png(SQUARE.astype(kind) * kind(top), 8 * np.dtype(kind).itemsize)
    (case,) = cases(folder(tmp_path / "f", {"masks/a.png": content}), "?target=x")
    assert np.array_equal(case.mask, SQUARE)
    made = rows(1)
    made[0]["reward_model"]["ground_truth"]["bytes"] = content
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "train.parquet")
    (case,) = load_cases(f"parquet:{tmp_path}/train.parquet", "train")
    assert np.array_equal(case.mask, SQUARE)


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4"])
def test_masks_of_whole_numbers_of_any_size_are_read(tmp_path, kind):
    content = tiff(SQUARE.astype(kind) * 300 + OTHER.astype(kind) * 7, compression="zlib")
    root = folder(tmp_path, {"masks/a.tif": content})
    read = cases(root, "?kind=index&labels=7:tool,300:polyp")
    assert np.array_equal(read[0].mask, OTHER) and np.array_equal(read[1].mask, SQUARE)


def test_colours_of_sixteen_bits_are_those_of_eight_or_refused(tmp_path):
    drawn = np.zeros((20, 24, 3), np.uint16)
    drawn[SQUARE] = (0xFF, 0x80, 0)
    for number, factor in enumerate((1, 257)):
        root = folder(tmp_path / str(number), {"masks/a.png": png(drawn * factor)})
        (case,) = cases(root, "?kind=color&labels=ff8000:polyp")
        assert np.array_equal(case.mask, SQUARE)
    root = folder(tmp_path / "odd", {"masks/a.png": png(drawn * 256)})
    with pytest.raises(CaseError, match="more than 8 bits a channel"):
        load_cases(f"folder:{root}?kind=color&labels=ff8000:polyp", "train")


def test_a_threshold_that_nothing_reaches_is_refused(tmp_path):
    root = folder(tmp_path, {"masks/a.png": encoded(levels(SQUARE, 0, 1))})
    with pytest.raises(CaseError, match=r"0 and 1, none above threshold=127"):
        cases(root, "?target=x&threshold=127")


@pytest.mark.parametrize("top", [1, 128])
def test_a_jpeg_mask_that_is_not_white_on_black_is_refused(tmp_path, top):
    root = folder(tmp_path, {"masks/a.jpg": encoded(levels(SQUARE, 0, top), "JPEG")})
    with pytest.raises(CaseError, match=r"JPEG mask whose highest value is .*threshold="):
        cases(root, "?target=x")
    if top == 128:
        (case,) = cases(root, "?target=x&threshold=64")
        assert (case.mask == SQUARE).mean() > 0.97


def test_an_empty_jpeg_mask_is_empty(tmp_path):
    (case,) = cases(folder(tmp_path, {"masks/a.jpg": encoded(levels(0), "JPEG")}), "?target=x")
    assert not case.mask.any()


def test_masks_that_show_zero_as_white_are_as_they_are_shown():
    drawn = levels(SQUARE)
    labels = read_labels(tiff(255 - drawn, photometric="miniswhite"), "m.tif")
    assert np.array_equal(labels, drawn)
    fax = encoded(Image.fromarray(drawn).convert("1"), "TIFF")
    assert np.array_equal(read_labels(fax, "m.tif"), drawn)
    with pytest.raises(CaseError, match="WhiteIsZero"):
        read_labels(tiff(drawn.astype(np.uint16), photometric="miniswhite"), "m.tif")


# options ------------------------------------------------------------------------------------------


def biomedparse(root: Path, encoded_image: bytes, mask: bytes) -> str:
    """A data set of one case."""
    annotation = {"file_name": "x_CT_chest.png", "mask_file": "m.png"}
    document = {"annotations": [{**annotation, "sentences": [{"sent": "lung", "sent_id": 0}]}]}
    for name, content in (("train/x_CT_chest.png", encoded_image), ("train_mask/m.png", mask)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "train.json").write_text(json.dumps(document))
    return f"biomedparse:{root}?"


def parquet(root: Path, encoded_image: bytes, mask: bytes) -> str:
    """A file of one row."""
    made = rows(1)
    made[0]["images"][0]["bytes"] = encoded_image
    made[0]["reward_model"]["ground_truth"]["bytes"] = mask
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(made), root / "train.parquet")
    return f"parquet:{root}/train.parquet?"


def usual_folder(root: Path, encoded_image: bytes, mask: bytes) -> str:
    """A folder of one pair."""
    return (
        f"folder:{folder(root, {'images/a.png': encoded_image, 'masks/a.png': mask})}?target=lung&"
    )


FORMATS = [usual_folder, biomedparse, parquet]


def the_case(spec: str) -> Case:
    """The only case, whatever its split."""
    read = []
    for split in ("train", "val", "test"):
        try:
            read += list(load_cases(spec, split))
        except CaseError as error:
            if "has no case in split" not in str(error):
                raise
    (case,) = read
    return case


@pytest.mark.parametrize("make", FORMATS)
def test_every_format_windows_deep_images(tmp_path, make):
    ramp = np.linspace(0, 4095, 480).astype(np.uint16).reshape(20, 24)
    for number, deep in enumerate((ramp, np.dstack([ramp, ramp // 2, ramp * 0]))):
        spec = make(tmp_path / str(number), png(deep), encoded(levels(SQUARE)))
        with pytest.raises(CaseError, match=r"more than 8 bits.*window=LOW,HIGH"):
            the_case(spec.rstrip("?&"))
        wanted = np.round(deep / 4095 * 255)
        wanted = wanted if deep.ndim == 3 else np.repeat(wanted[:, :, None], 3, 2)
        assert np.array_equal(the_case(f"{spec}window=0,4095").image, wanted)
        assert the_case(f"{spec}window=percentiles").image.max() == 255
        for bad in ("5,1", "1", "x", "nan,1", "0,inf"):
            with pytest.raises(CaseError, match="LOW must be below HIGH"):
                the_case(f"{spec}window={bad}")


@pytest.mark.parametrize("make", FORMATS)
def test_every_format_reads_alpha_and_takes_the_choice_of_a_channel(tmp_path, make):
    shape = encoded(image())
    spec = make(tmp_path / "a", shape, with_alpha(levels(255), levels(SQUARE), 4))
    assert np.array_equal(the_case(spec.rstrip("?&")).mask, SQUARE)
    spec = make(tmp_path / "b", shape, with_alpha(levels(OTHER), levels(SQUARE), 2))
    with pytest.raises(CaseError, match="mask_channel=alpha or"):
        the_case(spec.rstrip("?&"))
    assert np.array_equal(the_case(f"{spec}mask_channel=alpha").mask, SQUARE)
    assert np.array_equal(the_case(f"{spec}mask_channel=colour").mask, OTHER)
    with pytest.raises(CaseError, match="use one of auto, alpha"):
        the_case(f"{spec}mask_channel=red")


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("turned", ["image", "mask", "both"])
def test_every_format_turns_image_and_mask_as_they_are_shown(tmp_path, make, turned):
    """Orientation 6: the first row shown is the first column stored, from below."""
    pixels = image()
    stored = {"image": np.rot90(pixels), "mask": np.rot90(levels(SQUARE))}
    plain = {"image": pixels, "mask": levels(SQUARE)}
    files = {
        name: png(stored[name], 8, late=chunk(b"eXIf", exif(6)))
        if turned in (name, "both")
        else png(plain[name], 8)
        for name in ("image", "mask")
    }
    spec = make(tmp_path, files["image"], files["mask"])
    case = the_case(spec.rstrip("?&"))
    assert np.array_equal(case.image, pixels) and np.array_equal(case.mask, SQUARE)
    if turned == "both":
        case = the_case(f"{spec}orientation=stored")
        assert np.array_equal(case.image, stored["image"])
        assert np.array_equal(case.mask, stored["mask"] > 0)
    elif make is not parquet:  # which scales images to their masks
        with pytest.raises(CaseError, match="mask is"):
            the_case(f"{spec}orientation=stored")


def test_a_mask_drawn_on_the_pixels_as_stored_has_a_way_out(tmp_path):
    content = png(image(), 8, late=chunk(b"eXIf", exif(6)))
    spec = usual_folder(tmp_path, content, encoded(levels(SQUARE)))
    with pytest.raises(CaseError, match="orientation=stored"):
        the_case(spec.rstrip("&"))
    case = the_case(f"{spec}orientation=stored")
    assert np.array_equal(case.image, image()) and np.array_equal(case.mask, SQUARE)


def test_a_single_image_is_read_like_a_data_set(tmp_path):
    files: dict[str, Any] = {
        "scan.png": png(image(), 8, late=chunk(b"eXIf", exif(8))),
        "deep.png": png(image().astype(np.uint16) * 16),
        "truth.png": with_alpha(levels(OTHER), levels(SQUARE), 4),
        "alpha.png": with_alpha(levels(0), levels(SQUARE), 4),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    shown = read_case(tmp_path / "scan.png", "x", None, "", None).image
    assert np.array_equal(shown, np.rot90(image()))
    deep, truth = tmp_path / "deep.png", tmp_path / "truth.png"
    with pytest.raises(CaseError, match="window=LOW,HIGH"):
        read_case(deep, "x", None, "", None)
    with pytest.raises(CaseError, match="mask_channel=alpha"):
        read_case(deep, "x", truth, "", "0,4080")
    case = read_case(deep, "x", truth, "", "0,4080", mask_channel="alpha")
    assert np.array_equal(case.image, image()) and np.array_equal(case.mask, SQUARE)
    case = read_case(tmp_path / "scan.png", "x", tmp_path / "alpha.png", "", None, "auto", "stored")
    assert np.array_equal(case.image, image()) and np.array_equal(case.mask, SQUARE)
    for wrong in ({"mask_channel": "red"}, {"orientation": "up"}):
        with pytest.raises(CaseError, match="use"):
            read_case(deep, "x", None, "", "0,4080", **wrong)


# what is left out ---------------------------------------------------------------------------------


def test_masks_that_give_no_case_are_counted(tmp_path):
    files = {f"masks/{name}.png": encoded(levels(0)) for name in "abc"}
    files |= {f"images/{name}.png": encoded(image()) for name in "bcd"}
    files |= {"masks/d.png": encoded(levels(SQUARE, 255, 1))}
    root = folder(tmp_path, files)
    spec = f"folder:{root}?kind=index&labels=1:polyp,255:-"
    report = check_cases(spec)
    assert len(report.seen) == 1 and not report.bad
    notes = [str(note) for note in report.notes]
    assert any("no value but 0" in note and "3 masks" in note for note in notes)
    assert any("labels=255:-" in note and "masks" in note for note in notes)
    (root / "masks/d.png").write_bytes(encoded(levels(0)))
    with pytest.raises(CaseError, match=r"no case.*no value but 0.*4 masks"):
        load_cases(spec, "train")


def test_the_pixels_of_a_written_copy_are_those_of_the_original(tmp_path):
    deep = np.linspace(0, 4095, 480 * 3).astype(np.uint16).reshape(20, 24, 3)
    mask = with_alpha(levels(0), levels(SQUARE), 4)
    spec = usual_folder(tmp_path / "in", png(deep, late=chunk(b"eXIf", exif(3))), mask)
    original = the_case(f"{spec}window=0,4095")
    for to in ("biomedparse", "parquet"):
        convert_cases(f"{spec}window=0,4095", to, tmp_path / to)
        copy = the_case(f"{to}:{tmp_path / to}")
        assert np.array_equal(copy.image, original.image)
        assert np.array_equal(copy.mask, original.mask)
    assert np.array_equal(original.mask, SQUARE)


def test_a_photograph_cut_out_by_its_alpha_is_not_taken_for_a_mask():
    buffer = io.BytesIO()
    rgba = np.dstack([image(), levels(SQUARE)])
    Image.fromarray(rgba).save(buffer, "PNG")
    with pytest.raises(CaseError, match="mask_channel=alpha"):
        read_labels(buffer.getvalue(), "m.png")
