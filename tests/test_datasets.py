"""The embedded data sets: their factors are true, their splits are apart, and their bytes are the same every time."""

import colorsys
from collections import Counter
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from bench import photos, shapes
from bench.concepts import Concepts
from bench.datasets import Dataset, DatasetFactory, Digits, InMemory, Photos, Shapes, Split, fingerprint_of, labels_of

SMALL = (
    Shapes(n_train=300, n_test=260),
    Photos(n_train=320, n_test=160),
    Digits(n_train=1200),
    Concepts(n_concepts=20, n_train=300, n_test=260),
)
FACTORIES = pytest.mark.parametrize("factory", SMALL, ids=lambda factory: type(factory).__name__)


def pixels(split: Split) -> Tensor:
    return split.images(slice(None))


@pytest.fixture(scope="module")
def drawn() -> Dataset:
    return Shapes(n_train=2000, n_test=1000).load()


@FACTORIES
def test_every_set_keeps_the_contract(factory: DatasetFactory) -> None:
    dataset = factory.load()
    for split in (dataset.train, dataset.test):
        assert isinstance(split, Split)
        assert pixels(split).shape == (len(split), 3, 32, 32)
        assert pixels(split).dtype == torch.uint8
        assert labels_of(split).shape == (len(split),)
        assert set(labels_of(split).tolist()) == set(range(len(dataset.classes)))
        rows = torch.tensor([5, 0, 7])
        assert torch.equal(split.images(rows), pixels(split)[[5, 0, 7]])
        assert torch.equal(split.images(slice(2, 5)), pixels(split)[2:5])
    assert len(dataset.classes) == len(set(dataset.classes))


@FACTORIES
def test_the_same_options_give_the_same_bytes_and_another_seed_gives_others(
    factory: Shapes | Photos | Digits | Concepts,
) -> None:
    first, again, other = factory.load(), factory.load(), replace(factory, seed=1).load()
    for ours, theirs in ((first.train, again.train), (first.test, again.test)):
        assert torch.equal(pixels(ours), pixels(theirs))
        assert torch.equal(labels_of(ours), labels_of(theirs))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    assert not torch.equal(pixels(first.train), pixels(other.train))


@FACTORIES
def test_no_image_is_in_both_splits(factory: DatasetFactory) -> None:
    dataset = factory.load()
    train = {image.numpy().tobytes() for image in pixels(dataset.train)}
    assert not any(image.numpy().tobytes() in train for image in pixels(dataset.test))


def test_fingerprint_sees_a_pixel_a_label_a_factor_and_the_split() -> None:
    images, labels = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.arange(4)
    split = InMemory(images, labels, {"hue": labels})
    changed = images.clone()
    changed[3, 2, 1, 1] = 1
    variants = [
        fingerprint_of(split, split),
        fingerprint_of(split, InMemory(changed, labels, {"hue": labels})),
        fingerprint_of(InMemory(changed, labels, {"hue": labels}), split),
        fingerprint_of(split, InMemory(images, labels.flip(0), {"hue": labels})),
        fingerprint_of(split, InMemory(images, labels, {"hue": labels.flip(0)})),
        fingerprint_of(split, InMemory(images, labels, {"tint": labels})),
        fingerprint_of(split, InMemory(images, labels)),
        fingerprint_of(split, InMemory(images, labels, {"hue": labels}, torch.zeros(4, 1, 2, dtype=torch.bool))),
        fingerprint_of(split, InMemory(images, labels, {"hue": labels}, torch.ones(4, 1, 2, dtype=torch.bool))),
    ]
    assert len(set(variants)) == len(variants)


def test_class_is_shape_times_eight_plus_colour(drawn: Dataset) -> None:
    for split in (drawn.train, drawn.test):
        factors = split.factors
        assert torch.equal(labels_of(split), factors["shape"] * 8 + factors["colour"])
        for name, n in (("shape", 6), ("colour", 8), ("texture", 6)):
            assert set(factors[name].tolist()) == set(range(n))
    assert drawn.classes[0 * 8 + 0] == "red circle"
    assert drawn.classes[5 * 8 + 7] == "pink star"


