"""Whole folders: what is written, and that a run that was stopped ends as one that was not."""

import csv
import json
from dataclasses import replace
from datetime import date

import pytest
import torch
from samples import noisy_photo
from score_runs import draw_plainly
from slow import by_default

import vitrail
from vitrail.core.errors import ImageError, InvalidInputError, OutputError
from vitrail.datasets.photos import result_names
from vitrail.explainers import make_explainer
from vitrail.explanation import Explanation
from vitrail.runs.explain_folder import explain_folder
from vitrail.viz.style import Style

pytest_plugins = ("tiny",)

METHODS = ("hit", "random")


def write_rows(rows, path, style):
    """In place of the picture, what is on it."""
    content = [[row.title, *((one.method, one.sources) for one in row.explanations)] for row in rows]
    path.write_text(json.dumps(content))


@pytest.fixture(autouse=True)
def _plain_pictures(monkeypatch):
    """Drawing is not what is tested here."""
    draw_plainly(monkeypatch)
    monkeypatch.setattr("vitrail.runs.explain_files.MAX_ROWS", 3)
    monkeypatch.setattr("vitrail.runs.explain_files.contact_sheet", write_rows)


@pytest.fixture(scope="module")
def classifier(tiny_model_file):
    return vitrail.load(tiny_model_file, device="cpu")


@pytest.fixture
def data(make_photo, tmp_path):
    """Nine photos in two folders, one of them nested."""
    for i in range(9):
        make_photo(tmp_path / "data" / ("amber" if i < 4 else "blue/deep") / f"{i}.png", seed=i)
    return tmp_path / "data"


@pytest.fixture
def explain(classifier, data, tmp_path):
    """A function that explains the folder in batches of two, into `out` if not said otherwise."""

    def run(methods=METHODS, out=tmp_path / "out", classifier=classifier, data=data, method_options=None, **options):
        explainers = [make_explainer(name, classifier, **(method_options or {}).get(name, {})) for name in methods]
        return explain_folder(explainers, data, out, **{"batch_size": 2, **options})

    return run


