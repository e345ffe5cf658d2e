import json
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from PIL import Image
from samples import CLASS_NAMES, noisy_photo

import vitrail
from vitrail import api
from vitrail.adapters import load
from vitrail.api import default_method, make_explainers
from vitrail.core.errors import (
    ImageError,
    InvalidInputError,
    OutputError,
    UnknownNameError,
    UnsupportedModelError,
    VitrailError,
)
from vitrail.explainers import EXPLAINERS
from vitrail.metrics import METRICS, PROTOCOLS

pytest_plugins = ("tiny", "score_runs")


@pytest.fixture
def classifier(tiny_model_file):
    return load(tiny_model_file, device="cpu")


@pytest.fixture
def photo(make_photo, tmp_path):
    return make_photo(tmp_path / "photo.png", seed=1)


def test_every_public_name_is_there_and_no_other():
    for name in vitrail.__all__:
        assert getattr(vitrail, name) is not None
        assert name in dir(vitrail)
    assert issubclass(vitrail.VitrailError, Exception)
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        vitrail.explian  # noqa: B018


def test_a_file_a_text_an_opened_photo_and_a_batch_are_explained_alike(classifier, photo):
    opened = Image.open(photo)
    batch = classifier.prepare(opened)
    explanations = [vitrail.explain(classifier, some) for some in (photo, str(photo), opened, [photo], batch)]
    for explanation in explanations[1:]:
        torch.testing.assert_close(explanation.relevance, explanations[0].relevance)
        torch.testing.assert_close(explanation.logits, explanations[0].logits)
    assert [explanation.sources for explanation in explanations] == [(str(photo),), (str(photo),), ("",), (str(photo),), ()]
    assert explanations[0].relevance.shape == (1, 4, 4)


@pytest.mark.parametrize("kind", ["transparent", "sixteen-bit", "rotated"])
def test_an_opened_photo_of_an_odd_mode_is_seen_as_its_file_is(kind, classifier, tmp_path):
    path, options = tmp_path / "photo.png", {}
    image = noisy_photo(2)
    if kind == "transparent":
        image.putalpha(noisy_photo(3).convert("L"))
    elif kind == "sixteen-bit":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256)
    else:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    image.save(path, **options)
    from_file, from_opened = vitrail.explain(classifier, path), vitrail.explain(classifier, Image.open(path))
    torch.testing.assert_close(from_opened.logits, from_file.logits)


def test_a_name_a_network_and_an_adapted_one_are_the_same_model(classifier, tiny_model_file, photo):
    by_name, adapted = vitrail.explain(str(tiny_model_file), photo), vitrail.explain(classifier, photo)
    torch.testing.assert_close(by_name.logits.cpu(), adapted.logits)
    network = vitrail.explain(classifier.module, classifier.prepare(Image.open(photo)))
    torch.testing.assert_close(network.relevance, adapted.relevance)
    with pytest.raises(UnsupportedModelError, match="Linear"):
        vitrail.explain(torch.nn.Linear(2, 2), photo)


def test_more_photos_than_a_batch_keep_their_order(classifier, make_photo, tmp_path):
    photos = [make_photo(tmp_path / f"{i}.png", seed=i, size=(16 + i, 20)) for i in range(19)]
    together = vitrail.explain(classifier, photos)
    assert together.sources == tuple(map(str, photos))
    for i in (0, 15, 16, 18):
        alone = vitrail.explain(classifier, photos[i])
        torch.testing.assert_close(together.relevance[i], alone.relevance[0], rtol=1e-4, atol=1e-5)
        assert together.targets[i] == alone.targets[0]


@pytest.mark.parametrize(("target", "index"), [(0, 0), ("0", 0), ("amber", 0), (6, 6), ("green", 6)])
def test_the_target_is_a_name_or_a_number(target, index, classifier, photo):
    explanation = vitrail.explain(classifier, [photo, photo], target=target)
    assert explanation.targets.tolist() == [index, index]
    total = explanation.relevance.sum((1, 2)) + explanation.bias
    torch.testing.assert_close(total, explanation.logits[:, index], rtol=1e-4, atol=1e-4)


