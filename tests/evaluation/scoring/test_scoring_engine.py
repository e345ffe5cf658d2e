"""One pass over the images: the numbers of every metric by itself, whatever the batches, workers, processes and interruptions."""

import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from additive import AdditiveClassifier
from any_size import any_size
from samples import CLASS_NAMES, noisy_photo
from scored import LOGIT, SHADES, AlsoRecording, Exact, Recording, additive, gray_photos
from together import Together

from vitrail.adapters import load
from vitrail.core.errors import ImageError, InvalidInputError, OutputError
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation.accuracy import with_model_labels
from vitrail.evaluation.scoring import Plan, score
from vitrail.evaluation.scoring.selection import LABEL
from vitrail.evaluation.scoring.shards import CurveShard, ScoreShard
from vitrail.explainers import make_explainer
from vitrail.metrics import METRICS, InsertionDeletion, Protocol
from vitrail.runs import loop
from vitrail.runs.shards import ShardStore

pytest_plugins = ("tiny",)

STEPS = Protocol(description="a few steps", source="tests", num_steps=4, baselines=("zero", "blur"))
METRIC_NAMES = ("single-step", "faithfulness-correlation", "saco", "sparseness", "masks")
METHODS = ("hit", "random", "occlusion")


@pytest.fixture(scope="module")
def classifier(tiny_model_file):
    return load(str(tiny_model_file), device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten photos of three classes of the tiny model, one of them unreadable."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(10):
        folder = root / CLASS_NAMES[(6, 2, 0)[number % 3]]
        folder.mkdir(exist_ok=True)
        noisy_photo(number).save(folder / f"{number}.png")
    (root / CLASS_NAMES[2] / "4.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def images(classifier, photos):
    return ImageFolder.scan(photos, classifier.preprocessing)


@pytest.fixture(scope="module")
def plan():
    return Plan.create({"steps": STEPS}, METRIC_NAMES)


@pytest.fixture(scope="module")
def cheap_plan():
    """Curves and two metrics: enough to tell whether numbers are the same."""
    return Plan.create({"steps": STEPS}, ("single-step", "sparseness"))


@pytest.fixture(scope="module")
def explainers(classifier):
    return [make_explainer(name, classifier) for name in METHODS]


@pytest.fixture(scope="module")
def scores(classifier, images, explainers, plan):
    return score(classifier, images, explainers, plan, batch_size=4)


def gray_set(folder, shades=SHADES):
    classifier = additive()
    return classifier, ImageFolder.scan(gray_photos(folder, shades), classifier.preprocessing)


def readable(images):
    return [images[i] for i in range(len(images)) if not isinstance(images[i], Unreadable)]


def assert_same(one, other, **tolerance):
    """The same numbers and files; times are not numbers."""
    check = partial(np.testing.assert_allclose, **tolerance) if tolerance else np.testing.assert_array_equal
    check(one.values, other.values)
    np.testing.assert_array_equal(one.targets, other.targets)
    np.testing.assert_array_equal(one.indices, other.indices)
    assert (one.paths, one.columns, one.methods) == (other.paths, other.columns, other.methods)
    assert list(one.unreadable) == list(other.unreadable)
    for name in one.protocols:
        for method, curves in one.curves(name).items():
            check(curves.scores.numpy(), other.curves(name)[method].scores.numpy())
            check(curves.ends.numpy(), other.curves(name)[method].ends.numpy())


def test_values_are_those_of_every_metric_by_itself(scores, classifier, images, explainers):
    batch = torch.stack([sample.image for sample in readable(images)])
    for explainer in explainers:
        explanation = explainer.explain(batch)
        means = scores.means()[explainer.name]
        for name in METRIC_NAMES:
            metric = METRICS[name]()
            metric.update(classifier, batch, explanation, explainer=explainer)
            expected, alone = metric.per_image(), metric.compute()
            for i, measure in enumerate(metric.measures):
                place = name if len(metric.measures) == 1 else f"{name}.{measure.name}"
                if place not in means:  # Undefined for all methods.
                    assert expected[:, i].isnan().all()
                    continue
                found = scores.column(place)[METHODS.index(explainer.name)]
                np.testing.assert_allclose(found, expected[:, i].numpy(), rtol=1e-3, atol=1e-4, err_msg=place)
                assert means[place] == pytest.approx(float(alone[measure.name]), rel=1e-3, abs=1e-4, nan_ok=True)
        metric = InsertionDeletion(STEPS)
        metric.update(classifier, batch, explanation)
        curves = scores.curves("steps")[explainer.name]
        torch.testing.assert_close(curves.scores, metric.curves().scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(curves.ends, metric.curves().ends, rtol=1e-3, atol=1e-5)
        for curve in STEPS.curves:
            assert means[f"steps.{curve.name}"] == pytest.approx(float(metric.compute()[curve.name]), rel=1e-3)
        mean = scores.mean_curves("steps")[explainer.name]
        torch.testing.assert_close(mean.scores, metric.curves().averaged().scores, rtol=1e-3, atol=1e-5)


def test_measures_that_a_method_lacks_are_nan(scores):
    """hit alone accounts for the whole logit, which is measured without being asked for."""
    completeness = scores.column("completeness")
    assert (completeness[0] < 1e-3).all()
    assert np.isnan(completeness[1:]).all()
    assert np.isnan(scores.means()["random"]["completeness"])


def test_undefined_columns_are_dropped(scores, plan):
    planned, found = ([column.name for column in each.columns] for each in (plan, scores))
    assert set(planned) - set(found) == {f"masks.{name}" for name in _names_with_ground_truth()} | {
        "masks.agreement_own",
        "masks.kl_own",
    }
    assert not np.isnan(scores.values).all((0, 1)).any()


def _names_with_ground_truth():
    return ("ground_truth", "iou", "iou_at_size", "pointing", "pointing_chance")


def test_images_and_targets_are_named_in_order(scores, images, classifier):
    samples = readable(images)
    assert scores.paths == [sample.path for sample in samples]
    assert [file.path for file in scores.unreadable] == [images.name(i) for i in range(len(images)) if i not in scores.indices]
    assert len(scores) == 9
    predicted = classifier.logits(torch.stack([sample.image for sample in samples])).argmax(-1)
    np.testing.assert_array_equal(scores.targets, predicted.numpy())
    assert list(scores.target_names) == [CLASS_NAMES[int(target)] for target in predicted]


def test_every_image_is_explained_once_by_every_method(classifier, images, plan, monkeypatch):
    monkeypatch.setattr(
        "vitrail.evaluation.scoring.engine.count_passes_of_first",
        lambda classifier, images, explainers: [1.0] * len(explainers),
    )
    explainers = [Recording(classifier), AlsoRecording(classifier)]
    score(classifier, images, explainers, plan, batch_size=4)
    expected = [float(sample.image.double().sum()) for sample in readable(images)]
    for explainer in explainers:
        assert explainer.seen == pytest.approx(expected)
        assert len(explainer.calls) == 3


def test_logits_are_shared_by_methods_and_metrics(tmp_path, monkeypatch):
    """One more method costs its own explanation and no other pass; one more metric of the same answers costs nothing."""
    classifier, images = gray_set(tmp_path)
    asked, own = [], AdditiveClassifier.logits

    def logits(self, images):
        asked.append(len(images))
        return own(self, images)

    monkeypatch.setattr(AdditiveClassifier, "logits", logits)
    monkeypatch.setattr(
        "vitrail.evaluation.scoring.engine.count_passes_of_first",
        lambda classifier, images, explainers: [1.0] * len(explainers),
    )

    def passes(explainers, metrics):
        asked.clear()
        options = {name: {"num_subsets": 30} for name in metrics}
        score(classifier, images, explainers, Plan.create((), metrics, options), batch_size=2)
        return sum(asked)

    Recording(classifier).explain(images[0].image[None])  # The network is looked over before it is first explained.
    one, two = [Recording(classifier)], [Recording(classifier), AlsoRecording(classifier)]
    both = ["faithfulness-correlation", "infidelity"]
    alone = passes(one, both[:1])
    assert alone == 5 * (1 + 30 + 1)  # The explanation, the subsets, the whole image.
    assert passes(two, both[:1]) == alone + 5
    assert passes(one, both) == alone


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_numbers_do_not_depend_on_batches(batch_size, scores, classifier, images, explainers, plan):
    other = score(classifier, images, explainers, plan, batch_size=batch_size)
    assert_same(scores, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2])
def test_numbers_do_not_depend_on_workers(num_workers, scores, classifier, images, explainers, plan):
    assert_same(scores, score(classifier, images, explainers, plan, batch_size=4, num_workers=num_workers))


def test_images_of_differing_sizes_are_measured_by_themselves(tmp_path):
    """Each without padding; in the order of the set, though sizes are mixed."""
    classifier = any_size()
    for number, size in enumerate([(48, 32), (32, 32), (48, 32), (32, 48), (32, 32), (48, 20)]):
        noisy_photo(number, size).save(tmp_path / f"{number}.png")
    images = ImageFolder.scan(tmp_path, classifier.preprocessing)
    explainers = [make_explainer(name, classifier) for name in ("occlusion", "random")]
    plan = Plan.create({"steps": STEPS}, ["single-step", "sparseness"])
    found = score(classifier, images, explainers, plan, batch_size=5)
    assert [path[-5] for path in found.paths] == list("012345")
    for i in range(len(images)):
        batch = images[i].image[None]
        for explainer in explainers:
            explanation, numbers = explainer.explain(batch), []
            for metric in (InsertionDeletion(STEPS), METRICS["single-step"](), METRICS["sparseness"]()):
                metric.update(classifier, batch, explanation)
                numbers += metric.per_image()[0].tolist()
            np.testing.assert_allclose(found.method_values(explainer.name)[i], numbers, rtol=1e-3, atol=1e-5)
    everything = score(classifier, images, explainers, plan, batch_size=1)
    assert_same(found, everything, rtol=1e-3, atol=1e-5)


def test_the_label_can_be_explained(classifier, images, plan):
    labeled = with_model_labels(images, classifier)
    explainers = [make_explainer("hit", classifier)]
    found = score(classifier, labeled, explainers, plan, LABEL, batch_size=4)
    names = [path.split("/")[-2] for path in found.paths]
    assert set(names) == {"amber", "crimson", "green"}
    assert list(found.target_names) == names
    np.testing.assert_array_equal(found.targets, [CLASS_NAMES.index(name) for name in names])
    batch = torch.stack([sample.image for sample in readable(images)])
    explanation = explainers[0].explain(batch, torch.tensor([CLASS_NAMES.index(name) for name in names]))
    metric = METRICS["single-step"]()
    metric.update(classifier, batch, explanation)
    np.testing.assert_allclose(found.column("single-step.drop")[0], metric.per_image()[:, 0], rtol=1e-3, atol=1e-5)


def test_a_class_by_number_or_name_can_be_explained(classifier, images, explainers):
    plan = Plan.create((), ["single-step"])
    by_number = score(classifier, images, explainers, plan, 3)
    assert set(by_number.target_names) == {"denim"}
    assert_same(by_number, score(classifier, images, explainers, plan, "denim"))


@pytest.mark.usefixtures("unchecked")
def test_labels_that_are_not_there_are_refused(tmp_path):
    classifier, images = gray_set(tmp_path)
    with pytest.raises(InvalidInputError, match="target"):
        score(classifier, images, [Exact(classifier)], Plan.create((), ["sparseness"]), LABEL)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_scored_is_refused(tmp_path, classifier, images, plan):
    one = make_explainer("random", classifier)
    with pytest.raises(InvalidInputError, match="each once"):
        score(classifier, images, [one, one], plan)
    with pytest.raises(InvalidInputError, match="at least one method"):
        score(classifier, images, [], plan)
    with pytest.raises(InvalidInputError, match=r"ground.truth"):
        score(
            classifier,
            images,
            [one],
            Plan.create((), ["pointing-game"]) if "pointing-game" in METRICS else _needs_ground_truth(),
        )
    (tmp_path / "0.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match="not one of 1 images"):
        score(classifier, ImageFolder.scan(tmp_path, classifier.preprocessing), [one], plan)


def _needs_ground_truth():
    return Plan.create((), [next(name for name, metric in METRICS.items() if metric.needs_ground_truth)])


# Shards.


def a_shard(**fields):
    generator = np.random.default_rng(0)
    floats = partial(generator.random, dtype=np.float32)
    curves = {"hit": CurveShard(floats(5), floats((2, 3, 4, 5)), floats((2, 3, 4, 2)))}
    values = generator.random((2, 3, 4))
    values[0, 1, 2] = np.nan
    unreadable = (Unreadable("a/ü\udcff.png", "no picture"),)
    made = {"indices": np.array([4, 5, 7]), "targets": np.array([0, 6, 0]), "values": values, "seconds": generator.random(2)}
    return ScoreShard(**{**made, "curves": curves, "effect": None, "unreadable": unreadable, **fields})


@pytest.mark.parametrize("effect", [None, np.array([0.5, np.nan, 0.0, 1.0])], ids=["exact", "reduced"])
def test_a_shard_is_read_as_it_was_written(effect, tmp_path):
    shard = a_shard(effect=effect)
    store = ShardStore(tmp_path, "key", ScoreShard)
    store.load_finished(1)
    store.save(0, shard)
    again = store.read(0)
    for name in ("indices", "targets", "values", "seconds"):
        np.testing.assert_array_equal(getattr(again, name), getattr(shard, name))
        assert getattr(again, name).dtype == getattr(shard, name).dtype
    assert list(again.curves) == ["hit"]
    for name in ("fractions", "scores", "ends"):
        np.testing.assert_array_equal(getattr(again.curves["hit"], name), getattr(shard.curves["hit"], name))
    assert again.unreadable == shard.unreadable
    assert (again.effect is None) == (effect is None)
    if effect is not None:
        np.testing.assert_array_equal(again.effect, effect)


def test_a_shard_without_images_is_read_as_it_was_written(tmp_path):
    empty = np.zeros(0, dtype=np.int64)
    shard = a_shard(indices=empty, targets=empty, values=np.zeros((2, 0, 4)), curves={})
    store = ShardStore(tmp_path, "key", ScoreShard)
    store.load_finished(1)
    store.save(0, shard)
    again = store.read(0)
    assert (len(again.indices), again.values.shape, again.curves, again.unreadable) == (0, (2, 0, 4), {}, shard.unreadable)


def _foreign_archive(path):
    np.savez_compressed(path, something=np.arange(3))


def _foreign_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("places.npy", "no array")


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-60]),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "text": lambda path: path.write_text("Dear Sir or Madam"),
    "array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }"),
    "foreign archive": _foreign_archive,
    "foreign zip": _foreign_zip,
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_shard_loads_as_none(how, tmp_path):
    store = ShardStore(tmp_path, "key", ScoreShard)
    store.load_finished(1)
    store.save(0, a_shard())
    DAMAGES[how](store.file(0))
    assert store.load(0) is None


