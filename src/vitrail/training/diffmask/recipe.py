"""Train gates by a recipe and write them to disk."""

import time
from pathlib import Path

from vitrail.adapters import ViTAdapter, load
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, Explained, TrainedMask
from vitrail.models.fingerprint import weights_fingerprint
from vitrail.training.data import TrainingData
from vitrail.training.diffmask.config import MaskTrainingConfig
from vitrail.training.diffmask.export import MaskExport
from vitrail.training.diffmask.learner import MaskLearner
from vitrail.training.diffmask.mask_pictures import MaskPictures
from vitrail.training.engine import create_trainer, fit
from vitrail.training.reproducibility import seed_all
from vitrail.training.run_dir import write_summary


def train_mask(config: MaskTrainingConfig, out: Path, checkpoint: Path | None) -> None:
    """Train gates in a claimed run folder, resuming from a checkpoint if there is one.

    Raises:
        UnsupportedModelError: The network to explain is no ViT, or merges its patches.
        InvalidInputError: The network keeps photos whole, so that its images differ in size.
    """
    start_time, settings = time.monotonic(), config.diffmask
    # On the CPU; the trainer moves it to its device.
    vit = load(settings.model, device="cpu", **settings.model_options)
    reason = VisionDiffMask.refusal(vit)
    if reason is not None or not isinstance(vit, ViTAdapter):
        raise UnsupportedModelError(f"diffmask cannot explain {vit.name}: {reason}")
    if not vit.preprocessing.fixed:
        raise InvalidInputError(
            f"expected a network that takes images of one size, got {vit.name} with crop_mode {vit.preprocessing.crop_mode!r}; choose "
            "one that was trained with data.crop_mode center or squash"
        )
    data = TrainingData(config.data, config.augmentation, vit.preprocessing, config.engine.seed, labeled=False)
    seed_all(config.engine.seed)
    width = vit.prefix_tokens.shape[-1]
    mask = DiffMask(
        DiffMaskConfig(
            width, len(vit.blocks), settings.hidden, settings.mul_activation, settings.add_activation, settings.placeholder
        )
    ).train()
    explained = Explained(settings.model, weights_fingerprint(vit.module), vit.num_prefix_tokens)
    trained = TrainedMask(mask, explained)
    export = MaskExport(out, trained, settings.eps)
    learner = MaskLearner(vit, mask, config)
    pictures = [] if config.pictures.every is None else [MaskPictures(out, vit, trained, config.pictures)]
    # The gates after the sampled layer get no gradient.
    trainer = create_trainer(config, out, config.schedule.epochs, [export, *pictures], data, unused_parameters=True)
    fit(trainer, learner, data, config, out, checkpoint)
    if trainer.is_global_zero:
        write_summary(out, trainer, learner, data, export.best, time.monotonic() - start_time)