def test_factors_are_drawn_independently(drawn: Dataset) -> None:
    """Chi-square of each pair of factors; its mean is the degrees of freedom, its variance twice that."""
    factors = drawn.train.factors
    for one, other in (("shape", "colour"), ("shape", "texture"), ("colour", "texture")):
        counts = np.zeros((int(factors[one].max()) + 1, int(factors[other].max()) + 1))
        np.add.at(counts, (factors[one].numpy(), factors[other].numpy()), 1)
        expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
        freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
        assert ((counts - expected) ** 2 / expected).sum() < freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    ("colour", "degrees"), [("red", 0), ("yellow", 52), ("green", 125), ("blue", 229), ("purple", 275)]
)
def test_the_most_saturated_pixels_have_the_hue_of_the_colour_factor(
    drawn: Dataset, colour: str, degrees: float
) -> None:
    chosen = drawn.test.factors["colour"] == shapes.COLOURS.index(colour)
    hues = []
    for image in pixels(drawn.test)[chosen].float() / 255:
        chroma = functional.avg_pool2d(image[None], 2)[0].flatten(1).T
        vivid = chroma[(chroma.max(1).values - chroma.min(1).values).argsort()[-4:]].mean(0)
        hues.append(360 * colorsys.rgb_to_hsv(*vivid.tolist())[0])
    off = np.abs((np.array(hues) - degrees + 180) % 360 - 180)
    assert len(hues) > 80
    assert np.median(off) < 20


def test_a_red_circle_is_red_and_round() -> None:
    """Drawn again without the renderer: a disc of the image's own redness fits better than its bounding box does."""
    image = Shapes(n_train=2000, n_test=1).load().train
    red_circles = image.images(torch.nonzero(labels_of(image) == 0)[:, 0]).float()
    redness = red_circles[:, 0] - red_circles[:, 1:].max(dim=1).values
    mask = redness > 0.5 * redness.flatten(1).quantile(0.97, dim=1)[:, None, None]
    area = mask.sum((1, 2)).float()
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    cx, cy = ((mask * axis).sum((1, 2)) / area for axis in (x, y))
    spread = (mask * ((x - cx[:, None, None]) ** 2 + (y - cy[:, None, None]) ** 2)).sum((1, 2)) / area
    # A disc of area A has a mean squared radius of A / 2 pi; a square's is A / 6, a ring's and a cross's far more.
    assert len(red_circles) > 20
    assert (spread * 2 * torch.pi / area).median() == pytest.approx(1.0, abs=0.04)


def test_shapes_are_told_apart_by_their_outlines() -> None:
    """Share of the circumscribed disc that each shape covers, against its area computed by hand."""
    for name, expected in (("_circle", 0.81), ("_square", 4 * 0.78**2 / np.pi), ("_ring", 0.96**2 - 0.48**2)):
        y, x = torch.meshgrid(*[(torch.arange(400) - 199.5) / 200] * 2, indexing="ij")
        inside = getattr(shapes, name)(x[None], y[None], torch.ones(1, 1, 1)) < 0
        assert inside.float().mean() * 4 / np.pi == pytest.approx(expected, abs=0.01), name


def test_a_longer_stream_begins_with_the_shorter_one() -> None:
    short, long = shapes.render(310, seed=3, stream=0), shapes.render(777, seed=3, stream=0)
    assert torch.equal(short.images, long.images[:310])
    assert torch.equal(short.texture, long.texture[:310])