def _flipped():
    """Every seventh byte, turned round."""
    return range(0, 2400, 7)


def test_a_flipped_byte_is_detected_or_changes_nothing(tmp_path):
    store, shard = ShardStore(tmp_path, "key", ScoreShard), a_shard()
    store.load_finished(1)
    store.save(0, shard)
    path = store.file(0)
    whole, damaged = path.read_bytes(), 0
    for at in _flipped():
        damaged_bytes = bytearray(whole)
        damaged_bytes[at % len(whole)] ^= 0xFF
        path.write_bytes(damaged_bytes)
        again = store.load(0)
        damaged += again is None
        if again is not None:
            np.testing.assert_array_equal(again.values, shard.values)
            np.testing.assert_array_equal(again.curves["hit"].scores, shard.curves["hit"].scores)
    assert damaged > 100


@pytest.mark.parametrize("how", ["missing", "truncated", "foreign archive"])
def test_only_a_damaged_batch_is_measured_again(how, tmp_path, classifier, images, cheap_plan):
    recording = Recording(classifier)
    first = score(classifier, images, [recording], cheap_plan, batch_size=4, folder=tmp_path)
    store = ShardStore(tmp_path, "", ScoreShard)
    DAMAGES[how](store.file(1))
    again = Recording(classifier)
    second = score(classifier, images, [again], cheap_plan, batch_size=4, folder=tmp_path)
    assert_same(first, second)
    # The second batch, and one image whose passes are counted.
    assert sorted(again.calls) == sorted([recording.calls[1], 1])
    assert store.load(1) is not None


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_same_numbers(tmp_path, scores, classifier, images, cheap_plan):
    methods = [make_explainer(name, classifier) for name in METHODS]
    whole = score(classifier, images, [*methods, Recording(classifier)], cheap_plan, batch_size=2)
    with pytest.raises(RuntimeError, match="power"):
        score(classifier, images, [*methods, Recording(classifier, fails_at=3)], cheap_plan, batch_size=2, folder=tmp_path)
    left = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert left == ["000000.npz", "000001.npz", "000002.npz"]
    before = [(tmp_path / "shards" / name).read_bytes() for name in left]
    rest = Recording(classifier)
    resumed = score(classifier, images, [*methods, rest], cheap_plan, batch_size=2, folder=tmp_path)
    assert_same(whole, resumed)
    assert [(tmp_path / "shards" / name).read_bytes() for name in left] == before
    assert len(rest.calls) == 2 + 1
    assert len(list((tmp_path / "shards").iterdir())) == 5


