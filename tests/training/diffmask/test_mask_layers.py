"""Which layer a step trains."""

from collections import Counter

import pytest
import torch

from vitrail.training.diffmask import layers
from vitrail.training.diffmask.layers import LayerChoice
from vitrail.training.randomness import derive


def frequencies(choice, count=4000):
    drawn = Counter(choice.draw(derive(7, step)) for step in range(count))
    return torch.tensor([drawn[layer] / count for layer in range(len(choice.steps))])


def learned(choice, layer):
    choice.agreement[layer], choice.kept[layer], choice.steps[layer] = 0.76, 0.09, 101


def test_layers_are_drawn_alike():
    for weighted in (False, True):
        choice = LayerChoice(5, weighted)
        torch.testing.assert_close(frequencies(choice), torch.full((5,), 0.2), rtol=0, atol=0.03)
    choice = LayerChoice(5, weighted=False)
    learned(choice, 1)
    assert choice.weights().tolist() == [1] * 5


def test_layers_that_have_learned_their_task_are_drawn_a_tenth_as_often():
    choice = LayerChoice(5, weighted=True)
    learned(choice, 1)
    learned(choice, 4)
    torch.testing.assert_close(choice.weights(), torch.tensor([1, 0.1, 1, 1, 0.1]))
    expected = torch.tensor([1, 0.1, 1, 1, 0.1]) / 3.2
    torch.testing.assert_close(frequencies(choice), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize(("figure", "value"), [("agreement", 0.75), ("kept", 0.1), ("steps", 100)])
def test_a_layer_has_not_learned_where_one_figure_is_missing(figure, value):
    choice = LayerChoice(3, weighted=True)
    learned(choice, 1)
    getattr(choice, figure)[1] = value
    assert choice.weights().tolist() == [1] * 3


def test_the_draw_depends_on_seed_and_figures_alone():
    first, second = LayerChoice(14), LayerChoice(14)
    draws = [first.draw(seed) for seed in range(50)]
    torch.rand(3)
    assert [second.draw(seed) for seed in range(50)] == draws
    assert len(set(draws)) > 8


def test_running_figures():
    choice = LayerChoice(3)
    choice.update(1, torch.tensor(0.5), 0.2)
    choice.update(1, 0.0, 0.4)
    torch.testing.assert_close(choice.agreement, torch.tensor([1, 0.9 * 0.95, 1]))
    torch.testing.assert_close(choice.kept, torch.tensor([1, 0.9 * 0.92 + 0.04, 1]))
    assert choice.steps.tolist() == [0, 2, 0]
    assert (layers.LEARNED_AGREEMENT, layers.LEARNED_KEPT, layers.LEARNED_STEPS) == (0.75, 0.1, 100)


def test_running_figures_are_those_of_the_steps(trained_steps, steps, monkeypatch):
    """The share kept counts prefix tokens, as in the norm that is minimized."""
    seen = []
    update = LayerChoice.update
    monkeypatch.setattr(
        LayerChoice, "update", lambda self, layer, *figures: seen.append((layer, *figures)) or update(self, layer, *figures)
    )
    trained_steps()
    choice = LayerChoice(3)
    for figures in seen:
        update(choice, *figures)
    assert torch.equal(choice.kept, steps.learner.layers.kept)
    assert all(0 < kept < 1 and agreement in (0, 0.5, 1) for _, agreement, kept in seen)
