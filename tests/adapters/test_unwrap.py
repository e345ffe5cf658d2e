"""Wrappers are explained as the network inside, where they pass its output on; else from outside, with a reason."""

import copy
import functools
import logging

import lightning
import networks
import peft
import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision import transforms
from torchvision.transforms import v2

import vitrail
from vitrail.adapters import PlainClassifier, Preprocessing, ViTAdapter, adapt
from vitrail.adapters.photo_settings import set_normalization
from vitrail.adapters.preprocessing import IMAGENET_MEAN
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import make_explainer

LIBRARIES = {
    "timm": lambda: networks.timm_vit(depth=2).double(),
    "huggingface": lambda: networks.huggingface("ViT").double(),
    "torchvision": lambda: networks.torchvision_vit().double(),
}
METHODS = {
    "rollout": {},
    "chefer": {},
    "grad-cam": {},
    "integrated-gradients": {"num_steps": 2},
    "occlusion": {},
}
MOSTLY = [name if name == "timm" else pytest.param(name, marks=pytest.mark.slow) for name in LIBRARIES]
"""For what does not depend on the library: timm by default, the others in the slow tests."""

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
TARGETS = torch.tensor([1, 3])
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SMALL = Preprocessing((32, 32), 1.0)


def maps(network: nn.Module, images: Tensor = IMAGES, methods=METHODS) -> dict[str, Tensor]:
    classifier = adapt(network, preprocessing=SMALL)
    assert isinstance(classifier, ViTAdapter), getattr(classifier, "reason", "")
    return {name: make_explainer(name, classifier, **METHODS[name]).explain(images, TARGETS).relevance for name in methods}


@functools.cache
def bare_maps(library: str) -> dict[str, Tensor]:
    return maps(LIBRARIES[library]())


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, relevance in found.items():
        torch.testing.assert_close(
            relevance, expected[name], rtol=1e-6, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


class Trained(lightning.LightningModule):
    """A Lightning module as users write them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, nn.CrossEntropyLoss(torch.ones(5))

    def forward(self, images):
        return self.model(images)


class Deep(nn.Module):
    """Holds the network two levels down, returns its logits by keyword."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"net": nn.Sequential(model)})

    def forward(self, x):
        output = self.parts["net"](x)
        return getattr(output, "logits", output)


WRAPPERS = {
    "compiled": lambda network: torch.compile(network, backend="eager"),
    "aot": lambda network: torch.compile(network, backend="aot_eager"),
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "ema-2": timm.utils.ModelEmaV2,
    "ema-3": timm.utils.ModelEmaV3,
    "lightning": Trained,
    "deep": Deep,
    "sequential": nn.Sequential,
    "several": lambda network: nn.DataParallel(Trained(torch.compile(AveragedModel(network), backend="eager"))),
}


@pytest.mark.parametrize("library", MOSTLY)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_that_pass_the_output_on_are_the_network_inside(library, wrapper):
    wrapped = WRAPPERS[wrapper](LIBRARIES[library]())
    assert_same(maps(wrapped), bare_maps(library))


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "timm"])
def test_wrappers_of_every_library(library):
    for wrapped in (nn.DataParallel(Trained(LIBRARIES[library]())), NormalizesFirst(LIBRARIES[library]())):
        assert isinstance(adapt(wrapped), ViTAdapter)
    assert_same(maps(Deep(LIBRARIES[library]())), bare_maps(library))


