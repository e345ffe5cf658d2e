"""Which of timm's networks vitrail explains: a sample by default, every tag and architecture among the slow tests."""

import json

import pytest
import timm_sweep

SAMPLE = {
    "vit_tiny_patch16_224.augreg_in21k": "ViT",
    "vit_pe_core_tiny_patch16_384.fb": "ViT, embedding",
    "resnet18.a1_in1k": "plain",
    "resnet50_clip.openai": "plain, embedding",
    "qwen3_vit_88m_enc.qwen3_5_0_8b": "refused",
}


@pytest.mark.parametrize(("tag", "kind"), SAMPLE.items())
def test_kinds(tag, kind):
    row = timm_sweep.classify(tag)
    assert (row.kind, row.failure) == (kind, "")
    assert (row.reason == "") is kind.startswith("ViT")


def test_shares_and_tables(tmp_path):
    rows = [
        timm_sweep.Row("a.x", "eva", "ViT"),
        timm_sweep.Row("b.x", "eva", "ViT", failure="wrong logits by 1e-2"),
        timm_sweep.Row("c.x", "resnet", "plain", "no adapter"),
        timm_sweep.Row("d.x", "resnet", "crash", "TypeError"),
    ]
    assert list(timm_sweep.summarize(rows).values()) == [4, 0.75, 0.5, 1, 1]
    timm_sweep.write(tmp_path / "table.md", rows)
    table = (tmp_path / "table.md").read_text()
    assert "| eva | 2 | 2 |" in table
    assert "- usable by some method: 75.0%" in table
    assert json.loads((tmp_path / "table.json").read_text())[2]["reason"] == "no adapter"


@pytest.mark.slow
def test_every_tag_and_architecture():
    rows, others = ([timm_sweep.classify(tag) for tag in tags] for tags in (timm_sweep.all_tags(), timm_sweep.weightless()))
    shares = timm_sweep.summarize(rows)
    assert shares["usable by some method"] >= 0.95
    assert shares["in ViT-like modules, usable by all gradient and attention methods"] >= 0.75
    for counts in (shares, timm_sweep.summarize(others)):
        assert (counts["crashes"], counts["wrong logits"]) == (0, 0)
