"""What an INTR's queries look at in photos: the classes that are asked, the maps, and what is written."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from samples import noisy_photo

import vitrail
from vitrail.cli.printing import print_queries
from vitrail.core.errors import ImageError, InvalidInputError, OutputError
from vitrail.datasets.image_io import open_image
from vitrail.datasets.photos import PhotoFile
from vitrail.explainers.intr import INTRQueries
from vitrail.runs import query_photos as queries
from vitrail.runs.photo_list import QueriedPhoto, list_folder_photos, list_named_photos, refuse_replacing
from vitrail.runs.query_photos import choose_classes, query_photos
from vitrail.runs.query_results import FORMAT, QueriedClass

pytest_plugins = ("tiny",)

SIZES = ((20, 24), (20, 36), (40, 20), (20, 24))
"""Width and height of the photos, which come to images of three sizes."""


def write_view(view, path, caption):
    """In place of the sheet, what is on it."""
    summary = [view.title, caption, *([one.name, one.note, one.value, one.maps.shape] for one in view.classes)]
    path.write_text(json.dumps(summary))


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing is not what is tested here."""
    monkeypatch.setattr(queries, "query_sheet", write_view)
    monkeypatch.setattr(
        queries,
        "query_overview",
        lambda views, path, caption: path.write_text(json.dumps([caption, *(v.title for v in views)])),
    )


@pytest.fixture(scope="module")
def classifier():
    return networks.intr(num_heads=4)


@pytest.fixture
def photos(tmp_path):
    """Four photos of differing shapes."""
    paths = [tmp_path / "photos" / f"{name}.png" for name in "abcd"]
    paths[0].parent.mkdir()
    for i, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        noisy_photo(i, size).save(path)
    return paths


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def summary(out):
    return json.loads((out / "queries.json").read_text(encoding="utf-8"))


@torch.no_grad()
def every_map(classifier, path, layer):
    """Logits, and the maps of all classes, (c, h, rows, cols), from the network's own parts."""
    network, images = classifier.module, classifier.prepare(open_image(path))
    search = network.search(network.encode(images))
    return search.logits[0], network.attention(search, layer)[0]


LOGITS = torch.tensor([1.0, 5.0, 3.0, 4.0, 2.0])


@pytest.mark.parametrize(
    ("true_class", "top", "expected"),
    [
        (None, 3, [1, 3, 2]),
        (1, 3, [1, 3, 2]),  # also the most probable one
        (2, 3, [2, 1, 3]),  # among the first
        (0, 3, [0, 1, 3]),  # not among them: it takes the place of the last
        (0, 1, [0]),
        (None, 1, [1]),
        (4, 5, [4, 1, 3, 2, 0]),
        (4, 9, [4, 1, 3, 2, 0]),
    ],
)
def test_the_true_class_comes_first_and_then_the_most_probable(true_class, top, expected):
    assert choose_classes(LOGITS, true_class, top) == expected


def test_equally_probable_classes_keep_their_order():
    assert choose_classes(torch.zeros(4), None, 4) == [0, 1, 2, 3]
    assert choose_classes(torch.zeros(4), 3, 2) == [3, 0]


