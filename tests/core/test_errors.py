import pickle

import pytest

from vitrail.core import errors
from vitrail.core.errors import InvalidInputError, MissingExtraError, UnknownNameError, VitrailError

CHILDREN = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and value is not VitrailError and value.__module__ == errors.__name__
]


def test_missing_extra_says_what_to_install():
    error = MissingExtraError("the web page", "app")
    assert str(error) == "the web page needs packages that are not installed; install them with: pip install 'vitrail[app]'"


def test_missing_extra_is_caught_as_an_import_error():
    with pytest.raises(ImportError, match=r"pip install 'vitrail\[train\]'"):
        raise MissingExtraError("training", "train")


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: child.__name__)
def test_every_error_has_the_common_base(child):
    assert issubclass(child, VitrailError)


def test_wrong_arguments_are_value_errors():
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(UnknownNameError, InvalidInputError)


@pytest.mark.parametrize("error", [InvalidInputError("expected 1, got 2"), MissingExtraError("training", "train")], ids=repr)
def test_an_error_travels_between_processes(error):
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
