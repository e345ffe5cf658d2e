"""open_clip's models of images and texts, and their image towers."""

import clip_networks
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from slow import by_default
from torch import nn

import vitrail
from vitrail import similarity
from vitrail.adapters import PlainClassifier, Preprocessing, ViTAdapter, adapt
from vitrail.adapters.open_clip.adapting import open_clip_preprocessing
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers import EXPLAINERS

TOWERS = {
    "token": {},
    "average": {"pool_type": "avg"},
    "norm after pooling": {"pool_type": "avg", "final_ln_after_pool": True},
    "attention pooling": {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2, "output_tokens": True},
    "layer scale": {"ls_init_value": 0.3, "no_ln_pre": True, "pos_embed_type": "sin_cos_2d"},
    "patch dropout": {"patch_dropout": 0.5},
    "wide": {"image_size": (32, 48)},
}


@pytest.fixture(scope="module")
def model():
    return clip_networks.open_clip_model()


@pytest.fixture
def images():
    return clip_networks.images()


@torch.no_grad()
@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_logits_are_the_models_own(images, kind, sigmoid):
    model = clip_networks.open_clip_model(kind, sigmoid)
    compared = similarity(adapt(model, name="clip"), prompts=clip_networks.PROMPTS)
    tokens = open_clip.get_tokenizer("ViT-B-32")(clip_networks.PROMPTS)
    torch.testing.assert_close(compared.logits(images), model.get_logits(images, tokens)[0], rtol=1e-5, atol=1e-5)
    assert compared.output == ("sigmoid" if sigmoid else "softmax")
    assert compared.name == "clip with 3 prompts"