@pytest.mark.parametrize("layer", [-1, 0])
def test_maps_and_numbers_are_those_of_the_network(classifier, photos, out, layer):
    true_classes = [0, None, 4, 2]
    asked = [
        QueriedPhoto(photo, true) for (photo, _), true in zip(list_named_photos(photos, classifier), true_classes, strict=True)
    ]
    found, unreadable = query_photos(INTRQueries(classifier, layer=layer), asked, out, top=3)
    assert unreadable == []
    table = summary(out)
    assert table["format"] == FORMAT
    assert [one["maps"] for one in table["photos"]] == [f"{name}.safetensors" for name in "abcd"]
    shapes = set()
    assert (table["layer"], table["num_layers"], table["num_heads"]) == (layer % 3, 3, 4)
    for path, true, one, entry in zip(photos, true_classes, found, table["photos"], strict=True):
        logits, every = every_map(classifier, path, layer)
        classes = [each["index"] for each in entry["classes"]]
        best = logits.topk(5).indices.tolist()
        first = best[0] if true is None else true
        assert classes == [first, *[index for index in best if index != first][:2]]
        assert entry["source"] == str(path)
        assert entry["true_class"] == (None if true is None else {"name": networks.CLASS_NAMES[true], "index": true})
        assert entry["predicted"]["index"] == best[0]
        for each in entry["classes"]:
            assert each["name"] == networks.CLASS_NAMES[each["index"]]
            assert each["logit"] == pytest.approx(float(logits[each["index"]]), abs=1e-5)
            assert each["probability"] == pytest.approx(float(logits.softmax(-1)[each["index"]]), abs=1e-6)
        by_hand = torch.stack([every[index] for index in classes])
        maps = load_file(out / entry["maps"])["maps"]
        torch.testing.assert_close(maps, by_hand)
        assert [vars(each) for each in one.classes] == entry["classes"]
        shapes.add(tuple(maps.shape[2:]))
        torch.testing.assert_close(by_hand.sum((-1, -2)), torch.ones(3, 4))
    assert len(shapes) == 3  # grids of differing shapes


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "none"])
def test_numbers_are_what_the_outputs_mean(classifier, photos, out, output, capsys):
    classifier = replace(classifier, output=output)
    results, _ = query_photos(INTRQueries(classifier), list_named_photos(photos[:1], classifier), out, top=5)
    print_queries(results, "net", out, one_by_one=True)
    printed = capsys.readouterr().out.splitlines()[0]
    logits, _maps = every_map(classifier, photos[0], -1)
    sheet = json.loads((out / "a.png").read_text())
    for each, (name, _note, shown, _shape) in zip(summary(out)["photos"][0]["classes"], sheet[2:], strict=True):
        logit = float(logits[each["index"]])
        if output == "none":
            expected = f"{logit:.4g}"
            assert each["probability"] is None
        else:
            probability = logits.softmax(0)[each["index"]] if output == "softmax" else logits[each["index"]].sigmoid()
            expected = f"{float(probability):.1%}"
            assert each["probability"] == pytest.approx(float(probability), abs=1e-6)
        assert (name, shown) == (each["name"], expected)
        assert f"{name} {expected}" in printed


@pytest.mark.parametrize(("probability", "text"), [(1.0, "100.0%"), (5e-4, "0.1%"), (4.2e-6, "< 0.1%"), (0.0, "< 0.1%")])
def test_small_probabilities_have_one_significant_digit(probability, text):
    assert QueriedClass("crane", 0, 1.0, probability).format_value() == text


def test_a_photo_passes_the_network_once(classifier, photos, out, monkeypatch):
    passes, encode = [], type(classifier.module).encode
    monkeypatch.setattr(type(classifier.module), "encode", lambda *args: (passes.append(1), encode(*args))[1])
    query_photos(INTRQueries(classifier), list_named_photos(photos, classifier), out)
    assert len(passes) == len(photos)


def test_sheets_say_which_class_is_true_and_which_is_predicted(classifier, photos, out):
    logits, _ = every_map(classifier, photos[0], -1)
    best, worst = int(logits.argmax()), int(logits.argmin())
    for true, notes in ((worst, ["true class", "predicted"]), (best, ["true class", ""]), (None, ["predicted", ""])):
        query_photos(INTRQueries(classifier), [QueriedPhoto(PhotoFile(photos[0], "a", True), true)], out, 2, str(true))
        title, caption, *classes = json.loads((out / "a.png").read_text())
        assert (title, caption) == ("a.png", "Cross-attention of decoder layer 3 of 3.")
        assert [note for _, note, _, _ in classes] == notes
        assert classes[0][0] == networks.CLASS_NAMES[best if true is None else true]
        assert not (out / "queries.png").exists()  # of one photo there is no more to see


def test_an_overview_of_the_first_photos(classifier, photos, out, monkeypatch):
    monkeypatch.setattr(queries, "MAX_PHOTOS", 3)
    query_photos(INTRQueries(classifier, layer=1), list_named_photos(photos, classifier), out)
    caption, *titles = json.loads((out / "queries.png").read_text())
    assert titles == ["a.png", "b.png", "c.png"]
    assert caption == "Cross-attention of decoder layer 2 of 3. The first 3 of 4 photos."


def test_unreadable_photos_of_a_folder_are_skipped(classifier, photos, out):
    photos[1].write_text("no photo")
    found, unreadable = query_photos(INTRQueries(classifier), list_named_photos([photos[0].parent], classifier), out)
    assert [one.photo.path for one in found] == [photos[0], photos[2], photos[3]]
    assert [file.path for file in unreadable] == [str(photos[1])]
    assert str(photos[1]) in unreadable[0].reason
    assert [file["path"] for file in summary(out)["unreadable"]] == [str(photos[1])]
    with pytest.raises(ImageError, match=str(photos[1])):
        query_photos(INTRQueries(classifier), list_named_photos([photos[1]], classifier), out)
    for path in photos:
        path.write_text("no photo")
    with pytest.raises(ImageError, match=r"not one of 4 images could be read; the first: .*a\.png"):
        query_photos(INTRQueries(classifier), list_named_photos([photos[0].parent], classifier), out, key="other")