def test_a_distributed_wrapper(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(LIBRARIES["timm"]())
        assert_same(maps(wrapped, methods=["chefer"]), bare_maps("timm"))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("library", MOSTLY)
def test_networks_compiled_in_place(library, backend):
    network = LIBRARIES[library]()
    network.compile(backend=backend)
    wrapped = Trained(network)
    assert_same(maps(wrapped, methods=["chefer", "occlusion"]), bare_maps(library))
    with torch.no_grad():
        network(IMAGES)  # Compiled code is there from here on.
    assert_same(maps(wrapped, methods=["rollout", "chefer", "grad-cam"]), bare_maps(library))


class Normalize(nn.Module):
    """A user's own normalization."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN, dtype=torch.float64).view(-1, 1, 1) * scale)
        self.register_buffer("std", torch.tensor(STD, dtype=torch.float64).view(-1, 1, 1) * scale)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class NormalizesFirst(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.normalize, self.backbone = Normalize(), backbone

    def forward(self, images: Tensor):
        return self.backbone(self.normalize(images))


class Transformed(nn.Module):
    """torchvision's transforms of version 1 are no modules with parameters, but modules."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Tensor) -> Tensor:
        return self.transform(images)


NORMALIZING = {
    "own": lambda network: nn.Sequential(Normalize(), network),
    "inside forward": NormalizesFirst,
    "v1": lambda network: nn.Sequential(transforms.Normalize(MEAN, STD), network),
    "v2": lambda network: nn.Sequential(v2.Normalize(MEAN, STD), network),
    "two steps": lambda network: nn.Sequential(
        nn.Sequential(nn.Identity(), Transformed(v2.Normalize(MEAN, STD))), Trained(network)
    ),
}


@pytest.mark.parametrize("library", MOSTLY)
@pytest.mark.parametrize("kind", NORMALIZING)
def test_a_normalization_before_the_network(library, kind):
    """Images are those of the wrapper; maps and logits are those of the network inside for normalized images."""
    network = LIBRARIES[library]()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wrapped = NORMALIZING[kind](network)
    classifier = adapt(wrapped)
    assert isinstance(classifier, ViTAdapter), classifier.reason
    assert (classifier.preprocessing.mean, classifier.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    torch.testing.assert_close(classifier.logits(IMAGES), networks.own_logits(wrapped, IMAGES), rtol=1e-9, atol=1e-12)
    normalized = (IMAGES - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    # Baselines of these methods do not depend on what zero means.
    names = ["rollout", "chefer", "grad-cam"]
    found = {name: make_explainer(name, classifier).explain(IMAGES, TARGETS).relevance for name in names}
    expected = maps(LIBRARIES[library](), normalized.double(), names)
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-8)
    # The user's network is untouched, and shares its weights.
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(part._forward_pre_hooks for part in network.modules())
    assert {id(p) for p in classifier.module.parameters()} == {id(p) for p in network.parameters()}


@pytest.mark.parametrize("library", MOSTLY)
def test_integrated_gradients_of_a_normalized_network_sum_to_the_difference_from_black(library):
    wrapped = nn.Sequential(Normalize(), LIBRARIES[library]())
    explainer = make_explainer("integrated-gradients", adapt(wrapped), num_steps=300)
    explanation = explainer.explain(IMAGES, TARGETS)
    with torch.no_grad():
        image, black = (networks.own_logits(wrapped, x).gather(1, TARGETS[:, None])[:, 0] for x in (IMAGES, 0 * IMAGES))
    torch.testing.assert_close(explanation.relevance.sum((1, 2)), image - black, rtol=1e-2, atol=1e-3)


def test_a_network_behind_a_normalization_is_not_saved_without_it(tmp_path):
    classifier = adapt(nn.Sequential(Normalize(), networks.huggingface("ViT").double()))
    with pytest.raises(UnsupportedModelError, match="normalization_scale"):
        vitrail.save(classifier, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="adapt and export the network inside"):
        vitrail.adapters.export_huggingface(classifier, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["own", "v2"])
@pytest.mark.parametrize("inside", [networks.timm_vit, lambda: networks_resnet()])
def test_a_second_normalization_is_refused(kind, inside):
    """`Preprocessing` normalizes unless told otherwise, so that who sets the crop would normalize twice."""
    wrapped = NORMALIZING[kind](inside().double())
    message = (
        r"expected photos of \w+ not to be normalized, since it normalizes its images itself, got mean 0.485, 0.456, 0.406"
    )
    with pytest.raises(InvalidInputError, match=message):
        adapt(wrapped, preprocessing=Preprocessing((32, 32), 1.0, "squash"))
    given = Preprocessing.unnormalized(3, (32, 32), crop_fraction=1.0, crop_mode="squash")
    classifier = adapt(wrapped, preprocessing=given)
    assert classifier.preprocessing == given
    with pytest.raises(InvalidInputError, match="normalizes its images itself"):
        set_normalization(classifier, 0.5, 0.5)
    assert set_normalization(classifier, 0.0, 1.0).preprocessing == given
    assert adapt(inside(), preprocessing=Preprocessing((32, 32), 1.0)).preprocessing.mean == IMAGENET_MEAN


def test_pixels_up_to_255():
    wrapped = nn.Sequential(Normalize(255), networks.timm_vit().double())
    classifier = adapt(wrapped)
    assert isinstance(classifier, ViTAdapter)
    assert classifier.preprocessing.std == (1 / 255,) * 3
    assert adapt(wrapped, preprocessing=classifier.preprocessing).preprocessing == classifier.preprocessing
    # Pixels up to 1 would all be nearly black to it.
    with pytest.raises(InvalidInputError, match=r"give mean 0, 0, 0 and std 0\.00392157, 0\.00392157, 0\.00392157"):
        adapt(wrapped, preprocessing=Preprocessing.unnormalized(3, (32, 32)))
    pixels = 255 * IMAGES
    torch.testing.assert_close(classifier.logits(pixels), wrapped(pixels).detach(), rtol=1e-9, atol=1e-12)


def test_photos_are_prepared_for_the_normalization_inside(photo):
    """The same photo, prepared by hand for the wrapper, gives the logits of the adapter."""
    network = networks.timm_vit()
    wrapped = nn.Sequential(Normalize().float(), network)
    classifier = adapt(wrapped)
    own = timm.data.create_transform(
        (3, 32, 32),
        is_training=False,
        crop_pct=classifier.preprocessing.crop_fraction,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=classifier.preprocessing.interpolation,
    )
    prepared = classifier.prepare(photo)
    torch.testing.assert_close(prepared[0], own(photo), rtol=0, atol=0.02)
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(prepared), wrapped(prepared), rtol=1e-4, atol=1e-5)


@pytest.fixture
def photo():
    from PIL import Image

    ramp = torch.linspace(0, 255, 3 * 40 * 50).view(40, 50, 3).byte().numpy()
    return Image.fromarray(ramp)


class Changes(nn.Module):
    """Holds a network and does something with its logits or images."""

    def __init__(self, model: nn.Module, before=lambda images: images, after=lambda logits: logits) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, images):
        output = self.model(self.before(images))
        return self.after(getattr(output, "logits", output))


