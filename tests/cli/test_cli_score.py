"""`vitrail score`: its files agree with each other and with the network, and every option does what it says."""

import html
import json
import re
import shlex
import shutil
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from score_files import list_components, rows_of

import vitrail
from vitrail.datasets.image_io import open_image

pytest_plugins = ("tiny", "score_runs")

HIT = ("insertion_zero", "deletion_zero", "insertion_blur", "deletion_blur")
DIFFMASK = ("deletion_noise", "deletion_noise_least", "deletion_noise_kl", "deletion_noise_least_kl")
COLUMNS = [*(f"hit.{name}" for name in HIT), *(f"diffmask.{name}" for name in DIFFMASK), "complexity", "completeness"]
METHODS = ["hit", "random"]


def test_real_pictures_and_a_page_are_written(run_vitrail, photos, tiny_model_file, tmp_path):
    for path in photos[2:]:
        path.unlink()
    out = tmp_path / "out"
    arguments = ("--protocol", "hit", "--steps", 4, "--metric", "masks", "--batch-size", 1, "-o", out)
    code, _printed, err = run_vitrail("score", photos[0].parent, "-m", tiny_model_file, *arguments)
    assert code == 0, err
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *("run.json", "timing.json", "summary.json", "cost.json", "images.csv", "comparisons.csv", "curves.csv", "index.html"),
        *("extremes.png", "masks.png", "shards/000000.npz", "shards/000001.npz"),
        *(
            f"pictures/{name}.png"
            for name in ("verdict", "hit", "curves-hit", "curves-hit-normalized", "masks", "completeness")
        ),
    }
    for path in out.rglob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            assert len(set(picture.convert("RGB").resize((64, 64)).getdata())) > 4
    page = (out / "index.html").read_text()
    assert page.count(";base64,") == len(list(out.rglob("*.png")))
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", page)
    for words in ("Scores of explanations of tiny", "hit", "random", "2 methods on 2 images"):
        assert words in page
    command = html.unescape(re.search(r"<pre>(.*)</pre>", page).group(1))
    assert shlex.split(command) == [
        "vitrail",
        "score",
        str(photos[0].parent),
        "-m",
        str(tiny_model_file),
        *map(str, arguments[:8]),
    ]


@pytest.mark.parametrize(("limit", "words"), [(5, 'all of "photos"'), (4, 'evenly spread over "photos"')])
def test_page_says_how_images_were_chosen(run_vitrail, photos, tiny_model_file, plain_pictures, tmp_path, limit, words):
    """A limit that leaves no image out chooses nothing."""
    arguments = ("--metric", "complexity", "--method", "random", "--limit", limit, "-o", tmp_path / "out")
    code, _printed, err = run_vitrail("score", photos[0].parent, "-m", tiny_model_file, *arguments)
    assert code == 0, err
    page = html.unescape((tmp_path / "out" / "index.html").read_text())
    assert f"on {limit} images, {words}" in page
    assert re.search("We explained the predictions of tiny .[0-9]+x[0-9]+ pixels, weights [0-9a-f]{32}. by", page)


def test_a_limit_above_the_number_of_images_is_noted(run_vitrail, photos, tiny_model_file, plain_pictures, tmp_path):
    arguments = ("--metric", "complexity", "--method", "random", "--limit", 500, "-o", tmp_path / "out")
    code, _printed, err = run_vitrail("score", photos[0].parent, "-m", tiny_model_file, *arguments)
    assert (code, "5 images in all, fewer than the limit of 500" in err) == (0, True), err


