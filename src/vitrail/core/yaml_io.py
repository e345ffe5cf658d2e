"""Read YAML. Imports PyYAML: import this module only where it is needed."""

import re
from typing import Any

import yaml

YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)
"""Errors that `read_yaml` raises for invalid text."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that numbers like 1e-4 are numbers, not text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str) -> Any:
    """Read plain values: strings, numbers, lists and dictionaries."""
    return yaml.load(text, _Loader)
