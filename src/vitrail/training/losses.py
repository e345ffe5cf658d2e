"""What is minimized: cross-entropy of one or of many labels, two sub-networks, a teacher."""

from collections.abc import Callable

from jaxtyping import Float, Int
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from vitrail.core.types import Logits

Labels = Int[Tensor, " b"] | Float[Tensor, "b c"]
"""One label an image, or, where images are mixed, a share of every class."""

Loss = Callable[[Logits, Labels], Tensor]


def label_loss(name: str, smoothing: float, num_classes: int) -> Loss:
    """Return the loss of logits against labels or mixed labels; mixed ones are smoothed by what mixed them.

    Args:
        name: "cross-entropy", or "binary-cross-entropy", which asks of every class by itself whether it is there at all.
        smoothing: Share of a label that is spread over all classes.
        num_classes: Number of classes.

    Source: binary cross-entropy with mixed labels: arXiv:2110.00476 and arXiv:2204.07118.

    Differs: There every class with a share above 0 counts as present, so that smoothing, which gives one to all, makes all
        classes present. Here it takes more than what smoothing gives.
    """
    hard: nn.Module
    soft: nn.Module
    if name == "binary-cross-entropy":
        # Smoothing leaves smoothing / num_classes to a class that is absent; up to rounding, as shares are summed.
        hard, soft = BinaryCrossEntropy(smoothing), BinaryCrossEntropy(0, target_threshold=1.5 * smoothing / num_classes)
    else:
        hard, soft = nn.CrossEntropyLoss(label_smoothing=smoothing), SoftTargetCrossEntropy()
    return lambda logits, labels: (soft if labels.is_floating_point() else hard)(logits, labels)


def cosub_loss(first: Logits, second: Logits, labels: Labels, loss: Loss) -> Tensor:
    """Two random sub-networks that see the same images: each learns from the labels and from the other one.

    Source: arXiv:2212.04884, equation 2; as in its code, what the other one says is taken class by class.
    """
    other = nn.functional.binary_cross_entropy_with_logits
    return (
        loss(first, labels)
        + loss(second, labels)
        + other(first, second.detach().sigmoid())
        + other(second, first.detach().sigmoid())
    ) / 4


def distillation_loss(student: Logits, teacher: Logits, hard: bool, temperature: float) -> Tensor:
    """How far a student is from its teacher.

    Args:
        student: Logits of the student's distillation head, or its only one.
        teacher: Logits without gradient.
        hard: Whether the teacher's decision is taken as a label; else the distributions are compared.
        temperature: Softens both distributions.

    Source: arXiv:2012.12877, equations 2 and 3. As in its code, the soft loss is a mean over images and classes.
    """
    if hard:
        return nn.functional.cross_entropy(student, teacher.argmax(1))
    log_student, log_teacher = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    divergence = nn.functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / student.numel()