# Several processes.


@pytest.fixture
def separate(tiny_model_file, images, cheap_plan, monkeypatch):
    """A function that scores in several processes, each with a model of its own, and returns scores and calls of each."""

    def run(count, batch_size=2, folder=lambda rank: None, images=images):
        loaded = [load(str(tiny_model_file), device="cpu") for _ in range(count)]
        recording = [Recording(each) for each in loaded]

        def one(rank):
            methods = [make_explainer("hit", loaded[rank]), recording[rank]]
            return score(loaded[rank], images, methods, cheap_plan, batch_size=batch_size, folder=folder(rank))

        with monkeypatch.context() as patch:
            found = Together(count, patch, loop).run(one)
        return found, [each.calls for each in recording]

    return run


@pytest.mark.parametrize(("count", "shared"), [(2, False), (3, True)], ids=["two in memory", "three in a folder"])
def test_processes_share_the_batches_and_find_the_same(count, shared, separate, tmp_path):
    """Five batches: shares are unequal."""
    [alone], [calls] = separate(1)
    found, shares = separate(count, folder=lambda rank: tmp_path if shared else None)
    for each in found:
        assert_same(alone, each)
    # Every process counts passes by one image.
    assert [len(share) - 1 for share in shares] == [len(range(rank, 5, count)) for rank in range(count)]
    assert sum(map(sum, shares)) - count == sum(calls) - 1 == 9


