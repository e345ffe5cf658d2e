"""Published insertion/deletion protocols by name, so that results are comparable."""

from dataclasses import replace
from functools import partial

from vitrail.core.registry import Registry
from vitrail.metrics.protocol import Protocol

PROTOCOLS: Registry[Protocol] = Registry("protocol")
"""All protocols by name."""


def describe_changes(name: str, protocol: Protocol) -> list[str]:
    """Describe where a protocol differs from the published one of its name; empty if it does not, or if none has this name."""
    if name not in PROTOCOLS:
        return []
    published, changes = PROTOCOLS[name], list[str]()
    if protocol.num_steps != published.num_steps:
        changes.append(f"{protocol.num_steps} steps")
    if protocol.orders != published.orders:
        changes.append(f"{' and '.join(protocol.orders)} relevant first")
    if not set(protocol.baselines) <= set(published.baselines):
        changes.append(f"{', '.join(protocol.baselines)} as baseline")
    return changes


delete_in_both_orders = partial(Protocol, orders=("most", "least"), directions=("deletion",))

PROTOCOLS.register("hit")(
    Protocol(
        description="insertion and deletion on the map's own grid, 196 steps, zero and blur, probability, AUC by trapezoids on [0, 1]",
        source="Jeanneret et al. 2025, arXiv:2502.17196, and its published evaluation",
        num_steps=196,
    )
)

PROTOCOLS.register("diffmask")(
    delete_in_both_orders(
        description="deletion, 7 cells per step, most relevant first (positive) and least (negative), noise, probability and KL",
        source="Nalmpantis et al. 2023, arXiv:2304.06391, and its published evaluation",
        cells_per_step=7,
        baselines=("noise",),
        scores=("probability", "kl"),
    )
)

PROTOCOLS.register("mutex")(
    Protocol(
        description="1, 5, 10, 20 ... 100% of the pixels of the enlarged map, zero, strong blur, noise and mean, probability, percent",
        source="MUTEX 2025, doi:10.1007/s00521-025-11591-x, and its published evaluation",
        shares=(0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        unit="pixels",
        axis="percent",
        from_zero=True,
        baselines=("zero", "strong-blur", "normal-noise", "mean"),
    )
)

CHEFER = PROTOCOLS.register("chefer")(
    delete_in_both_orders(
        description="10, 20 ... 90% of the pixels of the smoothly enlarged map turn black, most relevant first (positive) and least "
        "(negative), top-1 hit rate, averaged over the curve",
        source="Chefer et al. 2021, arXiv:2012.09838, section 4.2, and its published evaluation",
        shares=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        unit="pixels",
        smooth=True,
        axis="mean",
        baselines=("black",),
        scores=("top1",),
    )
)

PROTOCOLS.register("rise")(
    Protocol(
        description="224 steps of pixels of the smoothly enlarged map, insertion into the blurred image, deletion to zero, probability",
        source="Petsiuk et al. 2018, arXiv:1806.07421, and its published evaluation",
        num_steps=224,
        unit="pixels",
        smooth=True,
        without=("insertion_zero", "deletion_blur"),
    )
)

PROTOCOLS.register("road")(
    replace(
        CHEFER,
        description="10, 20, 30, 40, 50, 70, 90% of the pixels of the map, filled in from the others with a little noise, most relevant "
        "first (MoRF) and least (LeRF), top-1, averaged over the curve",
        source="Rong et al. 2022 (ROAD), arXiv:2202.00449, and its published code",
        shares=(0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
        smooth=False,
        baselines=("imputed",),
    )
)

PROTOCOLS.register("replacements")(
    Protocol(
        description="10 steps on the map's own grid, insertion and deletion, each with zero, black, blur, mean, noise, imputed and removed "
        "content: does a ranking of methods depend on the replacement?",
        source="vitrail; see Rong et al. 2022 (ROAD), arXiv:2202.00449, on how replaced content confounds",
        num_steps=10,
        baselines=("zero", "black", "blur", "mean", "noise", "imputed", "removed"),
    )
)

PROTOCOLS.register("tokens")(
    Protocol(
        description="20 steps, patch tokens removed from the ViT and put back, at least one kept, probability, no baseline",
        source="vitrail; tokens are removed as in MUTEX 2025, doi:10.1007/s00521-025-11591-x",
        num_steps=20,
        baselines=("removed",),
    )
)
