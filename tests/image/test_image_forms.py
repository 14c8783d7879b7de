"""Images in every form people have them in, and models by name or folder behind their own preparation."""

import csv
import json

import numpy as np
import pytest
import torch

import advgym
from advgym import AdvgymError, make_task
from advgym.envs.image.data import sets
from advgym.envs.image.victims.hub import Prepared, preparation
from advgym.errors import DataError, VictimError

torch.set_num_threads(1)
PIL = pytest.importorskip("PIL.Image")
BYTES = np.random.default_rng(0).integers(0, 256, (6, 10, 8, 3), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]
WANT = torch.from_numpy(BYTES).permute(0, 3, 1, 2).float() / 255


class Net(torch.nn.Module):
    def __init__(self, channels=3, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        self.head = torch.nn.LazyLinear(classes)

    def forward(self, x):
        return self.head(self.net(x))


def read(samples, **kwargs):
    notes = set()
    return (*sets.own(samples, notes=notes, **kwargs), notes)


def folder(tmp_path, suffix=".png"):
    for i, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / name).mkdir()
        for k in (i, i + 3):
            PIL.fromarray(BYTES[k]).save(tmp_path / name / f"{k}{suffix}")
    return tmp_path


FORMS = {
    "bytes, channels last": lambda: list(zip(BYTES, LABELS, strict=True)),
    "two arrays": lambda: (BYTES, np.array(LABELS)),
    "two tensors": lambda: (WANT, torch.tensor(LABELS)),
    "floats, channels last": lambda: [(x.permute(1, 2, 0).numpy(), y) for x, y in zip(WANT, LABELS, strict=True)],
    "bytes, channels first": lambda: [(x.transpose(2, 0, 1), y) for x, y in zip(BYTES, LABELS, strict=True)],
    "PIL": lambda: [(PIL.fromarray(x), y) for x, y in zip(BYTES, LABELS, strict=True)],
    "a TensorDataset": lambda: torch.utils.data.TensorDataset(WANT, torch.tensor(LABELS)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_images(form):
    x, y, notes = read(FORMS[form]())
    assert torch.equal(x, WANT) and y.tolist() == LABELS
    said = " ".join(sorted(notes))
    assert ("channels last" in said) == ("last" in form or form in ("two arrays", "PIL"))
    assert ("bytes" in said) == ("bytes" in form or form in ("two arrays", "PIL"))


def test_the_result_says_what_was_changed():
    made = make_task("image/linf", victim=Net(), samples=FORMS["PIL"]())
    assert any("bytes" in note for note in made.notes) and any("channels last" in note for note in made.notes)
    x, _, notes = read([(PIL.fromarray(b).convert("RGBA"), 0) for b in BYTES])
    assert x.shape == (6, 3, 10, 8) and any("mode RGBA" in note for note in notes)
    assert read([(PIL.fromarray(b).convert("L"), 0) for b in BYTES])[0].shape == (6, 1, 10, 8)


def test_folders_tables_and_columns(tmp_path):
    x, y, _ = read(folder(tmp_path))
    order = [0, 3, 1, 4, 2, 5]
    assert torch.equal(x, WANT[order]) and y.tolist() == [0, 0, 1, 1, 2, 2]
    assert read(tmp_path, names=["cat", "bee", "ant"])[1].tolist() == [2, 2, 1, 1, 0, 0]
    files = [f"{name}/{k}.png" for i, name in enumerate(("ant", "bee", "cat")) for k in (i, i + 3)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label"], *[[f, k // 2] for k, f in enumerate(files)]])
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"file": f, "label": k // 2}) for k, f in enumerate(files)))
    for table in ("t.csv", "t.jsonl"):
        again, labels, _ = read(tmp_path / table)
        assert torch.equal(again, x) and torch.equal(labels, y)
    made = make_task("image/linf", victim=Net(), samples=str(tmp_path / "t.csv"), train=str(tmp_path))
    assert made.sizes == {"train": 6, "test": 6}


def test_columns_of_datasets():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["ant", "bee", "cat"])})
    rows = {"img": [PIL.fromarray(b) for b in BYTES], "kind": LABELS}
    found = datasets.Dataset.from_dict(rows, features=features)
    x, y, _ = read(found)
    assert torch.equal(x, WANT) and y.tolist() == LABELS
    assert read(found, names=["cat", "bee", "ant"])[1].tolist() == [2, 1, 0, 2, 1, 0]
    with pytest.raises(DataError, match="lacks a column of classes"):
        read(found.remove_columns("kind"))


