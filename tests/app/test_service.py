"""The service checks requests, and handles many at once without mixing them."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from app_requests import draw_bird, explain_bird, load_model
from PIL import Image
from samples import noisy_photo

from vitrail.app.background import Progress
from vitrail.app.limits import Limits
from vitrail.app.model_pool import ModelPool
from vitrail.app.result_json import curves_to_json, result_to_json
from vitrail.app.service import ExplainService
from vitrail.core.errors import ImageError, InvalidInputError, UnknownNameError, VitrailError
from vitrail.metrics import PROTOCOLS, perturbation_curves

NAMES = ["vitrail:hit-birds", "vitrail:vit-birds"]


@pytest.fixture
def service(tmp_path):
    for index in range(1, 5):
        draw_bird(index).save(tmp_path / f"{index}.png")
    return ExplainService(
        ModelPool(NAMES, loader=lambda name: load_model(name.partition(":")[2])), Limits(num_methods=2), tmp_path
    )


def test_concurrent_requests_do_not_mix(service, tmp_path):
    requests = [(index, name, method) for index in range(1, 5) for name in NAMES for method in ("rollout", "chefer")] * 3

    def explain(request):
        index, name, method = request
        return service.explain(tmp_path / f"{index}.png", name, [method])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(explain, requests))
    for (index, name, method), result in zip(requests, results, strict=True):
        expected = explain_bird(name.partition(":")[2], method, index=index)
        torch.testing.assert_close(
            result.explanations[method].relevance, expected.explanations[method].relevance, rtol=1e-5, atol=1e-6
        )
        assert result.row.title == f"{index}.png"


def test_curves_of_two_sides(service, tmp_path):
    sides = [service.explain(tmp_path / f"{index}.png", NAMES[1], ["rollout", "random"]) for index in (1, 2)]
    *before, last = service.measure_curves(sides, "tokens")
    assert all(isinstance(item, Progress) for item in before)
    assert before[-1].done == before[-1].total
    for side, curves in zip(sides, last, strict=True):
        one = perturbation_curves(load_model("vit-birds"), side.image, side.explanations["rollout"], PROTOCOLS["tokens"])
        torch.testing.assert_close(curves["rollout"].scores, one.scores, rtol=1e-4, atol=1e-5)


def test_other_requests_use_the_model_while_curves_are_measured(service, tmp_path):
    sides = [service.explain(tmp_path / "1.png", NAMES[1], ["rollout"])]
    work = service.measure_curves(sides, "hit")
    next(work)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(service.explain, tmp_path / "2.png", NAMES[1], ["rollout"]).result(timeout=30).target
    work.close()
    with service.pool.use(NAMES[1]):
        pass


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "timm:vit_tiny_patch16_224"}, UnknownNameError, "unknown model"),
        ({"model": "/etc/passwd"}, UnknownNameError, "unknown model"),
        ({"methods": ["hit", "random", "rollout"]}, InvalidInputError, "at most 2 methods"),
        ({"methods": []}, InvalidInputError, "at least one method"),
        ({"target": "unicorn"}, UnknownNameError, "unknown class"),
        ({"photo": "/etc/passwd"}, ImageError, "got a path"),
        ({"photo": None}, ImageError, "there is no photo yet"),
        ({"photo": 5}, ImageError, "got something else"),
        ({"photo": "a\0b"}, ImageError, "got something else"),
        ({"model": ["vitrail:hit-birds"]}, InvalidInputError, "name of a model, .* got list"),
        ({"methods": "hit"}, InvalidInputError, "list of names of methods, got str"),
        ({"methods": 5}, InvalidInputError, "got int"),
        ({"methods": [["hit"]]}, InvalidInputError, "name of a method, .* got list"),
        ({"methods": ["h" * 10**6]}, InvalidInputError, "got a text of 1,000,000 letters"),
        ({"target": True}, InvalidInputError, "name of a class, .* got bool"),
        ({"target": 1.5}, InvalidInputError, "got float"),
        ({"target": "u" * 300}, InvalidInputError, "got a text of 300 letters"),
        ({"target": 99}, VitrailError, "99"),
        ({"target": -1}, VitrailError, "-1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_requests_are_refused(service, tmp_path, changes, error, message):
    arguments = {"photo": tmp_path / "1.png", "model": NAMES[0], "methods": ["hit"]} | changes
    with pytest.raises(error, match=message):
        service.explain(**arguments)


@pytest.mark.parametrize("target", [0, "0", " 0 "])
def test_target_can_be_a_number(service, tmp_path, target):
    assert int(service.explain(tmp_path / "1.png", NAMES[0], ["hit"], target).explanations["hit"].targets[0]) == 0


def test_choices_are_available_while_the_model_is_used(service):
    expected = service.list_methods(NAMES[0]), service.list_classes(NAMES[0])
    with service.pool.use(NAMES[0]), ThreadPoolExecutor(1) as pool:
        choices = pool.submit(lambda: (service.list_methods(NAMES[0]), service.list_classes(NAMES[0]))).result(timeout=10)
    assert choices == expected
    choices[0].clear()
    assert service.list_methods(NAMES[0]) == expected[0]


def test_unknown_protocols_are_refused(service, tmp_path):
    with pytest.raises(VitrailError, match="unknown protocol"):
        list(service.measure_curves([service.explain(tmp_path / "1.png", NAMES[0], ["hit"])], "rise"))


def test_json_contains_all_numbers(service, tmp_path):
    side = service.explain(tmp_path / "1.png", NAMES[0], ["hit"], "2")
    fields = json.loads(json.dumps(result_to_json(side, parts=True), allow_nan=False))
    assert fields["target_index"] == 2
    assert fields["maps"][0]["relevance"] == side.explanations["hit"].relevance[0].tolist()
    total = sum(map(sum, fields["maps"][0]["relevance"])) + fields["maps"][0]["bias"]
    assert total == pytest.approx(fields["logit"], abs=1e-4)
    assert len(fields["maps"][0]["parts"]) == len(side.parts["hit"].parts)
    [measured] = list(service.measure_curves([side], "hit"))[-1]
    assert json.loads(json.dumps(curves_to_json(measured), allow_nan=False))["hit"]["areas"]["insertion_zero"] > 0


def test_curves_of_chance_are_added_on_request(service, tmp_path):
    sides = [service.explain(tmp_path / "1.png", NAMES[1], ["rollout"])]
    *_, [curves] = service.measure_curves(sides, "tokens", control=True)
    assert list(curves) == ["rollout", "random"]
    chosen = service.explain(tmp_path / "1.png", NAMES[1], ["random"])
    *_, [expected] = service.measure_curves([chosen], "tokens", control=True)
    assert list(expected) == ["random"]
    torch.testing.assert_close(curves["random"].scores, expected["random"].scores)


@pytest.mark.parametrize("name", ["scan.tif", "scan.png", "scan.dcm"])
def test_previews_have_the_pixels_that_are_explained(service, tmp_path, name):
    samples = np.linspace(300, 2900, 96 * 96).astype(np.uint16).reshape(96, 96)
    if name == "scan.dcm":
        from dicom_files import dicom_file

        (tmp_path / name).write_bytes(dicom_file(samples))
    else:
        Image.fromarray(samples).save(tmp_path / name)
    path, note = service.preview(tmp_path / name)
    assert "from 300 to 2" in note
    assert path.suffix == ".png"
    assert path.is_relative_to(tmp_path)
    original, preview = (service.explain(photo, NAMES[0], ["hit"]) for photo in (tmp_path / name, path))
    assert torch.equal(original.image, preview.image)
    assert original.note == preview.note == note
    assert original.row.title == preview.row.title == name


def test_a_photo_of_a_single_value_is_described(service, tmp_path):
    Image.fromarray(np.full((96, 96), 700, np.uint16)).save(tmp_path / "flat.png")
    assert service.preview(tmp_path / "flat.png")[1] == "All its pixels have the same value"


def test_previews_are_for_photos_that_browsers_do_not_show(service, tmp_path):
    (tmp_path / "text.png").write_bytes(b"no image")
    assert service.preview(tmp_path / "1.png") is None
    assert service.preview(None) is None
    for photo in ("/etc/passwd", "a\0b", tmp_path / "text.png"):  # Refused as soon as they are chosen.
        with pytest.raises(ImageError):
            service.preview(photo)
    noisy_photo(0).save(tmp_path / "color.tif")
    small = replace(service, limits=Limits(num_stored=10))
    assert small.preview(tmp_path / "color.tif") is None
    assert service.preview(tmp_path / "color.tif")[1] == ""
