"""Estimators of Shapley and Banzhaf values on games that need no network: closed forms, enumeration of all orders, coverage of errors."""

import math
from itertools import permutations

import pytest
import torch

from vitrail.explainers import _shapley_samplers
from vitrail.explainers._shapley import Ends, exact_weights, list_subsets, smallest_budget, solve
from vitrail.explainers._shapley_remainders import predict_remainders, values_of_similarity
from vitrail.explainers._shapley_samplers import Permutations, Regression, widening

SAMPLERS = {"permutation": Permutations(), "kernel": Regression()}


def weights(players, games, seed=0):
    return torch.randn(players, games, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def saturating(players, games, seed=0):
    """Players add up, and the sum saturates: all orders of interaction."""
    strengths = weights(players, games, seed)
    return lambda masks, chosen: 3 * torch.tanh(masks.double() @ strengths[:, chosen] + 0.3)


def ends(game, players, games):
    chosen = torch.arange(games)
    none, everyone = (game(torch.full((1, players), value), chosen)[0] for value in (False, True))
    return Ends(none, everyone)


def by_all_orders(game, players, games):
    """Average marginal contributions over all orders, as Shapley defined them."""
    total, chosen = torch.zeros(players, games, dtype=torch.float64), torch.arange(games)
    for order in permutations(range(players)):
        mask = torch.zeros(1, players, dtype=torch.bool)
        before = game(mask, chosen)[0]
        for player in order:
            mask[0, player] = True
            after = game(mask, chosen)[0]
            total[player] += after - before
            before = after
    return total / math.factorial(players)


def test_exact_values_are_the_mean_over_all_orders():
    game = saturating(5, 3)
    found = solve(game, 5, ends(game, 5, 3), Regression())
    torch.testing.assert_close(found.values, by_all_orders(game, 5, 3), rtol=0, atol=1e-12)
    assert not found.standard_error.any()
    assert found.num_subsets.tolist() == [32, 32, 32]


def test_glove_and_majority_games_have_their_textbook_values():
    def glove(masks, chosen):  # Player 0 has a left glove, 1 and 2 have right ones; a pair is worth 1.
        return (masks[:, :1] & masks[:, 1:].any(1, keepdim=True)).double()

    def weighted_vote(masks, chosen):  # [3; 2, 1, 1]
        return (masks.double() @ torch.tensor([2.0, 1, 1], dtype=torch.float64) >= 3)[:, None].double()

    third = 1 / 6
    for game in (glove, weighted_vote):
        known = ends(game, 3, 1)
        shapley = solve(game, 3, known, Regression()).values[:, 0]
        torch.testing.assert_close(shapley, torch.tensor([4 * third, third, third], dtype=torch.float64))
        banzhaf = solve(game, 3, known, Regression("banzhaf"), "banzhaf").values[:, 0]
        torch.testing.assert_close(banzhaf, torch.tensor([0.75, 0.25, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("estimator", SAMPLERS)
def test_games_of_pairs_are_solved_without_error(estimator):
    """Antithetic pairs remove interactions of two players: the value is the own term and half of each interaction."""
    single, double = weights(9, 2), torch.randn(9, 9, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def game(masks, chosen):
        present = masks.double()
        return present @ single[:, chosen] + torch.einsum("mi,mj,ijg->mg", present, present, double[..., chosen])

    expected = single + (double.sum(0) + double.sum(1)) / 2
    sampler = SAMPLERS[estimator]
    found = solve(game, 9, ends(game, 9, 2), sampler, num_subsets=smallest_budget(9, sampler))
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-10)
    assert float(found.standard_error.max()) < 1e-10


@pytest.mark.parametrize("estimator", SAMPLERS)
@pytest.mark.parametrize("budget", [300, 1000])
def test_samples_sum_to_the_difference_and_stay_within_the_budget(estimator, budget):
    game, most = saturating(13, 4), []

    def counted(masks, chosen):
        assert bool(((masks.sum(1) > 0) & (masks.sum(1) < 13)).all())
        most.append(len(masks))
        return game(masks, chosen)

    known = ends(game, 13, 4)
    found = solve(counted, 13, known, SAMPLERS[estimator], num_subsets=budget)
    torch.testing.assert_close(found.values.sum(0), known.all - known.none, rtol=0, atol=1e-10)
    assert sum(most) + 2 == int(found.num_subsets[0]) <= budget < int(found.num_subsets[0]) + 30
    assert bool((found.standard_error > 0).all())


@pytest.mark.parametrize("value", ["shapley", "banzhaf"])
def test_values_of_similarity_are_those_of_enumeration(value):
    subsets = list_subsets(6)
    signs = subsets.double() * 2 - 1
    similarity = (signs @ signs.T / 6).clamp(-1, 1).asin() * 2 / math.pi
    exact = (exact_weights(6, value).T @ similarity).T  # One row per subset.
    members, sizes = values_of_similarity(6, value), subsets.sum(1, keepdim=True)
    torch.testing.assert_close(torch.where(subsets, members[sizes], -members[6 - sizes]), exact, rtol=0, atol=1e-7)


def draw_pairs(players, pairs, game):
    masks = Regression().draw(players, pairs, torch.Generator().manual_seed(0))
    values = game(masks.flatten(0, 1), torch.arange(1)).unflatten(0, (pairs, 2))
    return masks[:, 0], (values[:, 0] - values[:, 1]) / 2


def test_remainders_are_predicted_from_earlier_pairs_alone():
    masks, responses = draw_pairs(8, 50, saturating(8, 1))
    found = predict_remainders(masks, responses, "shapley")
    changed = responses.clone()
    changed[30:] += 5
    again = predict_remainders(masks, changed, "shapley")
    torch.testing.assert_close(again[:31], found[:31], rtol=0, atol=1e-12)
    assert not torch.allclose(again[31:], found[31:], atol=0.1)


def test_predictions_have_no_values_of_their_own():
    """As a function of the next subset, what is predicted has Shapley values of 0, whatever was seen before."""
    masks, responses = draw_pairs(6, 40, saturating(6, 1))
    predicted = []
    for subset in list_subsets(6):
        seen = torch.cat([masks, subset[None]]), torch.cat([responses, torch.zeros(1, 1)])
        predicted.append(predict_remainders(*seen, "shapley")[-1])
    assert float(torch.stack(predicted).abs().max()) > 0.1
    torch.testing.assert_close(
        exact_weights(6, "shapley").T @ torch.stack(predicted), torch.zeros(6, 1).double(), rtol=0, atol=1e-6
    )


def test_predictions_lower_the_error(monkeypatch):
    game, known = saturating(12, 20), ends(saturating(12, 20), 12, 20)
    true = exact_weights(12, "shapley").T @ game(list_subsets(12), torch.arange(20))

    def error():
        found = [solve(game, 12, known, Regression(), num_subsets=800, seed=seed).values for seed in range(5)]
        return float((torch.stack(found) - true).square().mean().sqrt())

    with_predictions = error()
    monkeypatch.setattr(_shapley_samplers, "predict_remainders", lambda masks, responses, value: torch.zeros_like(responses))
    assert with_predictions < 0.85 * error()


def test_large_samples_are_predicted_in_parts(monkeypatch):
    masks, responses = draw_pairs(8, 101, saturating(8, 1))
    monkeypatch.setattr("vitrail.explainers._shapley_remainders.MOST_TOGETHER", 40)
    parts = [
        predict_remainders(*each, "shapley")
        for each in zip(masks.split([34, 34, 33]), responses.split([34, 34, 33]), strict=True)
    ]
    torch.testing.assert_close(predict_remainders(masks, responses, "shapley"), torch.cat(parts), rtol=0, atol=1e-12)


@pytest.mark.parametrize("budget", [1998, 2000, 3000])
def test_no_seed_shifts_all_players(budget):
    """The features are constrained to sum to 0: what rounding leaves of their sum must not be inverted."""
    game, players = saturating(16, 1, seed=3), 16
    known = ends(game, players, 1)
    for seed in range(6):
        found = solve(game, players, known, Regression(), num_subsets=budget, seed=seed)
        torch.testing.assert_close(found.values.sum(0), known.all - known.none, rtol=0, atol=1e-10)


@pytest.mark.parametrize("estimator", SAMPLERS)
def test_each_game_stops_by_itself_and_has_the_same_result_among_others(estimator):
    strengths = torch.stack([weights(13, 1)[:, 0] * 0.01, weights(13, 1)[:, 0]], 1)  # The first is nearly linear.

    def game(masks, chosen):
        return torch.tanh(masks.double() @ strengths[:, chosen] + 0.2)

    known = ends(game, 13, 2)
    options = {"num_subsets": 8000, "max_error": 0.02, "seed": 5}
    found = solve(game, 13, known, SAMPLERS[estimator], **options)
    assert int(found.num_subsets[0]) < int(found.num_subsets[1]) <= 8000
    limit = 0.02 * (known.all - known.none).abs()
    assert bool((found.standard_error.amax(0) <= limit).all())
    for index in range(2):
        alone = solve(
            lambda masks, chosen, i=index: game(masks, chosen + i),
            13,
            known.select(torch.tensor([index])),
            SAMPLERS[estimator],
            **options,
        )
        torch.testing.assert_close(alone.values[:, 0], found.values[:, index], rtol=0, atol=1e-12)
        assert alone.num_subsets[0] == found.num_subsets[index]
    other = solve(game, 13, known, SAMPLERS[estimator], **{**options, "seed": 6})
    assert not torch.equal(other.values, found.values)


def test_no_global_random_numbers_are_used():
    game, before = saturating(13, 1), torch.get_rng_state()
    for sampler in SAMPLERS.values():
        solve(game, 13, ends(game, 13, 1), sampler, num_subsets=500)
    assert torch.equal(torch.get_rng_state(), before)


def coverage(sampler, value, players, pairs, seeds):
    """Share of 95 % intervals that contain the true value, over players, games and seeds."""
    game = saturating(players, 40)
    known, subsets = ends(game, players, 40), list_subsets(players)
    true = exact_weights(players, value).T @ game(subsets, torch.arange(40))
    covered = []
    for seed in range(seeds):
        budget = 2 + pairs * sampler.subsets_per_pair(players)
        found = solve(game, players, known, sampler, value, budget, seed=seed)
        assert bool(found.standard_error.any())  # Sampled, not enumerated.
        covered.append(((found.values - true).abs() <= 1.96 * found.standard_error).double().mean())
    return float(torch.stack(covered).mean())


CASES = [
    (Permutations(), "shapley", 30),
    (Permutations(), "shapley", 100),
    (Regression(), "shapley", 60),
    (Regression(), "shapley", 300),
    (Regression("banzhaf"), "banzhaf", 60),
    (Regression("banzhaf"), "banzhaf", 300),
    (Regression(), "shapley", 1200),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "value", "pairs"), CASES)
def test_intervals_of_95_percent_cover_93_to_97_percent(sampler, value, pairs):
    assert 0.93 <= coverage(sampler, value, 12, pairs, seeds=100) <= 0.97


@pytest.mark.parametrize(("sampler", "value", "pairs"), CASES[::2])
def test_intervals_cover_the_true_values(sampler, value, pairs):
    assert 0.91 <= coverage(sampler, value, 12, pairs, seeds=8) <= 0.98


@pytest.mark.parametrize(("freedom", "quantile"), [(5, 2.57058), (8, 2.30600), (30, 2.04227), (1000, 1.96234)])
def test_widening_is_students_quantile(freedom, quantile):
    """Tables of Student's distribution, 97.5 %."""
    assert math.isclose(widening(freedom) * 1.959964, quantile, rel_tol=2e-4)
