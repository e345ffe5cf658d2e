"""The sweep over Hugging Face's models: how many work, and that none crashes or has other logits."""

import huggingface_sweep
import pytest

CLASS_ALONE_TAKES_NO_PHOTO = {"imagegpt", "shieldgemma2", "pp_lcnet", "dinat"}
"""Types that cannot be seen: pixels as words, texts beside images, logits under another name, a library that is not installed."""


@pytest.fixture(scope="module")
def rows():
    return huggingface_sweep.sweep()


@pytest.mark.slow
def test_image_classifiers_and_embedding_models(rows):
    assert [(row.network, row.crash) for row in rows if row.crash] == []
    assert [row.network for row in rows if not row.exact] == []
    classifiers = [row for row in rows if row.kind]
    refused = {row.kind for row in classifiers if row.seen_as == "refused"}
    assert refused <= CLASS_ALONE_TAKES_NO_PHOTO
    usable = [row for row in classifiers if row.methods]
    assert len(classifiers) >= 46
    assert len(usable) >= 40
    assert all(row.seen_as == "embedding" for row in rows if not row.kind)
    plain = {"occlusion", "random", "rise"}
    assert all(plain <= set(row.methods) for row in usable)
    outside = [set(row.methods) for row in usable if row.seen_as == "plain"]
    assert sum({*plain, "grad-cam", "input-x-gradient", "integrated-gradients"} <= methods for methods in outside) >= 20
    seen = [row for row in rows if row.seen_as in ("ViT", "embedding")]
    expected = {"attention", "rollout", "chefer", "legrad", "grad-cam", "attcat", "integrated-gradients", "mutex"}
    assert [row.network for row in seen if not expected <= set(row.methods)] == []


@pytest.mark.slow
def test_the_table(rows):
    lines = huggingface_sweep.markdown(rows).splitlines()
    assert len(lines) == 4 + len(rows)
    assert all(line.count("|") - line.count("\\|") == 5 for line in lines[2:])
