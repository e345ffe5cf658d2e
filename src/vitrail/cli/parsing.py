"""Parse the texts of options: KEY=VALUE, OWNER.KEY=VALUE, sizes, and lists of names."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from vitrail.core.errors import InvalidInputError

KEY = r"()([A-Za-z_]\w*)"
OWNER_AND_KEY = r"([\w-]+)\.([A-Za-z_]\w*)"


def parse_model_args(texts: Sequence[str] | None) -> dict[str, Any]:
    """Parse the values of `--model-arg`."""
    options = parse_keys(texts, "--model-arg", "pretrained=false")
    for key, flag in (("device", "--device"), ("image_size", "--image-size"), ("name", "--model")):
        if key in options:
            raise InvalidInputError(f"expected arguments of the network, got --model-arg {key}=...; use {flag}")
    return options


def parse_synthetic_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Parse the values of `vitrail generate --option`."""
    options = parse_keys(texts, "--option", "size=64")
    if "seed" in options:
        raise InvalidInputError("expected options of the data set, got --option seed=...; use --seed")
    return options


def parse_keys(texts: Sequence[str] | None, flag: str, example: str) -> dict[str, Any]:
    """Parse the values of an option that takes KEY=VALUE."""
    return {key: value for _, key, value in _parse_settings(texts, flag, KEY, example)}


def parse_owned_keys(texts: Sequence[str] | None, flag: str, example: str) -> dict[str, dict[str, Any]]:
    """Parse the values of an option that takes OWNER.KEY=VALUE, by owner."""
    options: dict[str, dict[str, Any]] = {}
    for owner, key, value in _parse_settings(texts, flag, OWNER_AND_KEY, example):
        options.setdefault(owner, {})[key] = value
    return options


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse `--image-size`: height and width, or one number for both."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower(), re.ASCII)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(size) < 1:
        raise InvalidInputError(f"expected --image-size as HEIGHTxWIDTH in pixels, e.g. 224x448, got {text!r}")
    return size


def parse_numbers(text: str | None, flag: str) -> list[float] | None:
    """Parse numbers separated by commas; None if the option is not given."""
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError as error:
        raise InvalidInputError(f"expected {flag} as a number, or numbers separated by commas, got {text!r}") from error


def parse_count(text: str, flag: str) -> int | Literal["all", "none"]:
    """Parse a number, "all" or "none"."""
    words: dict[str, Literal["all", "none"]] = {"all": "all", "none": "none"}
    if text in words:
        return words[text]
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise InvalidInputError(f"expected {flag} as a number, all or none, got {text!r}")
    return int(text)


def parse_names(text: str | None) -> list[str] | None:
    """Parse names separated by commas; repeated names count once. Return None if the option is not given.

    Raises:
        InvalidInputError: Nothing stands before or after a comma.
    """
    names = None if text is None else list(dict.fromkeys(name.strip() for name in text.split(",")))
    if names is not None and len(names) > 1 and "" in names:
        raise InvalidInputError(f"expected names separated by commas, got nothing beside a comma in {text!r}")
    return names


def _parse_settings(texts: Sequence[str] | None, flag: str, pattern: str, example: str) -> list[tuple[str, str, Any]]:
    """Split texts at the equals sign; the key matches a pattern of two groups, the value is YAML."""
    if not texts:
        return []
    from vitrail.core.yaml_io import YAML_ERRORS, read_yaml  # noqa: PLC0415 (only where it is needed)

    settings = list[tuple[str, str, Any]]()
    for text in texts:
        key, equals, value = text.partition("=")
        match = re.fullmatch(pattern, key.strip())
        if not equals or not match:
            raise InvalidInputError(f"expected {flag} like {example}, got {text!r}")
        try:
            settings.append((match[1], match[2], read_yaml(value)))
        except YAML_ERRORS as error:
            raise InvalidInputError(
                f"cannot read the value of {flag} {text!r}: {getattr(error, 'problem', None) or error}"
            ) from error
    return settings
