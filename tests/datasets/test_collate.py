"""Images that differ in size: padded to one batch, or in a batch per size."""

import pytest
import torch

from vitrail.datasets.collate import collate_by_size, group_by_size
from vitrail.datasets.dataset import Batch, Sample, Unreadable, collate

SIZES = [(4, 6), (5, 3), (4, 6), (5, 6), (5, 3), (1, 1)]


def samples(sizes=SIZES, answers=False):
    """Images of differing sizes; each is filled by its number, and by zeros where its answer is false."""
    made = []
    for i, (height, width) in enumerate(sizes):
        image = torch.randn(3, height, width, generator=torch.Generator().manual_seed(i))
        made.append(Sample(image, 10 * i, f"{i}.png", image[0] > 0 if answers else None))
    return made


@pytest.mark.parametrize("answers", [False, True])
def test_smaller_images_are_padded_at_the_bottom_and_on_the_right(answers):
    read = samples(answers=answers)
    batch = collate([*read[:2], Unreadable("bad.png", "damaged"), *read[2:]])
    assert batch.images.shape == (6, 3, 5, 6)
    assert batch.padding.shape == (6, 5, 6)
    assert batch.padding.dtype == torch.bool
    assert (batch.answers is not None) == answers
    for i, (sample, (height, width)) in enumerate(zip(read, SIZES, strict=True)):
        own = torch.zeros(5, 6, dtype=torch.bool)
        own[:height, :width] = True
        assert torch.equal(batch.padding[i], ~own)
        assert torch.equal(batch.images[i, :, :height, :width], sample.image)
        assert (batch.images[i, :, ~own] == 0).all()
        if answers:
            assert torch.equal(batch.answers[i, :height, :width], sample.answer)
            assert not batch.answers[i, ~own].any()
    assert batch.labels.tolist() == [0, 10, 20, 30, 40, 50]
    assert batch.paths == [f"{i}.png" for i in range(6)]
    assert batch.unreadable == [Unreadable("bad.png", "damaged")]


def test_images_of_one_size_know_no_padding():
    batch = collate(samples([(4, 6)] * 3, answers=True))
    assert batch.padding is None
    assert (batch.images.shape, batch.answers.shape) == ((3, 3, 4, 6), (3, 4, 6))
    assert collate([Unreadable("bad.png", "damaged")]).padding is None


@pytest.mark.parametrize("answers", [False, True])
def test_every_size_has_a_batch_of_its_own(answers):
    read, bad = samples(answers=answers), Unreadable("bad.png", "damaged")
    parts = collate_by_size([bad, *read])
    assert [part.paths for part in parts] == [["0.png", "2.png"], ["1.png", "4.png"], ["3.png"], ["5.png"]]
    assert [part.labels.tolist() for part in parts] == [[0, 20], [10, 40], [30], [50]]
    assert [part.unreadable for part in parts] == [[bad], [], [], []]
    for part in parts:
        assert isinstance(part, Batch)
        assert part.padding is None
        own = [read[int(path[0])] for path in part.paths]
        assert torch.equal(part.images, torch.stack([sample.image for sample in own]))
        assert (part.answers is not None) == answers
        assert not answers or torch.equal(part.answers, torch.stack([sample.answer for sample in own]))


def test_images_of_one_size_are_one_batch():
    (part,) = collate_by_size(samples([(4, 6)] * 3))
    assert part.images.shape == (3, 3, 4, 6)
    assert part.padding is None


def test_what_could_not_be_read_is_told_where_nothing_could_be():
    bad = [Unreadable("a.png", "damaged"), Unreadable("b.png", "empty")]
    (part,) = collate_by_size(bad)
    assert part.unreadable == bad
    assert len(part.images) == len(part.paths) == 0


def test_no_batch_is_padded_on_the_way(monkeypatch):
    """Padding what is cut apart at once costs the memory of the largest image for every one."""
    monkeypatch.setattr(torch.nn.functional, "pad", None)
    assert len(collate_by_size(samples())) == 4


def test_places_of_every_size():
    assert group_by_size(["b", "a", "b", "c", "a"]) == [[0, 2], [1, 4], [3]]
    assert group_by_size([]) == []