def test_photo_cells_never_overlap_and_lie_inside() -> None:
    train, test = Photos().cells()
    assert (len(train), len(test)) == (8000, 4000)
    painted = [np.zeros(photos.read(photograph).shape[:2], np.int64) for photograph in photos.PHOTOGRAPHS]
    for cell in (*train, *test):
        patch = painted[cell.photograph][cell.top : cell.top + cell.side, cell.left : cell.left + cell.side]
        assert patch.shape == (cell.side, cell.side)
        patch += 1
    assert max(int(paint.max()) for paint in painted) == 1


def test_a_tile_shows_its_cell_and_nothing_else() -> None:
    """Cut again with Pillow, which knows nothing of our grid; its bilinear rounding may differ by one level."""
    factory = Photos(n_train=6000, n_test=160)
    dataset, (train, test) = factory.load(), factory.cells()
    for split, cells in ((dataset.train, train), (dataset.test, test)):
        for row in range(0, len(cells), 37):
            photograph = photos.PHOTOGRAPHS[cells[row].photograph]
            _, top, left, side = cells[row]
            with Image.open(str(files(photograph.package) / photograph.file)) as picture:
                box = picture.convert("RGB").crop((left, top, left + side, top + side))
            expected = np.asarray(box.resize((32, 32), Image.Resampling.BILINEAR), np.int64)
            difference = split.images(slice(row, row + 1))[0].permute(1, 2, 0).numpy() - expected
            assert np.abs(difference).max() <= 1, (photograph.name, cells[row])
            assert dataset.classes[int(labels_of(split)[row])] == photograph.name


def test_photo_classes_are_balanced() -> None:
    dataset = Photos(n_train=330, n_test=165).load()
    for split in (dataset.train, dataset.test):
        counts = Counter(labels_of(split).tolist()).values()
        assert max(counts) - min(counts) <= 1


def test_photographs_state_their_terms_and_are_read_from_the_wheels() -> None:
    assert all(photograph.licence for photograph in photos.PHOTOGRAPHS)
    assert all((files(photograph.package) / photograph.file).is_file() for photograph in photos.PHOTOGRAPHS)


def test_digits_are_the_originals_when_shrunk_again() -> None:
    """The mean of each 4x4 block differs from the 8x8 original only by what bilinear enlarging blurs."""
    from sklearn.datasets import load_digits

    dataset = Digits().load()
    images = torch.cat([pixels(dataset.train), pixels(dataset.test)]).float()
    assert torch.equal(images[:, 0], images[:, 2])
    assert (len(dataset.train), len(dataset.test)) == (1200, 597)
    centres = images[:, 0].unfold(1, 4, 4).unfold(2, 4, 4)[..., 1:3, 1:3].mean((-1, -2)) * 16 / 255
    labels = torch.cat([labels_of(dataset.train), labels_of(dataset.test)])
    originals = load_digits()
    for digit in range(10):
        ours = centres[labels == digit].mean(0)
        theirs = torch.from_numpy(originals.images[originals.target == digit].mean(0)).float()
        assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((Shapes, {"n_train": 0}), "n_train: received 0; expected at least 1; give n_train a larger value"),
        ((Shapes, {"n_test": -3}), "n_test: received -3; expected at least 1"),
        ((Shapes, {"seed": -1}), "seed: received -1; expected at least 0"),
        ((Photos, {"n_train": 0}), "n_train: received 0"),
        ((Digits, {"n_train": 0}), "n_train: received 0"),
        ((Digits, {"n_train": 1797}), "n_train: received 1797; expected at most 1796 .* lower n_train"),
    ],
)
def test_bad_options_say_what_was_expected(options: tuple[type, dict[str, int]], message: str) -> None:
    factory, arguments = options
    with pytest.raises(ValueError, match=message):
        factory(**arguments)


def test_too_many_tiles_say_which_photograph_is_too_small() -> None:
    with pytest.raises(ValueError, match=r"n_train, n_test: received .* 1875 tiles .* at most 1776, .* coins .* lower"):
        Photos(n_train=20_000, n_test=10_000).load()
