"""Insertion and deletion curves: scores at every point, the area under each curve, and normalized curves."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.core.divergence import kl_divergence
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import Output, decisions, has_probabilities, probabilities, select_targets
from vitrail.core.registry import unknown_name
from vitrail.core.types import Logits, Targets
from vitrail.metrics.protocol import Protocol, Score
from vitrail.metrics.undefined import mean_over_defined

SMALLEST_SPAN = 0.01
"""A curve is normalized only if the scores of image and baseline differ by at least this share of the curve's range."""


def score_logits(
    logits: Float[Tensor, "b curves s c"], original: Logits, targets: Targets, score: Score, output: Output = "softmax"
) -> Float[Tensor, "b curves s"]:
    """Turn the logits at every point of the curves into scores.

    Args:
        logits: Logits of the changed images, in single precision or better.
        original: Logits of the unchanged images; used by "kl" only.
        targets: The explained classes.
        score: What to compute, see `Curve`.
        output: What logits mean, see `Classifier.output`.

    Raises:
        InvalidInputError: "kl" or "top1" of outputs that are no classes.
    """
    if score in ("kl", "top1") and not has_probabilities(output):
        raise InvalidInputError(
            f"expected a classifier to measure {score}, got outputs without probabilities (output {output!r}); choose a protocol of the "
            "score probability, which is then the value itself, or logit"
        )
    if score == "kl":
        return kl_divergence(original[:, None, None], logits, output)
    if score == "top1":
        decided = decisions(logits)
        # A single logit decides between yes and no.
        hits = (decided == (targets[:, None, None] if logits.shape[-1] > 1 else 1)).to(logits)
        return hits.where(logits.isfinite().all(-1), torch.nan)
    values = logits if score == "logit" else probabilities(logits, output)
    return select_targets(values, targets)


@dataclass(frozen=True)
class Curves:
    """The curves of a batch of images, by name: `curves["insertion_zero"]` has shape (b, s).

    Attributes:
        protocol: The protocol that was measured.
        fractions: Share of the cells (pixels) that have changed at every point.
        scores: Scores per image and curve; curves are those of `protocol.curves`, in that order.
        ends: Scores of the unchanged image and of the baseline, per image and curve; NaN if the protocol has no baseline.
    """

    protocol: Protocol
    fractions: Float[Tensor, " s"]
    scores: Float[Tensor, "b curves s"]
    ends: Float[Tensor, "b curves 2"]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the curves."""
        return tuple(curve.name for curve in self.protocol.curves)

    def __getitem__(self, name: str) -> Float[Tensor, "b s"]:
        if name not in self.names:
            raise unknown_name("curve", name, list(self.names))
        return self.scores[:, self.names.index(name)]

    def mean(self) -> Float[Tensor, "curves s"]:
        """Return the mean curves over the images; images with an undefined point are left out."""
        return mean_over_defined(self.scores, self._are_defined(self.scores).expand_as(self.scores))

    def auc(self) -> Float[Tensor, "b curves"]:
        """Return the area under every raw curve, by trapezoids, over the protocol's `axis`."""
        auc = torch.trapezoid(self.scores, self.fractions)
        if self.protocol.from_zero:
            # Add the triangle from (0, 0) to the first point.
            deletes = torch.tensor([curve.direction == "deletion" for curve in self.protocol.curves], device=auc.device)
            auc = auc + deletes * self.fractions[0] * self.scores[..., 0] / 2
        if self.protocol.axis == "mean":
            return auc / (self.fractions[-1] - self.fractions[0])
        return auc * 100 if self.protocol.axis == "percent" else auc

    def normalized(self) -> "Curves":
        """Scale scores so that the baseline is 0 and the image is 1: `(score - baseline) / (image - baseline)`.

        NaN where image and baseline differ by less than `SMALLEST_SPAN` of the range of the curve, and for curves that cannot be
        normalized (`Curve.normalized`).
        """
        clean, empty = self.ends.unsqueeze(2).unbind(-1)
        scores = torch.cat([self.scores, self.ends], -1)
        smallest = (SMALLEST_SPAN * (scores.amax(-1, keepdim=True) - scores.amin(-1, keepdim=True))).clamp_min(1e-12)
        normalizable = torch.tensor([[curve.normalized] for curve in self.protocol.curves], device=clean.device)
        span = (clean - empty).masked_fill(~normalizable | ((clean - empty).abs() < smallest), torch.nan)
        ends = torch.tensor([1.0, 0.0]).to(self.ends) + 0 * span
        return replace(self, scores=(self.scores - empty) / span, ends=ends)

    def normalized_auc(self) -> Float[Tensor, "b curves"]:
        """Return the area under every normalized curve."""
        return self.normalized().auc()

    def mean_normalized_auc(self) -> Float[Tensor, " curves"]:
        """Return `normalized_auc` of the mean curve, which images with a score close to the baseline's do not dominate."""
        return self.averaged().normalized_auc()[0]

    def averaged(self) -> "Curves":
        """Return the mean curves as the curves of a single image; undefined images are left out, see `mean`."""
        ends = mean_over_defined(self.ends, self._are_defined(self.scores).expand_as(self.ends))
        return replace(self, scores=self.mean().unsqueeze(0), ends=ends.unsqueeze(0))

    def num_undefined(self) -> dict[str, int]:
        """Count the images with an undefined AUC by the names of `aucs`; only counts above 0."""
        counts = {name: int((~aucs.isfinite()).sum()) for name, aucs in self.aucs().items()}
        return {name: count for name, count in counts.items() if count}

    def aucs(self) -> dict[str, Float[Tensor, " b"]]:
        """Return all AUCs of every image by name: `insertion_zero`, ..., then normalized ones as `normalized_insertion_zero`."""
        return self._name_aucs(self.auc(), self.normalized_auc())

    def summary(self) -> dict[str, float]:
        """Return the AUC of every mean curve, by the names of `aucs`."""
        raw = self.auc()
        means = self._name_aucs(mean_over_defined(raw, raw.isfinite()), self.mean_normalized_auc())
        return {name: float(auc) for name, auc in means.items()}

    @staticmethod
    def _are_defined(scores: Float[Tensor, "b curves s"]) -> Bool[Tensor, "b curves 1"]:
        return scores.isfinite().all(-1, keepdim=True)

    def _name_aucs(self, raw: Float[Tensor, "*b curves"], normalized: Float[Tensor, "*b curves"]) -> dict[str, Tensor]:
        curves = list(enumerate(self.protocol.curves))
        named = {curve.name: raw[..., i] for i, curve in curves}
        return named | {f"normalized_{curve.name}": normalized[..., i] for i, curve in curves if curve.normalized}
