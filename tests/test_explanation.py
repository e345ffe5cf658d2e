import json
import math
import re
import zipfile
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch

from vitrail.core.errors import CheckpointError, InvalidInputError, OutputError
from vitrail.explanation import FORMAT, Explanation


@pytest.fixture
def explanation():
    generator = torch.Generator().manual_seed(0)
    return Explanation(
        relevance=torch.randn(3, 2, 4, generator=generator),
        targets=torch.tensor([2, 0, 4]),
        logits=torch.randn(3, 5, generator=generator),
        method="rollout",
        bias=torch.randn(3, generator=generator),
        model="tiny",
        class_names=("ant", "bee", "cat", "dog", "elk"),
        sources=("one.jpg", "two.jpg", "three.jpg"),
    )


@pytest.fixture
def without_shape_checks(monkeypatch):
    """Disable the shape checks of the test run, which come before ours."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def bare(relevance: torch.Tensor, **options) -> Explanation:
    count = len(relevance)
    return Explanation(relevance, torch.zeros(count, dtype=torch.long), torch.zeros(count, 2), **options)


def assert_same(one: Explanation, other: Explanation) -> None:
    for name in ("relevance", "targets", "logits"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == getattr(other, name).dtype, name
    assert (one.bias is None) == (other.bias is None)
    assert one.bias is None or torch.equal(one.bias, other.bias)
    for name in ("method", "model", "class_names", "sources"):
        assert getattr(one, name) == getattr(other, name), name


def test_saving_and_loading_preserves_an_explanation(explanation, tmp_path):
    explanation.save(tmp_path / "result.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.npz"]
    assert_same(Explanation.load(tmp_path / "result.npz"), explanation)


def test_saving_and_loading_preserves_an_explanation_without_names(tmp_path):
    explanation = bare(torch.ones(2, 3, 3))
    explanation.save(tmp_path / "result")
    assert_same(Explanation.load(tmp_path / "result"), explanation)


def test_a_loaded_explanation_has_no_graph(tmp_path):
    relevance = torch.ones(1, 2, 2, requires_grad=True)
    bare(relevance * 2).save(tmp_path / "result.npz")
    loaded = Explanation.load(tmp_path / "result.npz")
    assert not loaded.relevance.requires_grad
    assert loaded.relevance.eq(2).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_saved_without_loss(tmp_path, dtype):
    relevance = torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    bare(relevance).save(tmp_path / "result.npz")
    assert torch.equal(Explanation.load(tmp_path / "result.npz").relevance, relevance.float())


def test_all_tensors_move_to_another_device(explanation):
    moved = explanation.to("meta")
    assert {part.device.type for part in (moved.relevance, moved.targets, moved.logits, moved.bias)} == {"meta"}
    assert (moved.method, moved.model, moved.class_names, moved.sources) == (
        *(explanation.method, explanation.model),
        *(explanation.class_names, explanation.sources),
    )
    assert_same(explanation.to("cpu"), explanation)
    assert bare(torch.ones(1, 2, 2)).to("meta").bias is None


def test_file_names_with_dots_do_not_collide(tmp_path):
    bare(torch.ones(1, 2, 2)).save(tmp_path / "crop-0.875")
    bare(torch.zeros(1, 2, 2)).save(tmp_path / "crop-0.9")
    assert Explanation.load(tmp_path / "crop-0.875").relevance.eq(1).all()


def test_the_description_is_plain_json(explanation, tmp_path):
    explanation.save(tmp_path / "result.npz")
    described = json.loads((tmp_path / "result.json").read_text())
    assert described["format"] == FORMAT
    assert described["grid"] == [2, 4]
    first = described["images"][0]
    assert (first["source"], first["target"], first["target_name"]) == ("one.jpg", 2, "cat")
    assert first["logit"] == pytest.approx(float(explanation.logits[0, 2]))
    assert [entry["class"] for entry in first["top"]] == [name for name, _ in explanation.top_classes(0, 5)]


def test_the_file_holds_plain_arrays_only(explanation, tmp_path):
    explanation.save(tmp_path / "result.npz")
    with zipfile.ZipFile(tmp_path / "result.npz") as archive:
        assert sorted(archive.namelist()) == ["bias.npy", "logits.npy", "relevance.npy", "targets.npy"]
    with np.load(tmp_path / "result.npz", allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.kind for name in arrays.files} == {
            "bias": "f",
            "logits": "f",
            "relevance": "f",
            "targets": "i",
        }


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).mkdir, (self.path,)


def test_a_pickled_array_is_refused_and_not_executed(explanation, tmp_path):
    explanation.save(tmp_path / "result.npz")
    marker = tmp_path / "executed"
    arrays = {"targets": np.zeros(3, int), "logits": np.zeros((3, 5), np.float32)}
    np.savez(tmp_path / "result.npz", relevance=np.array([Bomb(marker)], dtype=object), **arrays)
    with pytest.raises(CheckpointError, match="allow_pickle=False"):
        Explanation.load(tmp_path / "result.npz")
    assert not marker.exists()
    with np.load(tmp_path / "result.npz", allow_pickle=True) as unsafe:
        _ = unsafe["relevance"]
    assert marker.exists(), "the bomb must be a live one"


def damage_by_truncation(npz, description):
    npz.write_bytes(npz.read_bytes()[:-40])


def damage_by_text(npz, description):
    npz.write_text("no archive")


def damage_by_absence(npz, description):
    npz.unlink()


def damage_by_missing_description(npz, description):
    description.unlink()


def damage_by_broken_description(npz, description):
    description.write_text(description.read_text()[:-20])


def damage_by_list_as_description(npz, description):
    description.write_text("[]")


def damage_by_missing_key(npz, description):
    described = json.loads(description.read_text())
    del described["class_names"]
    description.write_text(json.dumps(described))


def damage_by_fewer_images(npz, description):
    described = json.loads(description.read_text())
    described["images"].pop()
    description.write_text(json.dumps(described))


def damage_by_foreign_array(npz, description):
    with np.load(npz) as arrays:
        contents = dict(arrays)
    np.savez(npz, foreign=np.zeros(3), **contents)


def damage_by_missing_array(npz, description):
    with np.load(npz) as arrays:
        contents = dict(arrays)
    del contents["logits"]
    np.savez(npz, **contents)


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_by_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.removeprefix("damage_by_"))
def test_a_damaged_file_is_refused(explanation, tmp_path, damage):
    path = tmp_path / "result.npz"
    explanation.save(path)
    damage(path, tmp_path / "result.json")
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'cannot read the explanation {path}: ')}."):
        Explanation.load(path)


def test_another_format_is_refused_by_name(explanation, tmp_path):
    explanation.save(tmp_path / "result.npz")
    description = tmp_path / "result.json"
    description.write_text(description.read_text().replace(FORMAT, "vitrail explanation 99"))
    with pytest.raises(CheckpointError, match="expected the format 'vitrail explanation 1', got 'vitrail explanation 99'"):
        Explanation.load(tmp_path / "result.npz")


def test_unwritable_paths(explanation, tmp_path):
    with pytest.raises(OutputError, match="No such file or directory"):
        explanation.save(tmp_path / "missing" / "result.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.zeros(2, dtype=torch.long)}, "expected 3 targets, one per relevance map, got 2"),
        ({"logits": torch.zeros(4, 5)}, "expected 3 logits, one per relevance map, got 4"),
        ({"bias": torch.zeros(1)}, "expected 3 bias, one per relevance map, got 1"),
        ({"sources": ("one.jpg",)}, "expected 3 sources, one per relevance map, got 1"),
    ],
    ids=["targets", "logits", "bias", "sources"],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_lengths_that_differ_are_refused(explanation, change, message):
    parts = {"relevance": explanation.relevance, "targets": explanation.targets, "logits": explanation.logits} | change
    with pytest.raises(InvalidInputError, match=f"^{re.escape(message)}$"):
        Explanation(**parts)


@pytest.mark.parametrize("index", [0, 1, 2, -1, -3])
def test_an_index_gives_one_image_as_a_batch(explanation, index):
    one = explanation[index]
    assert len(one) == 1
    assert torch.equal(one.relevance[0], explanation.relevance[index])
    assert int(one.targets[0]) == int(explanation.targets[index])
    assert torch.equal(one.logits[0], explanation.logits[index])
    assert float(one.bias[0]) == float(explanation.bias[index])
    assert one.sources == (explanation.sources[index],)
    assert (one.method, one.model, one.class_names) == (explanation.method, explanation.model, explanation.class_names)


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_out_of_range_is_refused(explanation, index):
    with pytest.raises(IndexError):
        explanation[index]


@pytest.mark.parametrize("some", [slice(1, None), slice(None, None, 2), slice(0, 0)], ids=str)
def test_slices(explanation, some):
    part = explanation[some]
    assert part.sources == explanation.sources[some]
    assert part.targets.tolist() == explanation.targets.tolist()[some]
    assert torch.equal(part.relevance, explanation.relevance[some])
    assert part.bias.tolist() == explanation.bias.tolist()[some]


def test_a_slice_without_bias_and_sources():
    part = bare(torch.ones(3, 2, 2))[1:]
    assert len(part) == 2
    assert part.bias is None
    assert part.sources == ()


def test_iteration_gives_every_image_once(explanation):
    assert [one.sources for one in explanation] == [("one.jpg",), ("two.jpg",), ("three.jpg",)]
    assert [len(one) for one in explanation] == [1, 1, 1]


def test_concatenating_slices_gives_the_whole(explanation):
    assert_same(Explanation.concatenate([explanation[:2], explanation[2]]), explanation)
    assert_same(Explanation.concatenate(list(explanation)), explanation)
    assert_same(Explanation.concatenate([explanation]), explanation)


def test_concatenating_explanations_without_bias_and_sources():
    whole = Explanation.concatenate([bare(torch.zeros(1, 2, 2)), bare(torch.ones(2, 2, 2))])
    assert whole.relevance[:, 0, 0].tolist() == [0, 1, 1]
    assert whole.bias is None
    assert whole.sources == ()


def test_concatenating_nothing_is_refused():
    with pytest.raises(InvalidInputError, match=r"^expected at least one explanation to concatenate, got none$"):
        Explanation.concatenate([])


@pytest.mark.parametrize("order", [1, -1])
def test_parts_with_and_without_bias_are_refused(explanation, order):
    parts = [explanation[0], replace(explanation[1], bias=None)][::order]
    with pytest.raises(InvalidInputError):
        Explanation.concatenate(parts)


def test_concatenating_different_grids_is_refused():
    with pytest.raises(
        InvalidInputError, match=r"^expected maps of one grid, got 2x3 and 3x2 cells, .*; explain photos of .* one by one"
    ):
        Explanation.concatenate([bare(torch.zeros(2, 2, 3)), bare(torch.zeros(1, 2, 3)), bare(torch.zeros(1, 3, 2))])


def test_sources_can_be_added(explanation):
    named = explanation.with_sources(["a.jpg", "b.jpg", "c.jpg"])
    assert named.sources == ("a.jpg", "b.jpg", "c.jpg")
    assert explanation.sources[0] == "one.jpg"
    with pytest.raises(InvalidInputError, match=r"^expected 3 sources, one per relevance map, got 1$"):
        explanation.with_sources(["a.jpg"])


def test_normalized_divides_by_the_largest_magnitude_of_each_image():
    relevance = torch.tensor([[[1.0, -4.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]], [[1e-3, 0.0], [5e-4, -5e-4]]])
    expected = torch.tensor([[[0.25, -1.0], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.5, -0.5]]])
    explanation = bare(relevance)
    torch.testing.assert_close(explanation.normalized(), expected)
    assert explanation.relevance is relevance


def test_nearest_upsampling_keeps_every_value():
    relevance = torch.arange(6.0).reshape(1, 2, 3)
    expected = torch.from_numpy(np.kron(relevance.numpy(), np.ones((4, 5), np.float32)))
    assert torch.equal(bare(relevance).upsample((8, 15)), expected)


def test_bilinear_upsampling_of_a_ramp_is_a_ramp():
    ramp = torch.arange(4.0).expand(1, 2, 4).contiguous()
    smooth = bare(ramp).upsample((4, 16), "bilinear")
    centers = (torch.arange(16.0) + 0.5) / 4 - 0.5
    torch.testing.assert_close(smooth, centers.clamp(0, 3).expand(1, 4, 16))


def test_strongest_patches_come_best_first_and_ties_by_position():
    explanation = bare(torch.tensor([[[0.0] * 3] * 2, [[1.0, 3.0, 1.0], [-9.0, 3.0, 1.0]]]))
    assert explanation.strongest_patches(1, 4) == [(0, 1, 3.0), (1, 1, 3.0), (0, 0, 1.0), (0, 2, 1.0)]
    assert len(explanation.strongest_patches(1, 99)) == 6
    assert explanation.strongest_patches(0, 2) == [(0, 0, 0.0), (0, 1, 0.0)]


def test_strongest_patches_with_many_ties():
    cells = [(row, col, 0.5) for row in range(14) for col in range(14)]
    assert bare(torch.full((1, 14, 14), 0.5)).strongest_patches(0, 196) == cells


def test_top_classes_are_names_and_probabilities():
    logits = torch.tensor([[0.0, math.log(3), math.log(6)]])
    explanation = Explanation(torch.zeros(1, 1, 1), torch.tensor([0]), logits, class_names=("ant", "bee", "cat"))
    names, probabilities = zip(*explanation.top_classes(0, 2), strict=True)
    assert names == ("cat", "bee")
    assert probabilities == pytest.approx((0.6, 0.3))
    assert len(explanation.top_classes(0, 99)) == 3


def test_classes_without_names_are_numbered(explanation):
    assert explanation.class_name(1) == "bee"
    assert explanation.class_name(5) == "class 5"
    assert [name for name, _ in bare(torch.zeros(1, 1, 1)).top_classes(0, 2)] == ["class 0", "class 1"]


def test_target_logits_and_probabilities(explanation):
    assert explanation.target_logits().tolist() == [float(explanation.logits[i, t]) for i, t in enumerate((2, 0, 4))]
    torch.testing.assert_close(explanation.probabilities.sum(1), torch.ones(3))
    torch.testing.assert_close(explanation.probabilities.log().diff(dim=1), explanation.logits.diff(dim=1))


def test_completeness_error_is_relative_to_the_largest_logit():
    logits = torch.tensor([[1.0, -8.0], [2.0, 4.0]])
    relevance = torch.tensor([[[0.5, 0.25]], [[3.0, 3.0]]])
    explanation = Explanation(relevance, torch.tensor([0, 1]), logits, bias=torch.tensor([0.25, 0.0]))
    assert explanation.completeness_error() == pytest.approx(2 / 8)
    assert explanation[0].completeness_error() == 0


def test_completeness_error_without_bias():
    assert bare(torch.ones(1, 2, 2)).completeness_error() is None


def test_an_empty_explanation_can_be_saved(explanation, tmp_path):
    explanation[0:0].save(tmp_path / "result.npz")
    assert len(Explanation.load(tmp_path / "result.npz")) == 0
