"""`vitrail queries`: sheets, numbers and maps from the command line, and one message where that cannot be."""

import json
import re

import networks
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vitrail
from vitrail.datasets.image_io import open_image

pytest_plugins = ("tiny",)

BEE, DOG = networks.CLASS_NAMES[1], networks.CLASS_NAMES[3]


@pytest.fixture(scope="module")
def intr_file(tmp_path_factory):
    """A tiny INTR for whole photos, as `vitrail train` writes it."""
    path = tmp_path_factory.mktemp("intr") / "tiny.safetensors"
    vitrail.save(networks.intr(num_heads=4), path)
    return path


@pytest.fixture
def photo(make_photo, tmp_path):
    return make_photo(tmp_path / "photos" / "cat.png")


@pytest.fixture
def data(make_classes):
    """Three photos each of two of the model's classes."""
    return make_classes((BEE, DOG), 3)


@pytest.fixture
def plain_sheets(monkeypatch):
    """Sheets are not drawn, which takes longer than all the rest."""
    for name in ("query_sheet", "query_overview"):
        monkeypatch.setattr(f"vitrail.runs.query_photos.{name}", lambda view, path, caption: path.touch())


@pytest.fixture
def refused(run_vitrail, tmp_path):
    """Run, expect a refusal in one message that leaves nothing behind, and return it."""

    def run(*arguments, out=tmp_path / "out"):
        there = out.exists()
        code, printed, err = run_vitrail("queries", *arguments, "--out", out)
        assert (code, printed, err.count("error:")) == (2, "", 1), err
        assert "Traceback" not in err
        assert out.exists() == there
        return err

    return run


@torch.no_grad()
def by_hand(path, photo, layer=-1):
    """Logits and the maps of all classes, (c, h, rows, cols)."""
    classifier = vitrail.load(path, device="cpu")
    network, images = classifier.module, classifier.prepare(open_image(photo))
    search = network.search(network.encode(images))
    return search.logits[0], network.attention(search, layer)[0]


def written(out):
    table = json.loads((out / "queries.json").read_text(encoding="utf-8"))
    return table, [load_file(out / photo["maps"])["maps"] for photo in table["photos"]]


def test_a_photo_without_a_known_class(run_vitrail, intr_file, photo, tmp_path):
    out = tmp_path / "out"
    code, printed, err = run_vitrail("queries", photo, "-m", intr_file, "--device", "cpu", "--top", 2, "-o", out)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["cat.png", "cat.safetensors", "queries.json", "run.json", "shards"]
    table, maps = written(out)
    logits, every = by_hand(intr_file, photo)
    best = logits.topk(2).indices.tolist()
    (entry,) = table["photos"]
    assert entry["true_class"] is None
    assert [one["index"] for one in entry["classes"]] == best
    torch.testing.assert_close(maps[0], torch.stack([every[index] for index in best]))
    share = logits.softmax(-1)[best[0]]
    assert f"{photo}: {networks.CLASS_NAMES[best[0]]} {share:.1%} (predicted), {networks.CLASS_NAMES[best[1]]} " in printed
    assert "tiny: 1 photo\n" in printed
    assert f"wrote a sheet and the maps (.safetensors) of every photo, and queries.json to {out}\n" in printed
    with Image.open(out / "cat.png") as sheet:
        assert sheet.width > sheet.height > 300  # 6 columns, 2 rows


def test_a_class_of_a_folder(run_vitrail, intr_file, data, tmp_path):
    out = tmp_path / "out"
    code, printed, err = run_vitrail(
        "queries", "--data", data, "--class", DOG, "--limit", 2, "--layer", 0, "-m", intr_file, "--device", "cpu", "-o", out
    )
    assert code == 0, err
    table, maps = written(out)
    assert [one["maps"] for one in table["photos"]] == [f"{DOG}/{i}.safetensors" for i in range(2)]
    assert (table["layer"], table["num_layers"]) == (0, 3)
    for entry, found in zip(table["photos"], maps, strict=True):
        assert entry["true_class"] == {"name": DOG, "index": 3}
        classes = [one["index"] for one in entry["classes"]]
        assert (classes[0], len(classes)) == (3, 5)  # `--top` is 5, as many as there are
        _, every = by_hand(intr_file, entry["source"], layer=0)
        torch.testing.assert_close(found, torch.stack([every[index] for index in classes]))
        assert (out / entry["maps"]).with_suffix(".png").is_file()
    right = sum(entry["predicted"]["index"] == 3 for entry in table["photos"])
    assert f"2 photos, the true class predicted in {right} of 2" in printed
    with Image.open(out / "queries.png") as sheet:
        sheet.load()


@pytest.mark.usefixtures("plain_sheets")
def test_true_classes_are_those_of_the_folders(run_vitrail, intr_file, data, tmp_path):
    code, _out, err = run_vitrail("queries", "--data", data, "--top", 1, "-m", intr_file, "-o", tmp_path / "out")
    assert code == 0, err
    photos = written(tmp_path / "out")[0]["photos"]
    assert [one["true_class"]["name"] for one in photos] == [BEE] * 3 + [DOG] * 3
    assert [[each["name"] for each in one["classes"]] for one in photos] == [[BEE]] * 3 + [[DOG]] * 3


@pytest.mark.usefixtures("plain_sheets")
def test_photos_of_a_class_by_its_number(run_vitrail, intr_file, data, photo, tmp_path):
    out = tmp_path / "out"
    code, printed, err = run_vitrail("queries", photo, data / BEE, "--class", 4, "--top", 99, "-m", intr_file, "-o", out)
    assert code == 0, err
    photos = written(out)[0]["photos"]
    assert [one["true_class"]["index"] for one in photos] == [4] * 4
    assert {len(one["classes"]) for one in photos} == {5}  # all that there are
    assert len(re.findall(rf": {networks.CLASS_NAMES[4]} [\d.]+% \(true class\), ", printed)) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("plain_sheets")