def test_a_target_per_photo_follows_its_photo_over_batches(classifier, make_photo, tmp_path):
    photos = [make_photo(tmp_path / f"{i}.png", seed=i) for i in range(18)]
    targets = torch.arange(18) % 7
    explanation = vitrail.explain(classifier, photos, target=targets)
    assert explanation.targets.tolist() == targets.tolist()
    total = explanation.relevance.sum((1, 2)) + explanation.bias
    torch.testing.assert_close(total, explanation.logits.gather(1, targets[:, None])[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (7, InvalidInputError),
        (-1, InvalidInputError),
        ("bleu", UnknownNameError),
        (torch.tensor([0, 7]), InvalidInputError),
        (torch.tensor([0]), InvalidInputError),
        (torch.tensor([0, 1, 2]), InvalidInputError),
    ],
    ids=["large", "negative", "name", "large-in-tensor", "few", "many"],
)
def test_bad_targets_are_refused(target, error, classifier, photo):
    with pytest.raises(error):
        vitrail.explain(classifier, [photo, photo], target=target)


def test_too_many_targets_are_refused_also_where_they_fill_a_batch(classifier, photo):
    with pytest.raises(InvalidInputError):
        vitrail.explain(classifier, [photo] * 16, target=torch.zeros(17, dtype=torch.long))


def test_integers_are_not_taken_for_a_normalized_batch(classifier):
    with pytest.raises(InvalidInputError, match="floats"):
        vitrail.explain(classifier, torch.randint(0, 256, (1, 3, 16, 16)))


def test_no_photos_are_refused(classifier):
    with pytest.raises(InvalidInputError, match="at least one photo"):
        vitrail.explain(classifier, [])


def test_bad_photos_methods_and_options_are_refused(classifier, photo, tmp_path):
    with pytest.raises(ImageError, match="no such image file"):
        vitrail.explain(classifier, [photo, tmp_path / "none.png"])
    with pytest.raises(UnknownNameError, match="did you mean 'hit'"):
        vitrail.explain(classifier, photo, method="hitt")
    with pytest.raises(InvalidInputError, match=r"no option norm_maen; its options: .*norm_mean"):
        vitrail.explain(classifier, photo, norm_maen="own")
    with pytest.raises(InvalidInputError):
        vitrail.explain(classifier, torch.full((1, 3, 16, 16), torch.nan))


