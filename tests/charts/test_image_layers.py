from __future__ import annotations

import pytest

from labkit.charts import theme
from labkit.charts.frames import Frames
from labkit.charts.image_layers import ImagesChart, boxes_of, draw, finding
from labkit.measure.images import ImageLayer, Images, ImageStack


def stack(name: str, layers: str) -> ImageStack:
    return ImageStack(name, "sha256:x", tuple(ImageLayer(f"sha256:{n}", 1 << 20, f"RUN {n}") for n in layers))


IMAGES = Images((stack("base", "a"), stack("left", "ab"), stack("right", "abc"), stack("other", "dc")))


def test_neighbours_that_begin_alike_share_a_wide_box() -> None:
    boxes = {(box.row, box.column): (box.width, box.layer.digest, box.shared) for box in boxes_of(IMAGES)}
    assert boxes == {
        (0, 0): (3, "sha256:a", True),
        (0, 3): (1, "sha256:d", False),
        (1, 1): (2, "sha256:b", True),
        (1, 3): (1, "sha256:c", True),
        (2, 2): (1, "sha256:c", True),
    }


@pytest.mark.parametrize(
    ("images", "title"),
    [
        (IMAGES, "4 images of 8 MiB in all take 4 MiB: shared layers are stored once"),
        (Images((stack("a", "a"), stack("b", "b"))), "2 images share nothing and take 2 MiB"),
    ],
)
def test_the_title_states_the_finding(images: Images, title: str) -> None:
    assert finding(images) == title


def test_every_layer_is_written_with_its_size_and_colour_is_not_the_only_sign() -> None:
    _, [axes] = theme.figure()
    draw(axes, IMAGES)
    words = [text.get_text() for text in axes.texts]
    assert {"base\n1 MiB", "left\n2 MiB", "right\n3 MiB"} <= set(words)
    assert sum("1 MiB" in word and "RUN" in word for word in words) == 5
    assert {patch.get_linestyle() for patch in axes.patches} == {"-", "--"}


def test_the_live_picture_changes_when_the_images_do() -> None:
    frames = Frames(ImagesChart(), width_in=6, height_in=3)
    first = frames.png(IMAGES)
    assert frames.png(IMAGES) == first
    assert frames.wholes_drawn == 1
