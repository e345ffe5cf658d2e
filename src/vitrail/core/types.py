"""Shapes as types, and the one legend of axis letters.

Axis letters, the same everywhere:

======  =========================================
letter  meaning
======  =========================================
b       batch: images
n       patches
t       tokens: prefix tokens, then patches
p       prefix tokens: class token and the like
d       width of a token
h       heads
q, k    queries, keys
c       classes, or the asked ones among them
m       patches that are left where some were removed
s       steps of a perturbation curve
l       layers
======  =========================================

`rows cols` is a grid of patches or cells, `height width` is in pixels.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "b channels height width"]
"""A normalized batch of images, as the network eats it."""

Baseline = Float[Tensor, "b_or_1 channels height width"]
"""What replaces removed content: one per image, or one for all."""

Padding = Bool[Tensor, "b height width"]
"""Pixels that fill images of differing sizes up to one; True = padding."""

Logits = Float[Tensor, "b c"]
Relevance = Float[Tensor, "b rows cols"]
"""Raw score per patch: sign and scale as the method gives them."""

Patches = Float[Tensor, "b n d"]
"""Embedded patches, before class token and positions."""

Tokens = Float[Tensor, "b t d"]
Targets = Int[Tensor, " b"]
"""Class index to explain, one per image."""

Keep = Bool[Tensor, "b s n"]
"""Which patches are kept at every step; True = kept."""

Kept = Int[Tensor, "b m"]
"""Numbers, row by row, of the patches that are left where some were removed."""

Attentions = Float[Tensor, "b h q k"]
"""Attention weights after the softmax, per head: how much of every key a query takes."""
