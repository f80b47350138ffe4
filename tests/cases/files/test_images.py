"""Images of every depth, layout and orientation, against the arrays that they were made of."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
import SimpleITK
from defect_corpus.images import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from image_writing import chunk, exif, png, tiff
from openjpeg.utils import encode_array
from PIL import Image

from medseg_gym.cases import CaseError
from medseg_gym.cases.image_files.images import read_image
from medseg_gym.cases.image_files.raster_files import read_image_size, read_raster
from medseg_gym.cases.volumes import Window, parse_window

WIDE = parse_window("0,4095", "")
FLIPS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientations as Pillow's transpositions


def noise(channels: int, kind: str = "u2", seed: int = 0) -> np.ndarray:
    """(21, 30) or (21, 30, channels) of nearly all the values of a type."""
    rng = np.random.default_rng(seed)
    shape = (21, 30) if channels == 1 else (21, 30, channels)
    if kind[0] == "f":
        return (rng.random(shape) * 1000 - 300).astype(kind)
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, kind, endpoint=True)


def parted(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and alpha of 1 to 4 channels."""
    count = 1 if pixels.ndim == 2 else pixels.shape[2]
    if count in (1, 3):
        return pixels, None
    return (pixels[:, :, 0] if count == 2 else pixels[:, :, :3]), pixels[:, :, -1]


