"""Tensor types with shapes, and the legend of axis letters.

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
c       classes, or the chosen ones
m       kept patches, where others were removed
s       steps of a perturbation curve
l       layers
======  =========================================

`rows cols` is a grid of patches or cells, `height width` is in pixels.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "b channels height width"]
"""A normalized batch of images, ready for the network."""

Baseline = Float[Tensor, "b_or_1 channels height width"]
"""Content that replaces removed cells: one per image, or one for all."""

Padding = Bool[Tensor, "b height width"]
"""Pixels that pad images of different sizes to one size; True = padding."""

Logits = Float[Tensor, "b c"]
Relevance = Float[Tensor, "b rows cols"]
"""Raw score per patch, with the sign and scale of the method."""

Patches = Float[Tensor, "b n d"]
"""Embedded patches, before class token and positions."""

Tokens = Float[Tensor, "b t d"]
Targets = Int[Tensor, " b"]
"""Class index to explain, one per image."""

Keep = Bool[Tensor, "b s n"]
"""Kept patches at every step; True = kept."""

Kept = Int[Tensor, "b m"]
"""Indices, row by row, of the kept patches."""

Attentions = Float[Tensor, "b h q k"]
"""Attention weights after the softmax, per head."""
