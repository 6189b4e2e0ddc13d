"""Folders of images: their sizes, colors and classes."""

import tracemalloc

import numpy as np
import torch
from PIL import Image

from assertions import assert_refused
from data_files import labels_of, text
from subo.data.loading import load_data, load_rows


def image(path, mode, *, size=(5, 4), seed=0):
    """Saves random pixels; the suffix must be that of a lossless format."""
    path.parent.mkdir(exist_ok=True, parents=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
    pixels = np.random.default_rng(seed).integers(256, size=shape).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_folder_of_grey_images(tmp_path):
    second, first = image(tmp_path / "b.PNG", "L", seed=1), image(tmp_path / "a.bmp", "L", seed=2)
    third = image(tmp_path / "c.png", "LA", seed=3)
    text(tmp_path / "notes.txt", "no image")
    text(tmp_path / ".hidden.png", "no image")
    rows = load_rows(tmp_path)
    assert rows.x.dtype == torch.uint8
    assert (rows.levels, rows.labels) == (255, None)
    assert np.array_equal(rows.x.numpy(), np.stack([first, second, third[..., 0]])[:, None])
    data = load_data(tmp_path)
    assert (data.kind, data.train.event_shape) == ("grey", (1, 4, 5))


def test_one_image_with_colors_gives_all_three_channels(tmp_path):
    grey, color = image(tmp_path / "a.png", "L", seed=1), image(tmp_path / "b.png", "RGB", seed=2)
    alpha = image(tmp_path / "c.png", "RGBA", seed=3)
    x = load_rows(tmp_path).x.numpy()
    assert x.shape == (3, 3, 4, 5)
    assert np.array_equal(x[0], np.stack([grey] * 3))
    assert np.array_equal(x[1], color.transpose(2, 0, 1))
    assert np.array_equal(x[2], alpha[..., :3].transpose(2, 0, 1))


def test_pixels_are_held_once(tmp_path):
    for name in "abcdefgh":
        image(tmp_path / f"{name}.png", "RGB", size=(100, 100))
    load_rows(tmp_path)  # what is imported at the first time
    tracemalloc.start()
    x = load_rows(tmp_path).x
    assert tracemalloc.get_traced_memory()[1] < 1.6 * x.nbytes  # an image or two at a time beside them
    tracemalloc.stop()


def test_palettes_with_transparency(tmp_path):
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5) % 3
    picture = Image.fromarray(pixels).convert("P")
    picture.putdata(pixels.ravel().tolist())
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert np.array_equal(load_rows(tmp_path).x[0].numpy(), 255 * (pixels == np.arange(3)[:, None, None]))


def test_black_and_white_images_are_binary(tmp_path):
    for name in "abc":
        Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / f"{name}.png")
    data = load_data(tmp_path)
    assert data.kind == "binary"
    x, _ = data.train.read(torch.tensor([0]))
    assert torch.equal(x, torch.eye(4)[None, None])


def test_subfolders_are_classes(tmp_path):
    for i, name in enumerate(("dog/b", "cat/z", "dog/a", "cat/y", "emu/c")):
        image(tmp_path / f"{name}.png", "L", seed=i)
    rows = load_rows(tmp_path)
    assert labels_of(rows).tolist() == [0, 0, 1, 1, 2]
    expected = [np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("cat/y", "cat/z", "dog/a", "dog/b", "emu/c")]
    assert np.array_equal(rows.x.numpy()[:, 0], np.stack(expected))
    assert load_data(tmp_path).class_names == ("cat", "dog", "emu")
    image(tmp_path / "top.png", "L", seed=9)
    with assert_refused("1 images (top.png) lie beside", "cat, dog, emu"):
        load_rows(tmp_path)


def test_image_folders_that_cant_be_used(tmp_path):
    with assert_refused(tmp_path, "no images found", ".png"):
        load_data(tmp_path)
    image(tmp_path / "a.png", "L")
    image(tmp_path / "b.png", "L")
    image(tmp_path / "c.png", "L", size=(6, 4))
    image(tmp_path / "d.png", "L", size=(7, 4))
    with assert_refused(f"{tmp_path / 'a.png'} is 5 x 4", f"{tmp_path / 'c.png'} is 6 x 4", "one size"):
        load_data(tmp_path)
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.full((2, 2), 1000, dtype=np.uint16)).save(deep / "a.png")
    with assert_refused(deep / "a.png", "8 bits"):
        load_data(deep)
    text(deep / "a.png", "no image")
    with assert_refused(deep / "a.png", "can't be read as an image"):
        load_data(deep)
    image(deep / "a.png", "L", size=(50, 50))
    (deep / "a.png").write_bytes((deep / "a.png").read_bytes()[:1000])
    with assert_refused(deep / "a.png", "can't be read as an image"):
        load_data(deep)


