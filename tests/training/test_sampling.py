"""Which images make a batch: on any number of processes, from any batch on."""

from collections import Counter
from itertools import chain

import pytest

from vitrail.datasets.sampler import ProcessShare
from vitrail.training.sampling import EpochBatches


def batches(num_images, batch_size, epoch=0, start=0, **options):
    """The batches of an epoch from `start` on, of one process."""
    length = len(EpochBatches(num_images, batch_size, **options))
    return list(EpochBatches(num_images, batch_size, batches_done=lambda: epoch * length + start, **options))


def together(num_images, batch_size, world_size, **options):
    """Batch by batch, what all processes take."""
    each = [batches(num_images, batch_size, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    return [list(chain(*parts)) for parts in zip(*each, strict=True)]


@pytest.mark.parametrize("num_repeats", [1, 3])
@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("num_images", [24, 29, 31, 300])
def test_all_processes_together_take_what_one_would_with_a_larger_batch(num_images, world_size, num_repeats):
    options = {"seed": 5, "epoch": 2, "num_repeats": num_repeats}
    of_one = batches(num_images, 4 * world_size, **options)
    of_all = together(num_images, 4, world_size, **options)
    assert len(of_one) == len(of_all)
    for one, all_of_them in zip(of_one, of_all, strict=True):
        assert sorted(one) == sorted(all_of_them)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("num_images", "batch_size"), [(24, 4), (29, 4), (7, 2)])
def test_every_image_comes_once_but_for_the_incomplete_batch(num_images, batch_size, world_size):
    taken = Counter(draw.image for draw in chain(*together(num_images, batch_size, world_size)))
    assert set(taken) <= set(range(num_images))
    assert set(taken.values()) == {1}
    assert num_images - len(taken) < batch_size * world_size


def test_all_batches_are_of_one_size():
    assert [len(batch) for batch in batches(29, 4)] == [4] * 7


def test_another_epoch_or_seed_is_another_order():
    orders = [
        tuple(draw.image for draw in chain(*batches(24, 4, epoch=epoch, seed=seed))) for epoch in range(3) for seed in range(3)
    ]
    assert len(set(orders)) == 9
    # Not the order of a neighbor, one epoch on.
    assert all(sorted(order) == list(range(24)) for order in orders)


def test_no_seed_of_an_augmentation_comes_twice():
    seeds = [
        draw.seed
        for epoch in range(3)
        for seed in range(3)
        for draw in chain(*together(24, 4, 2, epoch=epoch, seed=seed, num_repeats=2))
    ]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("num_repeats", [1, 2])
@pytest.mark.parametrize("epoch", [0, 3])
def test_a_start_anywhere_gives_the_same_tail(epoch, num_repeats):
    options = {"epoch": epoch, "rank": 1, "world_size": 2, "num_repeats": num_repeats}
    whole = batches(29, 3, **options)
    for start in range(len(whole)):
        assert batches(29, 3, start=start, **options) == whole[start:]


def test_one_sampler_goes_on_from_epoch_to_epoch():
    done = [0]
    sampler = EpochBatches(24, 4, batches_done=lambda: done[0])
    first = list(sampler)
    done[0] = len(first)
    second = list(sampler)
    assert (first, second) == (batches(24, 4, epoch=0), batches(24, 4, epoch=1))
    assert first != second


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_repeats", [2, 3])
def test_repeats_are_spread_over_processes_and_varied(num_repeats, world_size):
    num_images = 24
    parts = [
        list(chain(*batches(num_images, 4, rank=rank, world_size=world_size, num_repeats=num_repeats)))
        for rank in range(world_size)
    ]
    draws = list(chain(*parts))
    taken = Counter(draw.image for draw in draws)
    # As many places as ever, each image `num_repeats` times but for the last one.
    assert len(draws) == num_images
    assert sorted(taken.values(), reverse=True)[: num_images // num_repeats - 1] == [num_repeats] * (
        num_images // num_repeats - 1
    )
    assert len({draw.seed for draw in draws}) == len(draws)
    if world_size == num_repeats:  # DeiT's: every process sees another variation of one image
        assert [[draw.image for draw in part] for part in parts] == [[draw.image for draw in parts[0]]] * world_size


@pytest.mark.parametrize("num_repeats", [1, 2])
@pytest.mark.parametrize(("num_images", "world_size"), [(3, 1), (3, 2), (2, 3), (1, 4), (5, 3)])
def test_sets_smaller_than_a_batch_make_one_batch_for_every_process(num_images, world_size, num_repeats):
    each = [batches(num_images, 8, rank=rank, world_size=world_size, num_repeats=num_repeats) for rank in range(world_size)]
    for part in each:
        assert len(part) == 1
        assert len(part[0]) >= 1
        assert all(draw.image in range(num_images) for draw in part[0])
    # No process waits for another one.
    assert len({len(part[0]) for part in each}) == 1


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_images", [0, 1, 2, 6, 7, 20])
def test_shares_are_a_partition(num_images, world_size):
    shares = [ProcessShare(num_images, rank, world_size) for rank in range(world_size)]
    assert sorted(chain(*shares)) == list(range(num_images))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
