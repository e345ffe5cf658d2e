"""Reading YAML as people write it. PyYAML is imported with this module: import it where it is needed."""

import re
from typing import Any

import yaml

YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)
"""What `read_yaml` raises for a text that it cannot read."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but for numbers like 1e-4, which it takes for texts that would be handed on to a library."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str) -> Any:
    """Read plain values: texts, numbers, lists and dictionaries of them."""
    return yaml.load(text, _Loader)