def test_processes_without_images(separate):
    [alone], _ = separate(1, batch_size=16)
    found, shares = separate(2, batch_size=16)
    for each in found:
        assert_same(alone, each)
    assert [sum(share) - 1 for share in shares] == [9, 0]


def test_processes_resume_where_one_stopped(separate, tmp_path, classifier, images, cheap_plan):
    [alone], _ = separate(1)
    methods = [make_explainer("hit", classifier), Recording(classifier, fails_at=3)]
    with pytest.raises(RuntimeError, match="power"):
        score(classifier, images, methods, cheap_plan, batch_size=2, folder=tmp_path)
    found, shares = separate(2, folder=lambda rank: tmp_path)
    for each in found:
        assert_same(alone, each)
    assert [len(share) - 1 for share in shares] == [1, 1]


def test_processes_without_a_common_folder_are_reported(separate, tmp_path):
    found, _ = separate(2, folder=lambda rank: tmp_path / str(rank))
    # The first that notices may stop the others before they do.
    errors = [error for error in found if isinstance(error, OutputError)]
    assert errors
    assert "share" in str(errors[0])


# Several grids.


@pytest.fixture
def two_grids(tmp_path):
    """Images of 4x6, 4x5 and 4x4 cells."""
    classifier = any_size()
    for number, size in enumerate([(48, 32), (40, 32), (32, 32)]):
        noisy_photo(number, size).save(tmp_path / f"{number}.png")
    return classifier, ImageFolder.scan(tmp_path, classifier.preprocessing)