def test_a_photo_smaller_than_a_cell_is_explained(classifier, photos, out):
    Image.new("RGB", (2000, 8)).save(photos[2])  # So thin that the network sees less than a cell of it.
    query_photos(INTRQueries(classifier), list_named_photos([photos[2]], classifier), out)
    maps = load_file(out / "c.safetensors")["maps"]
    assert maps.shape[2] == 1
    torch.testing.assert_close(maps.sum((-1, -2)), torch.ones(5, 4))


def test_what_is_drawn_stays_when_the_work_is_interrupted(classifier, photos, out, monkeypatch, snapshot):
    asked = list_named_photos(photos, classifier)
    query_photos(INTRQueries(classifier), asked, out)
    whole = snapshot(out)
    for file in (path for path in out.rglob("*") if path.is_file() and path.stem != "queries"):
        file.unlink()

    def interrupted(view, path, caption):
        if path.stem == "c":
            raise KeyboardInterrupt
        write_view(view, path, caption)

    with monkeypatch.context() as patch:
        patch.setattr(queries, "query_sheet", interrupted)
        with pytest.raises(KeyboardInterrupt):
            query_photos(INTRQueries(classifier), asked, out)
    assert {file.name for file in out.iterdir()} == {
        "shards",
        "a.png",
        "a.safetensors",
        "b.png",
        "b.safetensors",
        "queries.png",
    }  # and no table, which would tell of other maps
    query_photos(INTRQueries(classifier), asked, out)
    assert snapshot(out) == whole


def test_names_that_are_no_text(classifier, out, photos):
    odd = photos[0].parent / "b\udcff" / "a\udcff$.png"
    odd.parent.mkdir()
    photos[0].rename(odd)
    for photo in photos[1:]:
        photo.unlink()
    query_photos(INTRQueries(classifier), list_folder_photos(photos[0].parent, classifier)[0], out)
    (entry,) = summary(out)["photos"]
    assert entry["source"] == str(odd)
    assert (out / entry["maps"]).with_suffix(".png").exists()
    # The reader of safetensors opens no file of such a name.
    assert load((out / entry["maps"]).read_bytes())["maps"].shape[:2] == (5, 4)


def test_invalid_requests_and_full_disks_are_reported(classifier, photos, out, monkeypatch):
    asked = list_named_photos(photos[:1], classifier)
    with pytest.raises(InvalidInputError, match="at least one class to show, got top=0"):
        query_photos(INTRQueries(classifier), asked, out, top=0)

    def fail(*_args, **_options):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("vitrail.models.checkpoints.save_file", fail)
    with pytest.raises(OutputError, match=r"cannot write .*a\.safetensors: No space left"):
        query_photos(INTRQueries(classifier), asked, out)
    broken = networks.intr(num_heads=4)
    broken.module.presence.bias.data.fill_(torch.nan)
    with pytest.raises(InvalidInputError, match="not finite"):
        query_photos(INTRQueries(broken), asked, out)
    assert not list(out.glob(".*"))


@pytest.fixture
def data(make_photo, tmp_path):
    """Two class folders of the model's and one that it does not know, with four photos each."""
    for i, name in enumerate((networks.CLASS_NAMES[1], networks.CLASS_NAMES[3], "unheard-of")):
        for j in range(4):
            make_photo(tmp_path / "data" / name / f"{j}.png", seed=10 * i + j)
    return tmp_path / "data"


def test_class_folders_give_the_true_class_where_the_model_has_it(classifier, data):
    asked, same = list_folder_photos(data, classifier)
    assert same is classifier
    known = {networks.CLASS_NAMES[1]: 1, networks.CLASS_NAMES[3]: 3, "unheard-of": None}
    assert [true for _, true in asked] == [known[photo.path.parent.name] for photo, _ in asked]
    assert [photo.result_name for photo, _ in asked] == [f"{photo.path.parent.name}/{photo.path.stem}" for photo, _ in asked]
    assert len(asked) == 12
    assert not any(photo.required for photo, _ in asked)