# -- what is refused --------------------------------------------------------------------------------------------------
BAD = [
    ([(np.full((3, 4, 4), 255.0), 0)], "bytes: divide by 255"),
    ([(np.full((3, 4, 4), 1 + 2e-6), 0)], "want values in"),
    ([(np.full((3, 4, 4), np.nan), 0)], "want values in"),
    ([(np.ones((3, 4, 4), np.uint8), 0)], "0 and 1 alone"),
    ([(np.zeros((3, 4, 4)), 0), (np.zeros((3, 4, 5)), 0)], "one shape per task"),
    ((np.zeros((3, 3, 4, 4)), np.zeros(2)), "3 images and 2 labels"),
    ("/nowhere/at/all", "is no folder of images by class"),
]


@pytest.mark.parametrize(("samples", "says"), BAD, ids=range(len(BAD)))
def test_what_is_no_image_is_refused(samples, says):
    with pytest.raises(DataError, match=says):
        read(samples)


def test_float_noise_is_clamped():
    x, _, notes = read([(torch.full((1, 4, 4), -6e-8), 0), (torch.full((1, 4, 4), 1 + 5e-7), 0)])
    assert x.min() == 0 and x.max() == 1 and not notes


def test_files_that_are_no_images_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read(tmp_path)
    (tmp_path / "a" / "x.png").write_text("no image")
    with pytest.raises(DataError, match=r"x\.png cannot be read"):
        read(tmp_path)
    (tmp_path / "t.csv").write_text("name,label\nx.png,1\n")
    with pytest.raises(DataError, match="none of the columns image"):
        read(tmp_path / "t.csv")


X = [(x, y) for x, y in zip(WANT, LABELS, strict=True)]
REFUSED = [
    ("linf", {"victim": Net(1)}, "reads 1 channels, and these images have 3"),
    ("linf", {"samples": [*X, (WANT[0], 3)]}, "sample 6 has the label 3"),
    ("linf", {"eps": 1}, "below 1"),
    ("l2", {"eps": 16}, "below 15.49"),
    ("l1", {"eps": 240}, "below 240"),
    ("l0", {"eps": 240}, "below 240"),
    ("l0", {"eps": 2.5}, "whole number"),
    ("flow", {"eps": 8}, "below 8"),
    ("flow", {"smooth": -1}, "at least 0"),
    ("colour", {"eps": 1}, "below 1"),
    ("colour", {"knots": 100}, "2 to 64"),
    ("jpeg", {"quality": 0}, "1 to 100"),
    ("jpeg", {"eps": 4000}, "below 2040"),
    ("perceptual", {"eps": 3}, "below 2"),
    ("perceptual", {"network": "nobody"}, "nobody"),
    ("patch", {"side": 8}, "as large as the image"),
    ("patch", {"side": 2, "scale": 1}, "from 0 to 0.9"),
    ("universal", {"images": 2, "eps": 2}, "below 1"),
]


