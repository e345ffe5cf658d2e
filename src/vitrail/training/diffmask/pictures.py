"""Masks drawn while gates learn."""

import logging
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from vitrail.adapters import ViTAdapter
from vitrail.data.labelled import LabelledImages, Sample, collate
from vitrail.explainers import Explainer, make_explainer
from vitrail.explanation import Explanation
from vitrail.models.diffmask import TrainedMask
from vitrail.training.diffmask.config import PicturesConfig
from vitrail.types import Images
from vitrail.viz.sheet import SheetRow, contact_sheet

logger = logging.getLogger(__name__)

FOLDER = "pictures"
BESIDE = ("rollout", "grad-cam")
"""Methods drawn beside the masks; those that cannot explain the network are left out."""


class MaskPictures(Callback):
    """Draw the masks of some validation images every so many steps, beside attention rollout and Grad-CAM.

    PNG files in `pictures/`; also sent to TensorBoard and Weights & Biases where the run logs to them.

    Args:
        folder: Of the run.
        vit: The explained network.
        mask: The gates that are trained.
        config: How often, and how many.
    """

    def __init__(self, folder: Path, vit: ViTAdapter, mask: TrainedMask, config: PicturesConfig) -> None:
        self.folder, self.vit, self.mask, self.config = folder / FOLDER, vit, mask, config
        self.images: Images | None = None
        self.beside: list[Explanation] = []

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = self.config.every
        if every is not None and trainer.global_step % every == 0:
            self._draw(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: lightning.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        images = self._look(trainer)
        if images is None:
            return
        columns = [
            make_explainer("diffmask", self.vit, checkpoint=self.mask, check_weights=False).explain(images),
            *self.beside,
        ]
        photos = [_as_photo(image) for image in self.vit.preprocessing.denormalise(images).cpu()]
        whole = [(0.0, 0.0, float(photo.width), float(photo.height)) for photo in photos]
        rows = [SheetRow(photos[i], whole[i], [column[i] for column in columns], str(i)) for i in range(len(photos))]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{trainer.global_step:08d}.png"
        contact_sheet(rows, path)
        for log in trainer.loggers:
            if isinstance(log, TensorBoardLogger):
                with Image.open(path) as picture:
                    log.experiment.add_image(
                        "masks", np.asarray(picture.convert("RGB")), trainer.global_step, dataformats="HWC"
                    )
            elif isinstance(log, WandbLogger):
                log.log_image("masks", [str(path)], step=trainer.global_step)

    def _look(self, trainer: lightning.Trainer) -> Images | None:
        """The images, read once, and what the other methods say of them, which the gates do not change."""
        if self.images is None:
            found = trainer.datamodule.val_images  # type: ignore[attr-defined]
            samples = (found[i] for i in range(len(found))) if isinstance(found, LabelledImages) else iter(found)
            some = []
            for sample in samples:
                some += [sample] if isinstance(sample, Sample) else []
                if len(some) == self.config.count:
                    break
            if not some:
                return None
            self.images = collate(some).images.to(self.vit.device, self.vit.dtype)
            able: list[Explainer] = [make_explainer(name, self.vit) for name in BESIDE if _able(name, self.vit)]
            self.beside = [explainer.explain(self.images) for explainer in able]
        return self.images


def _able(name: str, vit: ViTAdapter) -> bool:
    from vitrail.explainers import EXPLAINERS  # noqa: PLC0415

    return EXPLAINERS[name].refusal(vit) is None


def _as_photo(image: Any) -> Image.Image:
    """Pixels in [0, 1], one channel or three, as a photo."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels)