def counting(cells_per_step):
    return Protocol(description="cells", source="tests", cells_per_step=cells_per_step, baselines=("zero",))


@pytest.mark.usefixtures("unchecked")
def test_several_grids_are_refused_where_cells_are_counted(two_grids):
    classifier, images = two_grids
    explainers = [make_explainer("random", classifier)]
    with pytest.raises(InvalidInputError, match="one grid"):
        score(classifier, images, explainers, Plan.create({"own": counting(7)}), batch_size=4)
    found = score(classifier, images, explainers, Plan.create({"own": STEPS}), batch_size=4)
    assert found.curves("own")["random"].scores.shape == (3, 4, 5)


@pytest.mark.usefixtures("unchecked")
def test_several_grids_are_refused_in_several_batches(two_grids):
    classifier, images = two_grids
    with pytest.raises(InvalidInputError, match="one grid"):
        score(classifier, images, [make_explainer("random", classifier)], Plan.create({"own": counting(7)}), batch_size=1)


@pytest.mark.usefixtures("unchecked")
def test_several_grids_are_refused_whose_curves_have_as_many_points(two_grids):
    """24 and 20 cells, 13 at a step: three points each, and the second one lies at 13/24 or at 13/20."""
    classifier, images = two_grids
    with pytest.raises(InvalidInputError, match="one grid"):
        score(classifier, images.subset([0, 1]), [make_explainer("random", classifier)], Plan.create({"own": counting(13)}))


