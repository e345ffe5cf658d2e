"""Runs that do not wait for drawings, as fixtures: `pytest_plugins = ("tiny", "score_runs")`."""

import contextlib
import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from samples import noisy_photo


@pytest.fixture
def photos(make_photo, tmp_path) -> list[Path]:
    """Five photos in one folder."""
    return [make_photo(tmp_path / "photos" / f"{i}.png", seed=i) for i in range(5)]


def draw_plainly(patch: pytest.MonkeyPatch) -> None:
    """Make pictures small and of one color: drawing takes longer than scoring and explaining."""

    def draw(_what: Any, path: Path, *_more: Any, **_options: Any) -> None:
        Image.new("RGB", (4, 4), "gray").save(path)

    def one_color(*explanations: Any) -> Image.Image:
        digest = hashlib.sha256(b"".join(each.relevance.cpu().numpy().tobytes() for each in explanations)).digest()
        return Image.new("RGB", (4, 4), (digest[0], digest[1], digest[2]))

    def draw_sheet(rows: Sequence[Any], path: Path, style: Any = None) -> None:
        one_color(*(each for row in rows for each in row.explanations)).save(path)

    for name in ("report.plot_panels", "report.plot_forest", "report.plot_perturbation", "sheets.contact_sheet"):
        patch.setattr(f"vitrail.evaluation.scoring.{name}", draw)
    patch.setattr("vitrail.evaluation.layer_files.plot_layers", draw)
    for name in ("files", "photos", "shards"):
        patch.setattr(f"vitrail.runs.explain_{name}.draw", lambda _row, explanation, _style: one_color(explanation))
    for name in ("files", "photos"):
        patch.setattr(f"vitrail.runs.explain_{name}.contact_sheet", draw_sheet)


@pytest.fixture
def real_pictures() -> None:
    """Pictures are drawn as for users, also in a file whose tests use `plain_pictures`."""


@pytest.fixture
def plain_pictures(request, monkeypatch) -> None:
    """Nothing is drawn, unless a test wants `real_pictures`."""
    if "real_pictures" not in request.fixturenames:
        draw_plainly(monkeypatch)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tiny_model_file) -> tuple[Path, str, str]:
    """The folder of one run of two protocols and a metric over photos/0.png to 4.png in batches of two, and what it said."""
    from vitrail.cli.main import main

    folder, log = tmp_path_factory.mktemp("scored"), logging.getLogger("vitrail")
    (folder / "photos").mkdir()
    for i in range(5):
        noisy_photo(i).save(folder / "photos" / f"{i}.png")
    options = ["--protocol", "hit,diffmask", "--metric", "complexity", "--batch-size", "2", "--device", "cpu"]
    before, out, err = (log.handlers[:], log.propagate, log.level), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        draw_plainly(patch)
        arguments = [
            "vitrail",
            "score",
            str(folder / "photos"),
            "-m",
            str(tiny_model_file),
            *options,
            "-o",
            str(folder / "out"),
        ]
        patch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as stop:
            main()
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])
    assert not stop.value.code, err.getvalue()
    return folder / "out", out.getvalue(), err.getvalue()


@pytest.fixture
def run_score(run_vitrail, plain_pictures, tiny_model_file, tmp_path) -> Callable[..., tuple[Path, str, str]]:
    """A function from data and options to the folder of a run that succeeds, tmp_path / "out", and what it said."""

    def run(data: Path, *options: object, out: str = "out") -> tuple[Path, str, str]:
        common: tuple[object, ...] = ("score", data, "-m", tiny_model_file, "--device", "cpu", "-o", tmp_path / out)
        code, printed, err = run_vitrail(*common, *options)
        assert code == 0, err
        return tmp_path / out, printed, err

    return run


@pytest.fixture
def refused_score(run_vitrail, plain_pictures, tiny_model_file, tmp_path) -> Callable[..., str]:
    """A function from data and options to the one message of a refusal that leaves nothing behind."""

    def run(data: Path, *options: object) -> str:
        code, out, err = run_vitrail("score", data, "-m", tiny_model_file, "-o", tmp_path / "refused", *options)
        assert (code, out, err.count("error:")) == (2, "", 1), (code, out, err)
        assert "Traceback" not in err
        assert not (tmp_path / "refused").exists()
        return err

    return run
