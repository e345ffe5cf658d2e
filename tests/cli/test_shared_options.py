"""`--json`, `--quiet`, `--name` and the next free output folder, for all commands."""

import json
from pathlib import Path

import pytest

import vitrail
from vitrail.cli.default_out import last_taken, next_free
from vitrail.cli.main import app
from vitrail.explanation import Explanation
from vitrail.models.fingerprint import state_fingerprint

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def photos(make_photo, tmp_path, monkeypatch):
    """A working folder with a data set of two classes."""
    for i, name in enumerate(("a", "b", "c")):
        make_photo(tmp_path / "photos" / f"{name}.png", seed=i)
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def test_every_command_has_quiet_and_all_but_the_server_json():
    for command in app.registered_commands:
        names = set(command.callback.__signature__.parameters)
        assert "quiet" in names, command.name
        assert ("as_json" in names) == (command.name != "serve"), command.name


def test_json_of_explain_is_one_document(run_vitrail, photos, tiny_model_file):
    code, out, err = run_vitrail("explain", photos / "a.png", "--model", tiny_model_file, "--json", "--method", "hit,random")
    assert code == 0, err
    document = json.loads(out)
    classifier = vitrail.load(tiny_model_file, device="cpu")
    assert document["weights"] == state_fingerprint(classifier.module)
    [photo] = document["methods"]["hit"]["photos"]
    logits = classifier.logits(classifier.prepare([vitrail.datasets.image_io.open_image(photos / "a.png")]))
    assert photo["target"] == int(logits.argmax())
    assert photo["logit"] == pytest.approx(float(logits.max()), rel=1e-4)
    assert document["methods"]["random"]["options"]["seed"] == 0


