"""Batches for any number of processes, starting at any batch."""

from collections import Counter
from itertools import chain

import pytest

from vitrail.datasets.sampler import ProcessShare
from vitrail.training.sampling import EpochBatches


def batches(num_images, batch_size, epoch=0, start=0, **options):
    """Return the batches of an epoch of one process, starting at `start`."""
    length = len(EpochBatches(num_images, batch_size, **options))
    return list(EpochBatches(num_images, batch_size, batches_done=lambda: epoch * length + start, **options))


def joint_batches(num_images, batch_size, world_size, **options):
    """Return for every batch the draws of all processes."""
    local = [batches(num_images, batch_size, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    return [list(chain(*parts)) for parts in zip(*local, strict=True)]


@pytest.mark.parametrize("num_repeats", [1, 3])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("num_images", [24, 29])
def test_processes_draw_what_one_process_would_with_a_larger_batch(num_images, world_size, num_repeats):
    options = {"seed": 5, "epoch": 2, "num_repeats": num_repeats}
    single = batches(num_images, 4 * world_size, **options)
    joint = joint_batches(num_images, 4, world_size, **options)
    assert len(single) == len(joint)
    for one, all_processes in zip(single, joint, strict=True):
        assert sorted(one) == sorted(all_processes)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("num_images", "batch_size"), [(24, 4), (29, 4), (7, 2)])
def test_every_image_comes_once_except_in_the_incomplete_batch(num_images, batch_size, world_size):
    taken = Counter(draw.image for draw in chain(*joint_batches(num_images, batch_size, world_size)))
    assert set(taken) <= set(range(num_images))
    assert set(taken.values()) == {1}
    assert num_images - len(taken) < batch_size * world_size


def test_batches_have_the_same_size():
    assert [len(batch) for batch in batches(29, 4)] == [4] * 7


def test_order_depends_on_epoch_and_seed():
    orders = [
        tuple(draw.image for draw in chain(*batches(24, 4, epoch=epoch, seed=seed))) for epoch in range(3) for seed in range(3)
    ]
    assert len(set(orders)) == 9
    assert all(sorted(order) == list(range(24)) for order in orders)


def test_augmentation_seeds_are_unique():
    seeds = [
        draw.seed
        for epoch in range(3)
        for seed in range(3)
        for draw in chain(*joint_batches(24, 4, 2, epoch=epoch, seed=seed, num_repeats=2))
    ]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("num_repeats", [1, 2])
@pytest.mark.parametrize("epoch", [0, 3])
def test_start_at_any_batch_gives_the_same_remaining_batches(epoch, num_repeats):
    options = {"epoch": epoch, "rank": 1, "world_size": 2, "num_repeats": num_repeats}
    whole = batches(29, 3, **options)
    for start in range(len(whole)):
        assert batches(29, 3, start=start, **options) == whole[start:]


def test_sampler_continues_with_the_next_epoch():
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
    # The epoch keeps its length, with every image `num_repeats` times except for the last one.
    assert len(draws) == num_images
    assert sorted(taken.values(), reverse=True)[: num_images // num_repeats - 1] == [num_repeats] * (
        num_images // num_repeats - 1
    )
    assert len({draw.seed for draw in draws}) == len(draws)
    if world_size == num_repeats:  # as in DeiT: every process augments the same image differently
        assert [[draw.image for draw in part] for part in parts] == [[draw.image for draw in parts[0]]] * world_size


@pytest.mark.parametrize("num_repeats", [1, 2])
@pytest.mark.parametrize(("num_images", "world_size"), [(3, 1), (3, 2), (2, 3), (1, 4), (5, 3)])
def test_set_smaller_than_a_batch_gives_every_process_one_batch(num_images, world_size, num_repeats):
    local = [batches(num_images, 8, rank=rank, world_size=world_size, num_repeats=num_repeats) for rank in range(world_size)]
    for part in local:
        assert len(part) == 1
        assert len(part[0]) >= 1
        assert all(draw.image in range(num_images) for draw in part[0])
    # No process waits for others.
    assert len({len(part[0]) for part in local}) == 1


@pytest.mark.parametrize("world_size", [1, 3, 7])
@pytest.mark.parametrize("num_images", [0, 2, 7, 20])
def test_shares_are_a_partition(num_images, world_size):
    shares = [ProcessShare(num_images, rank, world_size) for rank in range(world_size)]
    assert sorted(chain(*shares)) == list(range(num_images))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