CHANGES = {
    "temperature": {"after": lambda logits: logits / 2},
    "softmax": {"after": lambda logits: logits.softmax(-1)},
    "fewer": {"after": lambda logits: logits[:, :3]},
    "flipped": {"before": lambda images: images.flip(-1)},
    "channels": {"before": lambda images: images.flip(1)},
    "clamped": {"before": lambda images: images.clamp(0, 1)},
    "smaller": {"before": lambda images: images[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)},
}


@pytest.mark.parametrize("library", MOSTLY)
@pytest.mark.parametrize("kind", CHANGES)
def test_wrappers_that_change_something_are_explained_from_outside(library, kind):
    wrapped = Changes(LIBRARIES[library](), **CHANGES[kind])
    classifier = adapt(wrapped, preprocessing=SMALL)
    assert isinstance(classifier, PlainClassifier)
    assert "give network.model" in classifier.reason
    torch.testing.assert_close(classifier.logits(IMAGES), wrapped(IMAGES))


def test_wrappers_explained_from_outside_take_photos_as_the_network_inside(caplog):
    inside = networks.timm_vit()
    inside.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    resnet = networks_resnet()
    resnet.pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    with caplog.at_level(logging.INFO, logger="vitrail"):
        changed = adapt(Changes(inside, after=lambda logits: logits / 2), name="half")
        passed_on = adapt(Trained(resnet))
    assert "photos are prepared for half as for the network inside it" in caplog.messages
    for classifier, size in ((changed, (32, 32)), (passed_on, (48, 48))):
        assert isinstance(classifier, PlainClassifier)
        assert (classifier.preprocessing.size, classifier.preprocessing.mean) == (size, (0.1, 0.2, 0.3))


