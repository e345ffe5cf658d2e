"""Several methods, their options, and how the model is to be made."""

import re

import pytest
import torch
from PIL import Image

import vitrail
from vitrail.core.errors import InvalidInputError
from vitrail.explanation import Explanation

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def photos(make_photo, tmp_path):
    return [make_photo(tmp_path / f"{name}.png", seed=i) for i, name in enumerate("ab")]


def test_several_methods_have_a_folder_each_and_one_sheet(photos, run_vitrail, tiny_model_file, tmp_path, real_pictures):
    out = tmp_path / "out"
    code, printed, err = run_vitrail("explain", *photos, "-m", tiny_model_file, "--method", "hit, random,hit", "--out", out)
    assert code == 0, err
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        "contact_sheet.png",
        *(f"{m}/{name}" for m in ("hit", "random") for name in ("a.png", "b.png", "explanations.npz", "explanations.json")),
    }
    for method in ("hit", "random"):
        loaded, expected = (
            Explanation.load(out / method / "explanations.npz"),
            vitrail.explain(tiny_model_file, photos, method=method),
        )
        assert (loaded.method, loaded.sources) == (method, tuple(map(str, photos)))
        torch.testing.assert_close(loaded.relevance, expected.relevance.cpu())
        assert run_vitrail("explain", *photos, "-m", tiny_model_file, "--method", method, "--out", tmp_path / method)[0] == 0
        assert (out / method / "b.png").read_bytes() == (tmp_path / method / "b.png").read_bytes()
    with Image.open(out / "contact_sheet.png") as both, Image.open(tmp_path / "hit" / "contact_sheet.png") as one:
        assert both.width == pytest.approx(one.width * 4 / 3, abs=2)
    assert printed.startswith("tiny: 2 photos explained by hit, random\n")
    assert [line.split(":")[0] for line in printed.splitlines()[1:7]] == [
        str(photos[0]), "  hit", "  random", str(photos[1]), "  hit", "  random",
    ]  # fmt: skip
    assert re.search(r"^  hit: logit of \w+ [+-]", printed, re.MULTILINE)
    assert re.search(r"^  random: relevance for \w+; strongest patches: row", printed, re.MULTILINE)
    assert "completeness error of hit: " in printed
    assert "completeness error of random" not in printed
    assert "2 pictures, explanations.npz and .json per method (hit, random)" in printed


def test_photos_are_opened_once_for_all_methods(photos, run_vitrail, tiny_model_file, tmp_path, monkeypatch):
    from vitrail.datasets import photos as module

    opened, open_image = [], module.open_image
    monkeypatch.setattr(module, "open_image", lambda path, *options: (opened.append(path), open_image(path, *options))[1])
    methods = "hit,hit-rollout,random"
    assert run_vitrail("explain", *photos, "-m", tiny_model_file, "--method", methods, "--out", tmp_path / "out")[0] == 0
    assert opened == photos