# Precision.


def test_the_effect_of_precision_is_measured_on_the_first_batch(classifier, images, explainers):
    plan = Plan.create({"steps": STEPS}, ["single-step", "faithfulness-correlation", "masks"])
    exact = score(classifier, images, explainers, plan, batch_size=4)
    assert exact.effect is None
    reduced = [make_explainer(name, classifier, precision="bf16") for name in METHODS]
    found = score(classifier, images, reduced, plan, batch_size=4)
    assert list(found.effect) == [column.name for column in found.columns]
    first = np.isin(found.indices, range(4))
    assert 1 < first.sum() < len(found)
    for column in found.columns:
        differences = np.abs(found.column(column.name) - exact.column(column.name))[:, first]
        assert found.effect[column.name] == pytest.approx(np.nanmean(differences), rel=1e-9, abs=1e-12), column.name
    assert 0 < found.effect["single-step.drop"] < 0.1


def test_a_run_in_reduced_precision_keeps_its_effect(tmp_path, classifier, images):
    plan, reduced = Plan.create((), ["single-step"]), [make_explainer("random", classifier, precision="bf16")]
    first = score(classifier, images, reduced, plan, batch_size=4, folder=tmp_path)
    second = score(classifier, images, reduced, plan, batch_size=4, folder=tmp_path)
    assert first.effect == second.effect
    assert first.effect is not None


# The user's model.


