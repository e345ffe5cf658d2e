"""Several processes find the figures of one."""

import json
import textwrap

import pytest
from processes import run_together

from vitrail.core.distributed import gather, process_group, rank, started_rank, world_size

pytest_plugins = ("tiny",)


def test_a_single_process_is_left_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with process_group():
        assert (rank(), world_size(), started_rank()) == (0, 1, 0)
        assert gather([3, 1]) == [3, 1]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"SLURM_PROCID": "5", "LOCAL_RANK": "1"}, 5),
        ({"LOCAL_RANK": "2"}, 2),
        ({"RANK": ""}, 0),
    ],
)
def test_the_first_process_is_known_before_setup(environment, expected, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert started_rank() == expected


@pytest.mark.slow
def test_two_processes_print_and_write_the_figures_of_one(run_vitrail, tiny_model_file, make_photo, tmp_path):
    """19 readable photos, so that the shares are unequal, and three that are not, in both shares."""
    for i, name in enumerate(("crimson", "amber", "green")):
        for j in range(7 if i else 5):
            make_photo(tmp_path / "data" / name / f"{j}.png", seed=100 * i + j)
    for path in ("amber/bad.jpg", "crimson/bad.jpg", "green/0bad.jpg"):
        (tmp_path / "data" / path).write_bytes(b"\xff\xd8 nonsense")
    arguments = ("test", tmp_path / "data", "-m", tiny_model_file, "--batch-size", 4, "--device", "cpu", "--out")

    code, printed, err = run_vitrail(*arguments, tmp_path / "one")
    assert code == 0, err
    assert "19 images" in printed
    code, printed_by_two, err = run_together("-m", "vitrail", *arguments, tmp_path / "two")
    assert code == 0, err
    assert printed_by_two == printed
    assert err.count("skipped 3 unreadable files") == 1

    one, two = (json.loads((tmp_path / name / "accuracy.json").read_text()) for name in ("one", "two"))
    assert 0 < one["top1"] < one["top5"] < 1
    # Batches of other images may be rounded otherwise in their last digits.
    assert two.pop("mean_confidence") == pytest.approx(one.pop("mean_confidence"), abs=1e-6)
    assert two == one


@pytest.mark.slow
def test_shares_may_be_empty_or_unreadable(tiny_model_file, make_photo, tmp_path):
    for i in range(4):
        make_photo(tmp_path / "four" / "blue" / f"{i}.png", seed=i)
    make_photo(tmp_path / "single" / "blue" / "0.png")
    for i in (1, 3):  # all of the second process
        (tmp_path / "four" / "blue" / f"{i}.png").write_bytes(b"")
    (tmp_path / "none" / "blue").mkdir(parents=True)
    (tmp_path / "none" / "blue" / "bad.png").write_bytes(b"")
    code = f"""
        from vitrail.adapters import load
        from vitrail.datasets.folder import ImageFolder
        from vitrail.core.distributed import process_group, rank, world_size
        from vitrail.core.errors import ImageError
        from vitrail.evaluation import Plan, evaluate, score
        from vitrail.explainers import make_explainer

        classifier = load({str(tiny_model_file)!r}, device="cpu")

        def images(name):
            return ImageFolder.scan({str(tmp_path)!r} + "/" + name, classifier.preprocessing)

        def found(name):
            return evaluate(classifier, images(name))

        def scored(name):  # a batch an image
            return score(classifier, images(name), [make_explainer("hit", classifier)], Plan.create(["diffmask"]), batch_size=1)

        alone = [found(name) for name in ("four", "single")]  # each process by itself
        scored_alone = [scored(name) for name in ("four", "single")]
        assert (rank(), world_size()) == (0, 1)
        with process_group():
            assert world_size() == 2
            together = [found(name) for name in ("four", "single")]
            scored_together = [scored(name) for name in ("four", "single")]
            for refuse in (found, scored):
                try:
                    refuse("none")
                except ImageError as error:
                    assert "not one of 1 images could be read" in str(error)
                else:
                    raise AssertionError("expected an ImageError in every process")
        assert (rank(), world_size()) == (0, 1)
        assert [result.num_images for result in together] == [2, 1]
        assert [len(result.unreadable) for result in together] == [2, 0]
        for one, other in zip(alone, together, strict=True):
            assert (one.top1, one.top5, one.num_images, one.unreadable) == (other.top1, other.top5, other.num_images, other.unreadable)
            assert abs(one.confidence - other.confidence) < 1e-6
        assert [len(scores) for scores in scored_together] == [2, 1]
        assert [len(scores.unreadable) for scores in scored_together] == [2, 0]
        for one, other in zip(scored_alone, scored_together, strict=True):
            assert (one.paths, one.columns, one.unreadable) == (other.paths, other.columns, other.unreadable)
            assert (one.values == other.values).all() and (one.targets == other.targets).all()
            assert (one.curves("diffmask")["hit"].scores == other.curves("diffmask")["hit"].scores).all()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    code, _out, err = run_together(tmp_path / "program.py")
    assert code == 0, err


@pytest.mark.slow
def test_a_refusal_ends_all_processes(tiny_model_file, make_photo, tmp_path):
    """The first one may not write; the others, which wait for it, do not wait for ever."""
    make_photo(tmp_path / "data" / "blue" / "0.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "accuracy.json").write_text("precious")
    code, out, err = run_together("-m", "vitrail", "test", tmp_path / "data", "-m", tiny_model_file, "-o", tmp_path / "out")
    assert code != 0
    assert (out, err.count("error: ")) == ("", 1)
    assert "--overwrite" in err
    assert (tmp_path / "out" / "accuracy.json").read_text() == "precious"
