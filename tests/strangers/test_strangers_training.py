"""Training data of the caller's own: what is attacked is nothing to train on, `train=` is, and it is checked."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

import advgym
from advgym import AdvgymError, DataError, Victim, make_task
from advgym.agents.defenses import loop
from advgym.agents.learned import policy, rl_s2v
from advgym.agents.shared import played
from advgym.lib.weights import weights_hash

torch.manual_seed(0)
NET = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
IMAGES = [(torch.full((1, 3, 3), 0.1 * i), i % 2) for i in range(4)]
OTHERS = [(torch.full((1, 3, 3), 0.95 - 0.001 * i), i % 2) for i in range(6)]
LOUD = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(4, 2))
CLIPS = [(np.full(40 - i, 0.1, np.float32), i % 2) for i in range(4)]
MORE_CLIPS = [(np.full(30, 0.5, np.float32), 1) for _ in range(5)]
SCRIBE = nn.Sequential(nn.Unflatten(1, (8, 5)), nn.Linear(5, 4))  # 8 frames of a blank and three symbols
SAID = [(np.full(40, 0.1, np.float32), text) for text in ("a", "b a")]
MORE_SAID = [(np.full(40, 0.5, np.float32), text) for text in ("b", "a b", "a a")]
LETTERS = {"alphabet": " ab"}
TEXTS = [("a good film", 1), ("a dull film", 0)]
SCORES = {"victim": lambda texts: [[t.count("dull"), t.count("good")] for t in texts], "candidates": {"good": ["dull"]}}
AT = ("adversarial-training", {"epochs": 1, "samples": 64, "queries": 3})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))


FIELDS = {
    "image/linf": ({"victim": NET, "samples": IMAGES}, OTHERS),
    "image/l2": ({"victim": NET, "samples": IMAGES}, OTHERS),
    "image/pixel": ({"victim": NET, "samples": IMAGES}, OTHERS),
    "speech/keyword": ({"victim": LOUD, "samples": CLIPS}, MORE_CLIPS),
    "speech/transcribe": ({"victim": SCRIBE, "samples": SAID, **LETTERS}, MORE_SAID),
}


@pytest.mark.parametrize("name", FIELDS)
def test_train_is_the_training_split(name):
    """It was refused for images and recordings, whose split "train" was the attacked samples once more."""
    options, more = FIELDS[name]
    task = make_task(name, train=more, **options)
    assert task.sizes == {"train": len(more), "test": len(options["samples"])}
    first, attacked = task.samples("train", [0]), task.samples("test", [0])
    x = torch.as_tensor(more[0][0])
    step = 255 if name.startswith("image") else 32768
    assert torch.equal(first.x[0].flatten()[: x.numel()], (x.flatten() * step).round() / step)
    assert first.x.shape[1:] == attacked.x.shape[1:] and not torch.equal(first.x, attacked.x)
    assert torch.equal(attacked.x, make_task(name, **options).samples("test", [0]).x)
    again = make_task(name, train=iter(more), **{**options, "samples": iter(options["samples"])})
    assert again.sizes == task.sizes and again.plain().sizes == task.sizes


def _graph(**marks):
    graph = nx.Graph(list(nx.karate_club_graph().edges))
    nx.set_node_attributes(graph, {n: n % 2 for n in graph}, "label")
    nx.set_node_attributes(graph, {n: s for s, nodes in marks.items() for n in nodes}, "split")
    return graph


class Gcn(nn.Module):
    """A PyG-style module of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(34, 2)

    def forward(self, x, edge_index, edge_weight=None):
        weight = torch.ones(edge_index.shape[1]) if edge_weight is None else edge_weight
        return x @ self.layer.weight.T + torch.zeros(len(x), 2).index_add(
            0, edge_index[1], self.layer(x)[edge_index[0]] * weight[:, None]
        )


UNTRAINED = {
    **{name: options for name, (options, _) in FIELDS.items()},
    "image/digits-linf": {"samples": [(np.zeros((8, 8)), 1)] * 3},
    "speech/synth-keyword": {"samples": CLIPS},
    "text/wordswap": {"samples": TEXTS, **SCORES},
    "text/paraphrase": {"samples": TEXTS, "victim": SCORES["victim"]},
    "text/trigger": {"samples": TEXTS, "victim": SCORES["victim"], "texts": 1, "candidates": ["dull"]},
    "graph/edge": {"samples": _graph(), "victim": Gcn()},
    "graph/rewire": {"samples": _graph(), "victim": Gcn()},
    "graph/feature": {"samples": _graph(), "victim": Gcn()},
}


@pytest.mark.parametrize("name", UNTRAINED)
def test_what_is_attacked_is_nothing_to_train_on(name):
    """The split "train" was the attacked samples, and adversarial training took it without a word."""
    task, says = make_task(name, **UNTRAINED[name]), "training nodes" if name.startswith("graph") else "pass train="
    assert "train" not in task.sizes and task.sizes["test"]
    with pytest.raises(AdvgymError, match=f"{name} has no split 'train' here: .*{says}"):
        task.samples("train", [0])
    with pytest.raises(AdvgymError, match=says):
        advgym.make(task, 2, split="train")
    if task.victim.module is not None:
        with pytest.raises(AdvgymError, match=says):
            make_task(name, **UNTRAINED[name], defenses=[AT])