def state(module):
    """All that must not change."""
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "modes": [part.training for part in module.modules()],
        "asked": [parameter.requires_grad for parameter in module.parameters()],
        "gradients": [None if parameter.grad is None else parameter.grad.clone() for parameter in module.parameters()],
        "hooks": [
            (len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)) for part in module.modules()
        ],
        "methods": [sorted(vars(part)) for part in module.modules()],
    }


def assert_untouched(before, after):
    for name in ("modes", "asked", "hooks", "methods"):
        assert before[name] == after[name], name
    assert all(torch.equal(value, after["weights"][name]) for name, value in before["weights"].items())
    for one, other in zip(before["gradients"], after["gradients"], strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.fixture
def used(tiny_model_file):
    """A model in the middle of a training: partly frozen, in mixed modes, with gradients."""
    classifier = load(str(tiny_model_file), device="cpu")
    classifier.module.train()
    next(iter(classifier.module.children())).eval()
    for i, parameter in enumerate(classifier.module.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        parameter.grad = torch.ones_like(parameter) if i % 3 == 0 else None
    return classifier


ALL = ("hit", "chefer", "attention", "input-x-gradient", "random")


@pytest.mark.slow
def test_the_users_model_is_untouched(used, images):
    before, random_state = state(used.module), np.random.get_state()[1].tolist()
    plan = Plan.create({"steps": STEPS}, [name for name, metric in METRICS.items() if not metric.needs_ground_truth])
    found = score(used, images.subset([0, 1, 2]), [make_explainer(name, used) for name in ALL], plan)
    assert_untouched(before, state(used.module))
    assert np.random.get_state()[1].tolist() == random_state
    assert found.method_values("hit").shape[0] == 3
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("failing", ["metric", "method", "model"])
def test_the_users_model_is_untouched_by_a_failure(failing, used, images, monkeypatch):
    plan = Plan.create((), ["single-step"])
    explainers = [make_explainer(name, used) for name in ALL]
    if failing == "metric":

        def fail(self, view, explanation, again=None):
            with view.classifier.inspecting():
                raise ZeroDivisionError("no metric")

        monkeypatch.setattr(METRICS["single-step"], "measure", fail)
    elif failing == "method":

        def fail(self, images, choose):
            raise ZeroDivisionError("no method")

        monkeypatch.setattr(type(explainers[-1]), "attribution", fail)
    else:
        own, calls = type(used).perturbed_logits, []

        def fail(self, *arguments):
            calls.append(1)
            own(self, *arguments)
            raise ZeroDivisionError("no model")

        monkeypatch.setattr(type(used), "perturbed_logits", fail)
    before = state(used.module)
    with pytest.raises(ZeroDivisionError):
        score(used, images.subset([0, 1]), explainers, plan)
    assert_untouched(before, state(used.module))
    assert torch.is_grad_enabled()


def test_scoring_does_not_change_the_random_state(classifier, images):
    before = torch.get_rng_state()
    score(classifier, images.subset([0, 1]), [make_explainer("random", classifier)], Plan.create((), ["sparseness"]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_published_protocols_can_be_scored_together(classifier, images):
    """Steps, cells and pixels, in one pass."""
    names = ["hit", "diffmask", "chefer"]
    found = score(classifier, images.subset([0, 1]), [make_explainer("random", classifier)], Plan.create(names))
    assert list(found.protocols) == names
    assert not np.isnan(found.values).any()


def test_the_additive_classifier_computes_its_closed_form(tmp_path):
    """What the closed forms of other suites rely on."""
    classifier, images = gray_set(tmp_path)
    batch = torch.stack([sample.image for sample in readable(images)])
    expected = np.array(SHADES) / 255 @ classifier.module.weights.detach().numpy()
    np.testing.assert_allclose(classifier.logits(batch)[:, 0].detach(), expected, rtol=1e-5)
    found = score(classifier, images, [Exact(classifier)], Plan.create({"logit": LOGIT}))
    assert found.curves("logit")["Exact"].scores.shape == (5, 2, 7)