@pytest.mark.parametrize("wanted", [networks.CLASS_NAMES[3], "3"])
def test_one_class_of_a_folder(classifier, data, wanted):
    asked, _ = list_folder_photos(data, classifier, wanted)
    assert {(photo.path.parent.name, true) for photo, true in asked} == {(networks.CLASS_NAMES[3], 3)}
    assert len(asked) == 4
    some, _ = list_folder_photos(data, classifier, wanted, limit=2)
    assert [photo.path.name for photo, _ in some] == ["0.png", "2.png"]


def test_a_flat_folder_is_of_the_class_that_is_named(classifier, data):
    flat = data / "unheard-of"
    assert [true for _, true in list_folder_photos(flat, classifier)[0]] == [None] * 4
    assert [true for _, true in list_folder_photos(flat, classifier, networks.CLASS_NAMES[2])[0]] == [2] * 4
    assert [true for _, true in list_named_photos([flat, data], classifier, "4")] == [4] * 16


def test_unknown_classes(classifier, data, caplog, monkeypatch):
    with pytest.raises(InvalidInputError, match=rf"unknown class 'unheard-of'.*{networks.CLASS_NAMES[0]}"):
        list_folder_photos(data, classifier, "unheard-of")
    with pytest.raises(InvalidInputError, match="between 0 and 4, got 5"):
        list_named_photos([data], classifier, "5")
    name = networks.CLASS_NAMES[0]
    with pytest.raises(InvalidInputError, match=rf"expected a folder '{name}' in .*, found .*unheard-of$"):
        list_folder_photos(data, classifier, name)
    for i in (1, 3):
        (data / networks.CLASS_NAMES[i]).rename(data / f"other-{i}")
    monkeypatch.setattr(logging.getLogger("vitrail"), "propagate", True)
    assert {true for _, true in list_folder_photos(data, classifier)[0]} == {None}
    assert "named like a class of the model" in caplog.text


def test_a_model_without_names_takes_those_of_its_folders(classifier, data):
    nameless = replace(classifier, class_names=())
    asked, same = list_folder_photos(data, nameless)
    assert same is nameless  # three folders do not tell five classes
    assert {true for _, true in asked} == {None}
    for i in (4, 5):
        (data / f"folder-{i}").mkdir()
        noisy_photo(i).save(data / f"folder-{i}" / "0.png")
    asked, named = list_folder_photos(data, nameless, "folder-5")
    assert named.class_names == tuple(sorted(path.name for path in data.iterdir()))
    assert [(photo.path.parent.name, true) for photo, true in asked] == [("folder-5", named.class_names.index("folder-5"))]


def test_no_photo_takes_the_name_of_the_overview_sheet(classifier, make_photo, tmp_path):
    paths = [make_photo(tmp_path / "data" / name) for name in ("queries.jpg", "queries-2.png")]
    labels = [photo.result_name for photo, _ in list_folder_photos(tmp_path / "data", classifier)[0]]
    assert len({"queries", *labels}) == 3
    labels = [photo.result_name for photo, _ in list_named_photos(paths, classifier)]
    assert len({"queries", *labels}) == 3
    alone, _ = list_folder_photos(paths[0], classifier)
    assert [photo.result_name for photo, _ in alone] == ["queries.jpg"]


def test_pictures_are_never_written_among_photos(make_photo, classifier, tmp_path):
    photo = make_photo(tmp_path / "photos" / "a.png")
    asked = list_named_photos([photo], classifier)
    refuse_replacing(asked, tmp_path)
    with pytest.raises(InvalidInputError, match=f"would replace {photo}"):
        refuse_replacing(asked, Path(tmp_path / "photos" / ".." / "photos"))
    sheet = make_photo(tmp_path / "photos" / "queries.png")
    with pytest.raises(InvalidInputError, match=f"would replace {sheet}"):
        refuse_replacing(list_named_photos([sheet], classifier), tmp_path / "photos")
    with pytest.raises(InvalidInputError, match="outside of the images"):
        refuse_replacing(asked, tmp_path / "photos" / "out", tmp_path / "photos")


def test_a_saved_model_gives_the_same_explanations(classifier, photos, out, tmp_path):
    vitrail.save(classifier, tmp_path / "intr.safetensors")
    loaded = vitrail.load(tmp_path / "intr.safetensors", device="cpu")
    found, _ = query_photos(INTRQueries(loaded), list_named_photos(photos, loaded), out)
    maps = [load_file(out / one.maps_file)["maps"] for one in found]
    again, _ = query_photos(INTRQueries(classifier), list_named_photos(photos, classifier), out)
    assert found == again
    for one, other in zip(maps, again, strict=True):
        np.testing.assert_array_equal(one, load_file(out / other.maps_file)["maps"])
