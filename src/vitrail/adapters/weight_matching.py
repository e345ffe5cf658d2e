"""Find a network's weights in a file: in which group, under which prefix, and what may be left out."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.adapters.fit_weights import head_names
from vitrail.adapters.libraries import find_library
from vitrail.core.errors import CheckpointError
from vitrail.core.listing import shorten_list
from vitrail.models.checkpoints import Checkpoint, load_strictly, to_single_precision
from vitrail.models.weight_origins import describe_origin

AVERAGED = re.compile(r"(^|[._])(ema|teacher|average|averaged|swa)([._]|$)")
"""Groups of averaged weights, which training scripts evaluate and publish: they come first."""

OTHER_HEADS = re.compile(
    r"heads?|head_dist|fc|pooler|classifier|\w+_classifier|\w*(dino|ibot|proj|projection|mlm|lm|aux)_?heads?|aux\w*|projector|"
    r"predictor|prototypes|decoder\w*|mask_token|logit_scale|logit_bias|momentum\w*|queue\w*"
)
"""First parts of names of weights for pretraining, which the features do not depend on."""

DERIVED = re.compile(r"(inv_freq|freqs_(cis|cos|sin)|periods|relative_position_index|relative_coords_table|attn_mask)$")
"""Tables that a network computes itself, and older versions of libraries stored."""

REMEDY = "; if the network was built with arguments, give them too, as in --model-arg depth=3, or vitrail.load(..., depth=3)"


@dataclass(frozen=True)
class Match:
    """Weights of a network in a file.

    Attributes:
        key: Key of the group in the file, "" for its top.
        prefix: What stands before the network's own names in the group, without the last dot.
        state: The weights under the network's names, and all others under the prefix.
        outside: Names that are not under the prefix.
    """

    key: str
    prefix: str
    state: Mapping[str, Tensor]
    outside: tuple[str, ...]

    @property
    def label(self) -> str:
        """Key and prefix, as the user may give them."""
        return _join(self.key, self.prefix)


def match_weights(module: nn.Module, checkpoint: Checkpoint, source: str, key: str | None = None) -> Match:
    """Find the weights of a network in a file by the names of all its parts but the head.

    Args:
        module: The network, which may be on the meta device.
        checkpoint: Content of the file.
        source: Name of the file, for messages.
        key: Group or prefix to take, where several fit.

    Raises:
        CheckpointError: Nothing fits; or several groups do, of which none or more than one is averaged.
    """
    heads = set(head_names(module))
    names = [name for name, tensor in module.state_dict().items() if tensor.is_floating_point() and name not in heads]
    first = {name.partition(".")[0] for name in names}
    # Of a base model and a head, files may hold the base model alone.
    inner = f"{first.pop()}." if len(first) == 1 else ""
    body = {name.removeprefix(inner) for name in names}
    renames = _list_renames(module, inner)
    states = {group: _rename(state, renames, body) for group, state in checkpoint.states.items()}
    counts = {group: _count_prefixes(state, body) for group, state in states.items()}
    found = [
        _make_match(group, prefix, states[group], inner, heads)
        for group, prefixes in counts.items()
        for prefix, count in prefixes.items()
        if count == len(body)
    ]
    if not found:
        raise _misfit(checkpoint, counts, body, type(module).__name__, source)
    return _choose(found, key, source)


def load_match(module: nn.Module, match: Match, source: str) -> str:
    """Load matched weights into a network, all of them.

    Returns:
        What was taken, stripped and ignored, in words; empty if the file holds the network's weights and nothing else.

    Raises:
        CheckpointError: The message lists the first missing, unknown and mismatched names; the network is unchanged.
    """
    current = module.state_dict()
    ignored = [name for name, tensor in match.state.items() if name not in current and _is_ignorable(name, tensor, current)]
    state = {name: tensor for name, tensor in match.state.items() if name not in ignored}
    # Counters and index tables are not trained.
    untrained = [name for name, tensor in current.items() if not tensor.is_floating_point()]
    try:
        load_strictly(module, to_single_precision(state), source, optional=untrained)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{REMEDY}") from error
    parts = dict.fromkeys(name.rpartition(".")[0] or name for name in (*match.outside, *ignored))
    notes = (
        f"took the weights under {match.key}" if match.key else "",
        f"stripped the prefix {match.prefix}." if match.prefix else "",
        f"ignored {shorten_list(list(parts))}" if parts else "",
    )
    return ", ".join(filter(None, notes))


def _join(*parts: str) -> str:
    return ".".join(filter(None, parts))


def _count_prefixes(state: Mapping[str, Tensor], body: set[str]) -> Counter[str]:
    """Count, per prefix, how many of the names in `body` there are after it."""
    counts = Counter[str]()
    for name in state:
        parts = name.split(".")
        counts.update(".".join(parts[:index]) for index in range(len(parts)) if ".".join(parts[index:]) in body)
    return counts


def _list_renames(module: nn.Module, inner: str) -> dict[str, str]:
    """List the names of weights that the library's files call differently, by their names in files, below the base model's prefix."""
    library = find_library(module)
    renames = dict[str, str]()
    for old, new in ({} if library is None else library.saved_names(module)).items():
        if old.startswith(inner):
            renames[old.removeprefix(inner)] = new.removeprefix(inner)
        else:  # Some files leave the base model's prefix out, for some weights.
            renames |= {old: new, inner + old: new}
    return renames


def _rename(state: Mapping[str, Tensor], renames: Mapping[str, str], body: set[str]) -> Mapping[str, Tensor]:
    """Give weights the names of the network's where the library's files have others, under any prefix."""
    return {_rename_one(name, renames, body): tensor for name, tensor in state.items()} if renames else state


def _rename_one(name: str, renames: Mapping[str, str], body: set[str]) -> str:
    parts = name.split(".")
    for index in range(len(parts)):
        own = ".".join(parts[index:])
        if own in body:
            break
        if own in renames:
            return _join(*parts[:index], renames[own])
    return name


def _make_match(group: str, prefix: str, state: Mapping[str, Tensor], inner: str, heads: set[str]) -> Match:
    """Rename weights as the network names them."""
    base = inner.removesuffix(".")
    outer = prefix
    if base and f".{prefix}".endswith(f".{base}"):
        outer = prefix.removesuffix(base).removesuffix(".")
    renamed, outside = dict[str, Tensor](), list[str]()
    for name, tensor in state.items():
        head, own = _strip(name, outer), _strip(name, prefix)
        if head is not None and (head in heads or own is None):
            renamed[head] = tensor
        elif own is not None:
            renamed[inner + own] = tensor
        else:
            outside.append(name)
    return Match(group, outer, renamed, tuple(outside))


def _strip(name: str, prefix: str) -> str | None:
    """Return what follows a prefix and its dot; None if the name does not start with it."""
    start = f"{prefix}." if prefix else ""
    return name[len(start) :] if name.startswith(start) else None


def _choose(found: list[Match], key: str | None, source: str) -> Match:
    labels = ", ".join(match.label or "the top of the file" for match in found)
    if key is not None:
        found = [match for match in found if key.rstrip(".") in (match.key, match.prefix.rstrip("."), match.label)]
        if not found:
            raise CheckpointError(f"expected weights of the network under {key!r} in {source}, found them under {labels}")
    distinct = [match for index, match in enumerate(found) if not any(_is_same(match, other) for other in found[:index])]
    averaged = [match for match in distinct if AVERAGED.search(match.label)]
    if len(distinct) > 1 and len(averaged) != 1:
        raise CheckpointError(
            f"cannot tell which weights of {source} to take: those under {labels} fit the network; choose by weights_key or --weights-key"
        )
    return averaged[0] if len(distinct) > 1 else distinct[0]


def _is_same(match: Match, other: Match) -> bool:
    return match.state.keys() == other.state.keys() and all(
        tensor.shape == other.state[name].shape and torch.equal(tensor, other.state[name])
        for name, tensor in match.state.items()
    )


def _is_ignorable(name: str, tensor: Tensor, current: Mapping[str, Tensor]) -> bool:
    base = next(iter(current)).partition(".")[0]
    part = name.removeprefix(f"{base}.").partition(".")[0]
    return bool(OTHER_HEADS.fullmatch(part) or DERIVED.search(name)) or not tensor.is_floating_point()


def _misfit(
    checkpoint: Checkpoint, counts: Mapping[str, Counter[str]], body: set[str], network: str, source: str
) -> CheckpointError:
    """Return the error for weights of which none or some only are those of the network, with what is missing."""
    ranked: Iterator[tuple[int, str, str]] = (
        (count, group, prefix) for group, prefixes in counts.items() for prefix, count in prefixes.items()
    )
    count, group, prefix = max(ranked, default=(0, next(iter(checkpoint.states)), ""))
    state = checkpoint.states[group]
    missing = sorted(name for name in body if _join(prefix, name) not in state)
    return CheckpointError(
        f"{source} does not fit this {network}: it holds {count} of its {len(body)} weights; missing {shorten_list(missing)}; "
        f"the file has {', '.join(list(state)[:3])}, ...{describe_origin(state)}"
        f"{REMEDY if count else ''}"
    )