@pytest.fixture
def seen(monkeypatch):
    """How many images each forward pass of the tiny HiT saw."""
    from vitrail.models.hit import HiT

    sizes, patch_embed = [], HiT.patch_embed
    monkeypatch.setattr(HiT, "patch_embed", lambda self, images: (sizes.append(len(images)), patch_embed(self, images))[1])
    return sizes


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(data):
    return [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.png"))]


def fail_after(monkeypatch, target, times):
    """Let a function fail from its `times`-th call on, as on a full disk."""
    import importlib

    module, _, name = target.rpartition(".")
    original, calls = getattr(importlib.import_module(module), name), []

    def wrapped(*args, **options):
        calls.append(1)
        if len(calls) > times:
            raise OSError(28, "No space left on device")
        return original(*args, **options)

    monkeypatch.setattr(target, wrapped)


def test_every_image_and_method_has_its_files(explain, data, classifier, tmp_path):
    results = explain()
    assert (results.num_images, results.num_before, results.unreadable, results.methods) == (9, 0, [], list(METHODS))
    assert results.completeness.keys() == {"hit"}
    out = tmp_path / "out"
    stems = [name.removesuffix(".png") for name in names(data)]
    expected = {f"{method}/{stem}{suffix}" for method in METHODS for stem in stems for suffix in (".npz", ".json", ".png")}
    expected |= {"run.json", "images.csv", "contact_sheet.png", "timing.json"}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == expected
    rows = [[name.split("/")[-1], ["hit", [name]], ["random", [name]]] for name in names(data)[:3]]
    assert json.loads((out / "contact_sheet.png").read_text()) == rows
    for method in METHODS:
        one_by_one = vitrail.explain(classifier, [data / name for name in names(data)], method=method)
        for stem, name, other in zip(stems, names(data), one_by_one, strict=True):
            loaded = Explanation.load(out / method / f"{stem}.npz")
            assert (loaded.sources, loaded.method, loaded.class_names) == ((name,), method, classifier.class_names)
            torch.testing.assert_close(loaded.relevance, other.relevance)
            torch.testing.assert_close(loaded.logits, other.logits)


def test_the_table_says_what_the_files_say(explain, data, tmp_path):
    explain()
    rows = table(tmp_path / "out" / "images.csv")
    assert [row["image"] for row in rows] == names(data)
    assert list(rows[0])[5:] == ["hit_file", "hit_completeness_error", "random_file"]
    for row in rows:
        loaded = Explanation.load(tmp_path / "out" / row["hit_file"])
        target = int(loaded.targets[0])
        assert (int(row["target"]), row["target_name"]) == (target, loaded.class_names[target])
        assert float(row["probability"]) == pytest.approx(float(loaded.probabilities.max()), rel=1e-5)
        assert float(row["logit"]) == pytest.approx(float(loaded.logits.max()), rel=1e-5)
        assert float(row["hit_completeness_error"]) == pytest.approx(loaded.completeness_error(), rel=1e-2)
        assert (tmp_path / "out" / row["random_file"]).is_file()


def test_the_run_is_described(explain, data, classifier, tmp_path):
    explain(target="crimson", style=Style(smoothing="bilinear"), model_options={"num_heads": 2})
    described = json.loads((tmp_path / "out" / "run.json").read_text())
    assert described["model"] == classifier.name
    assert (described["target"], described["batch_size"], described["style"]["smoothing"]) == (2, 2, "bilinear")
    assert described["preprocessing"] == classifier.preprocessing.to_dict()
    assert (described["data"], described["vitrail"]) == (str(data), vitrail.__version__)
    assert described["model_options"] == {"num_heads": 2}
    assert described["methods"]["random"] == {"precision": "full", "seed": 0}
    assert all(Explanation.load(path).targets.tolist() == [2] for path in (tmp_path / "out").rglob("*.npz"))


@pytest.mark.parametrize("times", by_default(7, among=(0, 1, 7)))
@pytest.mark.parametrize("kind", ["numpy.savez_compressed", "vitrail.runs.explain_files.draw"])
def test_a_resumed_run_writes_the_same_files(kind, times, explain, tmp_path, snapshot, monkeypatch, seen):
    explain(out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        fail_after(patch, kind, times)
        with pytest.raises(OSError if "draw" in kind else OutputError):
            explain()
    assert not list((tmp_path / "out").rglob(".*"))
    seen.clear()
    results = explain()
    # Batches are whole: 2, 2, 2, 2 and 1. Seven files are four images of one method and three of the other.
    assert set(seen) <= {2, 1}
    assert len(seen) == (10 if times < 4 else 7)
    assert (results.num_images, results.num_before) == (9, 3 if times == 7 else 0)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_a_finished_run_runs_no_network(explain, tmp_path, snapshot, seen):
    explain()
    before, times = snapshot(tmp_path / "out"), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    seen.clear()
    results = explain()
    assert seen == []
    assert (results.num_images, results.num_before) == (9, 9)
    assert snapshot(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == times


DAMAGES = {
    "no arrays": lambda stem: stem.with_suffix(".npz").unlink(),
    "no names": lambda stem: stem.with_suffix(".json").unlink(),
    "no picture": lambda stem: stem.with_suffix(".png").unlink(),
    "half the arrays": lambda stem: truncate(stem.with_suffix(".npz")),
    "half the names": lambda stem: truncate(stem.with_suffix(".json")),
    "half the picture": lambda stem: truncate(stem.with_suffix(".png")),
    "empty arrays": lambda stem: stem.with_suffix(".npz").write_bytes(b""),
    "empty picture": lambda stem: stem.with_suffix(".png").write_bytes(b""),
    "a flipped bit": lambda stem: flip(stem.with_suffix(".npz")),
    "another image": lambda stem: [
        stem.with_suffix(suffix).write_bytes(stem.with_name(f"1{suffix}").read_bytes()) for suffix in (".npz", ".json")
    ],
}


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


SLOW_DAMAGES = ("no names", "half the names", "half the picture", "empty arrays")
"""Those that are noticed as others are."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW_DAMAGES else []) for kind in DAMAGES]
)
def test_a_damaged_result_is_made_again(kind, explain, tmp_path, snapshot, seen):
    explain()
    before = snapshot(tmp_path / "out")
    DAMAGES[kind](tmp_path / "out" / "hit" / "amber" / "2")
    seen.clear()
    assert explain().num_before == 8
    assert seen == [2]
    assert snapshot(tmp_path / "out") == before


def test_partial_files_of_a_killed_run_are_removed(explain, tmp_path, snapshot):
    explain()
    before = snapshot(tmp_path / "out")
    (tmp_path / "out" / "hit" / "amber" / ".partial-abcdefgh.npz").write_bytes(b"half")
    explain()
    assert snapshot(tmp_path / "out") == before


def test_a_method_may_be_added(explain, tmp_path, snapshot, seen):
    explain(["hit"])
    before = snapshot(tmp_path / "out")
    seen.clear()
    results = explain(["hit", "hit-rollout"])
    assert seen[-5:] == [2, 2, 2, 2, 1]  # First the network is looked over for what the new method relies on.
    assert (results.num_images, results.num_before) == (9, 0)
    after = snapshot(tmp_path / "out")
    assert {name for name in before if after[name] != before[name]} == {"contact_sheet.png", "images.csv", "run.json"}
    explain(["random"])
    rows = table(tmp_path / "out" / "images.csv")
    assert all(row["hit_file"] and row["hit-rollout_file"] and row["random_file"] for row in rows)
    assert list(json.loads((tmp_path / "out" / "run.json").read_text())["methods"]) == ["hit", "hit-rollout", "random"]


def other_weights(classifier):
    module = type(classifier.module)(classifier.module.config)
    module.load_state_dict(classifier.module.state_dict())
    with torch.no_grad():
        module.head.bias[0] += 1e-6
    return replace(classifier, module=module)


OTHER_RUNS = {
    "weights": lambda c: {"classifier": other_weights(c)},
    "model": lambda c: {"classifier": replace(c, name="other")},
    "preprocessing.crop_fraction": lambda c: {
        "classifier": replace(c, preprocessing=replace(c.preprocessing, crop_fraction=0.5))
    },
    "target": lambda c: {"target": "blue"},
    "batch_size": lambda c: {"batch_size": 3},
    "style.smoothing": lambda c: {"style": Style(smoothing="bilinear")},
    "hit.norm_mean": lambda c: {"method_options": {"hit": {"norm_mean": "own"}}},
    "random.precision": lambda c: {"method_options": {"random": {"precision": "bf16"}}},
    "model_options.num_heads": lambda c: {"model_options": {"num_heads": 1}},
}


@pytest.mark.parametrize("key", by_default(*list(OTHER_RUNS)[::4], among=OTHER_RUNS))
def test_a_run_with_other_settings_is_refused_and_changes_nothing(key, explain, classifier, tmp_path, snapshot, seen):
    methods = ["hit" if key.startswith("hit") else "random"]
    explain(methods)
    before = snapshot(tmp_path / "out")
    seen.clear()
    with pytest.raises(
        OutputError, match=rf"a run with other settings \({key}: .* there, .* now\); choose another --out, or add --overwrite"
    ):
        explain(methods, **OTHER_RUNS[key](classifier))
    assert seen == []
    assert snapshot(tmp_path / "out") == before


def test_other_data_are_refused(explain, make_photo, tmp_path):
    explain()
    make_photo(tmp_path / "others" / "amber" / "0.png", seed=50)
    with pytest.raises(OutputError, match=r"data: .*data.* there, .*others.* now"):
        explain(data=tmp_path / "others")


def test_weights_that_no_logit_depends_on_make_no_other_run(explain, tiny_model_file):
    explain()
    # They are not in the file, and so are others at every loading.
    assert explain(classifier=vitrail.load(tiny_model_file, device="cpu")).num_before == 9


def test_overwrite_replaces_the_results(explain, tmp_path, snapshot):
    explain(out=tmp_path / "whole", batch_size=3, method_options={"random": {"seed": 1}})
    explain()
    (tmp_path / "out" / "hit" / "mine.txt").write_text("precious")
    results = explain(batch_size=3, method_options={"random": {"seed": 1}}, overwrite=True)
    assert results.num_before == 0
    after = snapshot(tmp_path / "out")
    assert after.pop("hit/mine.txt") == b"precious"
    assert after == snapshot(tmp_path / "whole")


def test_overwrite_leaves_other_methods_of_the_same_settings(explain, tmp_path, snapshot):
    explain()
    before = snapshot(tmp_path / "out")
    explain(["random"], method_options={"random": {"seed": 1}}, overwrite=True)
    after = snapshot(tmp_path / "out")
    changed = {name for name in after if after[name] != before[name]}
    assert any(name.startswith("random/") for name in changed)
    assert not any(name.startswith("hit/") for name in changed)
    assert all(row["hit_file"] and row["random_file"] for row in table(tmp_path / "out" / "images.csv"))


def test_overwriting_that_was_stopped_never_takes_old_results_for_new_ones(explain, tmp_path, snapshot, monkeypatch):
    explain(out=tmp_path / "whole", target="blue")
    explain()
    with monkeypatch.context() as patch:
        fail_after(patch, "numpy.savez_compressed", 5)
        with pytest.raises(OutputError):
            explain(target="blue", overwrite=True)
    with pytest.raises(OutputError, match="target: 1 there, null now"):
        explain()
    explain(target="blue")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_results_that_nothing_describes_are_refused(explain, tmp_path):
    explain()
    explain(["random"], batch_size=3, overwrite=True)
    with pytest.raises(OutputError, match=r"hit holds results that .*run.json does not list"):
        explain(["hit"], batch_size=3)
    assert explain(["hit"], batch_size=3, overwrite=True).num_images == 9


DAMAGED = ["", "{", "[]", '{"format": "vitrail run 3"}', '{"format": "vitrail run 2"}']


@pytest.mark.parametrize("content", by_default("{", among=DAMAGED))
def test_a_damaged_description_is_refused(content, explain, tmp_path):
    explain(["random"])
    (tmp_path / "out" / "run.json").write_text(content)
    with pytest.raises(OutputError, match=r"cannot read .*run\.json.*--overwrite"):
        explain(["random"])
    assert explain(["random"], overwrite=True).num_before == 0


def test_run_of_version_0_1_0_is_refused_in_a_sentence(explain, tmp_path, snapshot):
    explain()
    run = tmp_path / "out" / "run.json"
    content = json.loads(run.read_text()) | {"format": "vitrail run 1", "vitrail": "0.1.0"}
    run.write_text(json.dumps(content))
    before = snapshot(tmp_path / "out")
    with pytest.raises(OutputError, match=r"cannot resume the run in .*out: it was started by vitrail 0\.1\.0; .* --overwrite"):
        explain()
    assert snapshot(tmp_path / "out") == before
    assert explain(overwrite=True).num_before == 0


def test_a_folder_of_something_else_is_left_alone(explain, tmp_path, snapshot):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"not empty and holds no run.*--overwrite"):
        explain()
    assert snapshot(tmp_path / "out") == {"mine.txt": b"precious"}


def test_results_among_the_images_are_refused(explain, data):
    with pytest.raises(InvalidInputError, match="outside of the images"):
        explain(out=data / "out")
    assert not (data / "out").exists()


def test_unreadable_images_are_reported_and_not_retried(explain, data, tmp_path, snapshot, seen):
    (data / "amber" / "1.png").write_text("no photo")
    (data / "amber" / "1b.jpg").write_bytes(b"")
    results = explain()
    assert (results.num_images, [file.path for file in results.unreadable]) == (
        7 + 1,
        [str(data / "amber" / "1.png"), str(data / "amber" / "1b.jpg")],
    )
    assert [row["image"] for row in table(tmp_path / "out" / "unreadable.csv")] == ["amber/1.png", "amber/1b.jpg"]
    before = snapshot(tmp_path / "out")
    seen.clear()
    assert explain().unreadable == results.unreadable
    assert seen == []
    assert snapshot(tmp_path / "out") == before


def test_a_repaired_image_is_explained(explain, data, make_photo, tmp_path):
    (data / "amber" / "1.png").write_text("no photo")
    explain()
    make_photo(data / "amber" / "1.png", seed=1)
    results = explain()
    assert (results.num_images, results.num_before, results.unreadable) == (9, 8, [])
    assert not (tmp_path / "out" / "unreadable.csv").exists()


def test_nothing_but_unreadable_images(explain, data):
    for path in data.rglob("*.png"):
        path.write_text("no photo")
    for _ in range(2):
        with pytest.raises(ImageError, match="not one of 9 images could be read"):
            explain()


def test_a_folder_that_grew_keeps_what_is_there(explain, data, make_photo, tmp_path, snapshot):
    explain()
    before = snapshot(tmp_path / "out")
    make_photo(data / "amber" / "0b.png", seed=77)
    results = explain()
    assert (results.num_images, results.num_before) == (10, 9)
    after = snapshot(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} <= {"images.csv", "contact_sheet.png"}


def test_limit_is_spread_and_may_be_lifted(explain, data, tmp_path):
    assert explain(limit=3).num_images == 3
    rows = table(tmp_path / "out" / "images.csv")
    assert [row["image"] for row in rows] == [names(data)[i] for i in (0, 3, 6)]
    results = explain()
    assert (results.num_images, results.num_before) == (9, 3)


def test_worker_processes_do_not_change_results(explain, tmp_path, snapshot):
    explain(out=tmp_path / "alone")
    explain(num_workers=2)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "alone")


def test_images_that_differ_only_in_their_suffix_do_not_meet(explain, tmp_path, make_photo):
    folder = tmp_path / "flat"
    for i, name in enumerate(("a.png", "a.jpg", "b.png", "B.jpg", "a.png.bmp")):
        make_photo(folder / name, seed=i)
    assert explain(["random"], data=folder).num_images == 5
    found = {path.name: Explanation.load(path).sources[0] for path in (tmp_path / "out" / "random").glob("*.npz")}
    assert found == {
        "a.jpg.npz": "a.jpg",
        "a.png.npz": "a.png",
        "a.png-2.npz": "a.png.bmp",
        "b.png.npz": "b.png",
        "B.jpg.npz": "B.jpg",
    }


def test_result_labels_do_not_depend_on_the_limit_and_are_relative(tmp_path):
    paths = [tmp_path / name for name in ("x/a.jpg", "x/a.png", "y/a.jpg", "y/.b.c.jpg")]
    assert list(result_names(paths, tmp_path).values()) == ["x/a.jpg", "x/a.png", "y/a", "y/.b.c"]
    assert result_names([tmp_path / "one.jpg"], tmp_path / "one.jpg") == {tmp_path / "one.jpg": "one"}


def test_one_file_is_a_folder_of_one(explain, data, tmp_path):
    assert explain(["hit"], data=data / "amber" / "0.png").num_images == 1
    assert (tmp_path / "out" / "hit" / "0.npz").is_file()


def test_a_method_twice_or_none_is_refused(explain):
    for methods in (["hit", "hit"], []):
        with pytest.raises(InvalidInputError, match="each once"):
            explain(methods)


def test_a_name_that_is_no_unicode(explain, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    try:
        with (folder / "caf\udce9.png").open("wb") as file:
            noisy_photo(1).save(file, "png")
    except (OSError, UnicodeError):
        pytest.skip("the file system takes only Unicode")
    assert explain(["random"], data=folder).num_images == 1
    assert explain(["random"], data=folder).num_before == 1


def test_overwriting_removes_nothing_of_others(explain, tmp_path):
    out = tmp_path / "out"
    (out / "random" / "mine").mkdir(parents=True)
    (out / "notes").mkdir()
    others = [out / "random" / name for name in ("a.npz", "a.json", "mine/b.npz")] + [out / "notes" / ".partial-mine"]
    for file in others:
        file.write_text("mine")
    explain(["random"], overwrite=True)
    assert [file.read_text() for file in others[1:]] == ["mine"] * 3


def test_no_password_is_written_and_any_option_can_be(explain, tmp_path):
    options = {"token": "hf_secret", "revision": date(2024, 1, 1), "id2label": {0: "ant"}}
    explain(["random"], model_options=options)
    described = (tmp_path / "out" / "run.json").read_text()
    assert "hf_secret" not in described
    assert "2024" in described
    assert explain(["random"], model_options={**options, "token": "another"}).num_before == 9


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": -1}, {"num_workers": -1}])
def test_invalid_options_write_nothing(explain, tmp_path, unchecked, wrong):
    with pytest.raises(InvalidInputError, match="expected a batch_size of at least 1"):
        explain(**wrong)
    assert not (tmp_path / "out").exists()


def test_methods_of_several_models_are_refused(classifier, tiny_model_file, data, tmp_path):
    other = vitrail.load(tiny_model_file, device="cpu")
    with pytest.raises(InvalidInputError, match="expected methods tied to one model"):
        explain_folder([make_explainer("hit", classifier), make_explainer("random", other)], data, tmp_path / "out")


def test_folders_in_place_of_run_files_are_refused(explain, tmp_path):
    explain(["random"])
    (tmp_path / "out" / "unreadable.csv").mkdir()
    with pytest.raises(OutputError, match=r"cannot remove .*unreadable.csv"):
        explain(["random"])
    (tmp_path / "out" / "run.json").write_text("[" * 100_000)
    with pytest.raises(OutputError, match=r"cannot read .*run.json"):
        explain(["random"])


def test_photos_may_lie_beside_folders(explain, make_photo, data, tmp_path):
    make_photo(data / "beside.png", seed=9)
    assert explain(["random"]).num_images == 10
    assert (tmp_path / "out" / "random" / "beside.npz").exists()
