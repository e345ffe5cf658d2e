"""Options are checked, or converted from plain values."""

from typing import Literal

import numpy as np
import pytest

from vitrail.core.errors import InvalidInputError
from vitrail.core.options import check_option, convert_options

TYPES = {"count": int, "share": float, "names": tuple[str, ...], "mode": Literal["fast", "exact"], "limit": int | None}


def convert(**options):
    return convert_options("scan", list(TYPES), TYPES, options)


def test_plain_values_are_converted():
    assert convert(count="3", share=1, names=["a", "b"], mode="fast", limit=None) == {
        "count": 3,
        "share": 1.0,
        "names": ("a", "b"),
        "mode": "fast",
        "limit": None,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 3}, "^scan has no option size; its options: count, share, names, mode, limit$"),
        ({"count": "many"}, r"^cannot use 'many' for scan\.count: .*valid integer"),
        ({"mode": "slow"}, r"^cannot use 'slow' for scan\.mode: .*'fast' or 'exact'"),
    ],
)
def test_other_options_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        convert(**options)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (3, int),
        (np.int64(3), int),
        (3, float),
        (np.float32(0.5), float),
        (None, int | None),
        ("exact", TYPES["mode"]),
        ([], list),
    ],
)
def test_values_of_the_annotated_type(value, annotation):
    check_option("option", value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("3", int, "^expected option to be of type int, got '3'$"),
        (True, int, "^expected option to be of type int, got True$"),
        (1, bool, "^expected option to be of type bool, got 1$"),
        (None, str, "^expected option to be of type str, got None$"),
        (0.5, int | None, "^expected option to be of type int, got 0.5$"),
        ("slow", TYPES["mode"], "^expected option to be one of 'fast', 'exact', got 'slow'$"),
        (2**63, int, f"^expected option to fit into 64 bits, got {2**63}$"),
    ],
)
def test_values_of_another_type_are_refused(value, annotation, message):
    with pytest.raises(InvalidInputError, match=message):
        check_option("option", value, annotation)
