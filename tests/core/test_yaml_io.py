import subprocess
import sys

import pytest

from vitrail.cli.parsing import parse_model_args
from vitrail.core.errors import InvalidInputError
from vitrail.core.yaml_io import YAML_ERRORS, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1E4", -1e4),
        ("+1.e3", 1e3),
        ("1.5e3", 1.5e3),
        ("{rate: 1e-4, steps: [1e3]}", {"rate": 1e-4, "steps": [1e3]}),
        ("'1e-4'", "1e-4"),
        ("1e-4x", "1e-4x"),
        ("e4", "e4"),
        ("1e", "1e"),
        ("0.5", 0.5),
        ("7", 7),
        ("rand-m9", "rand-m9"),
        ("null", None),
    ],
)
def test_numbers_are_numbers(text, value):
    found = read_yaml(text)
    assert (type(found), found) == (type(value), value)
    assert parse_model_args([f"option={text}"]) == {"option": value}


@pytest.mark.parametrize("text", ["[1", "2020-13-45", "[" * 2_000, "!!python/object/apply:os.getcwd []"])
def test_unreadable_values(text):
    with pytest.raises(YAML_ERRORS):
        read_yaml(text)
    with pytest.raises(InvalidInputError, match="cannot read the value of --model-arg"):
        parse_model_args([f"option={text}"])


def test_yaml_is_imported_only_where_values_are_read():
    code = (
        "import sys, vitrail, vitrail.cli.parsing; vitrail.cli.parsing.parse_model_args(None); assert 'yaml' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