def test_an_unknown_method_writes_nothing(photos, run_vitrail, tiny_model_file, tmp_path):
    code, _out, err = run_vitrail("explain", *photos, "-m", tiny_model_file, "--method", "hit,hitt", "--out", tmp_path / "out")
    assert (code, "unknown method 'hitt'" in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_options_of_methods_reach_them(photos, run_vitrail, tiny_model_file, tmp_path):
    code, _out, err = run_vitrail(
        "explain", photos[0], "-m", tiny_model_file, "--method", "hit,random", "--out", tmp_path / "out",
        "--method-option", "random.seed=7", "--method-option", "hit.norm_mean=own",
    )  # fmt: skip
    assert code == 0, err
    for method, options in (("hit", {"norm_mean": "own"}), ("random", {"seed": 7})):
        expected = vitrail.explain(tiny_model_file, photos[0], method=method, **options)
        loaded = Explanation.load(tmp_path / "out" / method / "explanations.npz")
        torch.testing.assert_close(loaded.relevance, expected.relevance.cpu())


BAD_OPTIONS = [
    (("--method-option", "random.seed=1"), ["options of 'random'", "not among the methods", "hit"]),
    (("--method-option", "hit.norm_maen=own"), ["no option norm_maen", "norm_mean"]),
    (("--method-option", "hit.norm_mean=mine"), ["'mine' for hit.norm_mean", "'shared' or 'own'"]),
    (("--method", "random", "--method-option", "random.seed=many"), ["'many' for random.seed", "integer"]),
    (("--method-option", "norm_mean=own"), ["--method-option like rollout.discard_ratio=0.9", "'norm_mean=own'"]),
    (("--method-option", "hit.norm_mean"), ["--method-option like"]),
    (("--method-option", "hit.norm_mean=[own"), ["cannot read the value of --method-option 'hit.norm_mean=[own'"]),
    (("--model-arg", "pretrained"), ["--model-arg like pretrained=false", "'pretrained'"]),
    (("--model-arg", "=1"), ["--model-arg like"]),
    (("--model-arg", "device=cpu"), ["use --device"]),
    (("--model-arg", "image_size=32"), ["use --image-size"]),
    (("--model-arg", "img_size=32"), ["expected no options, got img_size"]),
    (("--image-size", "0x32"), ["HEIGHTxWIDTH", "'0x32'"]),
    (("--image-size", "large"), ["HEIGHTxWIDTH", "'large'"]),
    (("--image-size", "32x32"), ["32"]),
    (("--model", "timm:vit_tiny_patch16_224", "--model-arg", "pretrained=false", "--model-arg", "no_such=1"), ["no_such"]),
]


@pytest.mark.parametrize(
    ("command", "arguments", "messages"),
    [
        *(("explain", *case) for case in BAD_OPTIONS),
        # Commands share the options.
        *(pytest.param("score", *case, marks=[] if case in BAD_OPTIONS[::5] else pytest.mark.slow) for case in BAD_OPTIONS),
    ],
)
def test_bad_options_are_named(command, arguments, messages, photos, run_vitrail, tiny_model_file, tmp_path):
    model = () if "--model" in arguments else ("--model", tiny_model_file)
    method = () if "--method" in arguments else ("--method", "hit")
    code, out, err = run_vitrail(command, photos[0], *model, *method, *arguments, "--out", tmp_path / "out")
    assert (code, out, err.count("error:")) == (2, "", 1), err
    for message in messages:
        assert message in err
    assert not (tmp_path / "out").exists()


def test_a_bad_precision_names_the_choices(photos, run_vitrail, tiny_model_file):
    code, _out, err = run_vitrail("explain", photos[0], "-m", tiny_model_file, "--precision", "fp8")
    assert code == 2
    assert all(word in err for word in ("fp8", "full", "bf16", "fp16"))


def test_precision_reaches_every_method(photos, run_vitrail, tiny_model_file, tmp_path):
    for precision in ("full", "bf16"):
        code, _out, err = run_vitrail(
            "explain",
            photos[0],
            "-m",
            tiny_model_file,
            "--precision",
            precision,
            "--device",
            "cpu",
            "--out",
            tmp_path / precision,
        )
        assert code == 0, err
    full, half = (Explanation.load(tmp_path / name / "explanations.npz").logits for name in ("full", "bf16"))
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, rtol=0.1, atol=0.2)


TIMM = ("--model", "timm:vit_tiny_patch16_224", "--model-arg", "pretrained=false", "--model-arg", "num_classes=3")


@pytest.mark.parametrize(
    ("arguments", "grid"),
    [
        (("--model-arg", "img_size=[32,64]"), (2, 4)),
        (("--model-arg", "dynamic_img_size=true", "--image-size", "48x32"), (3, 2)),
        (("--model-arg", "dynamic_img_size=true", "--image-size", "48"), (3, 3)),
    ],
)
def test_arguments_of_the_model_and_image_size(arguments, grid, photos, run_vitrail, tmp_path):
    code, _out, err = run_vitrail("explain", photos[0], *TIMM, *arguments, "--method", "random", "--out", tmp_path / "out")
    assert code == 0, err
    loaded = Explanation.load(tmp_path / "out" / "explanations.npz")
    assert (loaded.relevance.shape[1:], loaded.logits.shape) == (grid, (1, 3))


def test_score_takes_options_and_has_a_control_by_default(photos, run_vitrail, tiny_model_file, tmp_path):
    common = ("score", photos[0], "-m", tiny_model_file, "--steps", 2)
    code, printed, err = run_vitrail(*common, "--out", tmp_path / "default")
    assert code == 0, err
    assert re.findall(r"^  (\S+)(?: +\d\.\d{3}){4}$", printed, re.MULTILINE) == ["hit", "random"]
    lines = set()
    for seed in (0, 1):
        code, printed, err = run_vitrail(
            *common, "--method", "random", "--method-option", f"random.seed={seed}", "--precision", "bf16",
            "--out", tmp_path / str(seed),
        )  # fmt: skip
        assert code == 0, err
        lines |= set(re.findall(r"^  random +\d\.\d{3}(?: .*)?$", printed, re.MULTILINE))
    assert len(lines) == 2