def shown(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values through a window, (H, W, 3)."""
    scaled = np.clip((values.astype(float) - low) / (high - low), 0, 1)
    bytes_ = np.round(scaled * 255).astype(np.uint8)
    return bytes_ if bytes_.ndim == 3 else np.repeat(bytes_[:, :, None], 3, axis=2)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, 3) uint8 as Pillow turns it."""
    image = Image.fromarray(pixels)
    if orientation in FLIPS:
        image = image.transpose(Image.Transpose(FLIPS[orientation]))
    return np.asarray(image)


# depth --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_all_its_sixteen_bits(channels):
    drawn = noise(channels)
    values, alpha = parted(drawn)
    raster = read_raster(png(drawn), "a.png")
    assert raster.deep and np.array_equal(raster.values, values)
    assert (raster.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(raster.alpha, alpha)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4", "f4", "f8"])
def test_tiff_keeps_its_samples(kind, order, planar):
    for channels in (1, 2, 3, 4):
        drawn = noise(channels, kind)
        values, alpha = parted(drawn)
        options: dict[str, Any] = {"byteorder": order}
        if channels > 1:
            options |= {"planarconfig": planar}
        if channels > 2:
            options |= {"photometric": "rgb"}
        if alpha is not None:
            options |= {"extrasamples": ["unassalpha"]}
        stored = drawn if channels == 1 or planar == "contig" else np.moveaxis(drawn, -1, 0).copy()
        for packing in ({}, {"compression": "zlib"}, {"tile": (16, 16)}):
            raster = read_raster(tiff(stored, **options, **packing), "a.tif")
            assert np.array_equal(raster.values, values), (channels, packing)
            assert alpha is None or np.array_equal(raster.alpha, alpha), (channels, packing)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_tiff_of_other_compressions_is_right_or_refused_with_a_way_out(tmp_path, channels, kind):
    drawn = noise(channels, kind)
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.tif"))
    writer.SetUseCompression(True)
    writer.SetCompressor("LZW")
    writer.Execute(SimpleITK.GetImageFromArray(drawn, isVector=channels > 1))
    if channels > 1 and kind == "i2":
        with pytest.raises(CaseError, match=r"LZW.*write it with deflate"):
            read_raster(tmp_path / "a.tif", "a.tif")
    else:
        assert np.array_equal(read_raster(tmp_path / "a.tif", "a.tif").values, drawn)


def test_big_tiff_and_separate_planes_of_bytes_are_read():
    drawn = noise(3, "u1")
    planes = np.moveaxis(drawn, -1, 0).copy()
    for content in (
        tiff(drawn, photometric="rgb", bigtiff=True),
        tiff(planes, photometric="rgb", planarconfig="separate", bigtiff=True),
    ):
        assert read_image_size(content, "a.tif") == (21, 30)
        assert np.array_equal(read_image(content, "a.tif"), drawn)


@pytest.mark.parametrize("maximum", [256, 1000, 4095, 65535])
def test_pnm_keeps_the_values_that_it_says(maximum):
    grey, colour = (noise(channels).astype(int) % (maximum + 1) for channels in (1, 3))
    head = b" # a comment\n30 21\n%d\n" % maximum
    binary = {
        b"P5": (grey, grey.astype(">u2").tobytes()),
        b"P6": (colour, colour.astype(">u2").tobytes()),
        b"P2": (grey, b" ".join(b"%d" % value for value in grey.ravel())),
    }
    for magic, (values, body) in binary.items():
        assert np.array_equal(read_raster(magic + head + body, "a.pnm").values, values)
    with pytest.raises(CaseError, match="truncated"):
        read_raster(b"P5" + head + binary[b"P5"][1][:-1], "a.pgm")
    with pytest.raises(CaseError, match="as text"):
        read_raster(b"P3" + head + b"1 " * 21 * 30 * 3, "a.ppm")


def test_pnm_of_bytes_is_an_image():
    drawn = noise(3, "u1")
    assert np.array_equal(read_image(b"P6 30 21 255\n" + drawn.tobytes(), "a.ppm"), drawn)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_keeps_its_samples(channels, bits):
    """Pillow stretches 12 bits of grey to 16, and cuts colour to 8."""
    rng = np.random.default_rng(bits)
    shape = (128, 160) if channels == 1 else (128, 160, 3)
    drawn = rng.integers(0, 2**bits, shape, np.uint8 if bits == 8 else np.uint16)
    for codec_format in (0, 1):  # a codestream, JP2
        content = encode_array(
            drawn,
            bits_stored=bits,
            photometric_interpretation=2 if channels == 1 else 1,
            codec_format=codec_format,
        )
        assert np.array_equal(read_raster(bytes(content), "a.jp2").values, drawn)
    with pytest.raises(CaseError, match=r"a\.jp2"):
        read_image(bytes(content)[:300], "a.jp2", window=WIDE)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_is_applied_to_each_channel(channels):
    drawn = noise(channels) % 5000
    want = shown(drawn, 0, 4095)
    contents = (
        png(drawn),
        tiff(drawn, **({"photometric": "rgb"} if channels == 3 else {})),
        tiff(drawn.astype("f4"), **({"photometric": "rgb"} if channels == 3 else {})),
    )
    for content in contents:
        assert np.array_equal(read_image(content, "a", window=WIDE), want)
        with pytest.raises(CaseError, match=r"more than 8 bits.*to 4[0-9]+.*window=LOW,HIGH"):
            read_image(content, "a")


def test_opaque_alpha_of_sixteen_bits_is_dropped_and_any_other_refused():
    drawn = noise(4)
    drawn[:, :, 3] = 65535
    assert np.array_equal(read_image(png(drawn), "a", window=WIDE), shown(drawn[:, :, :3], 0, 4095))
    drawn[0, 0, 3] = 65534  # Pillow's byte would be 255
    with pytest.raises(CaseError, match="transparent"):
        read_image(png(drawn), "a", window=WIDE)
    key = chunk(b"tRNS", drawn[3, 3, :3].astype(">u2").tobytes())
    with pytest.raises(CaseError, match="transparent"):
        read_image(png(drawn[:, :, :3], extras=key), "a", window=WIDE)


def test_bytes_in_sixteen_bits_need_a_window_as_well_and_the_values_are_told():
    with pytest.raises(CaseError, match=r"from 0 to 255.*window=LOW,HIGH"):
        read_image(png(noise(1, "u1").astype(np.uint16)), "a")


def test_percentiles_are_those_of_the_image():
    drawn = noise(1) % 1000
    drawn[0] = 0
    low, high = np.percentile(drawn[drawn != 0], [0.5, 99.5])
    image = read_image(png(drawn), "a", window=Window("percentiles"))
    assert np.array_equal(image, shown(drawn, low, high))
    flat = read_image(png(np.full((4, 4), 7, np.uint16)), "a", window=Window("percentiles"))
    assert (flat == 0).all()


def test_files_that_show_zero_as_white_are_shown_so():
    drawn = noise(1) % 4096
    bytes_ = noise(1, "u1")
    image = read_image(tiff(drawn, photometric="miniswhite"), "a", window=WIDE)
    assert np.array_equal(image, 255 - shown(drawn, 0, 4095))
    image = read_image(tiff(bytes_, photometric="miniswhite"), "a")
    assert np.array_equal(image[:, :, 0], 255 - bytes_)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tiff(np.zeros((2, 9, 9), np.uint16), photometric="minisblack"), "several frames"),
        (lambda: tiff(noise(4, "u2"), photometric="separated"), "SEPARATED|CMYK"),
        (lambda: tiff(noise(1).repeat(5).reshape(21, 30, 5), planarconfig="contig"), "5 channels"),
        (lambda: tiff(np.full((9, 9), np.nan, np.float32)), "NaN or infinite"),
        (lambda: png(noise(3))[:200], "[Tt]runcated|broken|not enough"),
        (lambda: tiff(noise(3), photometric="rgb")[:-100], "[Tt]runcated|not enough|buffer"),
    ],
)
def test_what_is_no_image_of_a_case_is_refused_by_name(make, words):
    with pytest.raises(CaseError, match=f"a.tif: .*({words})"):
        read_image(make(), "a.tif", window=WIDE)


def test_a_tiff_that_unpacks_to_more_than_it_says_is_refused():
    planes = np.zeros((3, 400, 400), np.uint16)
    bomb = zlib.compress(bytes(50_000_000))
    content = tiff(planes, photometric="rgb", planarconfig="separate", compression="zlib")
    with Image.open(io.BytesIO(content)) as file:
        offsets, counts = file.tag_v2[273], file.tag_v2[279]
    assert len(bomb) < 100_000 and len(offsets) == len(counts)
    at = content.index(np.asarray(offsets, "<u4").tobytes())
    moved = np.asarray([len(content), *offsets[1:]], "<u4").tobytes()
    packed = content[:at] + moved + content[at + len(moved) :]
    where = packed.index(np.asarray(counts, "<u4").tobytes())
    sized = np.asarray([len(bomb), *counts[1:]], "<u4").tobytes()
    packed = packed[:where] + sized + packed[where + len(sized) :]
    with pytest.raises(CaseError, match="unpacks to more"):
        read_image(packed + bomb, "a.tif", window=WIDE)