def test_options_reach_the_method(classifier, photo):
    first, same, other = (vitrail.explain(classifier, photo, method="random", seed=seed).relevance for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_methods_and_protocols_are_listed_as_registered():
    methods = {entry["name"]: entry for entry in vitrail.list_methods()}
    assert list(methods) == list(EXPLAINERS)
    assert methods["hit"]["model"] == EXPLAINERS["hit"].needs_model
    assert methods["random"]["summary"].startswith("Uniform noise")
    protocols = {entry["name"]: entry for entry in vitrail.list_protocols()}
    assert list(protocols) == list(PROTOCOLS)
    assert "2502.17196" in protocols["hit"]["source"]


def test_metrics_are_listed_as_registered():
    metrics = {entry["name"]: entry for entry in vitrail.list_metrics()}
    assert list(metrics) == list(METRICS)
    masks = metrics["masks"]
    assert masks["summary"].startswith("Threshold a map into a mask")
    assert masks["options"] == {"threshold": 0.5}
    assert not masks["needs_ground_truth"]
    assert (masks["measures"]["kept"], masks["measures"]["kl"], masks["measures"]["iou"]) == (None, "lower", "higher")
    assert metrics["completeness"]["options"] == {}
    for name, entry in metrics.items():
        assert entry["summary"]
        assert list(entry["measures"]) == [measure.name for measure in METRICS[name].measures]
        assert entry["needs_ground_truth"] == METRICS[name].needs_ground_truth
        METRICS[name](**entry["options"])


def test_score_measures_what_is_asked(classifier, tiny_model_file, make_photo, tmp_path):
    photos = [make_photo(tmp_path / "photos" / f"{i}.png", seed=i) for i in range(4)]
    protocol = vitrail.Protocol(description="small", source="this test", num_steps=4, baselines=("zero",), scores=("logit",))
    scores = vitrail.score(str(tiny_model_file), tmp_path / "photos", methods="hit", protocol=protocol, limit=2)
    assert (scores.methods, list(scores.protocols)) == (("hit",), ["own"])
    assert scores.protocols["own"] == protocol
    assert scores.paths == [str(photos[0]), str(photos[2])]
    curves = scores.curves("own")["hit"]
    assert curves.scores.shape == (2, 2, 5)
    explanation = vitrail.explain(classifier, [photos[0], photos[2]])
    assert scores.targets.tolist() == explanation.targets.tolist()
    torch.testing.assert_close(curves["deletion_zero_logit"][:, 0].cpu(), explanation.target_logits(), rtol=1e-4, atol=1e-4)
    areas = np.trapezoid(curves["insertion_zero_logit"], np.linspace(0, 1, 5), axis=1)
    np.testing.assert_allclose(scores.column("own.insertion_zero_logit")[0], areas, rtol=1e-5)
    assert scores.means()["hit"]["own.insertion_zero_logit"] == pytest.approx(areas.mean(), rel=1e-5)
    assert list(scores.unreadable) == []


@pytest.mark.parametrize(
    ("asked", "protocols", "metrics"),
    [
        ({}, ["hit"], []),
        ({"protocol": "diffmask"}, ["diffmask"], []),
        ({"protocol": ["tokens", "diffmask"], "metrics": "masks"}, ["tokens", "diffmask"], ["masks"]),
        ({"metrics": ("sparseness", "masks")}, [], ["sparseness", "masks"]),
    ],
    ids=["nothing", "one", "both", "metrics alone"],
)
def test_score_takes_protocols_and_metrics_by_name(asked, protocols, metrics, classifier, photo):
    scores = vitrail.score(classifier, photo, "hit", **asked)
    assert list(scores.protocols) == protocols
    found = list(dict.fromkeys(column.metric for column in scores.columns))
    assert found == [*protocols, *metrics, "completeness"]
    for name in protocols:
        assert scores.protocols[name] == PROTOCOLS[name]


def test_options_reach_the_metric(classifier, photo):
    low, high = (
        vitrail.score(classifier, photo, "random", metrics="masks", options={"masks": {"threshold": threshold}})
        for threshold in (0.0, 1.0)
    )
    assert (low.means()["random"]["masks.kept"], high.means()["random"]["masks.kept"]) == (1, 1 / 16)
    with pytest.raises(InvalidInputError, match="options of 'masks', which is not among the metrics"):
        vitrail.score(classifier, photo, "random", options={"masks": {"threshold": 0.3}})


def test_score_explains_the_class_that_is_asked_for(classifier, make_photo, tmp_path):
    for name in ("blue", "green"):
        make_photo(tmp_path / "data" / name / "0.png", seed=len(name))
    data = tmp_path / "data"

    def targets(target):
        return vitrail.score(classifier, data, "random", metrics="sparseness", target=target).targets.tolist()

    predicted = vitrail.explain(classifier, [data / "blue" / "0.png", data / "green" / "0.png"]).targets.tolist()
    assert targets(None) == predicted
    assert targets(3) == targets("denim") == [3, 3]
    assert targets("label") == [CLASS_NAMES.index("blue"), CLASS_NAMES.index("green")]


def test_compare_puts_models_beside_each_other(classifier, make_photo, tmp_path):
    for i in range(3):
        make_photo(tmp_path / "photos" / f"{i}.png", seed=i)
    torch.manual_seed(1)
    other = replace(load("timm:vit_tiny_patch16_224", pretrained=False, img_size=16, patch_size=4, num_classes=7), name="other")
    models, arguments = [classifier, other], {"protocol": "diffmask", "metrics": "masks", "limit": 2}
    table = vitrail.compare(models, tmp_path / "photos", ["random"], **arguments)
    assert table.methods == [f"{classifier.name}/random", "other/random"]
    for model in models:
        alone = vitrail.score(model, tmp_path / "photos", ["random"], **arguments)
        assert len(alone) == 2
        assert table.names == [column.name for column in alone.columns]
        np.testing.assert_array_equal(table.values[f"{model.name}/random"], alone.method_values("random"))
    first, second = table.values.values()
    assert not np.array_equal(first, second)
    assert {(each.first, each.second) for each in table.comparisons} == {tuple(table.methods)}


def test_compare_of_one_model_names_its_methods_alone(classifier, photo):
    table = vitrail.compare([classifier], photo, metrics="sparseness")
    assert table.methods == ["hit", "random"]
    assert table.controls == {"hit": "random"}


def test_models_of_one_name_are_refused(classifier, photo):
    """One would hide the other."""
    with pytest.raises(VitrailError):
        vitrail.compare([classifier, classifier], photo, "random", metrics="sparseness")


def test_score_refuses_what_is_not_there(classifier, photo):
    for arguments in (
        {"methods": "hitt"},
        {"protocol": "hitt"},
        {"protocol": ["hit", "hitt"]},
        {"metrics": "hitt"},
        {"metrics": ["sparseness", "sparseness"]},
        {"protocol": []},
        {"limit": 0},
        {"target": "bleu"},
        {"target": 7},
        {"target": "label"},
        {"metrics": "localization"},
    ):
        with pytest.raises(InvalidInputError):
            vitrail.score(classifier, photo, **arguments)
    with pytest.raises(InvalidInputError, match="no such file or folder"):
        vitrail.score(classifier, photo.with_name("none"))
    with pytest.raises(VitrailError):
        vitrail.score(classifier, photo, methods=[])


def test_class_names_come_with_the_model(classifier):
    assert classifier.class_names == CLASS_NAMES


def test_the_default_method_is_hit_for_a_hit_and_chefer_for_others(classifier, photo):
    assert default_method(classifier) == "hit"
    assert vitrail.explain(classifier, photo).method == "hit"
    assert vitrail.score(classifier, photo.parent, protocol=replace(PROTOCOLS["hit"], num_steps=2)).methods == ("hit", "random")
    assert default_method(load("timm:vit_tiny_patch16_224", pretrained=False, img_size=32)) == "chefer"


def test_options_are_brought_to_their_type(classifier):
    hit, random = make_explainers(classifier, ["hit", "random"], {"random": {"seed": "3"}}, precision="bf16")
    assert (random.seed, random.precision, hit.precision) == (3, "bf16", "bf16")
    with pytest.raises(InvalidInputError, match="options of 'random', which is not among the methods"):
        make_explainers(classifier, ["hit"], {"random": {"seed": 3}})
    with pytest.raises(InvalidInputError, match=r"'many' for random\.seed"):
        make_explainers(classifier, ["random"], {"random": {"seed": "many"}})


def test_more_targets_than_a_batch_holds(unchecked):
    classifier = networks.network("timm")
    photos, targets = [noisy_photo(i) for i in range(18)], [i % 5 for i in range(18)]
    for form in (targets, np.array(targets), torch.tensor(targets)):
        assert vitrail.explain(classifier, photos, "random", form).targets.tolist() == targets
    with pytest.raises(InvalidInputError, match="expected 18 targets, one per photo"):
        vitrail.explain(classifier, photos, "random", targets[:16])


# What the command line does, from Python.


@pytest.fixture
def labeled(make_classes):
    return make_classes(("amber", "green"), 3)


@pytest.mark.usefixtures("plain_pictures")
def test_score_into_a_folder_resumes(classifier, labeled, tmp_path, caplog):
    arguments = {"metrics": "sparseness", "out": tmp_path / "out", "batch_size": 2}
    alone = vitrail.score(classifier, labeled, "random", metrics="sparseness", batch_size=2)
    first = vitrail.score(classifier, labeled, "random", **arguments)
    (tmp_path / "out" / "shards" / "000001.npz").unlink()
    with caplog.at_level("INFO", logger="vitrail"):
        second = vitrail.score(classifier, labeled, "random", **arguments)
    assert f"resuming in {tmp_path / 'out'}" in caplog.text
    for scores in (first, second):
        np.testing.assert_array_equal(scores.values, alone.values)
    assert (tmp_path / "out" / "index.html").is_file()
    with pytest.raises(OutputError, match="batch_size: 2 there, 3 now"):
        vitrail.score(classifier, labeled, "random", **arguments | {"batch_size": 3})
    assert len(vitrail.score(classifier, labeled, "random", **arguments | {"batch_size": 3, "overwrite": True})) == 6


def test_compare_skips_methods_that_a_model_does_not_support(classifier, photo, caplog):
    other = replace(load("timm:vit_tiny_patch16_224", pretrained=False, img_size=16, patch_size=4, num_classes=7), name="other")
    with caplog.at_level("WARNING", logger="vitrail"):
        table = vitrail.compare([classifier, other], photo, ["hit", "random"], metrics="sparseness")
    assert table.methods == [f"{classifier.name}/hit", f"{classifier.name}/random", "other/random"]
    assert "skipped for other: hit cannot explain other" in caplog.text
    with pytest.raises(UnsupportedModelError, match="none of hit can explain other"):
        vitrail.compare([other], photo, "hit", metrics="sparseness")


@pytest.mark.usefixtures("plain_pictures")
def test_compare_into_a_folder_has_a_folder_per_model(classifier, photo, tmp_path):
    table = vitrail.compare([classifier], photo, "random", metrics="sparseness", out=tmp_path / "out")
    assert (tmp_path / "out" / "models" / classifier.name / "shards" / "000000.npz").is_file()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["models"] == [classifier.name]
    assert table.methods == ["random"]


def test_steps_and_named_data_are_options_of_score(classifier, labeled):
    scores = vitrail.score(
        classifier, labeled.parent, "random", "tokens", steps=3, data_set="folder", data_options={"test": "data"}
    )
    assert scores.protocols["tokens"].num_steps == 3
    assert len(scores) == 6
    with pytest.raises(InvalidInputError, match="together with --data-set"):
        vitrail.score(classifier, labeled, split="val")


def test_options_that_score_does_not_have_are_refused(classifier, photo):
    for function in (vitrail.score, lambda model, data, **options: vitrail.compare([model], data, **options)):
        with pytest.raises(InvalidInputError, match="expected options of score, got batchsize"):
            function(classifier, photo, batchsize=3)


def test_test_writes_the_accuracy_that_it_returns(classifier, labeled, tmp_path):
    results = []
    result = api.test(classifier, labeled, limit=4, out=tmp_path / "out", on_result=results.append)
    written = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert results == [result]
    assert (written["top1"], written["num_images"], written["model"]) == (result.top1, 4, classifier.name)
    assert result.num_images == 4
    with pytest.raises(OutputError, match="--overwrite"):
        api.test(classifier, labeled, out=tmp_path / "out")


def test_layers_are_reported_and_written(classifier, labeled, tmp_path):
    report = api.layers(classifier, labeled, limit=2, out=tmp_path / "out")
    assert (report.model, len(report.paths), report.label_names) == (classifier.name, 2, ["amber", "green"])
    *layers, bias, logit = report.contributions()
    assert sum(part.value.value for part in (*layers, bias)) == pytest.approx(logit.value.value, abs=1e-4)
    assert (tmp_path / "out" / "layers.png").is_file()


def test_queries_are_written(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.runs.query_photos.query_sheet", lambda view, path, caption: path.touch())
    [result], skipped = api.queries(networks.intr(num_heads=4), [photo], tmp_path / "out", top=2)
    assert (len(result.classes), skipped) == (2, [])
    assert (tmp_path / "out" / result.maps_file).is_file()
    with pytest.raises(InvalidInputError, match="got both"):
        api.queries(networks.intr(num_heads=4), [photo], tmp_path / "other", data=photo.parent)


def test_explain_files_and_folder_agree_with_explain(classifier, photo, tmp_path):
    expected = vitrail.explain(classifier, photo)
    files, skipped = api.explain_files(classifier, [photo], tmp_path / "files", ["hit", "random"])
    assert (list(files), skipped) == (["hit", "random"], [])
    torch.testing.assert_close(files["hit"][0].relevance, expected.relevance)
    assert (tmp_path / "files" / "hit" / "photo.png").is_file()
    for num_before in (0, 1):
        results = api.explain_folder(classifier, photo, tmp_path / "folder", "hit")
        assert (results.num_images, results.num_before) == (1, num_before)
    saved = vitrail.Explanation.load(tmp_path / "folder" / "hit" / "photo.npz")
    torch.testing.assert_close(saved.relevance, expected.relevance)


def test_train_needs_a_recipe(tmp_path):
    with pytest.raises(InvalidInputError, match="expected a recipe by --recipe"):
        api.train(out=tmp_path)
    with pytest.raises(InvalidInputError, match="no such configuration file"):
        api.train(tmp_path / "none.yaml")


def test_models_are_listed_with_their_needs():
    names = {entry["name"]: entry["needs"] for entry in api.list_models()}
    assert names["vitrail:hit-cifar10"].startswith("nothing")
    assert "timm:<model>" in names