NORMALIZE = transforms.Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
PIPELINES = {
    "resized, cropped and normalized": [transforms.Resize(40), transforms.CenterCrop(32), NORMALIZE],
    "clamped and normalized": [v2.Lambda(lambda images: images.clamp(0, 1)), NORMALIZE],
    "clamped": [v2.Lambda(lambda images: images.clamp(0, 1))],
    "scaled by the image": [v2.Lambda(lambda images: images / images.amax())],
}


@pytest.mark.parametrize("inside", [networks.timm_vit, lambda: networks_resnet()])
@pytest.mark.parametrize("kind", PIPELINES)
def test_pipelines_before_a_network_need_a_preprocessing(kind, inside):
    """Photos would be normalized twice, as for the network inside and by the pipeline."""
    wrapped = nn.Sequential(*PIPELINES[kind], inside())
    with pytest.raises(
        UnsupportedModelError, match=r"cannot tell how photos are prepared for Sequential: .* before network\[\d\]"
    ):
        adapt(wrapped)
    classifier = adapt(wrapped, preprocessing=Preprocessing.unnormalized(3, size=(32, 32)))
    images = IMAGES.float()
    torch.testing.assert_close(classifier.logits(images), wrapped(images))


def test_photos_that_are_normalized_before_a_pipeline_are_pointed_out(caplog):
    """It may expect that, but `Preprocessing` normalizes unless told otherwise."""
    wrapped = nn.Sequential(*PIPELINES["clamped and normalized"], networks.timm_vit())
    adapt(wrapped, preprocessing=Preprocessing.unnormalized(3, size=(32, 32)))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    adapt(wrapped, preprocessing=Preprocessing((32, 32)))
    assert "photos are normalized, then changed by Sequential before network[2]" in caplog.text


class OneByOne(nn.Module):
    def __init__(self, before):
        super().__init__()
        self.network, self.before = networks.timm_vit(), before

    def forward(self, images):
        return torch.cat([self.network(self.before(image[None])) for image in images])


class OwnHead(nn.Module):
    """Runs all of a network but its head."""

    def __init__(self, before):
        super().__init__()
        self.network, self.before, self.head = networks.timm_vit(), before, nn.Linear(24, 3)

    def forward(self, images):
        return self.head(self.network.forward_features(self.before(images))[:, 1:].mean(1))


@pytest.mark.parametrize("wrap", [OneByOne, OwnHead])
def test_photos_are_prepared_as_for_a_network_that_runs_in_parts(wrap):
    images = IMAGES.float()
    kept, normalized, changed = (
        wrap(before) for before in (nn.Identity(), NORMALIZE, nn.Sequential(*PIPELINES["clamped and normalized"]))
    )
    assert adapt(kept).preprocessing.mean == adapt(kept.network).preprocessing.mean != (0.0, 0.0, 0.0)
    torch.testing.assert_close(adapt(kept).logits(images), kept(images))
    assert adapt(normalized).preprocessing.mean == (0.0, 0.0, 0.0)
    torch.testing.assert_close(adapt(normalized).logits(images), normalized(images))
    with pytest.raises(UnsupportedModelError, match=r"cannot tell how photos are prepared .* before network\.network"):
        adapt(changed)


@pytest.mark.parametrize("kind", ["flipped", "smaller"])
def test_pixels_that_are_moved_keep_the_preprocessing(kind):
    network = networks.timm_vit()
    network.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert adapt(Changes(network, **CHANGES[kind])).preprocessing.mean == (0.1, 0.2, 0.3)


