"""Masks drawn while gates learn."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vitrail
from vitrail.datasets.dataset import LabeledFiles
from vitrail.datasets.streaming import ImageStream, Record, StreamedImages
from vitrail.training import train
from vitrail.training.checkpoints import Checkpoints
from vitrail.training.diffmask import pictures
from vitrail.training.diffmask.pictures import MaskPictures


@pytest.fixture
def sheets(monkeypatch):
    """The rows of every sheet, in a list. Drawing takes longer than training: the files are left empty."""
    drawn = []
    monkeypatch.setattr(pictures, "contact_sheet", lambda rows, path: drawn.append(rows) or path.touch())
    return drawn


def names(run):
    return sorted(path.name for path in (run / "pictures").iterdir())


def drawing(trainer):
    return next(callback for callback in trainer.callbacks if isinstance(callback, MaskPictures))


def test_a_sheet_shows_all_classes_the_mask_and_what_others_say(mask_configured, steps, sheets, images, vit_file, tmp_path):
    train(mask_configured("pictures.every=8", "pictures.count=2"), tmp_path / "run")
    (rows,) = sheets  # the last step is drawn once
    assert [row.title for row in rows] == ["blue/0.png", "red/0.png"]
    assert [[explanation.method for explanation in row.explanations] for row in rows] == [
        ["diffmask", "rollout", "grad-cam"]
    ] * 2
    vit = vitrail.load(vit_file, device="cpu")
    photos = [images / "test" / "blue" / "0.png", images / "test" / "red" / "0.png"]
    for i, options in enumerate(({"checkpoint": str(tmp_path / "run" / "last.safetensors")}, {}, {})):
        method = rows[0].explanations[i].method
        expected = vitrail.explain(vit, photos, method=method, **options)
        for row, image in zip(rows, expected.relevance, strict=True):
            torch.testing.assert_close(row.explanations[i].relevance[0], image, rtol=1e-4, atol=1e-6)
    # Of the gates, what they leave of the image is drawn, by their probabilities as they are.
    assert [list(row.kept) for row in rows] == [["diffmask"]] * 2
    assert all(torch.equal(row.kept["diffmask"], row.explanations[0].relevance[0]) for row in rows)
    with Image.open(photos[1]) as photo:
        np.testing.assert_allclose(np.asarray(rows[1].photo), np.asarray(photo), atol=1)


def test_the_interval_counts_steps_and_the_last_step_is_drawn(mask_configured, sheets, tmp_path):
    train(mask_configured("pictures.every=3", "pictures.count=1", "data.batch_size=4"), tmp_path / "run")
    assert names(tmp_path / "run") == ["step-00000003.png", "step-00000004.png"]
    train(mask_configured(), tmp_path / "without")
    assert not (tmp_path / "without" / "pictures").exists()
    assert len(sheets) == 2


def test_a_resumed_run_draws_on(mask_configured, sheets, monkeypatch, tmp_path):
    def killed(self, trainer, *args):
        whole(self, trainer, *args)
        if trainer.global_step == 5:
            raise KeyError

    whole = Checkpoints.on_train_batch_end
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", killed)
        with pytest.raises(KeyError):
            train(mask_configured("pictures.every=4", "pictures.count=1", "engine.checkpoint_every=1"), tmp_path / "run")
    assert names(tmp_path / "run") == ["step-00000004.png"]
    # As often as one likes, since pictures do not change what is computed.
    train(mask_configured("pictures.every=7", "pictures.count=2", "engine.checkpoint_every=1"), tmp_path / "run", resume=True)
    assert names(tmp_path / "run") == [f"step-0000000{step}.png" for step in (4, 7, 8)]


def test_pictures_do_not_change_what_is_learned(mask_configured, table, tmp_path):
    for every in (1, 5, "null"):
        overrides = (f"pictures.every={every}", "pictures.count=1", "augmentation.noise=0.3", "data.batch_size=4")
        train(mask_configured(*overrides), tmp_path / f"{every}")
    expected = load_file(tmp_path / "null" / "last.safetensors")
    for every in (1, 5):
        for name, tensor in load_file(tmp_path / f"{every}" / "last.safetensors").items():
            assert torch.equal(tensor, expected[name]), name
        for row, other in zip(table(tmp_path / f"{every}"), table(tmp_path / "null"), strict=True):
            assert all(value == other[name] for name, value in row.items() if not name.endswith("seconds"))


def test_drawing_leaves_no_trace(mask_configured, steps, tmp_path):
    train(mask_configured("pictures.every=8", "pictures.count=1"), tmp_path / "run")
    callback, network, mask = drawing(steps.trainer), steps.learner.vit.module, steps.learner.module
    callback.images, callback.drawn_step = None, -1  # as at its first sheet
    network.blocks[0].train()
    next(mask.parameters()).grad = torch.ones_like(next(mask.parameters()))

    def state():
        parameters = [*network.parameters(), *mask.parameters()]
        return (
            [part.training for part in [*network.modules(), *mask.modules()]],
            [(each.requires_grad, each.detach().numpy().tobytes(), None if each.grad is None else 1) for each in parameters],
            [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in network.modules()],
            (random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()),
            torch.is_grad_enabled(),
        )

    before = state()
    callback.on_train_end(steps.trainer, steps.learner)
    assert callback.images is not None
    assert state() == before


def test_images_that_cannot_be_read_are_left_out(mask_configured, sheets, images, tmp_path):
    (images / "test" / "blue" / "0.png").write_bytes(b"no image")
    train(mask_configured("pictures.every=8", "pictures.count=3"), tmp_path / "run")
    assert [row.title for row in sheets[0]] == ["blue/1.png", "red/0.png"]


def test_where_none_of_them_can_be_read_there_is_no_picture(mask_configured, images, tmp_path):
    (images / "test" / "blue" / "0.png").write_bytes(b"no image")
    train(mask_configured("pictures.every=4", "pictures.count=1"), tmp_path / "run")
    assert not (tmp_path / "run" / "pictures").exists()


def test_of_a_stream_the_first_images_are_drawn(mask_configured, sheets, monkeypatch, tmp_path):
    class Files(ImageStream):
        def __init__(self, images):
            self.images = images

        def records(self, share, seed):
            for i in range(share.rank, len(self.images), share.world_size):
                yield Record(self.images.paths[i].read_bytes(), self.images.labels[i], self.images.name(i))

    def parts(config, *transforms):
        for split, transform in zip(("train", "test"), transforms, strict=True):
            files: LabeledFiles = whole(config, split, transform)
            found.append(StreamedImages(Files(files), files.class_names, transform, num_images=len(files)))
        return found

    from vitrail.training import data

    whole, found = data._read, []
    monkeypatch.setattr(data, "_parts", parts)
    train(mask_configured("pictures.every=8", "pictures.count=3"), tmp_path / "run")
    assert [row.title for row in sheets[0]] == ["blue/0.png", "blue/1.png", "red/0.png"]
