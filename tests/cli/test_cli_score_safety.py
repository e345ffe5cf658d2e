"""What a run must not do: believe another run's batches, or take away what is not its own."""

import numpy as np
import pytest
from score_files import results_of

pytest_plugins = ("tiny", "score_runs")

OPTIONS = ("--metric", "sparseness", "--method", "hit,random", "--batch-size", 2)


@pytest.fixture
def refused_again(run_vitrail, tiny_model_file, tmp_path):
    """The one message that refuses to go on in the folder of `run_score`."""

    def run(data):
        code, _printed, err = run_vitrail("score", data, "-m", tiny_model_file, "-o", tmp_path / "out", *OPTIONS)
        assert (code, err.count("error:")) == (2, 1)
        return err

    return run


def test_other_images_are_another_run(run_score, refused_again, photos, make_photo):
    run_score(photos[0].parent, *OPTIONS)
    photos[0].unlink()
    make_photo(photos[0].with_name("zzz.png"), seed=9)
    assert "images: " in refused_again(photos[0].parent)


def test_an_image_of_another_size_is_another_run(run_score, refused_again, photos, make_photo):
    run_score(photos[0].parent, *OPTIONS)
    make_photo(photos[0], seed=77, size=(50, 60))
    assert "images: " in refused_again(photos[0].parent)


def test_batches_of_another_run_are_measured_again(run_score, photos):
    """As if a `parts` that could not be removed had been left over."""
    out, _printed, _err = run_score(photos[0].parent, *OPTIONS)
    expected, part = results_of(out), out / "shards" / "000001.npz"
    with np.load(part) as file:
        arrays = dict(file)
    arrays["values"], arrays["key"] = arrays["values"] + 1, np.array("another")
    np.savez(part, **arrays)
    run_score(photos[0].parent, *OPTIONS)
    assert results_of(out) == expected


def test_overwriting_removes_nothing_that_is_not_ours(run_score, photos, tmp_path):
    out = tmp_path / "out"
    mine = [out / "shards" / "thesis.tex", out / "pictures" / "holiday.png", out / "notes.txt"]
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    run_score(photos[0].parent, *OPTIONS, "--overwrite")
    assert [file.read_text() for file in mine] == ["mine"] * 3
    run_score(photos[0].parent, "--metric", "complexity", "--overwrite")
    assert [file.read_text() for file in mine] == ["mine"] * 3
    assert not (out / "pictures" / "sparseness.png").exists()


def test_a_comparison_takes_no_folder_that_holds_something(run_vitrail, plain_pictures, photos, tiny_model_file, tmp_path):
    out = tmp_path / "out"
    (out / "pictures").mkdir(parents=True)
    (out / "images.csv").write_text("mine")
    arguments = ("compare", photos[0].parent, "--model", tiny_model_file, "--metric", "sparseness", "--out", out)
    code, _printed, err = run_vitrail(*arguments)
    assert (code, err.count("error:")) == (2, 1)
    assert "holds no run to resume" in err
    assert (out / "images.csv").read_text() == "mine"


def test_another_comparison_in_the_same_folder_is_refused(run_vitrail, plain_pictures, photos, tiny_model_file, tmp_path):
    arguments = ("compare", photos[0].parent, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert run_vitrail(*arguments, "--metric", "sparseness")[0] == 0
    assert run_vitrail(*arguments, "--metric", "sparseness")[0] == 0
    code, _printed, err = run_vitrail(*arguments, "--metric", "complexity")
    assert (code, err.count("error:")) == (2, 1)
    assert "protocols and metrics: sparseness, completeness there" in err


def test_what_cannot_be_scored_leaves_nothing(run_vitrail, photos, tiny_model_file, tmp_path):
    for command in ("score", "compare"):
        arguments = (
            command,
            photos[0].parent,
            "--model",
            tiny_model_file,
            "--metric",
            "localization",
            "--out",
            tmp_path / "new" / "out",
        )
        code, _printed, err = run_vitrail(*arguments)
        assert (code, err.count("error:")) == (2, 1)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("metric", ["stability", "max-sensitivity", "faithfulness-correlation", "random-logit"])
@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_invalid_seeds(refused_score, photos, tmp_path, metric, seed):
    err = refused_score(photos[0].parent, "--metric", metric, "--metric-option", f"{metric}.seed={seed}")
    assert "expected seed as a whole number of at least 0 and below 2^63" in err
    assert not (tmp_path / "out").exists()