def test_what_cannot_be_read_is_skipped_and_reported(run_vitrail, refused, intr_file, data, tmp_path):
    (data / DOG / "1.png").write_text("no photo")
    code, printed, err = run_vitrail("queries", "--data", data, "--class", DOG, "-m", intr_file, "-o", tmp_path / "some")
    assert code == 0
    assert "2 photos" in printed
    assert f"{data / DOG / '1.png'}" in err
    assert "skipped 1 unreadable file" in err
    assert [file["path"] for file in written(tmp_path / "some")[0]["unreadable"]] == [str(data / DOG / "1.png")]
    assert "got something else" in refused(data / DOG / "1.png", data / DOG / "0.png", "-m", intr_file)
    for path in (data / DOG).iterdir():
        path.write_text("no photo")
    assert "not one of 3 images could be read" in refused("--data", data, "--class", DOG, "-m", intr_file)


@pytest.mark.usefixtures("plain_sheets")
def test_quiet_says_only_results(run_vitrail, intr_file, data, tmp_path):
    arguments = ("queries", data / BEE, "-m", intr_file, "--top", 1)
    _code, printed, loud = run_vitrail(*arguments, "-o", tmp_path / "loud")
    _code, same, err = run_vitrail("--quiet", *arguments, "-o", tmp_path / "quiet")
    assert "explaining 3/3" in loud
    assert err == ""
    assert same.replace("/quiet\n", "/loud\n") == printed


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], ["expected photos, or a folder by --data, got neither"]),
        (["PHOTO", "--data", "DATA"], ["got both"]),
        (["PHOTO", "--limit", "2"], ["--limit together with --data"]),
        (["nowhere.png"], ["no such image file: nowhere.png"]),
        (["--data", "nowhere"], ["no such file or folder of images: nowhere"]),
        (["EMPTY"], ["expected images in the folder", "found none"]),
        (["--data", "EMPTY"], ["expected images", "found none"]),
        (["PHOTO", "--class", "dgo"], ["unknown class 'dgo'", "did you mean 'dog'"]),
        (["--data", "DATA", "--class", "dgo"], ["unknown class 'dgo'", "did you mean 'dog'"]),
        (["--data", "DATA", "--class", "emu"], ["expected a folder 'emu'", "found bee, dog"]),
        (["PHOTO", "--class", "5"], ["between 0 and 4, got 5"]),
        (["PHOTO", "--layer", "3"], ["expected a layer between -3 and 2, got 3"]),
        (["PHOTO", "--model-arg", "device=cpu"], ["use --device"]),
    ],
)
def test_invalid_arguments_end_in_a_message(arguments, messages, refused, intr_file, data, photo, tmp_path):
    (tmp_path / "EMPTY").mkdir()
    places = {"PHOTO": photo, "DATA": data, "EMPTY": tmp_path / "EMPTY"}
    err = refused(*(places.get(argument, argument) for argument in arguments), "--model", intr_file)
    for message in messages:
        assert message in err


def test_only_an_intr_has_queries(refused, tiny_model_file, photo):
    assert "only an INTR has queries" in refused(photo, "--model", tiny_model_file)
    assert "expected an INTR by --model" in refused(photo)


@pytest.mark.parametrize("top", [0, -1])
def test_top_below_one_is_refused(top, run_vitrail, intr_file, photo, tmp_path):
    code, out, err = run_vitrail("queries", photo, "--top", top, "-m", intr_file, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "--top" in err


@pytest.mark.slow
def test_results_are_replaced_only_by_overwrite(run_vitrail, refused, intr_file, photo, snapshot, tmp_path):
    out = tmp_path / "out"
    arguments = ("queries", photo, "-m", intr_file, "--top", 1, "-o", out)
    assert run_vitrail(*arguments)[0] == 0
    before = snapshot(out)
    assert "--overwrite" in refused(photo, "-m", intr_file)
    assert snapshot(out) == before
    code, _printed, err = run_vitrail(*arguments, "--overwrite")
    assert code == 0, err
    assert snapshot(out) == before


def test_an_interruption_leaves_what_is_drawn(run_vitrail, intr_file, data, tmp_path, monkeypatch):
    def interrupted(view, path, caption):
        if path.stem == "1":
            raise KeyboardInterrupt
        path.touch()

    monkeypatch.setattr("vitrail.runs.query_photos.query_sheet", interrupted)
    out = tmp_path / "out"
    code, _printed, err = run_vitrail("queries", data / BEE, "-m", intr_file, "-o", out)
    assert code != 0, err
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "0.safetensors", "run.json", "shards"]


def test_pictures_never_replace_photos(refused, intr_file, photo, data, snapshot, tmp_path):
    before = snapshot(tmp_path)
    assert "would replace" in refused(photo, "-m", intr_file, "--overwrite", out=photo.parent)
    assert "outside of the images" in refused("--data", data, "-m", intr_file, out=data / "new")
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("plain_sheets")
def test_processes_that_read_ahead_change_no_byte(run_vitrail, intr_file, data, snapshot, tmp_path):
    (data / DOG / "broken.png").write_text("no photo")
    for workers in (0, 2):
        arguments = ("--data", data, "-m", intr_file, "--workers", workers, "-o", tmp_path / str(workers))
        code, _printed, err = run_vitrail("queries", *arguments)
        assert code == 0, err
    assert snapshot(tmp_path / "2") == snapshot(tmp_path / "0")


def test_named_photos_are_not_read_ahead(refused, intr_file, photo):
    assert "expected --workers together with --data" in refused(photo, "--workers", 1, "-m", intr_file)
