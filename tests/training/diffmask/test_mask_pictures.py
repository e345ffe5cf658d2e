"""Pictures of masks during training."""

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
from vitrail.training.diffmask.mask_pictures import MaskPictures


def names(run):
    return sorted(path.name for path in (run / "pictures").iterdir())


def drawing(trainer):
    return next(callback for callback in trainer.callbacks if isinstance(callback, MaskPictures))


def test_sheet_shows_all_classes_the_mask_and_reference_methods(mask_configured, steps, sheets, images, vit_file, tmp_path):
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
    # Masks fade the image by their probabilities.
    assert [list(row.kept) for row in rows] == [["diffmask"]] * 2
    assert all(torch.equal(row.kept["diffmask"], row.explanations[0].relevance[0]) for row in rows)
    with Image.open(photos[1]) as photo:
        np.testing.assert_allclose(np.asarray(rows[1].photo), np.asarray(photo), atol=1)


def test_sheets_are_drawn_at_the_interval_and_at_the_last_step(mask_configured, sheets, tmp_path):
    train(mask_configured("pictures.every=3", "pictures.count=1", "data.batch_size=4"), tmp_path / "run")
    assert names(tmp_path / "run") == ["step-00000003.png", "step-00000004.png"]
    train(mask_configured(), tmp_path / "without")
    assert not (tmp_path / "without" / "pictures").exists()
    assert len(sheets) == 2


def test_resumed_run_continues_drawing(mask_configured, sheets, train_until_killed, tmp_path):
    overrides = ("pictures.every=4", "pictures.count=1", "engine.checkpoint_every=1")
    train_until_killed(mask_configured(*overrides), tmp_path / "run", batch=5)
    assert names(tmp_path / "run") == ["step-00000004.png"]
    # The interval may change, since pictures do not change the training.
    train(mask_configured("pictures.every=7", "pictures.count=2", "engine.checkpoint_every=1"), tmp_path / "run", resume=True)
    assert names(tmp_path / "run") == [f"step-0000000{step}.png" for step in (4, 7, 8)]


def test_pictures_do_not_change_the_training(mask_configured, table, tmp_path):
    for every in (1, "null"):
        overrides = (f"pictures.every={every}", "pictures.count=1", "augmentation.noise=0.3", "data.batch_size=4")
        train(mask_configured(*overrides), tmp_path / f"{every}")
    expected = load_file(tmp_path / "null" / "last.safetensors")
    for every in (1,):
        for name, tensor in load_file(tmp_path / f"{every}" / "last.safetensors").items():
            assert torch.equal(tensor, expected[name]), name
        for row, other in zip(table(tmp_path / f"{every}"), table(tmp_path / "null"), strict=True):
            assert all(value == other[name] for name, value in row.items() if not name.endswith("seconds"))


@pytest.mark.slow
def test_drawing_changes_no_state(mask_configured, steps, tmp_path):
    train(mask_configured("pictures.every=8", "pictures.count=1"), tmp_path / "run")
    callback, network, mask = drawing(steps.trainer), steps.learner.vit.module, steps.learner.module
    callback.images, callback.drawn_step = None, -1  # as before its first sheet
    network.blocks[0].train()
    next(mask.parameters()).grad = torch.ones_like(next(mask.parameters()))

    def state():
        parameters = [*network.parameters(), *mask.parameters()]
        return (
            [part.training for part in [*network.modules(), *mask.modules()]],
            [
                (weight.requires_grad, weight.detach().numpy().tobytes(), None if weight.grad is None else 1)
                for weight in parameters
            ],
            [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in network.modules()],
            (random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()),
            torch.is_grad_enabled(),
        )

    before = state()
    callback.on_train_end(steps.trainer, steps.learner)
    assert callback.images is not None
    assert state() == before


def test_unreadable_images_are_skipped(mask_configured, sheets, images, tmp_path):
    (images / "test" / "blue" / "0.png").write_bytes(b"no image")
    train(mask_configured("pictures.every=8", "pictures.count=3"), tmp_path / "run")
    assert [row.title for row in sheets[0]] == ["blue/1.png", "red/0.png"]


def test_no_sheet_without_readable_images(mask_configured, images, tmp_path):
    (images / "test" / "blue" / "0.png").write_bytes(b"no image")
    train(mask_configured("pictures.every=4", "pictures.count=1"), tmp_path / "run")
    assert not (tmp_path / "run" / "pictures").exists()


def test_sheet_shows_the_first_images_of_a_stream(mask_configured, sheets, monkeypatch, tmp_path):
    class Files(ImageStream):
        def __init__(self, images):
            self.images = images

        def records(self, share, seed):
            for i in range(share.rank, len(self.images), share.world_size):
                yield Record(self.images.paths[i].read_bytes(), self.images.labels[i], self.images.name(i))

    def read_splits(config, *transforms):
        for split, transform in zip(("train", "test"), transforms, strict=True):
            files: LabeledFiles = read_split(config, split, transform)
            splits.append(StreamedImages(Files(files), files.class_names, transform, num_images=len(files)))
        return splits

    from vitrail.training import data

    read_split, splits = data._read_split, []
    monkeypatch.setattr(data, "_read_splits", read_splits)
    train(mask_configured("pictures.every=8", "pictures.count=3"), tmp_path / "run")
    assert [row.title for row in sheets[0]] == ["blue/0.png", "blue/1.png", "red/0.png"]
