"""What a run will cost, measured before it is paid."""

import pytest

import vitrail
from vitrail import api
from vitrail.core.errors import ImageError
from vitrail.evaluation.estimate import Estimate, format_bytes, format_seconds

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def data(make_photo, tmp_path):
    for i in range(7):
        make_photo(tmp_path / "data" / ("amber" if i % 2 else "blue") / f"{i}.png", seed=i)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (119.0, "119 s"), (600.0, "10 min"), (9000.0, "2.5 h"), (864_000.0, "10 days")]
)
def test_durations_are_in_a_unit_that_fits(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(12.0, "12 bytes"), (1500.0, "1.5 kB"), (2e6, "2 MB"), (3.25e9, "3.25 GB"), (4e12, "4 TB")]
)
def test_sizes_are_in_a_unit_that_fits(size, text):
    assert format_bytes(size) == text


def test_totals_are_for_several_processes():
    lines = Estimate("net", "cpu", 7200, 32, {"rollout": 1.0}, 0.5, 1000.0, num_batches=450).lines()
    assert lines[0] == "net on cpu: 7200 images; measured on 32, nothing was written"
    assert lines[1] == "forward passes per image: rollout 1"
    assert "60 min in 1 process, 7.5 min in 8 processes, 112 s in 32 processes" in lines[2]
    assert lines[3] == "expected disk: 7.2 MB"
    few = Estimate("net", "cpu", 12, 12, {"rollout": 1.0}, 0.5, 1000.0).lines()
    assert few[2].endswith("expected time: 6 s in 1 process")  # One batch cannot be shared.


def test_a_folder_is_estimated_and_nothing_is_written(tiny_model_file, data, snapshot, tmp_path):
    classifier, before = vitrail.load(tiny_model_file, device="cpu"), snapshot(tmp_path)
    estimate = api.estimate_folder(classifier, data, ["hit", "rollout"], batch_size=2)
    assert snapshot(tmp_path) == before
    assert (estimate.num_images, estimate.num_measured) == (7, 4)
    assert list(estimate.passes) == ["hit", "rollout"]
    assert estimate.passes["rollout"] == pytest.approx(1, abs=0.2)
    assert estimate.seconds_per_image > 0
    # Three files per image and method.
    api.explain_folder(classifier, data, tmp_path / "out", ["hit", "rollout"], limit=4, batch_size=2)
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert estimate.bytes_per_image * 4 == pytest.approx(written, rel=0.02)


def test_scores_are_estimated_for_every_model(tiny_model_file, data, snapshot, tmp_path):
    before = snapshot(tmp_path)
    models = [vitrail.load(tiny_model_file, device="cpu"), str(tiny_model_file)]
    estimates = api.estimate_scores(models, data, ["hit", "random"], "diffmask", batch_size=2, device="cpu")
    assert snapshot(tmp_path) == before
    assert [(entry.num_images, entry.num_measured) for entry in estimates] == [(7, 4)] * 2
    assert all(list(entry.passes) == ["hit", "random"] and entry.bytes_per_image > 0 for entry in estimates)


def test_slow_images_are_measured_one_at_a_time(tiny_model_file, data, monkeypatch, caplog):
    """Two batches of 16 images took over ten minutes, in silence."""
    monkeypatch.setattr("vitrail.api.estimates.MAX_SECONDS", 0.0)
    classifier = vitrail.load(tiny_model_file, device="cpu")
    with caplog.at_level("INFO", "vitrail"):
        [scored] = api.estimate_scores([classifier], data, ["hit", "random"], "diffmask")
        explained = api.estimate_folder(classifier, data, "hit")
    assert (scored.num_measured, explained.num_measured) == (1, 1)
    assert caplog.messages.count("measuring 1 image") == 2
    assert ("expected time: up to " in scored.lines()[2], scored.bytes_per_image > 0) == (True, True)


def test_a_first_image_that_cannot_be_read(tiny_model_file, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="expected a first image that can be read"):
        api.estimate_folder(vitrail.load(tiny_model_file, device="cpu"), tmp_path / "data", "hit")


@pytest.mark.parametrize("command", ["explain", "score", "compare"])
def test_the_command_line_prints_the_estimate(command, run_vitrail, tiny_model_file, data, tmp_path):
    where = ("--data", data) if command == "explain" else (data,)
    code, printed, err = run_vitrail(
        command, *where, "-m", tiny_model_file, "--dry-run", "-o", tmp_path / "out", "--device", "cpu"
    )
    assert code == 0, err
    assert "7 images; measured on 7, nothing was written" in printed
    assert "expected disk: " in printed
    assert not (tmp_path / "out").exists()
