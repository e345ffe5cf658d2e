"""What scoring leaves behind: JSON that every program reads, tables that agree with the scores, a page that opens offline."""

import csv
import html.parser
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from score_runs import draw_plainly
from scored import LOGIT, SHADES, Exact, additive, column, gray_photos, hand_made

from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation.scoring import Plan, score
from vitrail.evaluation.scoring.files import write_comparisons
from vitrail.evaluation.scoring.report import file_name, write_results
from vitrail.evaluation.scoring.sheets import EXTREMES, MASKS, _find_extremes, write_sheets
from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.verdict import Verdict
from vitrail.explainers import make_explainer
from vitrail.metrics import Protocol

pytest_plugins = ("tiny", "score_runs")

MIXED = Protocol(
    description="logits, hits and divergences",
    source="tests",
    num_steps=3,
    baselines=("zero",),
    scores=("logit", "top1", "kl"),
    orders=("most", "least"),
    directions=("deletion",),
)
NAN = float("nan")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything that is written of two models, one of them with a broken image and a name to be careful with."""
    folder, root = tmp_path_factory.mktemp("out"), gray_photos(tmp_path_factory.mktemp("gray"))
    (root / "broken<i>.png").write_bytes(b"no picture")
    first = additive()
    second = replace(first, name="two/<b>&")
    images = ImageFolder.scan(root, first.preprocessing)
    plan = Plan.create({"logit": LOGIT, "mixed": MIXED}, ["single-step", "masks"])
    with pytest.MonkeyPatch.context() as patch:
        draw_plainly(patch)
        scores, captions = [], {}
        for classifier in (first, second):
            explainers = [Exact(classifier), make_explainer("random", classifier, precision="bf16")]
            found = score(classifier, images, explainers, plan, target=0)
            scores.append(found)
            captions |= write_sheets(folder, found, plan, images, explainers)
        table = Table.from_scores(scores)
        write_results(folder, table, captions)
    return folder, scores, table


def read_csv(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def strict(path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_all_files_are_there(made):
    folder, _, _ = made
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("images.csv", "summary.json", "cost.json", "comparisons.csv", "curves.csv", "index.html", "pictures"),
        *(EXTREMES, MASKS),
    }
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    assert {"logit.png", "mixed.png", "single-step.png", "masks.png", "completeness.png"} <= pictures
    assert {"curves-logit-additive.png", "curves-logit-two--b.png"} <= pictures


def test_the_summary_is_json_and_agrees_with_the_scores(made):
    folder, scores, table = made
    summary = strict(folder / "summary.json")
    assert summary["models"] == ["additive", "two/<b>&"]
    assert summary["num_images"] == len(SHADES)
    assert list(summary["measures"]) == table.names
    assert summary["measures"]["logit.deletion_zero_logit"]["better"] == "lower"
    assert summary["measures"]["logit.deletion_zero_logit"]["low"] is None  # No bound.
    assert summary["measures"]["single-step.drop"]["high"] == 1.0
    assert list(summary["methods"]) == table.methods
    for each in scores:
        for method in each.methods:
            found = summary["methods"][f"{each.model}/{method}"]
            for name, mean in each.means()[method].items():
                if math.isnan(mean):
                    assert name not in found["measures"]
                    continue
                assert found["measures"][name]["mean"] == pytest.approx(mean)
                interval, at = each.intervals[method], [own.name for own in each.columns].index(name)
                assert found["measures"][name]["low"] == pytest.approx(interval.low[at])
                assert found["measures"][name]["high"] == pytest.approx(interval.high[at])
                assert found["measures"][name]["images"] == np.isfinite(each.method_values(method)[:, at]).sum()
    assert [entry["path"].rsplit("/", 1)[-1] for entry in summary["unreadable"]] == ["broken<i>.png"]
    assert set(summary["effect_of_precision"]) == {"additive", "two/<b>&"}
    assert {entry["method"] for entry in summary["not_shown_to_beat_random"]} <= {"additive/Exact", "two/<b>&/Exact"}


def test_normalized_areas_are_those_of_the_mean_curves_that_have_one(made):
    folder, scores, _ = made
    found = strict(folder / "summary.json")["normalized_areas_of_mean_curves"]
    for each in scores:
        for method in each.methods:
            assert list(found[each.model]["mixed"][method]) == ["deletion_zero_logit", "deletion_zero_least_logit"]
            curves = each.curves("logit")[method]
            expected = dict(zip(curves.names, curves.mean_normalized_auc().tolist(), strict=True))
            assert found[each.model]["logit"][method] == pytest.approx(expected, rel=1e-4)


def test_undefined_and_unbounded_numbers_are_null(tmp_path):
    scores = hand_made({"a": [[NAN, 1.0]], "random": [[2.0, NAN]]}, (column("m.one"), column("m.two", None, low=-math.inf)))
    write_results(tmp_path, Table.from_scores([replace(scores, effect={"m.one": NAN, "m.two": 0.5})]))
    summary = strict(tmp_path / "summary.json")
    assert list(summary["methods"]["a"]["measures"]) == ["m.two"]
    assert summary["methods"]["a"]["mean_rank"] is None
    assert summary["methods"]["a"]["measures"]["m.two"]["rank"] is None
    assert summary["measures"]["m.two"]["low"] is None
    assert summary["effect_of_precision"] == {"model": {"m.one": None, "m.two": 0.5}}
    assert summary["not_shown_to_beat_random"][0]["difference"] is None
    strict(tmp_path / "cost.json")
    assert not (tmp_path / "curves.csv").exists()


def test_costs_are_beside_the_summary_which_has_no_times(made):
    folder, scores, _ = made
    cost = strict(folder / "cost.json")
    assert cost["additive/random"]["seconds_per_image"] == scores[0].cost["random"].seconds > 0
    assert "seconds" not in (folder / "summary.json").read_text()


def test_the_same_scores_have_the_same_bytes(made, tmp_path, plain_pictures):
    folder, scores, _ = made
    write_results(tmp_path, Table.from_scores(scores))
    for name in ("images.csv", "summary.json", "cost.json", "comparisons.csv", "curves.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_images_have_a_line_for_every_method(made):
    folder, scores, table = made
    rows = read_csv(folder / "images.csv")
    assert list(rows[0]) == ["image", "target", "method", *table.names]
    assert len(rows) == 4 * len(SHADES)
    expected = [(path, f"{each.model}/{name}") for each in scores for name in each.methods for path in each.paths]
    assert [(row["image"], row["method"]) for row in rows] == expected
    assert {row["target"] for row in rows} == {"yes"}
    for i, row in enumerate(rows):
        values = table.values[row["method"]][i % len(SHADES)]
        for name, value in zip(table.names, values, strict=True):
            assert row[name] == "" if math.isnan(value) else float(row[name]) == value


def test_comparisons_have_a_line_a_pair_and_directed_measure(made):
    folder, _, table = made
    rows = read_csv(folder / "comparisons.csv")
    directed = [each.name for each in table.columns if each.measure.better]
    assert [row["measure"] for row in rows] == [name for name in directed for _ in range(6)]
    for row, each in zip(rows, table.comparisons, strict=True):
        assert (row["first"], row["second"]) == (each.first, each.second)
        assert float(row["p_adjusted"] or "nan") == pytest.approx(each.p_adjusted, nan_ok=True)


def test_undefined_comparisons_can_be_written(tmp_path):
    write_comparisons(tmp_path, Table.from_scores([hand_made({"a": [[NAN]], "b": [[1.0]]}, (column("m.one"),))]))
    [row] = read_csv(tmp_path / "comparisons.csv")
    assert row["images"] == "0"
    assert row["p"] == ""


def test_bands_of_normalized_curves_have_their_scale(made, monkeypatch, tmp_path):
    _folder, (first, *_), _table = made
    drawn = {}
    draw_plainly(monkeypatch)

    def draw(curves, path, *_labels, **options):
        drawn[path.name] = (curves, options)
        Image.new("RGB", (4, 4)).save(path)

    monkeypatch.setattr("vitrail.evaluation.scoring.report.plot_perturbation", draw)
    write_results(tmp_path, Table.from_scores([first]))
    (plain, options), (normalized, scaled) = drawn["curves-logit.png"], drawn["curves-logit-normalized.png"]
    for method, curves in normalized.items():
        # A curve that is one standard error higher, between the same ends.
        raised = replace(plain[method], scores=plain[method].scores + options["errors"][method][None])
        expected = np.abs(raised.normalized().scores - curves.scores)[0]
        np.testing.assert_allclose(scaled["errors"][method], expected, rtol=1e-4, atol=1e-6)


def test_points_of_curves_are_the_means_and_what_they_are_normalized(made):
    folder, scores, _ = made
    rows = read_csv(folder / "curves.csv")
    for each in scores:
        for protocol in ("logit", "mixed"):
            for method, curves in each.curves(protocol).items():
                mean = curves.averaged()
                relative = mean.normalized()
                for i, curve in enumerate(curves.protocol.curves):
                    own = [
                        row
                        for row in rows
                        if (row["model"], row["protocol"], row["method"], row["curve"])
                        == (each.model, protocol, method, curve.name)
                    ]
                    assert [float(row["fraction"]) for row in own] == pytest.approx(curves.fractions.tolist())
                    assert [float(row["mean"]) for row in own] == pytest.approx(mean.scores[0, i].tolist(), abs=1e-5)
                    found = [float(row["normalized"] or NAN) for row in own]
                    assert found == pytest.approx(relative.scores[0, i].tolist(), abs=1e-5, nan_ok=True)
                    assert {row["score"] for row in own} == {curve.score}
                    assert all(map(math.isnan, found)) == (curve.score != "logit")


class _Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        if tag == "img":
            self.images.append(found)
        self.links += [found[name] for name in ("href", "src", "srcset", "action", "data", "poster") if name in found]


def test_the_page_opens_offline_and_says_what_it_shows(made):
    folder, _, _ = made
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert len(page.images) == 2 + len(list((folder / "pictures").iterdir()))
    assert all(image["alt"].strip() for image in page.images)
    assert page.links
    assert all(re.match("data:image/(png|webp);base64,", link) for link in page.links)
    without = re.sub(r"data:image/(?:png|webp);base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?://|@import|url\(", without)
    assert not {"script", "link", "iframe", "i", "b"} & set(page.tags)  # Names are text, not tags.
    assert "two/&lt;b&gt;&amp;" in text
    assert "broken&lt;i&gt;.png" in text


def test_names_of_files_hold_letters_and_numbers_only():
    assert file_name("vitrail:hit-cifar10") == "vitrail-hit-cifar10"
    assert file_name("../a b/ü.safetensors") == "a-b-ü-safetensors"


# Contact sheets.


def chosen(values, higher=True):
    found = _find_extremes(np.array(values, dtype=float), higher)
    return {word: [at for kind, at, _ in found if kind == word] for word, _, _ in found}


def test_extremes_are_the_best_the_median_and_the_worst():
    values = [5, 1, 9, 3, 7, 2, 8, 4, 6]
    assert chosen(values) == {"best": [2, 6, 4], "median": [8, 0, 7], "worst": [3, 5, 1]}
    assert chosen(values, higher=False) == {"best": [1, 5, 3], "median": [7, 0, 8], "worst": [4, 6, 2]}
    assert all(value == values[at] for _, at, value in _find_extremes(np.array(values, dtype=float), True))


def test_extremes_of_many_are_three_of_each():
    found = chosen(np.arange(101.0))
    assert found == {"best": [100, 99, 98], "median": [51, 50, 49], "worst": [2, 1, 0]}


def test_extremes_leave_out_what_is_undefined_and_show_no_image_twice():
    assert chosen([NAN, 2, NAN, 1, 3]) == {"best": [4], "median": [1], "worst": [3]}
    assert chosen([NAN, 2, 1]) == {"best": [1], "worst": [2]}
    assert chosen([7]) == {"best": [0]}
    assert chosen([NAN, NAN]) == {}
    for count in range(1, 30):
        places = [at for _, at, _ in _find_extremes(np.random.default_rng(count).random(count), True)]
        assert len(set(places)) == len(places) == min(count, 3 * min(3, -(-count // 3)))


def test_a_first_method_that_is_undefined_has_no_extremes(tmp_path):
    """Of random, completeness is undefined everywhere; the scores have the column of another method."""
    classifier = additive()
    images, plan = ImageFolder.scan(gray_photos(tmp_path / "gray"), classifier.preprocessing), Plan.create((), ["completeness"])
    explainers = [make_explainer("random", classifier), Exact(classifier)]
    scores = score(classifier, images, explainers, plan)
    write_sheets(tmp_path, scores, plan, images, explainers)


def test_extremes_are_those_of_the_recommended_method(tmp_path, monkeypatch):
    classifier = additive()
    images, plan = ImageFolder.scan(gray_photos(tmp_path / "gray"), classifier.preprocessing), Plan.create({"logit": LOGIT})
    explainers = [make_explainer("random", classifier), Exact(classifier)]
    scores = score(classifier, images, explainers, plan, target=0)
    # Too few images for a verdict: those of the best method.
    assert f"images of {explainers[1].name} by" in write_sheets(tmp_path, scores, plan, images, explainers)[EXTREMES]
    recommended = Verdict(scores.model, "random", ())
    monkeypatch.setattr("vitrail.evaluation.scoring.sheets.reach_verdict", lambda _: recommended)
    assert "images of random by" in write_sheets(tmp_path, scores, plan, images, explainers)[EXTREMES]


def test_titles_of_extremes_name_labels_that_are_not_predicted(tmp_path, monkeypatch):
    classifier, titles = additive(), []
    images = ImageFolder.scan(gray_photos(tmp_path / "gray"), classifier.preprocessing)
    explainers, plan = [Exact(classifier)], Plan.create({"logit": LOGIT})
    monkeypatch.setattr("vitrail.evaluation.scoring.sheets.contact_sheet", lambda rows, _: titles.extend(r.title for r in rows))
    for label in range(2):
        labeled = replace(images, labels=[label] * len(images), class_names=["yes", "no"])
        write_sheets(tmp_path, score(classifier, labeled, explainers, plan, target=0), plan, labeled, explainers)
    predicted = [["yes", "no"][classifier.logits(sample.image[None]).argmax()] for sample in images]
    assert sum("label: yes\n" in title for title in titles) == predicted.count("no")
    assert sum("label: no\n" in title for title in titles) == predicted.count("yes") > 0


def test_page_warns_of_methods_not_better_than_random(tmp_path):
    values = {"same": [[0.5]] * 9, "better": [[0.9]] * 9, "random": [[0.5]] * 9}
    write_results(tmp_path, hand_made(values, (column("m.one"),)).table)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    warned = text[text.index("Warning: not significantly better than random") :].split("</table>")[0]
    assert re.search("<td[^>]*>same</td><td>m.one</td>", warned)
    assert "better" not in warned.split("<tbody>")[1]
    # The control is significantly better where less is better: a small p is no success.
    write_results(tmp_path, hand_made(values, (column("m.one", "lower"),)).table)
    entries = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["not_shown_to_beat_random"]
    assert [(each["method"], each["significantly_worse"], each["p"] < 0.05) for each in entries] == [
        ("same", False, False),
        ("better", True, True),
    ]
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "significantly worse on</th>" in text
    assert re.search("<td[^>]*>better</td><td>m.one</td><td></td>", text)
    write_results(tmp_path, hand_made({name: values[name] for name in ("better", "random")}, (column("m.one"),)).table)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Warning" not in text
    assert "is significantly better than random on every measure" in text
