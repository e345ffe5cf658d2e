"""Losses against numpy in double precision."""

import numpy as np
import pytest
import torch

from vitrail.datasets.augmentation.transforms import AugmentationConfig, make_label_mixing
from vitrail.training.losses import cosub_loss, create_label_loss, distillation_loss

NUM_IMAGES, NUM_CLASSES = 6, 5


def logits_of(seed, spread=2.0):
    return torch.randn(NUM_IMAGES, NUM_CLASSES, generator=torch.Generator().manual_seed(seed)) * spread


LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


def log_softmax(x):
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def smoothed(smoothing):
    return np.eye(NUM_CLASSES)[LABELS] * (1 - smoothing) + smoothing / NUM_CLASSES


def cross_entropy(logits, shares):
    return -(shares * log_softmax(logits)).sum(1).mean()


def binary(logits, shares):
    probability = 1 / (1 + np.exp(-logits))
    return -(shares * np.log(probability) + (1 - shares) * np.log(1 - probability)).mean()


def mixed(seed, smoothing):
    """Return mixed labels and the classes that they consist of."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.2, 0.8)
    shares = smoothed(smoothing) * share + smoothed(smoothing)[::-1] * (1 - share)
    present = (np.eye(NUM_CLASSES)[LABELS] + np.eye(NUM_CLASSES)[LABELS][::-1]) > 0
    return shares, present


def assert_value(value, expected):
    assert value.ndim == 0
    np.testing.assert_allclose(float(value.detach()), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_cross_entropy_of_one_label(smoothing):
    loss = create_label_loss("cross-entropy", smoothing, NUM_CLASSES)
    assert_value(loss(logits_of(0), LABELS), cross_entropy(logits_of(0).double().numpy(), smoothed(smoothing)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_mixed_labels_is_not_smoothed_again(smoothing):
    shares, _ = mixed(1, smoothing)
    loss = create_label_loss("cross-entropy", smoothing, NUM_CLASSES)
    assert_value(loss(logits_of(0), torch.tensor(shares).float()), cross_entropy(logits_of(0).double().numpy(), shares))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_binary_cross_entropy_of_one_label(smoothing):
    loss = create_label_loss("binary-cross-entropy", smoothing, NUM_CLASSES)
    assert_value(loss(logits_of(0), LABELS), binary(logits_of(0).double().numpy(), smoothed(smoothing)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_binary_cross_entropy_counts_both_mixed_classes_as_present(smoothing):
    shares, present = mixed(2, smoothing)
    loss = create_label_loss("binary-cross-entropy", smoothing, NUM_CLASSES)
    assert_value(loss(logits_of(0), torch.tensor(shares).float()), binary(logits_of(0).double().numpy(), present.astype(float)))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("num_classes", [2, 5, 1000])
def test_binary_cross_entropy_fits_the_labels_of_mixup_and_cutmix(kind, num_classes):
    mixing = make_label_mixing(AugmentationConfig(**{"mixup": 0.0, "cutmix": 0.0, kind: 1.0}, label_smoothing=0.1), num_classes)
    loss = create_label_loss("binary-cross-entropy", 0.1, num_classes)
    labels = torch.arange(8) * 7 % num_classes
    logits, agreed = torch.zeros(8, num_classes), 0
    for _ in range(50):
        _, shares = mixing(torch.randn(8, 3, 16, 16), labels)
        extreme = logits + 30.0 * ((shares > 0.1 / num_classes + 0.01).float() * 2 - 1)
        agreed += float(loss(extreme, shares)) < 1e-3
    # Shares below a hundredth may count as absent.
    assert agreed >= 40


def test_cosub_loss_and_gradient():
    first, second = logits_of(1).requires_grad_(), logits_of(2).requires_grad_()
    loss = cosub_loss(first, second, LABELS, create_label_loss("cross-entropy", 0.1, NUM_CLASSES))
    a, b = (logits.detach().double().numpy() for logits in (first, second))
    sigmoids = {"a": 1 / (1 + np.exp(-a)), "b": 1 / (1 + np.exp(-b))}
    shares = smoothed(0.1)
    expected = (cross_entropy(a, shares) + cross_entropy(b, shares) + binary(a, sigmoids["b"]) + binary(b, sigmoids["a"])) / 4
    assert_value(loss, expected)
    # The targets carry no gradient: that of a is softmax - labels plus sigmoid(a) - sigmoid(b).
    loss.backward()
    softmax = np.exp(log_softmax(a))
    gradient = ((softmax - shares) / NUM_IMAGES + (sigmoids["a"] - sigmoids["b"]) / a.size) / 4
    np.testing.assert_allclose(first.grad.numpy(), gradient, atol=1e-6)


def test_hard_distillation_uses_the_predicted_class():
    student, teacher = logits_of(1), logits_of(2)
    decided = np.eye(NUM_CLASSES)[teacher.argmax(1).numpy()]
    for temperature in (1.0, 3.0):
        loss = distillation_loss(student, teacher, hard=True, temperature=temperature)
        assert_value(loss, cross_entropy(student.double().numpy(), decided))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_distillation_matches_deit(temperature):
    """T^2 sum_i sum_c p log(p / q), with p of the teacher and q of the student, softened; over images times classes."""
    student, teacher = logits_of(1).requires_grad_(), logits_of(2)
    q, p = (np.exp(log_softmax(x.detach().double().numpy() / temperature)) for x in (student, teacher))
    expected = temperature**2 * (p * np.log(p / q)).sum() / (NUM_IMAGES * NUM_CLASSES)
    loss = distillation_loss(student, teacher, hard=False, temperature=temperature)
    assert_value(loss, expected)
    loss.backward()
    np.testing.assert_allclose(student.grad.numpy(), temperature * (q - p) / (NUM_IMAGES * NUM_CLASSES), atol=1e-6)
    assert float(distillation_loss(teacher, teacher, hard=False, temperature=temperature)) == pytest.approx(0, abs=1e-7)
