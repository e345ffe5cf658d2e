"""Training losses: cross-entropy, binary cross-entropy, cosub and distillation."""

from collections.abc import Callable

from jaxtyping import Float, Int
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from vitrail.core.types import Logits

Labels = Int[Tensor, " b"] | Float[Tensor, "b c"]
"""One label per image or, if mixup or cutmix mixes images, one share per class."""

Loss = Callable[[Logits, Labels], Tensor]


def create_label_loss(name: str, smoothing: float, num_classes: int) -> Loss:
    """Create the loss of logits against labels or mixed labels; mixup has already smoothed the latter.

    Args:
        name: "cross-entropy", or "binary-cross-entropy", which treats every class as a separate yes or no.

    Source: binary cross-entropy with mixed labels: arXiv:2110.00476 and arXiv:2204.07118.

    Differs: There every class with a share above 0 counts as present, so that label smoothing makes all classes present. Here the
        share must exceed what smoothing alone gives.
    """
    hard: nn.Module
    soft: nn.Module
    if name == "binary-cross-entropy":
        # Smoothing gives an absent class smoothing / num_classes; the factor 1.5 absorbs rounding of summed shares.
        hard, soft = BinaryCrossEntropy(smoothing), BinaryCrossEntropy(0, target_threshold=1.5 * smoothing / num_classes)
    else:
        hard, soft = nn.CrossEntropyLoss(label_smoothing=smoothing), SoftTargetCrossEntropy()
    return lambda logits, labels: (soft if labels.is_floating_point() else hard)(logits, labels)


def cosub_loss(first: Logits, second: Logits, labels: Labels, loss: Loss) -> Tensor:
    """Compute the cosub loss of two random sub-networks on the same images: each learns from the labels and from the other.

    Source: arXiv:2212.04884, equation 2; as in its code, the sub-networks are compared class by class.
    """
    cross_entropy = nn.functional.binary_cross_entropy_with_logits
    return (
        loss(first, labels)
        + loss(second, labels)
        + cross_entropy(first, second.detach().sigmoid())
        + cross_entropy(second, first.detach().sigmoid())
    ) / 4


def distillation_loss(student: Logits, teacher: Logits, hard: bool, temperature: float) -> Tensor:
    """Compute the loss of a student's logits against its teacher's.

    Args:
        student: Logits of the student's distillation head, or of its only head.
        teacher: Logits without gradient.
        hard: Whether the teacher's predicted class is the label; otherwise the distributions are compared.
        temperature: Temperature of both distributions.

    Source: arXiv:2012.12877, equations 2 and 3. As in its code, the soft loss is a mean over images and classes.
    """
    if hard:
        return nn.functional.cross_entropy(student, teacher.argmax(1))
    log_student, log_teacher = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    divergence = nn.functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / student.numel()
