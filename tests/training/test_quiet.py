"""Lightning prints no advertisements, from Python either, and its loggers are as before after a run."""

import logging
import warnings

import pytest

pytest.importorskip("lightning")

from vitrail.training.quiet import LOGGERS, quiet_lightning


def test_tips_and_missing_hardware_are_silent_inside_and_warnings_stay(caplog):
    from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

    log = logging.getLogger(LOGGERS[0])
    level = log.level
    log.setLevel(logging.INFO)
    try:
        log.addHandler(caplog.handler)
        with quiet_lightning(), warnings.catch_warnings(record=True) as shown:
            rank_zero_info("💡 Tip: buy something")
            rank_zero_warn("the loss is odd")
        assert caplog.text == ""
        assert [str(warning.message) for warning in shown] == ["the loss is odd"]
        rank_zero_info("💡 Tip: buy something")
        assert "Tip" in caplog.text
    finally:
        log.removeHandler(caplog.handler)
        log.setLevel(level)


def test_a_run_from_python_logs_no_tips(tmp_path, make_photo, caplog):
    import vitrail

    for split in ("train", "val"):
        for name in ("a", "b"):
            make_photo(tmp_path / "data" / split / name / "0.png", seed=len(name))
    (tmp_path / "mine.yaml").write_text(
        f"data: {{root: {tmp_path}/data, batch_size: 2, num_workers: 0}}\n"
        "model: {name: hit_small_patch16_224, image_size: 32, patch_size: 16, depths: [1], widths: [12], num_heads: 2}\n"
        "schedule: {epochs: 1, warmup_epochs: 0}\n"
        "engine: {accelerator: cpu, loggers: []}\n"
    )
    with caplog.at_level(logging.INFO):
        for name in LOGGERS:
            logging.getLogger(name).addHandler(caplog.handler)
        try:
            best = vitrail.train(tmp_path / "mine.yaml", out=tmp_path / "run")
        finally:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(caplog.handler)
    assert best.exists()
    assert "Tip" not in caplog.text
    assert "GPU available" not in caplog.text