def test_test_takes_arguments_of_the_model(make_photo, run_vitrail, tmp_path):
    for name in ("x", "y", "z"):
        make_photo(tmp_path / "data" / name / "a.png")
    code, printed, err = run_vitrail("test", tmp_path / "data", *TIMM, "--model-arg", "img_size=32")
    assert (code, "on 3 images" in printed) == (0, True), err


@pytest.mark.parametrize(("text", "size"), [(None, None), ("224x448", (224, 448)), ("224X448", (224, 448)), ("7", (7, 7))])
def test_sizes(text, size):
    from vitrail.cli.parsing import parse_size

    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "1x", "x1", "1x2x3", "-1", "1.5x2", "²x2", "0"])
def test_bad_sizes(text):
    from vitrail.cli.parsing import parse_size

    with pytest.raises(InvalidInputError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_values_are_yaml():
    from vitrail.cli.parsing import parse_model_args

    assert parse_model_args(["a=1", "b=1e-3", "c=false", "d=[2, 3]", "e=x=y", "f=", "g='1'"]) == {
        "a": 1, "b": 1e-3, "c": False, "d": [2, 3], "e": "x=y", "f": None, "g": "1",
    }  # fmt: skip


def test_a_picture_never_replaces_a_photo(run_vitrail, tiny_model_file, make_photo, snapshot, tmp_path):
    photo, sheet = make_photo(tmp_path / "photos" / "a.png"), make_photo(tmp_path / "photos" / "contact_sheet.png", seed=1)
    before = snapshot(tmp_path)
    for named, out, methods in (
        (photo, photo.parent, "hit"),
        (sheet, sheet.parent, "hit"),
        (photo.parent, tmp_path / "photos" / ".." / "photos", "hit"),
    ):
        code, _, err = run_vitrail(
            "explain", named, "--model", tiny_model_file, "--method", methods, "--out", out, "--overwrite"
        )
        assert code == 2
        assert "would replace" in err
        assert snapshot(tmp_path) == before


def test_results_are_never_written_among_the_images(run_vitrail, tiny_model_file, make_photo, snapshot, tmp_path):
    make_photo(tmp_path / "hit" / "a.png")
    make_photo(tmp_path / "hit" / "deep" / "b.png")
    before = snapshot(tmp_path)
    for data in (tmp_path / "hit", tmp_path / "hit" / "deep"):
        code, _, err = run_vitrail("explain", "--data", data, "--model", tiny_model_file, "--out", tmp_path, "--overwrite")
        assert code == 2
        assert "expected the images outside of the results" in err
        assert snapshot(tmp_path) == before


NOBODY = "9" * 5000
HOPELESS = [
    (["--method", "rise", "--method-option", "rise.model=foo"], "method 'rise' has no option model"),
    (["--method", "rise", "--method-option", "rise.num_masks=10000000000000"], "out of memory"),
    (["--method", "rise", "--method-option", f"rise.num_masks={'[' * 1500}"], "cannot read the value of --method-option"),
    (["--target", NOBODY], "expected a class between 0 and 6, got 9999"),
    (["--image-size", "1000000x1000000"], "expected an image_size of at most"),
    (["--image-size", "9" * 30], "expected an image_size of at most"),
]


@pytest.mark.parametrize(("arguments", "message"), HOPELESS, ids=[message for _, message in HOPELESS])
def test_excessive_arguments_end_in_a_message(run_vitrail, tiny_model_file, make_photo, tmp_path, arguments, message):
    photo = make_photo(tmp_path / "a.png")
    code, _, err = run_vitrail("explain", photo, "--model", tiny_model_file, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in err


def test_a_methods_own_precision_comes_first(run_vitrail, tiny_model_file, make_photo, tmp_path):
    photo, out = make_photo(tmp_path / "a.png"), tmp_path / "out"
    options = ["--method", "rise", "--precision", "bf16", "--method-option", "rise.precision=full"]
    assert run_vitrail("explain", photo, "--model", tiny_model_file, "--out", out, *options)[0] == 0
