"""open_dataset: a folder by its path, or a published data set by its name."""

import pytest
from official_layouts import LAYOUTS, middle, photo

from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.open import open_dataset, read_data


def test_a_folder_is_opened_by_its_path(tmp_path):
    photo(tmp_path / "ant" / "1.png")
    images = open_dataset(tmp_path, middle)
    assert isinstance(images, ImageFolder)
    assert (images.paths, images.class_names) == ([tmp_path / "ant" / "1.png"], ["ant"])


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_a_data_set_is_opened_by_its_name(tmp_path, split):
    LAYOUTS["cub-200-2011"].write(tmp_path)
    images = open_dataset(tmp_path, middle, "cub-200-2011", split, crop_to_box="yes")
    assert images == read_data("cub-200-2011", tmp_path, split or "test", middle, crop_to_box=True)


@pytest.mark.parametrize("arguments", [{"split": "test"}, {"crop_to_box": True}])
def test_split_and_options_need_a_name(tmp_path, arguments):
    with pytest.raises(InvalidInputError, match="expected split and options together with the name of a data set, got no name"):
        open_dataset(tmp_path, middle, **arguments)


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown data set 'cub'"):
        open_dataset(tmp_path, middle, "cub")