@torch.no_grad()
def test_coca_gives_the_embedding_of_its_first_query(images):
    vision = clip_networks.VISION | TOWERS["attention pooling"]
    torch.manual_seed(0)
    text = clip_networks.TEXT | {"embed_cls": True, "output_tokens": True, "context_length": 76}
    decoder = {"width": 16, "heads": 2, "layers": 1, "context_length": 76, "mlp_ratio": 2}
    model = open_clip.CoCa(16, decoder, text, vision).eval()
    compared = similarity(adapt(model), prompts=clip_networks.PROMPTS)
    tokens = open_clip.SimpleTokenizer(context_length=76)(clip_networks.PROMPTS)
    expected = model.logit_scale.exp() * model.encode_image(images) @ model.encode_text(tokens).T
    torch.testing.assert_close(compared.logits(images), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("tower", TOWERS)
def test_every_kind_of_image_tower_is_a_vision_transformer(tower):
    model = clip_networks.open_clip_model(**TOWERS[tower])
    height, width = model.visual.image_size
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    features = model.visual(images)
    expected = features[0] if isinstance(features, tuple) else features
    model.train()
    for module in (model, model.visual):
        vit = adapt(module)
        assert isinstance(vit, ViTAdapter)
        assert (vit.output, vit.num_classes, vit.text is None) == ("embedding", 16, module is not model)
        with vit.verified("attention", "places", "pooling_weights", "parts", "removal", "head", "gradients"), vit.inspecting():
            torch.testing.assert_close(vit.logits(images), expected)
    assert all(part.training for part in model.modules())


FOR_TEXTS = [name for name in EXPLAINERS if name not in ("hit", "hit-rollout", "intr", "diffmask")]


# `test_similarity.py` tests all methods on the similarity that a text gives.
@pytest.mark.parametrize("method", by_default("attention", "chefer", "grad-cam", "shapley", among=FOR_TEXTS))
def test_every_method_explains_a_text(images, method):
    compared = similarity(clip_networks.open_clip_model(layers=3), prompts=clip_networks.PROMPTS)
    options = {"num_passes": 100} if method == "shapley" else {}
    explanation = vitrail.explain(compared, images[:1], method=method, target="a photo of a dog", **options)
    assert explanation.relevance.std() > 0


@pytest.mark.parametrize("method", ["attention", "rollout", "random"])
def test_methods_without_a_class_explain_an_embedding(model, images, method):
    assert vitrail.explain(model, images[:1], method=method).relevance.std() > 0
    with pytest.raises(UnsupportedModelError, match="this network gives an embedding; give it classes by prompts"):
        vitrail.explain(model, images[:1], method="chefer")


def test_shown_attention_is_torchs_own(model, images):
    vit = adapt(model)
    seen = []
    block = model.visual.transformer.resblocks[0]
    hook = block.attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            vit.logits(images)
    finally:
        hook.remove()
    with torch.no_grad():
        expected = block.attn(seen[0], seen[0], seen[0], average_attn_weights=False)[1]
    with vit.inspecting(), vit.record(attentions=True) as trace, torch.no_grad():
        vit.logits(images)
    torch.testing.assert_close(trace.attentions[0], expected)


@torch.no_grad()
def test_other_towers_are_explained_from_outside(images):
    torch.manual_seed(0)
    vision = {"layers": (1, 1, 1, 1), "width": 8, "head_width": 8, "image_size": 32}
    model = open_clip.CLIP(16, vision, clip_networks.TEXT).eval()
    plain = adapt(model)
    assert isinstance(plain, PlainClassifier)
    assert "got ModifiedResNet, which has no adapter" in plain.reason
    compared = similarity(plain, prompts=clip_networks.PROMPTS)
    tokens = open_clip.get_tokenizer("RN50")(clip_networks.PROMPTS)
    torch.testing.assert_close(compared.logits(images), model.get_logits(images, tokens)[0], rtol=1e-5, atol=1e-5)
    assert vitrail.explain(compared, images[:1], method="occlusion").relevance.std() > 0


def test_blocks_with_another_attention_are_explained_from_outside():
    plain = adapt(clip_networks.open_clip_model(qk_norm=True))
    assert isinstance(plain, PlainClassifier)
    assert "got open_clip's CustomResidualAttentionBlock, which has no adapter" in plain.reason


class WithTimm(open_clip.CLIP):
    """A model whose timm tower is built small, which open_clip's own constructor cannot."""

    def __init__(self, trunk: nn.Module, head: nn.Module):
        super().__init__(16, clip_networks.VISION, clip_networks.TEXT)
        tower = open_clip.timm_model.TimmModel.__new__(open_clip.timm_model.TimmModel)
        nn.Module.__init__(tower)
        tower.image_size, tower.trunk, tower.head = (32, 32), trunk, head
        self.visual = tower


@torch.no_grad()
def test_a_timm_tower_is_timms_vision_transformer(images):
    import networks

    model = WithTimm(networks.eva(num_classes=16), nn.Sequential()).eval()
    vit = adapt(model)
    assert isinstance(vit, ViTAdapter)
    assert vit.output == "embedding"
    compared = similarity(vit, prompts=clip_networks.PROMPTS)
    tokens = open_clip.get_tokenizer("ViT-B-32")(clip_networks.PROMPTS)
    torch.testing.assert_close(compared.logits(images), model.get_logits(images, tokens)[0], rtol=1e-5, atol=1e-5)
    with_projection = adapt(WithTimm(networks.eva(num_classes=0), nn.Sequential(nn.Linear(48, 16))).eval())
    assert isinstance(with_projection, PlainClassifier)
    torch.testing.assert_close(with_projection.logits(images), with_projection.module(images))


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(50, 70), (90, 40), (33, 32)])
def test_preprocessing_is_open_clips(mode, interpolation, size):
    model = clip_networks.open_clip_model(layers=1)
    fields = {
        "size": (32, 32),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
        "interpolation": interpolation,
        "resize_mode": mode,
    }
    model.visual.preprocess_cfg = fields
    pixels = torch.randint(0, 255, (*size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    photo = Image.fromarray(pixels.numpy())
    expected = image_transform_v2(PreprocessCfg(**fields), is_train=False)(photo)
    torch.testing.assert_close(adapt(model).preprocessing(photo), expected)


def test_preprocessing_without_a_record_is_clips(model):
    preprocessing = open_clip_preprocessing(model)
    assert preprocessing == Preprocessing(
        (32, 32), 1.0, "center", "bicubic", open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    )


def test_padded_photos_are_refused():
    model = clip_networks.open_clip_model(layers=1)
    model.visual.preprocess_cfg = {"resize_mode": "longest"}
    with pytest.raises(
        UnsupportedModelError, match="expected a resize_mode of shortest or squash, got 'longest', which pads photos"
    ):
        adapt(model)
    assert adapt(model, preprocessing=Preprocessing((32, 32))).preprocessing.size == (32, 32)


def test_texts_that_would_be_cut_are_refused(model):
    text = adapt(model).text
    text.encode(["cat " * 75])
    with pytest.raises(InvalidInputError, match="expected a text of at most 77 tokens, got 78: 'cat cat"):
        text.encode(["cat " * 76])


def test_an_unknown_tokenizer_is_refused():
    model = clip_networks.open_clip_model(text={"vocab_size": 100})
    with pytest.raises(InvalidInputError, match="CLIP's own tokenizer of 49408 tokens, got a CLIP of 100, whose tokenizer"):
        similarity(model, prompts=["a"])


def test_embedding_texts_leaves_the_model_alone(model):
    model.train()
    parameters = list(model.parameters())
    similarity(model, prompts=["a"])
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in parameters)
    model.eval()


def test_a_text_tower_alone_is_refused():
    model = clip_networks.open_clip_model(open_clip.CustomTextCLIP)
    with pytest.raises(UnsupportedModelError, match="expected a model or an image tower of open_clip, got its TextTransformer"):
        adapt(model.text)


@pytest.fixture
def small_architecture(tmp_path, monkeypatch):
    """A name in open_clip's list for a tiny model."""
    import json

    config = {"embed_dim": 16, "vision_cfg": clip_networks.VISION, "text_cfg": clip_networks.TEXT}
    (tmp_path / "tiny-ViT.json").write_text(json.dumps(config))
    known = dict(open_clip.factory._MODEL_CONFIGS)
    open_clip.add_model_config(tmp_path / "tiny-ViT.json")
    yield "tiny-ViT"
    open_clip.factory._MODEL_CONFIGS.clear()
    open_clip.factory._MODEL_CONFIGS.update(known)
    open_clip.factory._MODEL_CONFIG_PATHS.remove(tmp_path / "tiny-ViT.json")


def test_loading_by_name_and_from_a_file(small_architecture, tmp_path, images):
    model = clip_networks.open_clip_model()
    torch.save(
        {"state_dict": {f"module.{name}": values for name, values in model.state_dict().items()}}, tmp_path / "weights.pt"
    )
    for name, options in [
        (f"open_clip:{small_architecture}", {"pretrained": str(tmp_path / "weights.pt")}),
        (f"open_clip:{small_architecture}/{tmp_path / 'weights.pt'}", {}),
        (f"open_clip:{small_architecture}", {"weights": tmp_path / "weights.pt"}),
    ]:
        loaded = vitrail.load(name, device="cpu", **options)
        compared = similarity(loaded, prompts=["a cat", "a dog"])
        torch.testing.assert_close(
            compared.logits(images).detach(), similarity(model, prompts=["a cat", "a dog"]).logits(images).detach()
        )
        assert loaded.name.startswith("open_clip:tiny-ViT/")
    assert vitrail.load("open_clip:tiny-ViT", pretrained=False, device="cpu").name == "open_clip:tiny-ViT"


def test_a_folder_is_recognized(tmp_path, images):
    import json

    from safetensors.torch import save_file

    model = clip_networks.open_clip_model()
    shape = {"embed_dim": 16, "vision_cfg": clip_networks.VISION, "text_cfg": clip_networks.TEXT}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": shape, "preprocess_cfg": {"mean": [0.5] * 3}}))
    save_file(
        {name: values.contiguous() for name, values in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors"
    )
    for name in (tmp_path, f"open_clip:{tmp_path}", f"open_clip:local-dir:{tmp_path}"):
        loaded = vitrail.load(name, device="cpu")
        torch.testing.assert_close(loaded.logits(images), model.encode_image(images))
        assert loaded.preprocessing.mean == (0.5,) * 3
        assert loaded.name == f"open_clip:{tmp_path.parent.name}/{tmp_path.name}"
        assert len(vitrail.similarity(loaded, direction=torch.ones(16)).name) < 80  # In tables.


LOADING = {
    "name": ("open_clip:ViT-B-33", {}, UnknownNameError, r"unknown open_clip model 'ViT-B-33' \(did you mean 'ViT-B-32'"),
    "no tag": (
        "open_clip:ViT-B-32",
        {},
        UnknownNameError,
        "after a slash, got none; choose one of: .*open_clip:ViT-B-32/laion2b_s34b_b79k",
    ),
    "tag": ("open_clip:ViT-B-32/laion2b", {}, UnknownNameError, "unknown weights of open_clip:ViT-B-32 'laion2b'"),
    "option": (
        "open_clip:tiny-ViT",
        {"pretrained": False, "nonsense": 1},
        InvalidInputError,
        "open_clip cannot create 'tiny-ViT'",
    ),
    "folder": ("open_clip:local-dir:no-such", {}, UnknownNameError, "cannot load open_clip:local-dir:no-such"),
}


@pytest.mark.parametrize("case", LOADING)
def test_what_cannot_be_loaded_is_refused(case, small_architecture):
    name, options, error, message = LOADING[case]
    with pytest.raises(error, match=message):
        vitrail.load(name, device="cpu", **options)


def test_files_of_weights_run_no_code(small_architecture, tmp_path):
    path = tmp_path / "weights.pt"

    class Code:
        def __reduce__(self):
            return print, ("code ran",)

    torch.save({"state_dict": Code()}, path)
    with pytest.raises(CheckpointError):
        vitrail.load(f"open_clip:{small_architecture}/{path}", device="cpu")
    torch.save({"visual.proj": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"expected weights of open_clip:tiny-ViT in .* got others"):
        vitrail.load(f"open_clip:{small_architecture}/{path}", device="cpu")


def test_weights_trained_with_another_activation_get_it():
    from vitrail.adapters.open_clip.library import _activation

    assert _activation("ViT-B-32", "openai") == {"force_quick_gelu": True}
    assert _activation("ViT-B-32", "laion2b_s34b_b79k") == {}
    assert _activation("ViT-B-32-quickgelu", "openai") == {}