def test_images_are_turned_upright(tmp_path):
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5) * 9
    upright = {1: pixels, 3: pixels[::-1, ::-1], 6: np.rot90(pixels, -1), 8: np.rot90(pixels), 2: pixels[:, ::-1]}
    for orientation, expected in upright.items():
        folder = tmp_path / str(orientation)
        folder.mkdir()
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(folder / "a.png", exif=exif)
        assert np.array_equal(load_rows(folder).x[0, 0], expected), orientation
    Image.fromarray(np.zeros((5, 4), dtype=np.uint8)).save(tmp_path / "6" / "b.png")  # of the size it is looked at in
    assert load_rows(tmp_path / "6").x.shape == (2, 1, 5, 4)


def test_folders_of_any_depth_are_classes_by_their_path(tmp_path):
    for i, name in enumerate(("cat/a", "cat/old/b", "dog/young/c", "dog/young/d")):
        image(tmp_path / f"{name}.png", "L", seed=i)
    rows = load_rows(tmp_path)
    assert rows.names == ("cat/a.png", "cat/old/b.png", "dog/young/c.png", "dog/young/d.png")
    assert rows.class_names == ("cat", "cat/old", "dog/young")
    assert labels_of(rows).tolist() == [0, 1, 2, 2]
    (tmp_path / "dog" / "loop").symlink_to(tmp_path)  # which would never end
    (tmp_path / "dog" / ".hidden").mkdir()
    image(tmp_path / "dog" / ".hidden" / "e.png", "L")
    assert len(load_rows(tmp_path)) == 4


def test_more_formats_are_read_and_what_is_not_is_said(tmp_path):
    pixels = image(tmp_path / "a.tif", "L", seed=1)
    for name in ("b.tiff", "c.webp"):
        Image.fromarray(pixels).convert("RGB").save(tmp_path / name, lossless=True)
    Image.fromarray(pixels).save(tmp_path / "d.gif", save_all=True, append_images=[Image.fromarray(pixels[::-1])])
    for name in ("notes.txt", "e.heic", "f.heic", "README"):
        text(tmp_path / name, "no image")
    said: list[str] = []
    rows = load_rows(tmp_path, note=said.append)
    assert (rows.x[:, 0].numpy() == pixels).all()
    assert len(rows) == 4
    assert "4 files" in said[0]
    assert ".heic (2)" in said[0]
    assert said[1:] == ["only the first frame of 1 images with several frames is read: d.gif"]


def test_images_of_several_sizes_are_brought_to_one(tmp_path):
    middle = np.full((4, 12), 10, dtype=np.uint8)
    middle[:, 4:8] = 200  # all that is left of a wide image
    Image.fromarray(middle).save(tmp_path / "a.png")
    Image.fromarray(np.full((9, 6), 77, dtype=np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(np.full((3, 3), 5, dtype=np.uint8)).save(tmp_path / "c.png")
    with assert_refused("one size", "`image_size=64`"):
        load_data(tmp_path)
    said: list[str] = []
    data = load_data(tmp_path, image_size=4, note=said.append)
    assert data.train.event_shape == (1, 4, 4)
    assert said == ["images are scaled and cropped to 4 x 4, here and in later data"]
    x = load_rows(tmp_path, meaning=data.meaning).x
    assert [x[i].unique().tolist() for i in range(3)] == [[200], [77], [5]]
    with assert_refused("is not a folder of images"):
        load_data("digits", image_size=4)


def test_bombs_and_folders_that_may_not_be_read(tmp_path, monkeypatch):
    image(tmp_path / "a.png", "L", size=(50, 50))
    for pixels, facts in ((2000, "decompression bomb"), (1000, "decompression bomb")):  # refused; suspected
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
        with assert_refused(tmp_path / "a.png", facts):
            load_rows(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("subo.runtime.memory.available_bytes", lambda: 1000)
    with assert_refused(tmp_path, "memory"):
        load_rows(tmp_path)
    monkeypatch.undo()

    def forbidden(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", forbidden)
    with assert_refused(tmp_path, "Permission denied"):
        load_rows(tmp_path)
