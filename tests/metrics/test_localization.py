import torch

from vitrail.metrics.localization import pointing_chance, pointing_hits, touched_cells


def test_a_cell_hits_by_one_pixel_and_misses_by_none():
    masks = torch.zeros(2, 6, 9, dtype=torch.bool)
    masks[:, 1, 8] = True  # in the cell of row 0, column 2, of 2x3 cells of 3x3 pixels
    relevance = torch.zeros(2, 2, 3)
    relevance[0, 0, 2] = 1.0
    relevance[1, 0, 1] = 1.0
    assert pointing_hits(relevance, masks).tolist() == [True, False]


def test_negative_relevance_is_no_hit():
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    masks[:, :, 2:] = False
    assert pointing_hits(torch.tensor([[[-9.0, 1.0], [0.0, 0.0]]]), masks).tolist() == [False]


def test_chance_is_the_share_of_touched_cells():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[1, 0, 0] = True
    masks[2] = True
    assert pointing_chance(masks, (2, 2)).tolist() == [0.0, 0.25, 1.0]
    assert touched_cells(masks, (2, 2))[1].tolist() == [[True, False], [False, False]]


def test_cells_that_do_not_divide_the_pixels_share_them():
    masks = torch.zeros(1, 5, 5, dtype=torch.bool)
    masks[0, 2, 2] = True  # the middle pixel reaches into all four cells of 2x2
    assert touched_cells(masks, (2, 2)).all()
