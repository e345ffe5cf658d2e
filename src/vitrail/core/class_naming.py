"""The names of explained and of probable classes."""

from jaxtyping import Float
from torch import Tensor

from vitrail.core.outputs import Output, probabilities, ranking
from vitrail.core.types import Logits, Targets


class ClassNaming:
    """Names of classes, for a result that holds these attributes."""

    targets: Targets
    logits: Logits
    class_names: tuple[str, ...]
    output: Output

    @property
    def probabilities(self) -> Logits:
        """The probability of every class; outputs without probabilities as they are."""
        return probabilities(self.logits, self.output)

    def target_logits(self) -> Float[Tensor, " b"]:
        """Return the logit of the explained class."""
        return self.logits.gather(1, self.targets[:, None]).squeeze(1)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or "class 7" without names; "output 7" where outputs are plain numbers."""
        if index < len(self.class_names):
            return self.class_names[index]
        return f"{'output' if self.output == 'none' else 'class'} {index}"

    def _distinct_name(self, index: int) -> str:
        name = self.class_name(index)
        return f"{name} (class {index})" if self.class_names.count(name) > 1 else name

    def target_name(self, image: int = 0) -> str:
        """Return the name of the explained class of an image; "embedding" where there is none."""
        return "embedding" if self.output == "embedding" else self._distinct_name(int(self.targets[image]))

    def top_classes(self, image: int, count: int) -> list[tuple[str, float]]:
        """Return name and probability of the most probable classes, or name and value of the largest outputs; none of an embedding."""
        if self.output == "embedding":
            return []
        indices = ranking(self.logits[image], self.output).topk(min(count, self.logits.shape[1])).indices
        values = self.probabilities[image][indices]
        return [(self._distinct_name(index), value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)]