def test_several_networks_behind_a_normalization_need_a_preprocessing():
    class Mean(nn.Module):
        def __init__(self, before):
            super().__init__()
            self.members, self.before = nn.ModuleList([networks.timm_vit(), networks.timm_vit(depth=2)]), before

        def forward(self, images):
            images = self.before(images)
            return torch.stack([member(images) for member in self.members]).mean(0)

    assert isinstance(adapt(Mean(nn.Identity())), PlainClassifier)
    with pytest.raises(UnsupportedModelError, match="cannot tell how photos are prepared"):
        adapt(Mean(NORMALIZE))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda network: torch.compile(network, backend="eager"), AveragedModel])
def test_wrappers_with_hooks_of_their_own(wrap):
    wrapped = wrap(networks.timm_vit().double())
    wrapped.register_forward_hook(lambda part, inputs, output: output * torch.arange(5))
    classifier = adapt(wrapped, preprocessing=SMALL)
    assert isinstance(classifier, PlainClassifier)
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(IMAGES), wrapped(IMAGES))


def test_the_log_says_what_images_mean(caplog):
    with caplog.at_level(logging.INFO, logger="vitrail"):
        adapt(nn.Sequential(Normalize().float(), networks.timm_vit()), name="mine")
    assert caplog.messages == ["mine normalizes its images itself: photos are scaled only, and tensors must not be normalized"]


def test_two_networks_inside():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teachers = networks.timm_vit(), nn.ModuleList([networks.torchvision_vit()])

        def forward(self, images):
            return self.student(images)

    classifier = adapt(Both())
    assert isinstance(classifier, PlainClassifier)
    assert classifier.preprocessing.size == (32, 32)
    assert classifier.reason.endswith(
        "it holds 2 networks that vitrail knows; to look into one, give it: network.student, network.teachers[0]"
    )