# orientation --------------------------------------------------------------------------------------


def files_turned(pixels: np.ndarray, orientation: int) -> dict[str, bytes]:
    """Every way to store an image losslessly and say how it is turned."""
    tag = {"extratags": [(274, "H", 1, orientation, True)]}
    planes = np.moveaxis(pixels, -1, 0).copy()
    known = Image.Exif()
    known[0x0112] = orientation
    early = chunk(b"eXIf", exif(orientation))
    return {
        "png": encoded_with(pixels, "PNG", exif=known),
        "png-early": png(pixels, 8, extras=early),
        "png-late": png(pixels, 8, late=early),
        "webp": encoded_with(pixels, "WEBP", lossless=True, exif=known),
        "tiff": tiff(pixels, photometric="rgb", **tag),
        "tiff-packed": tiff(pixels, photometric="rgb", compression="zlib", **tag),
        "tiff-planes": tiff(planes, photometric="rgb", planarconfig="separate", **tag),
        "tiff-big": tiff(pixels, photometric="rgb", bigtiff=True, **tag),
    }


def encoded_with(pixels: np.ndarray, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_they_are_shown(orientation):
    drawn = noise(3, "u1")
    for name, content in files_turned(drawn, orientation).items():
        assert np.array_equal(read_image(content, name), turned(drawn, orientation)), name
        assert np.array_equal(read_image(content, name, stored=True), drawn), name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned_as_they_are_shown(orientation):
    drawn = noise(3, "u1")
    deep = drawn.astype(np.uint16) * 257
    tag = {"photometric": "rgb", "extratags": [(274, "H", 1, orientation, True)]}
    planes = np.moveaxis(deep, -1, 0).copy()
    late = chunk(b"eXIf", exif(orientation))
    window = parse_window("0,65535", "")
    for content in (
        png(deep, late=late),
        tiff(deep, **tag),
        tiff(deep, compression="zlib", **tag),
        tiff(planes, planarconfig="separate", **tag),
    ):
        image = read_image(content, "a", window=window)
        assert np.array_equal(image, turned(drawn, orientation))
        assert np.array_equal(read_image(content, "a", window=window, stored=True), drawn)
    grey = np.dstack([deep[:, :, 0], np.full(deep.shape[:2], 65535)])
    image = read_image(png(grey, late=late), "a", window=window)
    assert np.array_equal(image[:, :, 0], turned(drawn, orientation)[:, :, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_turned_as_they_are_shown(orientation):
    drawn = np.zeros((20, 33, 3), np.uint8)
    drawn[:6, :10] = 255
    known = Image.Exif()
    known[0x0112] = orientation
    image = read_image(encoded_with(drawn, "JPEG", quality=95, exif=known), "a.jpg")
    assert np.abs(image.astype(int) - turned(drawn, orientation)).max() < 60


@pytest.mark.filterwarnings("ignore")  # libtiff and Pillow may complain of the value
@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_values_that_mean_nothing_turn_nothing(orientation):
    drawn = noise(3, "u1")
    for name, content in files_turned(drawn, orientation).items():
        assert np.array_equal(read_image(content, name), drawn), name


def test_damaged_exif_takes_no_pixel_away():
    drawn = noise(3, "u1")
    for spoilt in (b"", b"II*\0", b"nonsense", exif(6)[:12]):
        content = png(drawn, 8, extras=chunk(b"eXIf", spoilt))
        assert np.array_equal(read_image(content, "a"), drawn)


# colour tables ------------------------------------------------------------------------------------


@given(depth=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_palettes_of_any_depth_are_resolved_and_unused_transparency_is_harmless(depth, seed):
    rng = np.random.default_rng(seed)
    used = 2**depth - 1 if depth > 1 else 2
    index = rng.integers(0, used, (13, 17))
    table = rng.integers(0, 256, (2**depth, 3), np.uint8)
    parts = chunk(b"PLTE", table.tobytes())
    assert np.array_equal(read_image(png(index, depth, parts, palette=True), "a"), table[index])
    if depth > 1:
        unused = parts + chunk(b"tRNS", b"\xff" * used + b"\0")
        content = png(index, depth, unused, palette=True)
        assert np.array_equal(read_image(content, "a"), table[index])
    used_entry = parts + chunk(b"tRNS", b"\xfe")
    index[0, 0] = 0
    with pytest.raises(CaseError, match="transparent"):
        read_image(png(index, depth, used_entry, palette=True), "a")


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_other_colours_become_rgb(mode):
    image = Image.new(mode, (9, 9), (100, 3, 4, 5)[: len(mode)])
    decoded = read_image(encoded(image, "TIFF"), "a.tif")
    assert np.array_equal(decoded, np.asarray(image.convert("RGB")))
