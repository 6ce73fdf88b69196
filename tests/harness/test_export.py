"""An export is loaded by stock open_clip, in a process that never saw this package, and embeds the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from harness.cli.export import export
from harness.config import ModelConfig
from harness.errors import UserError
from harness.export import export_model
from harness.models import LoadedModel, create_model, load_model
from tests.harness.tiny import RESNET, STUDENT

TEXTS = ["woman running: dark skin tone", "a flag", ""]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)

STOCK = """
import sys, torch, open_clip
from PIL import Image
folders, image, texts, out = sys.argv[1].split(","), sys.argv[2], sys.argv[3].split("|"), sys.argv[4]
made = {}
for folder in folders:
    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + folder)
    tokens = open_clip.get_tokenizer("local-dir:" + folder)(texts)
    model.eval()
    with torch.no_grad():
        pixels = preprocess(Image.open(image))[None]
        made[folder] = (pixels, tokens, model.encode_image(pixels), model.encode_text(tokens), model.logit_scale)
assert not any(name.split(".")[0] in ("harness", "kdlosses") for name in sys.modules)
torch.save(made, out)
"""


def tiny(name: str, config: dict, tokenizer: str | None = None) -> LoadedModel:
    """A model with random weights, and batch statistics that are not those of a new model."""
    if tokenizer:
        config = {**config, "text_cfg": {**config["text_cfg"], "hf_tokenizer_name": tokenizer, "vocab_size": 5000}}
    loaded = create_model(ModelConfig(model=name, config=config))
    loaded.model.train()
    loaded.model.encode_image(torch.rand(8, 3, 32, 32))
    return loaded


MODELS = {
    "vit": lambda: tiny("test-export-vit", STUDENT),
    "resnet": lambda: tiny("test-export-resnet", RESNET),
    "custom text": lambda: tiny("test-export-custom", {**STUDENT, "custom_text": True}),
    "tokenizer": lambda: tiny("test-export-tokenizer", STUDENT, "shipped:openmoji"),
}


@torch.no_grad()
def embeddings(loaded: LoadedModel, image: Path) -> tuple[torch.Tensor, ...]:
    loaded.model.eval()
    pixels, tokens = loaded.preprocess(Image.open(image))[None], loaded.tokenizer(TEXTS)
    model = loaded.model
    return pixels, tokens, model.encode_image(pixels), model.encode_text(tokens), model.logit_scale


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.effect_noise((40, 24), 80).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """Every model of MODELS, and the folders of their exports in both precisions, which have been moved."""
    root = tmp_path_factory.mktemp("export")
    loaded = {name: make() for name, make in MODELS.items()}
    for name, model in loaded.items():
        for fp16 in (False, True):
            export_model(model, root / "first" / f"{name}-{fp16}", fp16=fp16)
    (root / "first").rename(root / "moved")
    return loaded, {(name, fp16): root / "moved" / f"{name}-{fp16}" for name in MODELS for fp16 in (False, True)}


@pytest.fixture(scope="module")
def stock(exported, tmp_path_factory: pytest.TempPathFactory, image: Path):
    """The same, with what one process of stock open_clip makes of the image and the texts by each export."""
    loaded, folders = exported
    root = tmp_path_factory.mktemp("stock")
    script = root / "stock.py"
    script.write_text(STOCK)
    names = ",".join(str(folder) for folder in folders.values())
    command = [sys.executable, script, names, image, "|".join(TEXTS), root / "made.pt"]
    subprocess.run(command, check=True, cwd=root, capture_output=True)
    made = torch.load(root / "made.pt")
    return loaded, {key: (folder, made[str(folder)]) for key, folder in folders.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_stock_open_clip_gives_the_same_embeddings_after_a_move(stock, image: Path, name: str) -> None:
    loaded, made = stock
    for ours, theirs in zip(embeddings(loaded[name], image), made[name, False][1], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_half_differs_by_rounding_only(stock, image: Path, name: str) -> None:
    loaded, made = stock
    folder, theirs = made[name, True]
    pixels, tokens, *ours = embeddings(loaded[name], image)
    assert torch.equal(pixels, theirs[0]) and torch.equal(tokens, theirs[1])
    for one, other in zip(ours, theirs[2:], strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=5e-3 * float(one.detach().abs().max()))
    weights = folder / "open_clip_model.safetensors"
    assert weights.stat().st_size < 0.56 * (made[name, False][0] / weights.name).stat().st_size
    kept = {key: tensor for key, tensor in load_file(weights).items() if tensor.ndim < 2}
    state = loaded[name].model.state_dict()
    assert kept and all(torch.equal(tensor, state[key]) for key, tensor in kept.items())


@pytest.mark.parametrize("name", MODELS)
def test_holds_the_model_and_nothing_else(exported, name: str) -> None:
    loaded, folders = exported
    folder = folders[name, False]
    assert load_file(folder / "open_clip_model.safetensors").keys() == loaded[name].model.state_dict().keys()
    config = json.loads((folder / "open_clip_config.json").read_text())
    assert str(Path(__file__).parents[2]) not in json.dumps(config)
    assert config["model_cfg"]["embed_dim"] == loaded[name].embed_dim
    assert (folder / "tokenizer.json").is_file() == (name == "tokenizer")
    assert len({path.stat().st_mode for path in folder.glob("open_clip_*")}) == 1


def test_a_mean_and_std_of_its_own_travel(tmp_path: Path, image: Path) -> None:
    loaded = MODELS["vit"]()
    view = {"mean": MEAN, "std": STD, "interpolation": "bilinear", "resize_mode": "squash", "size": 32}
    loaded.model.visual.preprocess_cfg.update(view)
    export_model(LoadedModel(**{**vars(loaded), "mean": MEAN, "std": STD}), tmp_path / "export")
    again = load_model(f"local-dir:{tmp_path / 'export'}")
    assert (again.mean, again.std, again.image_size) == (MEAN, STD, 32)
    assert again.model.visual.preprocess_cfg["interpolation"] == "bilinear"
    assert again.model.visual.preprocess_cfg["resize_mode"] == "squash"


def test_an_export_of_an_export_is_the_same(tmp_path: Path, image: Path) -> None:
    export_model(MODELS["tokenizer"](), tmp_path / "a")
    export_model(load_model(str(tmp_path / "a")), tmp_path / "b")
    one, other = (embeddings(load_model(str(tmp_path / name)), image) for name in "ab")
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_replaces_an_older_export_and_keeps_metadata(tmp_path: Path) -> None:
    out = tmp_path / "export"
    export_model(MODELS["tokenizer"](), out)
    export_model(MODELS["vit"](), out, metadata={"recipe": "tiny", "steps": 3})
    assert sorted(path.name for path in out.iterdir()) == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert json.loads((out / "open_clip_config.json").read_text())["metadata"] == {"recipe": "tiny", "steps": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("fails", ["save_tensors", "json.dumps", "shutil.rmtree"])
def test_a_kill_keeps_the_older_export_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    loaded, out = MODELS["vit"](), tmp_path / "export"
    export_model(loaded, out)
    before = load_file(out / "open_clip_model.safetensors")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"harness.export.{fails}", killed)
        export_model(MODELS["resnet"](), out)
    after = load_file(out / "open_clip_model.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)
    export_model(loaded, out)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "export"
    export_model(MODELS["vit"](), out)
    out.rename(tmp_path / ".export.old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left on device"):
        patch.setattr("harness.export.save_tensors", full)
        export_model(MODELS["vit"](), out)
    assert (out / "open_clip_model.safetensors").is_file()


def test_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not an open_clip folder"):
        export_model(MODELS["vit"](), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the export .*Not a directory"):
        export_model(MODELS["vit"](), tmp_path / "file" / "export")


def test_half_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    loaded = MODELS["vit"]()
    with torch.no_grad():
        loaded.model.text_projection[0, 0] = 1e6
    with pytest.raises(UserError, match=r"text_projection of test-export-vit .* float16"):
        export_model(loaded, tmp_path / "export", fp16=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fp16", [False, True])
def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path, fp16: bool) -> None:
    loaded = MODELS["vit"]()
    with torch.no_grad():
        loaded.model.text_projection[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"model test-export-vit hold NaN or infinite values: 1 entry is .* text_proj"):
        export_model(loaded, tmp_path / "export", fp16=fp16)
    assert not list(tmp_path.iterdir())


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    loaded = MODELS["vit"]()
    for name in "ab":
        export_model(loaded, tmp_path / name)
    one, other = ((tmp_path / name / "open_clip_model.safetensors").read_bytes() for name in "ab")
    assert one == other


def test_a_tokenizer_that_cannot_travel_is_refused(tmp_path: Path) -> None:
    loaded = MODELS["vit"]()
    with pytest.raises(UserError, match=r"tokenizer of test-export-vit cannot travel.*hf_tokenizer_name"):
        export_model(LoadedModel(**{**vars(loaded), "tokenizer": str.split}), tmp_path / "export")


def test_weights_are_named_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--best takes the weights that a run keeps, and --pretrained x\.pt others"):
        export(str(tmp_path), tmp_path / "out", pretrained="x.pt", best=True)
