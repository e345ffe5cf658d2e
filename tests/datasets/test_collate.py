"""Batches of images that differ in size: padded, or one batch per size."""

import pytest
import torch

from vitrail.datasets.collate import collate, collate_by_size, group_by_size
from vitrail.datasets.dataset import Batch, Sample, Unreadable

SIZES = [(4, 6), (5, 3), (4, 6), (5, 6), (5, 3), (1, 1)]


def samples(sizes=SIZES, with_masks=False):
    """Random images of different sizes, with the mask of their positive values if requested."""
    result = []
    for i, (height, width) in enumerate(sizes):
        image = torch.randn(3, height, width, generator=torch.Generator().manual_seed(i))
        result.append(Sample(image, 10 * i, f"{i}.png", image[0] > 0 if with_masks else None))
    return result


@pytest.mark.parametrize("with_masks", [False, True])
def test_smaller_images_are_padded_at_the_bottom_and_on_the_right(with_masks):
    read = samples(with_masks=with_masks)
    batch = collate([*read[:2], Unreadable("bad.png", "damaged"), *read[2:]])
    assert batch.images.shape == (6, 3, 5, 6)
    assert batch.padding.shape == (6, 5, 6)
    assert batch.padding.dtype == torch.bool
    assert (batch.ground_truth is not None) == with_masks
    for i, (sample, (height, width)) in enumerate(zip(read, SIZES, strict=True)):
        inside = torch.zeros(5, 6, dtype=torch.bool)
        inside[:height, :width] = True
        assert torch.equal(batch.padding[i], ~inside)
        assert torch.equal(batch.images[i, :, :height, :width], sample.image)
        assert (batch.images[i, :, ~inside] == 0).all()
        if with_masks:
            assert torch.equal(batch.ground_truth[i, :height, :width], sample.ground_truth)
            assert not batch.ground_truth[i, ~inside].any()
    assert batch.labels.tolist() == [0, 10, 20, 30, 40, 50]
    assert batch.paths == [f"{i}.png" for i in range(6)]
    assert batch.unreadable == [Unreadable("bad.png", "damaged")]


def test_images_of_the_same_size_have_no_padding():
    batch = collate(samples([(4, 6)] * 3, with_masks=True))
    assert batch.padding is None
    assert (batch.images.shape, batch.ground_truth.shape) == ((3, 3, 4, 6), (3, 4, 6))
    assert collate([Unreadable("bad.png", "damaged")]).padding is None


@pytest.mark.parametrize("with_masks", [False, True])
def test_collate_by_size_makes_a_batch_per_size(with_masks):
    read, bad = samples(with_masks=with_masks), Unreadable("bad.png", "damaged")
    parts = collate_by_size([bad, *read])
    assert [part.paths for part in parts] == [["0.png", "2.png"], ["1.png", "4.png"], ["3.png"], ["5.png"]]
    assert [part.labels.tolist() for part in parts] == [[0, 20], [10, 40], [30], [50]]
    assert [part.unreadable for part in parts] == [[bad], [], [], []]
    for part in parts:
        assert isinstance(part, Batch)
        assert part.padding is None
        members = [read[int(path[0])] for path in part.paths]
        assert torch.equal(part.images, torch.stack([sample.image for sample in members]))
        assert (part.ground_truth is not None) == with_masks
        assert not with_masks or torch.equal(part.ground_truth, torch.stack([sample.ground_truth for sample in members]))


def test_collate_by_size_makes_one_batch_per_size():
    (part,) = collate_by_size(samples([(4, 6)] * 3))
    assert part.images.shape == (3, 3, 4, 6)
    assert part.padding is None


def test_unreadable_samples_alone_make_an_empty_batch():
    bad = [Unreadable("a.png", "damaged"), Unreadable("b.png", "empty")]
    (part,) = collate_by_size(bad)
    assert part.unreadable == bad
    assert len(part.images) == len(part.paths) == 0


def test_collate_by_size_never_pads(monkeypatch):
    """Temporary padding would cost the memory of the largest image for every image."""
    monkeypatch.setattr(torch.nn.functional, "pad", None)
    assert len(collate_by_size(samples())) == 4


def test_group_by_size():
    assert group_by_size(["b", "a", "b", "c", "a"]) == [[0, 2], [1, 4], [3]]
    assert group_by_size([]) == []