def test_json_of_score_is_its_summary_with_warnings_and_verdicts(run_vitrail, photos, tiny_model_file):
    arguments = ("score", photos, "--model", tiny_model_file, "--steps", 2)
    code, out, err = run_vitrail(*arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document.pop("out") == "vitrail-score"
    [warning] = document.pop("warnings")
    assert warning.startswith("3 images are too few")
    assert f"warning: {warning}" in err.splitlines()
    [verdict] = document.pop("verdicts").values()
    assert (verdict["method"], verdict["sentences"][0]) == (None, f"No verdict: {warning}.")
    assert document == json.loads(Path("vitrail-score/summary.json").read_text())
    code, out, err = run_vitrail(*arguments, "--json", "--dry-run")
    assert code == 0, err
    assert json.loads(out)[0]["num_images"] == 3


def test_json_of_an_error_is_no_document(run_vitrail, photos):
    code, out, err = run_vitrail("explain", photos / "none.png", "--json")
    assert (code, out) == (2, "")
    assert "none.png" in err


def test_quiet_may_come_after_the_command(run_vitrail, photos, tiny_model_file, monkeypatch):
    monkeypatch.setattr("vitrail.cli.model_options.DEFAULT_MODEL", str(tiny_model_file))
    assert "using the bundled" in run_vitrail("explain", photos / "a.png")[2]
    code, out, err = run_vitrail("explain", photos / "a.png", "--quiet")
    assert (code, err) == (0, "")
    assert "wrote" in out


def test_default_folders_are_numbered_and_given_ones_refused(run_vitrail, photos, tiny_model_file):
    arguments = ("explain", photos / "a.png", "--model", tiny_model_file)
    for expected in ("vitrail-explain", "vitrail-explain-2", "vitrail-explain-3"):
        code, out, _err = run_vitrail(*arguments)
        assert code == 0
        assert out.rstrip().endswith(f"to {expected}")
        assert Path(expected, "explanations.npz").is_file()
    code, _out, err = run_vitrail(*arguments, "--out", "vitrail-explain")
    assert code == 2
    assert "exists and is not empty" in err
    before = Path("vitrail-explain/explanations.json").read_bytes()
    assert run_vitrail(*arguments, "--overwrite", "--method", "random")[1].rstrip().endswith("to vitrail-explain")
    assert Path("vitrail-explain/explanations.json").read_bytes() != before


def test_empty_folder_is_free(tmp_path):
    (tmp_path / "out").mkdir()
    assert next_free(tmp_path / "out") == tmp_path / "out"
    assert last_taken(tmp_path / "out") is None
    (tmp_path / "out" / "a").touch()
    assert next_free(tmp_path / "out") == tmp_path / "out-2"
    assert last_taken(tmp_path / "out") == tmp_path / "out"
    (tmp_path / "out-3").mkdir()
    (tmp_path / "out-3" / "a").touch()
    assert next_free(tmp_path / "out") == tmp_path / "out-2"
    assert last_taken(tmp_path / "out") == tmp_path / "out-3"


def test_interrupted_run_resumes_in_the_last_default_folder(run_vitrail, photos, tiny_model_file, monkeypatch):
    from vitrail.runs.results import MethodResults

    write, written = MethodResults.write, []

    def stop_at_the_second(self, label, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(label)
        write(self, label, *rest)

    arguments = ("explain", "--data", photos, "--model", tiny_model_file, "--batch-size", 1)
    with monkeypatch.context() as patch:
        patch.setattr(MethodResults, "write", stop_at_the_second)
        assert run_vitrail(*arguments)[0] == 130
    assert not Path("vitrail-explain/images.csv").exists()
    # Another request does not touch it.
    code, out, err = run_vitrail(*arguments, "--limit", 2, "--batch-size", 2)
    assert code == 0, err
    assert out.rstrip().endswith("to vitrail-explain-2")
    Path("vitrail-explain-2").rename("elsewhere")
    code, out, err = run_vitrail(*arguments)
    assert code == 0, err
    assert "1 of them by an earlier run" in out
    assert "resuming in vitrail-explain" in err
    # It is finished now.
    assert run_vitrail(*arguments)[1].rstrip().endswith("to vitrail-explain-2")


def test_explanations_record_how_they_were_made(run_vitrail, photos, tiny_model_file):
    options = ("--method", "random", "--method-option", "random.seed=3")
    assert run_vitrail("explain", photos / "a.png", "--model", tiny_model_file, *options)[0] == 0
    made = json.loads(Path("vitrail-explain/explanations.json").read_text())["provenance"]
    classifier = vitrail.load(tiny_model_file, device="cpu")
    assert made["vitrail"] == vitrail.__version__
    assert made["weights"] == state_fingerprint(classifier.module)
    assert made["preprocessing"]["size"] == list(classifier.preprocessing.size)
    assert made["options"]["seed"] == 3
    assert Explanation.load("vitrail-explain/explanations.npz").provenance == made


def test_model_of_a_run_is_called_after_the_run(tiny_model_file, tmp_path, monkeypatch):
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        for name in ("best", "last"):
            (tmp_path / run / f"{name}.safetensors").write_bytes(Path(tiny_model_file).read_bytes())
    # Only the folder of a training run has a recipe.
    assert vitrail.load(tmp_path / "first", device="cpu").name == "best"
    for run in ("first", "second"):
        (tmp_path / run / "config.yaml").touch()
        assert vitrail.load(tmp_path / run, device="cpu").name == run
    monkeypatch.chdir(tmp_path / "first")
    assert vitrail.load("last.safetensors", device="cpu").name == "first-last"
    assert vitrail.load("best.safetensors", device="cpu", display_name="mine").name == "mine"


def test_name_is_used_in_results(run_vitrail, photos, tiny_model_file):
    assert run_vitrail("explain", photos / "a.png", "--model", tiny_model_file, "--name", "mine")[0] == 0
    assert json.loads(Path("vitrail-explain/explanations.json").read_text())["model"] == "mine"
    code, _out, err = run_vitrail("explain", photos / "a.png", "--model", tiny_model_file, "--name", " ")
    assert code == 2
    assert "expected a name for the model" in err