@pytest.mark.parametrize("name", ["image/linf", "speech/keyword"])
def test_adversarial_training_sees_the_training_split_alone(name, monkeypatch):
    """All that training met was what is attacked: 0 of 6 images and 0 of 5 recordings were others."""
    met, lesson = [], loop.Lesson

    def spy(task, split, ids, *rest):
        met.append(task.samples(split, ids).x)
        return lesson(task, split, ids, *rest)

    monkeypatch.setattr(loop, "Lesson", spy)
    options, more = FIELDS[name]
    guarded = make_task(name, train=more, defenses=[AT], **options)
    seen, attacked = torch.cat(met), guarded.samples("test", [0, 1, 2, 3]).x
    assert len(seen) == len(more) and not any(torch.equal(a, b) for a in seen for b in attacked)


BAD = {
    "size": ("image/linf", [(torch.zeros(1, 4, 4), 0)], r"images of train= are \(1, 4, 4\)"),
    "range": ("image/linf", [*OTHERS, (torch.full((1, 3, 3), 7.0), 0)], r"train 6 has pixels from 7 to 7"),
    "class": ("image/l2", [*OTHERS, (torch.zeros(1, 3, 3), 2)], r"train 6 has the label 2.* scores 2 classes"),
    "pair": ("image/pixel", [torch.zeros(1, 3, 3)], "train 0 is not a pair"),
    "none": ("image/linf", [], "train= is empty"),
    "number": ("image/linf", 7, "train= is int"),
    "long": ("speech/keyword", [*MORE_CLIPS, (np.zeros(41, np.float32), 0)], r"train\[5\] has 41 samples.* 40 at most"),
    "loud": ("speech/keyword", [(np.full(9, 3.0), 0)], r"train\[0\] has values up to 3"),
    "sound": ("speech/keyword", [(np.zeros(9), 2)], "train= names class 2.* scores 2 classes"),
    "text": ("speech/transcribe", [*MORE_SAID, (np.zeros(9), "c")], r"train\[3\]: no symbol for 'c'"),
    "wide": ("speech/transcribe", [(np.zeros(9), "a b a b a")], r"train\[0\]: .*at most 8"),
    "many": ("speech/keyword", None.__class__, "train= is type"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_training_samples_are_checked_as_the_attacked_ones(case):
    name, more, says = BAD[case]
    with pytest.raises(AdvgymError, match=says):
        make_task(name, train=more, **FIELDS[name][0])


def test_every_attacked_label_is_checked():
    """Only that of sample 0 was; another beyond the victim's classes counted as wrong on the clean image."""
    with pytest.raises(DataError, match="sample 3 has the label 2"):
        make_task("image/linf", victim=NET, samples=[*IMAGES[:3], (torch.zeros(1, 3, 3), 2)])


def test_labels_and_numbers_go_through_the_same_doors():
    named = Victim(NET, card={"names": ["dog", "cat"]})
    more = [(np.full((3, 3), 1 + 5e-7), "cat"), (np.zeros((3, 3)), np.int64(0)), (np.zeros((3, 3)), torch.tensor([1]))]
    task = make_task("image/linf", victim=named, samples=IMAGES, train=more)
    assert task.samples("train", [0, 1, 2]).labels.tolist() == [1, 0, 1]
    assert task.samples("train", [0]).x.max() == 1
    still = {"victim": NET, "samples": [(np.zeros((3, 3)), 0)]}
    assert not make_task("image/linf", **still).notes
    assert "rounded to k/255" in make_task("image/linf", train=OTHERS, **still).notes[0]


def test_a_dataset_is_a_training_split():
    """A name or a path, as for texts: its own split "train"."""
    images = make_task("image/digits-linf", samples=[(np.zeros((8, 8)), 1)] * 3, train="digits")
    assert images.sizes == {"train": 1347, "test": 3}
    own = make_task("image/digits-linf")
    assert torch.equal(images.samples("train", [5]).x, own.samples("train", [5]).x)
    with pytest.raises(DataError, match=r"images of train= are \(1, 8, 8\)"):
        make_task("image/linf", victim=NET, samples=IMAGES, train="digits")
    spoken = make_task("speech/synth-keyword", samples=CLIPS, train="synth-digits")
    assert spoken.sizes == {"train": 400, "test": 4}
    own = make_task("speech/synth-keyword")
    assert torch.equal(spoken.samples("train", [7]).x, own.samples("train", [7]).x)


def test_a_dataset_has_a_training_split_of_its_own():
    for name in ("image/digits-linf", "image/linf", "speech/keyword"):
        with pytest.raises(AdvgymError, match=r"takes no train= without samples=: a dataset has"):
            make_task(name, victim=NET, dataset="digits", train=OTHERS)
    with pytest.raises(AdvgymError, match="takes no train="):
        make_task("graph/edge", samples=_graph(), victim=Gcn(), train=_graph())


def test_a_folder_of_recordings_without_any_for_training(tmp_path):
    """An error about sample 0 of ids "0 to -1" before."""
    import soundfile

    soundfile.write(str(tmp_path / "1_ann_0.wav"), np.full(800, 900, np.int16), 8000, subtype="PCM_16")
    task = make_task("speech/keyword", victim=LOUD, dataset=str(tmp_path))
    assert task.sizes == {"test": 1}
    with pytest.raises(AdvgymError, match="no split 'train' here"):
        task.samples("train", [0])


def test_a_graph_trains_on_its_own_mask_without_what_is_attacked():
    marked = _graph(train=range(20), test=range(20, 34))
    assert make_task("graph/edge", samples=marked, victim=Gcn()).sizes == {"train": 20, "test": 14}
    aimed = make_task("graph/edge", samples=(_graph(), [3, 5]), victim=Gcn())
    assert aimed.sizes == {"train": 32, "test": 2}  # was 34: the targets among them
    assert not set(aimed.samples("train", list(range(32))).target.tolist()) & {3, 5}
    assert make_task("graph/edge", samples=_graph()).sizes == {"train": 18, "test": 16}  # halves, one for our GCN
    for name in ("graph/karate-global", "graph/karate-inject"):
        with pytest.raises(AdvgymError, match="unknown split 'train'"):
            make_task(name, defenses=[AT])


# -- policies ------------------------------------------------------------------------------------------------------
PLAYED = {"steps": 64, "lanes": 4, "queries": 4}
REVIEWS = [("a good film", 1), ("a dull plot", 0), ("good good plot", 1), ("so dull", 0)] * 2
SWAPS = {"good": ["fine", "dull"], "dull": ["slow", "good"]}


def _scores(weight):
    return lambda texts: [[weight * t.count("dull"), t.count("good")] for t in texts]


def test_a_policy_is_of_what_it_was_trained_on():
    """Whatever the task is called: other samples, tables and victims gave the policy of the first, had it been kept."""
    given = {"victim": _scores(1.0), "samples": TEXTS, "train": REVIEWS, "candidates": SWAPS}
    first, card = policy.train("text/wordswap", **PLAYED, **given)
    again, same = policy.train("text/wordswap", **PLAYED, **{**given, "samples": TEXTS[:1]})
    assert same == card and weights_hash(first) == weights_hash(again)
    changes = {
        "victim": {"victim": _scores(3.0)},
        "samples": {"train": REVIEWS[:-1]},
        "label": {"train": [*REVIEWS[:-1], ("so dull", 1)]},
        "table": {"candidates": {**SWAPS, "good": ["nice", "dull"]}},
        "limit": {"share": 0.0, "edits": 1},
    }
    contents = {"first": card["recipe"]["content"]}
    for what, change in changes.items():
        contents[what] = policy.train("text/wordswap", **PLAYED, **{**given, **change})[1]["recipe"]["content"]
    assert len(set(contents.values())) == len(changes) + 1, contents


def test_a_policy_is_not_trained_on_what_is_attacked():
    given = {"victim": _scores(1.0), "samples": TEXTS, "candidates": SWAPS}
    with pytest.raises(AdvgymError, match=r"no split 'train' here: .*pass train="):
        policy.train("text/wordswap", **PLAYED, **given)
    with pytest.raises(AdvgymError, match="knowledge is no option"):
        policy.train("text/wordswap", knowledge="decision", **PLAYED, **given)
    with pytest.raises(AdvgymError, match="training nodes"):
        rl_s2v.train("graph/edge", also="", rounds=1, lanes=2, samples=_graph(), victim=Gcn())


def test_a_graph_policy_is_of_its_graph_and_victim():
    given = {"also": "", "rounds": 2, "lanes": 2, "edits": 2}
    marked, net = _graph(train=range(20), test=range(20, 34)), Gcn()
    other = _graph(train=range(14, 34), test=range(14))
    found = [rl_s2v.train("graph/edge", samples=g, victim=v, **given)[1]["recipe"]["content"]
             for g, v in ((marked, net), (other, net), (marked, Gcn()), (marked, net))]  # fmt: skip
    assert found[0] == found[3] and len({*map(str, found)}) == 3


def test_shipped_policies_are_of_their_content(caplog, monkeypatch):
    """What the name stands for is not trained again."""
    for module in (policy, rl_s2v):
        assert "content" not in module.train()[1]["recipe"]
    assert "policy" not in caplog.text and "rl-s2v" not in caplog.text
    monkeypatch.setitem(played.RELEASED, "graph/karate-edge", "another")
    assert played.content_of("graph/karate-edge", {}) and not played.content_of("graph/sbm-edge", {})


@pytest.mark.realdata
def test_the_shipped_policy_of_movie_reviews_is_of_its_content(data_dir):
    assert not played.content_of("text/mr-wordswap", {})