@pytest.mark.parametrize(("name", "options", "says"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_threat_is_refused(name, options, says):
    with pytest.raises(AdvgymError, match=says):
        make_task(f"image/{name}", **{"victim": Net(), "samples": X, **options})


def test_a_target_is_not_the_label():
    net = Net()
    right = [(x, int(net(x[None]).argmax())) for x in WANT]
    with pytest.raises(AdvgymError, match="the victim says already"):
        advgym.attack("image/linf", "pgd", victim=net, samples=right, goal="targeted", targets=[y for _, y in right])
    with pytest.raises(AdvgymError, match="is no class"):
        advgym.attack("image/linf", "pgd", victim=net, samples=right, goal="targeted", targets=[7] * 6)


def test_a_datasets_labels_are_all_checked():
    with pytest.raises(DataError, match=r"sample \d+ of split .* has the label 9, but victim .* scores 9 classes"):
        make_task("image/digits-linf", victim=Net(1, 9))


# -- models by name ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    where = tmp_path_factory.mktemp("vit")
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=12,
                       patch_size=4, id2label={0: "ant", 1: "bee", 2: "cat"})  # fmt: skip
    ViTForImageClassification(config).save_pretrained(where)
    ViTImageProcessor(size={"height": 12, "width": 12}).save_pretrained(where)
    return where


def test_a_model_of_transformers_is_prepared_as_its_processor_does(vit):
    from transformers import ViTForImageClassification, ViTImageProcessor

    made = make_task("image/linf", victim=f"transformers:{vit}", samples=X, eps="16/255")
    assert made.victim.card["names"] == ["ant", "bee", "cat"] and made.victim.access == "gradients"
    given = ViTImageProcessor.from_pretrained(vit)([PIL.fromarray(b) for b in BYTES], return_tensors="pt")
    ours = made.victim.module.prepare(WANT)
    assert (ours - given["pixel_values"]).abs().mean() < 0.01  # PIL rounds to bytes on its way
    want = ViTForImageClassification.from_pretrained(vit).eval()(ours).logits
    torch.testing.assert_close(made.victim(WANT), want.detach())
    x = WANT.clone().requires_grad_()
    made.victim(x).sum().backward()
    assert (x.grad != 0).flatten(1).any(1).all()
    right = [(x, int(s.argmax())) for x, s in zip(WANT, want, strict=True)]
    result = advgym.attack("image/linf", "pgd", victim=f"transformers:{vit}", samples=right, episodes=6, lanes=6)
    assert result.attacked == 6 and not result.invalid_rate
    grey = [(x.mean(0), y) for x, y in X]
    assert make_task("image/linf", victim=f"transformers:{vit}", samples=grey).samples("test", [0]).shape == (1, 10, 8)


def test_other_folders_are_refused(vit, tmp_path):
    from transformers import ViTModel

    with pytest.raises(DataError, match=r"no config\.json"):
        make_task("image/linf", victim=f"transformers:{tmp_path}", samples=X)
    ViTModel.from_pretrained(vit).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no image processor"):
        make_task("image/linf", victim=f"transformers:{tmp_path}", samples=X)
    (tmp_path / "preprocessor_config.json").write_text((vit / "preprocessor_config.json").read_text())
    with pytest.raises(DataError, match="drawn at random"):
        make_task("image/linf", victim=f"transformers:{tmp_path}", samples=X)
    with pytest.raises(AdvgymError, match="timm"):
        make_task("image/linf", victim="timm:no-such-net", samples=X)


def test_preparations():
    clip = {"do_resize": True, "size": {"shortest_edge": 8}, "do_center_crop": True, "resample": 3,
            "crop_size": {"height": 6, "width": 6}, "do_normalize": True, "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3}  # fmt: skip
    module = Prepared(torch.nn.Identity(), **preparation(clip))
    assert module(torch.rand(2, 3, 20, 10)).shape == (2, 3, 6, 6)
    plain = Prepared(torch.nn.Identity(), **preparation({"do_resize": False, "do_rescale": True}))
    x = torch.rand(1, 3, 5, 5)
    assert torch.allclose(plain(x), x)
    assert torch.allclose(Prepared(torch.nn.Identity(), **preparation({"do_rescale": False}))(x), x * 255)
    wide = Prepared(torch.nn.Identity(), crop=(9, 9))
    assert wide(x).shape == (1, 3, 9, 9) and torch.equal(wide(x)[..., 2:7, 2:7], x)


def test_logits_are_found_in_what_models_answer():
    net, seen = Net(), torch.stack([x for x, _ in X])
    for wrap in (lambda y: (y, None), lambda y: {"logits": y}, lambda y: type("Out", (), {"logits": y})()):

        class Wrapped(torch.nn.Module):
            def __init__(self, wrap=wrap):
                super().__init__()
                self.net, self.wrap = net, wrap

            def forward(self, x):
                return self.wrap(self.net(x))

        made = make_task("image/linf", victim=Wrapped(), samples=X)
        torch.testing.assert_close(made.victim(seen), net(seen).detach())
    with pytest.raises(VictimError, match="two classes or more"):
        make_task("image/linf", victim=lambda x: torch.zeros(len(x), 1), samples=X)
