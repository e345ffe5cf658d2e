"""How DiffMask finds gates, and which it refuses."""

from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from gated import diffmask

from vitrail.adapters import ViTAdapter, build
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers import _trained_masks, make_explainer
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.models.diffmask import TrainedMask, write_mask


class TestRefusals:
    def test_convnext(self):
        options = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
        convnext = build("timm:convnext_atto", num_classes=3, class_names=list("abc"), image_size=(64, 64), **options)
        with pytest.raises(
            UnsupportedModelError,
            match=r"^diffmask cannot explain timm:convnext_atto: it needs a Vision Transformer, and .*; methods that explain it",
        ):
            make_explainer("diffmask", convnext, checkpoint=networks.gates(networks.network("timm")))

    def test_a_hit_that_pools(self):
        pooled = networks.network("hit-pooled")
        with pytest.raises(
            UnsupportedModelError,
            match=r"^diffmask cannot explain hit-pooled: the patches of this HiT are merged from stage to stage",
        ):
            VisionDiffMask(pooled, networks.gates(networks.network("hit")))

    @pytest.mark.parametrize(
        ("fields", "what"),
        [({"width": 20}, "width: 20, .* with width: 24"), ({"depth": 4}, "depth: 4, .* with depth: 3")],
    )
    @pytest.mark.parametrize("check_weights", [True, False])
    def test_another_shape(self, fields, what, check_weights):
        vit = networks.network("timm")
        with pytest.raises(
            UnsupportedModelError, match=f"^expected a ViT with {what}; train gates on this model, or load the other one$"
        ):
            VisionDiffMask(vit, networks.gates(vit, **fields), check_weights=check_weights)

    def test_other_prefix_tokens(self):
        vit = networks.network("timm")
        mask = networks.gates(vit)
        other = replace(mask, explained=replace(mask.explained, num_prefix_tokens=5), source="best.safetensors")
        with pytest.raises(
            UnsupportedModelError,
            match=r"prefix tokens: 5, on which best\.safetensors was trained, got timm with prefix tokens: 1",
        ):
            VisionDiffMask(vit, other, check_weights=False)

    def test_other_weights(self):
        vit, mask = networks.network("timm"), networks.gates(networks.network("timm"))
        VisionDiffMask(vit, mask)
        with torch.no_grad():
            vit.module.head.bias[0] += 1e-3
        with pytest.raises(
            UnsupportedModelError, match=r"^the given set of gates was trained on other weights \(timm\) than .*of timm: "
        ):
            VisionDiffMask(vit, mask)
        assert VisionDiffMask(vit, mask, check_weights=False).explain(networks.images("timm")).relevance.shape == (3, 4, 4)

    def test_gates_without_a_fingerprint_are_used_with_a_warning(self, caplog):
        vit = networks.network("timm")
        VisionDiffMask(vit, TrainedMask(networks.gates(vit).network))
        assert "does not record the weights it was trained on" in caplog.text

    @pytest.mark.parametrize("layer", [5, -6, 100])
    def test_unknown_layers(self, layer):
        with pytest.raises(InvalidInputError, match=f"^expected a layer from -5 to 4, got {layer}$"):
            diffmask(layer=layer)

    @pytest.mark.parametrize("checkpoint", [3, ["a"], b"a", np.zeros(2), {"network": 3}])
    def test_invalid_checkpoints(self, checkpoint, unchecked):
        with pytest.raises(InvalidInputError, match=r"^expected checkpoint to be of type str, got "):
            make_explainer("diffmask", networks.network("timm"), checkpoint=checkpoint)

    @pytest.mark.parametrize("option", [{"layer": "1"}, {"layer": True}, {"aggregated": 1}, {"check_weights": "no"}])
    def test_options_of_a_wrong_kind(self, option, unchecked):
        with pytest.raises(InvalidInputError, match=f"^expected {next(iter(option))} to be of type"):
            diffmask(**option)


class TestFinding:
    @pytest.fixture
    def vit(self) -> ViTAdapter:
        return networks.network("timm")

    @pytest.fixture
    def run(self, vit, tmp_path) -> Path:
        """The folder of a training run."""
        (tmp_path / "run").mkdir()
        write_mask(tmp_path / "run" / "best.safetensors", networks.gates(vit))
        return tmp_path / "run"

    def test_a_file_a_folder_and_gates_give_one_map(self, vit, run):
        images = networks.images("timm")
        expected = VisionDiffMask(vit, networks.gates(vit)).explain(images).relevance
        for checkpoint in (run, str(run), run / "best.safetensors", str(run / "best.safetensors")):
            assert torch.equal(make_explainer("diffmask", vit, checkpoint=checkpoint).explain(images).relevance, expected)

    def test_the_file_is_read_once(self, vit, run):
        one = VisionDiffMask(vit, str(run))
        (run / "best.safetensors").unlink()
        assert one.explain(networks.images("timm")).relevance.shape == (3, 4, 4)

    @pytest.mark.parametrize("name", ["nowhere", "", "nowhere/best.safetensors"])
    def test_missing_files(self, vit, name):
        with pytest.raises(
            UnknownNameError, match=f"^no such file of DiffMask gates: '{name}'; expected a file or the folder of a"
        ):
            VisionDiffMask(vit, name)

    def test_a_run_without_gates(self, vit, tmp_path):
        with pytest.raises(
            CheckpointError, match=r"^cannot read the checkpoint .*best\.safetensors: No such file or directory$"
        ):
            VisionDiffMask(vit, str(tmp_path))

    def test_models_without_bundled_gates(self, vit):
        with pytest.raises(
            UnknownNameError, match=r"^no bundled DiffMask gates were trained on timm; train some .* checkpoint=RUN-F"
        ):
            VisionDiffMask(vit)

    def test_unknown_bundled_names(self, vit):
        with pytest.raises(UnknownNameError, match=r"^unknown bundled DiffMask gates 'nowhere'"):
            VisionDiffMask(vit, "vitrail:nowhere")

    def test_bundled_gates_are_found_by_the_models_weights(self, vit, tmp_path, monkeypatch):
        for name, seed, owner in (("diffmask-other", 1, networks.network("torchvision")), ("diffmask-timm", 2, vit)):
            (tmp_path / "bundled" / name).mkdir(parents=True)
            write_mask(tmp_path / "bundled" / name / "mask.safetensors", networks.gates(owner, seed))
        (tmp_path / "bundled" / "a-model").mkdir()
        monkeypatch.setattr(_trained_masks, "files", lambda package: tmp_path)
        assert _trained_masks.list_bundled_masks() == ["diffmask-other", "diffmask-timm"]
        images = networks.images("timm")
        expected = VisionDiffMask(vit, networks.gates(vit, 2)).explain(images).relevance
        for checkpoint in (None, "vitrail:diffmask-timm"):
            assert torch.equal(VisionDiffMask(vit, checkpoint).explain(images).relevance, expected)
        with pytest.raises(UnsupportedModelError, match="expected a ViT with depth: 2"):
            VisionDiffMask(vit, "vitrail:diffmask-other")
        with pytest.raises(UnknownNameError, match=r"or vitrail:diffmask-other or vitrail:diffmask-timm$"):
            VisionDiffMask(vit, "nowhere")
        vit.module.head.bias.data += 1
        with pytest.raises(UnknownNameError, match="no bundled DiffMask gates were trained on timm"):
            VisionDiffMask(vit)
