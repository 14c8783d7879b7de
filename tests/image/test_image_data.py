import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from advgym.envs.image.data import sets as data
from advgym.errors import AdvgymError, DataError


def idx(array, kind=8):
    """The bytes of an IDX file."""
    shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, kind, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write(where: Path, images, labels, split="train", pack=gzip.compress, end=".gz"):
    (where / f"{split}-images-idx3-ubyte{end}").write_bytes(pack(idx(images)))
    (where / f"{split}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels)))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4))


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    theirs = load_digits()
    with np.load(Path(data.__file__).with_name("digits.npz"), allow_pickle=False) as ours:
        assert np.array_equal(ours["levels"], theirs.images) and np.array_equal(ours["labels"], theirs.target)
        assert ours["levels"].dtype == ours["labels"].dtype == np.uint8


def test_digits_are_split_once_and_for_all():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert len(train.labels) + len(test.labels) == 1797 and len(test.labels) == 450
    assert train.levels.shape == (1347, 1, 8, 8) and int(train.levels.max()) == train.top == 16
    # The split is part of every published number: it must not move.
    assert test.labels[:8].tolist() == [8, 0, 2, 6, 8, 1, 8, 2]
    every = torch.cat([train.labels, test.labels]).bincount()
    assert every.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    x = test.pixels(torch.arange(4), 16)
    assert torch.equal(x * 16, (x * 16).round()) and x.dtype == torch.float32


def test_another_lattice_is_rounded_onto():
    x = data.load("digits", "test").pixels(torch.arange(3), 255)
    assert torch.equal(x, torch.round(x * 255) / 255)


@pytest.mark.parametrize(("pack", "end"), [(gzip.compress, ".gz"), (bytes, "")])
def test_a_folder_of_idx_files_is_a_dataset(tmp_path, images, pack, end):
    for split in ("train", "t10k"):
        write(tmp_path, images, np.arange(6), split, pack, end)
    found = data.load(str(tmp_path), "test")
    assert torch.equal(found.levels, torch.from_numpy(images).to(torch.uint8).unsqueeze(1))
    assert found.labels.tolist() == list(range(6)) and found.top == 255
    assert data.sizes(str(tmp_path)) == {"train": 6, "test": 6}


def broken(good: bytes) -> dict[str, bytes]:
    return {
        "truncated body": gzip.compress(good[:-3]),
        "truncated gzip": gzip.compress(good)[:-12],
        "too long": gzip.compress(good + b"\0"),
        "labels' magic": gzip.compress(bytes([0, 0, 8, 1]) + good[4:]),
        "float magic": gzip.compress(bytes([0, 0, 13, 3]) + good[4:]),
        "short header": gzip.compress(good[:9]),
        "no bytes": b"",
        "huge sizes": gzip.compress(good[:4] + b"\xff" * 12),
        "damaged gzip": gzip.compress(good)[:30] + b"\0\0\0\0" + gzip.compress(good)[34:],
        "not IDX": b"PK\x03\x04 an archive",
    }


@pytest.mark.parametrize("what", list(broken(bytes(64))))
def test_a_broken_file_is_named(tmp_path, images, what):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(broken(idx(images))[what])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        data.read_idx(path, 3)


def test_missing_files_and_names(tmp_path, images, monkeypatch):
    with pytest.raises(DataError, match=r"no train-labels-idx1-ubyte\.gz"):
        data.sizes(str(tmp_path))
    with pytest.raises(DataError, match="is not a folder"):
        data.load(str(tmp_path / "nowhere"), "train")
    with pytest.raises(AdvgymError, match="unknown dataset 'mnits'; did you mean 'mnist'"):
        data.load("mnits", "train")
    write(tmp_path, images, np.arange(5))
    with pytest.raises(DataError, match="6 images, but its labels' file 5"):
        data.load(str(tmp_path), "train")
    monkeypatch.delenv("ADVGYM_DATA", raising=False)
    with pytest.raises(DataError, match="ADVGYM_DATA"):
        data.load("mnist", "train")


@pytest.mark.realdata
def test_mnist(data_dir):
    assert data.sizes("mnist") == {"train": 60000, "test": 10000}
    test = data.load("mnist", "test")
    assert test.levels.shape == (10000, 1, 28, 28) and test.levels.dtype == torch.uint8
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_own_samples():
    pairs = [(np.full((3, 4), 0.5), 1), (torch.ones(1, 3, 4, dtype=torch.float64), np.int64(2))]
    x, y = data.own(pairs)
    assert x.shape == (2, 1, 3, 4) and x.dtype == torch.float32 and y.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([], "empty"),
        ([np.zeros((2, 2))], "shape"),
        ([(np.zeros(4), 0)], "shape"),
        ([(np.zeros((2, 2)), 0), (np.zeros((3, 3)), 0)], "one shape"),
        ([(np.full((2, 2), 255), 0)], r"divide by 255"),
        ([(np.full((2, 2), np.nan), 0)], r"\[0, 1\]"),
        ([(np.zeros((2, 2)), -1)], "label"),
        ([(np.zeros((2, 2)), 1.5)], "label"),
        ([("a picture", 0)], "pair"),
        ([(np.zeros((2, 2)), None)], "label"),
    ],
)
def test_own_samples_that_are_none(samples, says):
    with pytest.raises(DataError, match=says):
        data.own(samples)