def test_the_table_of_images_holds_the_parts_and_the_areas_under_their_curves(scored):
    out, _printed, _err = scored
    photos = sorted((out.parent / "photos").iterdir())
    rows, parts = rows_of(out / "images.csv"), list_components(out)
    assert list(rows[0]) == ["image", "target", "method", *COLUMNS]
    assert [(row["image"], row["method"]) for row in rows] == [(str(path), method) for method in METHODS for path in photos]
    assert sorted(path.name for path in (out / "shards").iterdir()) == ["000000.npz", "000001.npz", "000002.npz"]
    assert parts["indices"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(parts["diffmask.fractions"], [0, 7 / 16, 14 / 16, 1])
    np.testing.assert_allclose(parts["hit.fractions"], np.arange(197) / 196, atol=1e-6)
    for i, method in enumerate(METHODS):
        mine = [row for row in rows if row["method"] == method]
        written = np.array([[float(row[name]) if row[name] else np.nan for name in COLUMNS] for row in mine])
        np.testing.assert_array_equal(written, parts["values"][i])
        for protocol, names in (("hit", HIT), ("diffmask", DIFFMASK)):
            areas = np.trapezoid(parts[f"{protocol}.scores"][i].astype(float), parts[f"{protocol}.fractions"], axis=-1)
            np.testing.assert_allclose(written[:, [COLUMNS.index(f"{protocol}.{name}") for name in names]], areas, atol=1e-5)
        assert np.isnan(written[:, -1]).all() == (method == "random")  # Noise accounts for no logit.
        assert not np.isnan(written[:, :-1]).any()


def test_the_summary_and_the_comparisons_are_those_of_the_table(scored):
    out, printed, err = scored
    rows, summary = rows_of(out / "images.csv"), json.loads((out / "summary.json").read_text())
    assert (summary["models"], summary["num_images"], summary["unreadable"]) == (["tiny"], 5, [])
    assert list(summary["measures"]) == COLUMNS
    assert summary["measures"]["hit.insertion_zero"]["better"] == "higher"
    assert summary["measures"]["hit.deletion_zero"]["better"] == "lower"
    assert summary["effect_of_precision"] == {}
    means = dict[str, dict[str, float]]()
    for method in METHODS:
        found = summary["methods"][method]["measures"]
        means[method] = {name: np.mean([float(r[name]) for r in rows if r["method"] == method]) for name in found}
        assert list(found) == (COLUMNS if method == "hit" else COLUMNS[:-1])
        for name, entry in found.items():
            assert entry["mean"] == pytest.approx(means[method][name], rel=1e-9)
            assert entry["low"] <= entry["mean"] <= entry["high"]
            assert entry["images"] == 5
    for name in COLUMNS[:-1]:
        first = (means["hit"][name] > means["random"][name]) == (summary["measures"][name]["better"] == "higher")
        assert [summary["methods"][method]["measures"][name]["rank"] for method in METHODS] == ([1, 2] if first else [2, 1])
        table = printed[printed.index(f"\n{name.split('.')[0]}") :].splitlines()
        place = table[2].split().index(name.split(".")[-1])
        for line, method in zip(table[4:6], METHODS, strict=True):
            figures = re.findall(r"(\S+) ±", line)
            assert (line.split()[0], figures[place]) == (method, f"{means[method][name]:.3f}")
    compared = {row["measure"]: row for row in rows_of(out / "comparisons.csv")}
    assert list(compared)[:9] == COLUMNS[:9]
    for name in COLUMNS[:-1]:
        row = compared[name]
        assert (row["first"], row["second"], row["images"]) == ("hit", "random", "5")
        assert float(row["difference"]) == pytest.approx(means["hit"][name] - means["random"][name], abs=1e-9)
        assert float(row["p"]) * 32 == pytest.approx(round(float(row["p"]) * 32))  # Of five pairs, all signs are tried.
    unproven = [entry["measure"] for entry in summary["not_shown_to_beat_random"]]
    assert unproven
    assert "warning: 5 images are too few to show that a method is better than random" in err


def test_costs_are_counted_and_timed_apart_from_the_summary(scored):
    out, printed, _err = scored
    cost, summary = (json.loads((out / f"{name}.json").read_text()) for name in ("cost", "summary"))
    assert list(cost) == METHODS
    for method, entry in cost.items():
        assert entry["seconds_per_image"] > 0
        assert entry["passes"] == summary["methods"][method]["passes"]
        line = next(line for line in printed.split("mean rank")[1].splitlines() if line.split()[:1] == [method])
        assert line.split()[2:] == [f"{entry['passes']:.2f}", f"{entry['seconds_per_image'] * 1000:.1f}"]
    assert cost["random"]["passes"] == pytest.approx(1)
    assert "seconds" not in (out / "summary.json").read_text()


def test_the_mean_curves_are_those_of_the_parts(scored):
    out, _printed, _err = scored
    parts, points = list_components(out), rows_of(out / "curves.csv")
    areas = json.loads((out / "summary.json").read_text())["normalized_areas_of_mean_curves"]["tiny"]
    assert len(points) == 2 * 4 * (197 + 4)
    for protocol, names in (("hit", HIT), ("diffmask", DIFFMASK)):
        relative = [name for name in names if not name.endswith("_kl")]
        for i, method in enumerate(METHODS):
            assert list(areas[protocol][method]) == relative
            for j, name in enumerate(names):
                mine = [p for p in points if (p["method"], p["protocol"], p["curve"]) == (method, protocol, name)]
                assert {(p["direction"], p["baseline"]) for p in mine} == {tuple(name.split("_")[:2])}
                assert {p["order"] for p in mine} == {"least" if "least" in name else "most"}
                mean = parts[f"{protocol}.scores"][i, :, j].astype(float).mean(0)
                fractions = [float(p["fraction"]) for p in mine]
                np.testing.assert_allclose(fractions, parts[f"{protocol}.fractions"])
                np.testing.assert_allclose([float(p["mean"]) for p in mine], mean, atol=1e-6)
                if name not in relative:
                    assert {p["normalized"] for p in mine} == {""}
                    continue
                clean, empty = parts[f"{protocol}.ends"][i, :, j].astype(float).mean(0)
                normalized = (mean - empty) / (clean - empty)
                np.testing.assert_allclose([float(p["normalized"]) for p in mine], normalized, rtol=1e-4, atol=1e-4)
                assert areas[protocol][method][name] == pytest.approx(np.trapezoid(normalized, fractions), rel=1e-3, abs=1e-4)


def test_curves_begin_and_end_where_the_network_says(scored, tiny_model_file):
    out, _printed, _err = scored
    photos = sorted((out.parent / "photos").iterdir())
    classifier, parts = vitrail.load(tiny_model_file, device="cpu"), list_components(out)
    targets = [row["target"] for row in rows_of(out / "images.csv")][:5]
    for i, path in enumerate(photos):
        with torch.no_grad():
            image = classifier.preprocessing(open_image(path))[None]
            clean = classifier.module(image).softmax(-1)[0]
            empty = classifier.module(torch.zeros_like(image)).softmax(-1)[0]
        target = int(clean.argmax())
        assert (targets[i], parts["targets"][i]) == (classifier.class_names[target], target)
        for method in range(2):
            insertion, deletion = parts["hit.scores"][method, i, :2]
            np.testing.assert_allclose([insertion[-1], deletion[0]], float(clean[target]), atol=1e-5)
            np.testing.assert_allclose([insertion[0], deletion[-1]], float(empty[target]), atol=1e-5)
            np.testing.assert_allclose(parts["diffmask.scores"][method, i, :2, 0], float(clean[target]), atol=1e-5)
            np.testing.assert_array_equal(parts["diffmask.scores"][method, i, 2:, 0], 0)


def test_the_default_is_the_protocol_hit(run_score, photos):
    out, printed, _err = run_score(photos[0])
    assert list(json.loads((out / "run.json").read_text())["metrics"]) == ["hit", "completeness"]
    assert printed.splitlines()[:2] == ["tiny, 1 image", "hit"]


def test_a_metric_alone_has_no_curves(run_score, photos):
    out, printed, _err = run_score(photos[0], "--metric", "complexity, sparseness")
    assert list(json.loads((out / "summary.json").read_text())["measures"]) == ["complexity", "sparseness", "completeness"]
    assert not (out / "curves.csv").exists()
    assert "hit\n" not in printed


def test_what_is_defined_on_no_image_is_reported(photos, run_vitrail, tiny_model_file, tmp_path):
    options = ("--metric", "completeness", "--method", "chefer,random", "--out", tmp_path / "out")
    code, _out, err = run_vitrail(
        "score", photos[0].parent, "--model", "timm:test_vit", "--model-arg", "pretrained=false", *options
    )
    assert code == 2
    assert "expected a measure that is defined for at least one image, got none" in err


def test_the_order_of_change_can_be_turned_round(run_score, photos):
    options = ("--method", "hit", "--steps", 16, "--order")
    most, least = (run_score(photos[0], *options, order, out=order) for order in ("most", "least"))
    forth, back = (list_components(run[0])["hit.scores"][0, 0] for run in (most, least))
    # What is inserted last by one order is what is deleted last by the other.
    np.testing.assert_allclose(forth[0::2], back[1::2, ::-1], atol=1e-5)
    assert not np.allclose(forth, back, atol=1e-3)
    assert most[1].splitlines()[1] == "hit (changed, not comparable to published results: 16 steps)"
    changed = "hit (changed, not comparable to published results: 16 steps; least relevant first)"
    assert least[1].splitlines()[1] == changed
    assert {row["order"] for row in rows_of(least[0] / "curves.csv")} == {"least"}


def test_baselines_replace_those_of_every_protocol(run_score, photos):
    out, printed, _err = run_score(photos[0], "--protocol", "hit,rise,replacements", "--baseline", "zero,imputed", "--steps", 3)
    curves = {(row["protocol"], f"{row['direction']}_{row['baseline']}") for row in rows_of(out / "curves.csv")}
    both = {f"{direction}_{baseline}" for direction in ("insertion", "deletion") for baseline in ("zero", "imputed")}
    # The protocol rise inserts into a blurred image instead of a black one.
    assert curves == {*product(("hit", "replacements"), both), *product(("rise",), both - {"insertion_zero"})}
    assert "hit (changed, not comparable to published results: 3 steps; zero, imputed as baseline)" in printed


def test_fewer_baselines_leave_the_curves_of_the_others_as_they_are(run_score, photos):
    options = ("--method", "hit", "--protocol", "hit")
    both, one = run_score(photos[0], *options, out="both"), run_score(photos[0], *options, "--baseline", "blur", out="one")
    expected = [row for row in rows_of(both[0] / "curves.csv") if row["baseline"] == "blur"]
    assert rows_of(one[0] / "curves.csv") == expected
    assert "not comparable" not in one[1]


def test_replacements_are_compared_without_removal_on_a_network_that_keeps_all_patches(run_vitrail, photos, tmp_path):
    model = ("--model", "timm:test_resnet", "--model-arg", "pretrained=false", "--method", "random")
    options = (*model, "--protocol", "replacements", "--steps", 2, "--out", tmp_path / "out")
    code, _out, err = run_vitrail("score", photos[0], *options)
    assert code == 2
    assert "other baselines than removed" in err
    code, _out, err = run_vitrail("score", photos[0], *options, "--baseline", "mean,imputed")
    assert code == 0, err
    assert {row["baseline"] for row in rows_of(tmp_path / "out" / "curves.csv")} == {"mean", "imputed"}


def test_steps_replace_those_of_every_protocol(run_score, photos):
    out, _printed, _err = run_score(photos[0], "--protocol", "diffmask,tokens", "--steps", 5)
    parts = list_components(out)
    assert {name: array.shape[-1] for name, array in parts.items() if name.endswith(".scores")} == {
        "diffmask.scores": 6, "tokens.scores": 6,
    }  # fmt: skip
    described = json.loads((out / "run.json").read_text())["metrics"]
    assert [(described[name]["num_steps"], described[name]["cells_per_step"]) for name in ("diffmask", "tokens")] == [
        (5, None)
    ] * 2


@pytest.mark.parametrize("protocol", ["mutex", "chefer", "rise"])
def test_protocols_of_pixels(protocol, run_score, photos):
    out, printed, _err = run_score(photos[0], "--protocol", protocol)
    parts = list_components(out)
    assert parts[f"{protocol}.scores"].shape[:2] == (2, 1)
    assert printed.splitlines()[1] == protocol


def test_options_of_a_metric_reach_it(run_score, photos):
    found = {}
    for share in (0.25, 0.75):
        options = ("--metric", "single-step", "--metric-option", f"single-step.share={share}")
        out, _printed, _err = run_score(photos[0], *options, out=str(share))
        assert json.loads((out / "run.json").read_text())["metrics"]["single-step"]["share"] == share
        found[share] = list_components(out)["values"][0, 0]
    assert not np.array_equal(found[0.25], found[0.75], equal_nan=True)


def test_limit_takes_images_spread_over_the_folder(run_score, photos):
    out, printed, err = run_score(photos[0].parent, "--steps", 2, "--limit", 2)
    assert "fewer than the limit" not in err
    assert [row["image"] for row in rows_of(out / "images.csv")][:2] == [str(photos[0]), str(photos[2])]
    assert "tiny, 2 images" in printed


def test_the_target_is_a_class_or_the_label(run_score, make_classes, tiny_model_file):
    data = make_classes(["amber", "green"], 2)
    classifier = vitrail.load(tiny_model_file, device="cpu")
    expected = {"label": ["amber", "amber", "green", "green"], "denim": ["denim"] * 4, "3": ["denim"] * 4}
    found = {}
    for target, names in expected.items():
        out, _printed, _err = run_score(data, "--steps", 2, "--target", target, out=target)
        assert [row["target"] for row in rows_of(out / "images.csv")] == names * 2
        found[target] = list_components(out)
        for i, path in enumerate(sorted(data.rglob("*.png"))):
            with torch.no_grad():
                clean = classifier.module(classifier.preprocessing(open_image(path))[None]).softmax(-1)[0]
            wanted = float(clean[classifier.class_names.index(names[i])])
            np.testing.assert_allclose(found[target]["hit.scores"][:, i, 1, 0], wanted, atol=1e-5)
    np.testing.assert_array_equal(found["denim"]["values"], found["3"]["values"])


def test_a_folder_of_masks_is_ground_truth(run_score, make_photo, tmp_path):
    """Masks of all, of the left half, and of nothing; the crop is in the middle."""
    for i, width in enumerate((32, 16, 0)):
        make_photo(tmp_path / "photos" / "deep" / f"{i}.png", seed=i, size=(32, 32))
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[:, :width] = 255
        (tmp_path / "masks" / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / "deep" / f"{i}.png")
    out, _printed, _err = run_score(
        tmp_path / "photos", "--metric", "localization,masks", "--masks", tmp_path / "masks", "--method", "hit"
    )
    rows = rows_of(out / "images.csv")
    assert [float(row["masks.ground_truth"]) for row in rows] == [1, 0.5, 0]
    assert [row["localization.pointing_chance"] for row in rows][:2] == ["1.0", "0.5"]
    assert [row["localization.pointing"] for row in rows][0::2] == ["1.0", ""]
    assert float(rows[0]["localization.mass_accuracy"]) == pytest.approx(1)
    assert json.loads((out / "summary.json").read_text())["methods"]["hit"]["measures"]["localization.pointing"]["images"] == 2
    assert json.loads((out / "run.json").read_text())["masks"] == str((tmp_path / "masks").resolve())


@pytest.fixture
def sure(make_photo, tiny_model_file, tmp_path):
    """Up to three photos of each class that the network is sure of, in folders; each has a name of its own."""
    classifier = vitrail.load(tiny_model_file, device="cpu")
    paths = [make_photo(tmp_path / "all" / f"photo{i}.png", seed=i) for i in range(150)]
    with torch.no_grad():
        images = torch.stack([classifier.preprocessing(open_image(path)) for path in paths])
        found = classifier.module(images).softmax(-1).max(-1)
    for path, probability, index in zip(paths, found.values.tolist(), found.indices.tolist(), strict=True):
        folder = tmp_path / "sure" / classifier.class_names[index]
        if probability > 0.55 and len(list(folder.glob("*"))) < 3:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    return tmp_path / "sure"


def test_mosaics_ask_for_the_class_of_each_cell(run_score, sure):
    class_of = {path.stem: path.parent.name for path in sure.rglob("*.png")}
    assert len(set(class_of.values())) >= 4
    out, printed, _err = run_score(sure, "--mosaic", 2, "--metric", "localization", "--method", "random", "--limit", 3)
    rows = rows_of(out / "images.csv")
    assert "tiny, 3 images" in printed
    assert [row["image"].split("-of-")[0] for row in rows] == [f"mosaic-000000/cell-{i}" for i in range(3)]
    for i, row in enumerate(rows):
        members = row["image"].split("-of-")[1].split("+")
        assert len({class_of[name] for name in members}) == 4
        assert row["target"] == class_of[members[i]]
        assert float(row["localization.pointing_chance"]) == float(row["localization.mass_chance"]) == 0.25
    assert json.loads((out / "run.json").read_text())["target"] == "label"


def test_too_few_classes_for_a_mosaic(refused_score, sure):
    for folder in sorted(sure.iterdir())[3:]:
        shutil.rmtree(folder)
    assert "class" in refused_score(sure, "--mosaic", 2, "--metric", "localization")


def test_a_data_set_by_its_name(run_score, make_photo, tmp_path):
    for i, part in enumerate(("test", "checked")):
        for j in range(2):
            make_photo(tmp_path / "data" / part / "blue" / f"{part}{j}.png", seed=2 * i + j)
    (tmp_path / "data" / "train").mkdir()
    named = (tmp_path / "data", "--data-set", "folder", "--steps", 2, "--method", "random")
    out, _printed, _err = run_score(*named)
    assert [row["image"][-9:] for row in rows_of(out / "images.csv")] == ["test0.png", "test1.png"]
    out, _printed, _err = run_score(*named, "--split", "val", "--data-option", "val=checked", out="other")
    assert [row["image"][-12:] for row in rows_of(out / "images.csv")] == ["checked0.png", "checked1.png"]
    described = json.loads((out / "run.json").read_text())
    assert (described["data_set"], described["split"], described["data_options"]) == ("folder", "val", {"val": "checked"})


def test_the_effect_of_reduced_precision_is_measured_on_the_first_batch(run_score, photos):
    common = (photos[0].parent, "--protocol", "hit", "--steps", 4, "--metric", "complexity", "--batch-size", 2)
    (full, *_), (half, *_) = (run_score(*common, "--precision", name, out=name) for name in ("full", "bf16"))
    effect = json.loads((half / "summary.json").read_text())["effect_of_precision"]["tiny"]
    names = [*(f"hit.{name}" for name in HIT), "complexity", "completeness"]
    assert list(effect) == names
    differences = np.abs(list_components(half)["values"] - list_components(full)["values"])[:, :2]  # Of the first batch.
    np.testing.assert_allclose([effect[name] for name in names], np.nanmean(differences, (0, 1)), rtol=1e-5, atol=1e-9)
    assert all(effect[name] > 0 for name in names)
    assert json.loads((full / "summary.json").read_text())["effect_of_precision"] == {}


def test_photos_beside_a_folder_of_photos_are_not_silently_left_out(refused_score, photos, make_photo):
    make_photo(photos[0].parent / "holiday" / "beach.png", seed=9)
    assert "5 beside" in refused_score(photos[0].parent, "--steps", 2)


BAD = {
    "protocol": (("--protocol", "hit,hut"), ["unknown protocol 'hut'", "hit"]),
    "metric": (("--metric", "mask"), ["unknown metric 'mask' (did you mean 'masks'?)", "saco"]),
    "a metric as a protocol": (("--protocol", "hit,saco"), ["saco is a metric; give it by --metric"]),
    "empty name": (("--protocol", "hit,"), ["got nothing beside a comma in 'hit,'"]),
    "a protocol as a metric": (("--metric", "masks,hit"), ["hit is a protocol; give it by --protocol"]),
    "option": (("--metric", "masks", "--metric-option", "masks.treshold=1"), ["no option treshold", "threshold"]),
    "value": (("--metric", "masks", "--metric-option", "masks.threshold=half"), ["cannot use 'half' for masks.threshold"]),
    "range": (("--metric", "masks", "--metric-option", "masks.threshold=1.5"), ["between 0 and 1, got 1.5"]),
    "form": (("--metric", "masks", "--metric-option", "threshold=1"), ["--metric-option like masks.threshold=0.3"]),
    "of nobody": (("--metric-option", "masks.threshold=1"), ["options of 'masks', which is not among the metrics"]),
    "of a protocol": (("--metric-option", "hit.num_steps=3"), ["options of 'hit'"]),
    "steps": (("--metric", "masks", "--steps", 3), ["--steps, --order and --baseline together with --protocol"]),
    "order": (("--metric", "masks", "--order", "least"), ["--steps, --order and --baseline together with --protocol"]),
    "baseline": (("--metric", "masks", "--baseline", "zero"), ["--steps, --order and --baseline together with --protocol"]),
    "unknown baseline": (("--baseline", "zeros"), ["unknown baseline 'zeros'", "'zero'"]),
    "removed pixels": (("--protocol", "rise", "--baseline", "removed"), ["expected the unit cells for the baseline removed"]),
    "no answers": (("--metric", "localization"), ["localization", "--masks, --boxes or --mosaic"]),
    "no masks": (("--masks", "nowhere"), ["no such folder of masks: nowhere"]),
    "no boxes": (("--boxes",), ["boxes around the objects", "any of 5"]),
    "two answers": (("--boxes", "--masks", "nowhere"), ["one source of ground truth, got masks and boxes"]),
    "mosaics and masks": (("--mosaic", 2, "--masks", "nowhere"), ["one source of ground truth, got masks and mosaic"]),
    "target of a mosaic": (("--mosaic", 2, "--target", "blue"), ["no target for mosaics", "'blue'"]),
    "mosaic without classes": (("--mosaic", 2), ["sub-folder of images per class"]),
    "no labels": (("--target", "label"), ["sub-folder of images per class"]),
    "split": (("--split", "val"), ["--split and --data-option together with --data-set"]),
    "data option": (("--data-option", "val=x"), ["--split and --data-option together with --data-set"]),
    "data set": (("--data-set", "fodler"), ["unknown data set 'fodler'", "'folder'"]),
    "method": (("--method", "intr"), ["INTR"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_invalid_options_are_reported_once(kind, refused_score, photos):
    options, messages = BAD[kind]
    err = refused_score(photos[0].parent, *options)
    for message in messages:
        assert message in err


@pytest.mark.parametrize("target", ["bleu", "9"])
def test_unknown_class_leaves_nothing(target, refused_score, photos):
    assert target in refused_score(photos[0], "--steps", 2, "--target", target)


def test_masks_of_some_images_only(refused_score, photos, tmp_path):
    (tmp_path / "masks").mkdir()
    for path in photos[1:]:
        Image.new("L", (20, 24), 255).save(tmp_path / "masks" / path.name)
    err = refused_score(photos[0].parent, "--metric", "localization", "--masks", tmp_path / "masks")
    assert "none for 1 of 5 images" in err
    assert "0.png" in err


@pytest.mark.parametrize("options", [("--mosaic", 1), ("--order", "best"), ("--steps", 0), ("--precision", "fp8")])
def test_the_parser_refuses_what_is_out_of_range(options, run_vitrail, photos):
    code, out, err = run_vitrail("score", photos[0], *options)
    assert (code, out) == (2, "")
    assert options[0] in err
