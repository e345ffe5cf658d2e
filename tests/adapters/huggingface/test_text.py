"""Text towers: similarities to texts are the models' own logits of images and texts."""

import huggingface_families as families
import pytest
import torch
import transformers
from huggingface_tokenizers import TEXTS, tokenizer

import vitrail
from vitrail.adapters import adapt
from vitrail.adapters.directions import Directions
from vitrail.adapters.huggingface.text import HuggingFaceText
from vitrail.core.errors import InvalidInputError, UnsupportedModelError

PAIRED = {"CLIPModel": "softmax", "MetaClip2Model": "softmax", "SiglipModel": "sigmoid", "Siglip2Model": "sigmoid"}


def similarities(model, text, images):
    """Logits by directions."""
    vectors = text.encode(TEXTS)
    directions = Directions(vectors, torch.arange(len(TEXTS)), text.scale, torch.tensor([text.bias]))
    return directions(adapt(model).logits(images))


@torch.no_grad()
@pytest.mark.parametrize("name", PAIRED)
def test_logits_per_image(name):
    model, images = families.NETWORKS[name](), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    text = HuggingFaceText(model, tokenizer())
    assert text.output == PAIRED[name]
    # As the libraries' examples do: CLIP pads to the longest text, SigLIP to the longest that it takes.
    padding = {"padding": "max_length", "max_length": 16} if PAIRED[name] == "sigmoid" else {"padding": True}
    inputs = families.naflex_inputs(images, 8) if name == "Siglip2Model" else {"pixel_values": images}
    own = model(**inputs, **tokenizer()(TEXTS, return_tensors="pt", **padding)).logits_per_image
    torch.testing.assert_close(similarities(model, text, images), own, atol=1e-5, rtol=1e-5)


def test_texts_that_do_not_fit():
    text = HuggingFaceText(families.NETWORKS["CLIPModel"](), tokenizer())
    with pytest.raises(InvalidInputError, match="at most 16 tokens, got one of 22: 'a a a"):
        text.encode(["a cat", "a " * 20])
    with pytest.raises(InvalidInputError, match="at least one text"):
        text.encode([])


def test_a_text_tower_leaves_no_trace():
    model = families.NETWORKS["CLIPModel"]().train()
    random = torch.get_rng_state()
    encoded = HuggingFaceText(model, tokenizer()).encode(TEXTS)
    assert not encoded.requires_grad
    assert model.text_model.training
    torch.testing.assert_close(torch.get_rng_state(), random)


def test_networks_without_a_text_tower_are_refused():
    with pytest.raises(InvalidInputError, match="such as CLIPModel, got CLIPVisionModel, which has no text tower"):
        HuggingFaceText(families.NETWORKS["CLIPVisionModel"](), tokenizer())


def test_a_module_comes_without_its_tokenizer():
    classifier = adapt(families.NETWORKS["SiglipModel"]())
    assert classifier.text is None
    assert "HuggingFaceText(model, tokenizer)" in classifier.text_problem


@torch.no_grad()
@pytest.mark.parametrize("name", PAIRED)
def test_a_folder(tmp_path, name):
    model, images = families.NETWORKS[name](), torch.randn(2, 3, 32, 32)
    model.save_pretrained(tmp_path)
    without = vitrail.load(tmp_path, device="cpu")
    assert without.text is None
    assert f"cannot load the tokenizer of {tmp_path}" in without.text_problem
    with pytest.raises(UnsupportedModelError, match=r"got \S+ \(cannot load the tokenizer .*beside the weights\); compare"):
        vitrail.similarity(without, prompts=TEXTS)
    tokenizer().save_pretrained(tmp_path)
    loaded = vitrail.load(f"hf:{tmp_path}", device="cpu")
    assert loaded.output == "embedding"
    torch.testing.assert_close(loaded.logits(images), families.own_output(name, model, images))
    own = transformers.AutoTokenizer.from_pretrained(tmp_path)  # Of a SigLIP 2, transformers changes the tokenizer.
    torch.testing.assert_close(loaded.text.encode(TEXTS), HuggingFaceText(model, own).encode(TEXTS))


def test_code_beside_a_tokenizer_is_not_run(tmp_path):
    families.NETWORKS["CLIPModel"]().save_pretrained(tmp_path)
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["mine.Mine", null]}, "tokenizer_class": "Mine"}'
    )
    assert vitrail.load(tmp_path, device="cpu").text is None
    assert not (tmp_path / "ran").exists()


def test_the_processor_of_images_and_texts_in_one_file(tmp_path):
    families.NETWORKS["CLIPModel"]().save_pretrained(tmp_path)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, resample=2)
    transformers.CLIPProcessor(images, tokenizer()).save_pretrained(tmp_path)
    loaded = vitrail.load(tmp_path, device="cpu")
    assert not (tmp_path / "preprocessor_config.json").exists()
    assert (loaded.preprocessing.size, loaded.preprocessing.crop_fraction) == ((32, 32), 0.8)
    assert loaded.preprocessing.interpolation == "bilinear"


def test_the_output_that_is_asked_for_is_that_of_the_similarity(tmp_path):
    families.NETWORKS["CLIPModel"]().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    for output in ("sigmoid", "none", "softmax"):
        assert vitrail.load(tmp_path, device="cpu", prompts=TEXTS, output=output).output == output