def test_a_module_without_a_forward_pass():
    class Trainer(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = networks.timm_vit()

    with pytest.raises(
        UnsupportedModelError, match=r"got a Trainer without a forward pass; give the network that it holds: network\.net"
    ):
        adapt(Trainer())


def test_an_average_that_is_no_module(unchecked):
    with pytest.raises(UnsupportedModelError, match=r"got ModelEma; give the network that it holds: \.ema"):
        adapt(timm.utils.ModelEma(networks.timm_vit()))


def test_sharded_networks_are_refused():
    kind = type("FSDPWrapped", (nn.Sequential,), {"__module__": "torch.distributed.fsdp.fully_sharded_data_parallel"})
    with pytest.raises(UnsupportedModelError, match="spread over processes"):
        adapt(kind(networks.timm_vit()))


def test_own_networks_behind_a_normalization_take_pixels():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    for wrapped in (nn.Sequential(Normalize().float(), network), nn.Sequential(Normalize().float(), networks_resnet())):
        classifier = adapt(wrapped)
        assert isinstance(classifier, PlainClassifier)
        assert (classifier.preprocessing.mean, classifier.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
        assert classifier.module is wrapped


def networks_resnet() -> nn.Module:
    return timm.models.ResNet(timm.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5, channels=(8, 8, 8, 8)).eval()


def test_a_normalization_of_normalized_images_is_not_guessed():
    """Its images may be anything: their range says so."""
    again = nn.Sequential(v2.Normalize((-0.02, 0.01, 0.0), (1.17, 1.1, 1.2)), networks.timm_vit())
    classifier = adapt(again, preprocessing=SMALL)
    assert isinstance(classifier, PlainClassifier)
    assert "by more than a normalization of pixels" in classifier.reason
    assert classifier.preprocessing == SMALL


# LoRA.

LORA = {
    "timm": ["qkv", "proj", "fc1"],
    "huggingface": ["q_proj", "v_proj", "query", "value", "dense"],
    "torchvision": ["0", "3"],
}


def with_lora(library: str, **options) -> nn.Module:
    torch.manual_seed(0)
    network = LIBRARIES[library]()
    names = {name.rpartition(".")[2] for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    targets = [name for name in LORA[library] if name in names]
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=targets, init_lora_weights=False, **options)
    return peft.get_peft_model(network, config).double()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("merged", [False, True])
def test_lora_is_explained_as_if_merged(library, merged):
    adapted = with_lora(library)
    reference = copy.deepcopy(adapted).merge_and_unload()
    with torch.no_grad():
        assert not torch.allclose(
            networks.own_logits(reference, IMAGES), networks.own_logits(LIBRARIES[library](), IMAGES), rtol=0.01
        )
    if merged:
        adapted.merge_adapter()
    assert_same(maps(adapted), maps(reference))


@pytest.mark.parametrize("library", MOSTLY)
def test_lora_injected_in_place(library):
    adapted = with_lora(
        library, modules_to_save=[{"timm": "head", "huggingface": "classifier", "torchvision": "heads"}[library]]
    )
    reference = copy.deepcopy(adapted).merge_and_unload()
    assert_same(maps(adapted.base_model.model, methods=["chefer", "grad-cam"]), maps(reference, methods=["chefer", "grad-cam"]))


# The place of the logits.


class Dictionary(nn.Module):
    def __init__(self, model: nn.Module, form) -> None:
        super().__init__()
        self.model, self.form = model, form

    def forward(self, images):
        output = self.model(images)
        return self.form(getattr(output, "logits", output))


FORMS = [
    (lambda logits: {"scores": logits, "extra": logits.mean()}, "scores"),
    (lambda logits: (logits.mean(), logits), 1),
    (lambda logits: [logits], 0),
    (lambda logits: transformers.modeling_outputs.ImageClassifierOutput(logits=logits, loss=logits.sum()), "logits"),
]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("form", "key"), FORMS, ids=["dictionary", "tuple", "list", "object"])
def test_a_wrapper_that_returns_logits_among_others(library, form, key):
    wrapped = Dictionary(LIBRARIES[library](), form)
    classifier = adapt(wrapped, output_key=key, preprocessing=SMALL, class_names=networks.CLASS_NAMES)
    assert isinstance(classifier, ViTAdapter)
    assert classifier.num_classes == 5
    found = make_explainer("chefer", classifier).explain(IMAGES, TARGETS)
    torch.testing.assert_close(found.relevance, bare_maps(library)["chefer"], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(("form", "key"), FORMS[:3], ids=["dictionary", "tuple", "list"])
def test_a_wrapper_without_the_key_says_what_to_give(form, key):
    wrapped = Dictionary(networks.timm_vit().double(), form)
    classifier = adapt(wrapped, preprocessing=SMALL)
    with pytest.raises(UnsupportedModelError, match="name its logits by output_key, an index or a key"):
        make_explainer("occlusion", classifier).explain(IMAGES)


class Tuple(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features):
        return {"features": features, "logits": self.head(features)}


@pytest.mark.parametrize("library", LIBRARIES)
def test_heads_that_return_a_dictionary(library):
    network = LIBRARIES[library]()
    name = {"timm": "head", "huggingface": "classifier", "torchvision": "heads"}[library]
    setattr(network, name, Tuple(getattr(network, name)))
    if library == "huggingface":
        with pytest.raises(UnsupportedModelError, match="name its logits by output_key"):
            adapt(network, class_names=networks.CLASS_NAMES)
        return
    classifier = adapt(network, output_key="logits", preprocessing=SMALL, class_names=networks.CLASS_NAMES)
    for method in ("chefer", "grad-cam", "occlusion"):
        found = make_explainer(method, classifier).explain(IMAGES, TARGETS)
        torch.testing.assert_close(found.relevance, bare_maps(library)[method], rtol=1e-6, atol=1e-10)


def test_a_plain_network_that_returns_a_tuple():
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(256, 5), Tuple(nn.Identity())).double()
    classifier = adapt(network, output_key="logits", preprocessing=SMALL, class_names=networks.CLASS_NAMES)
    found = make_explainer("rise", classifier, num_masks=4).explain(IMAGES)
    torch.testing.assert_close(found.logits, network(IMAGES)["logits"].detach())
