"""Samples that a seed draws (`NAME#SEED:COUNT`), in every domain: new, canonical, repeatable, still recognised."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advgym import registry
from advgym.core.clean import answer
from advgym.core.task import make_task
from advgym.errors import AdvgymError, DataError
from advgym.lib.drawn import MOST, SPLIT, read_drawn

WHOLE = {"graph/sbm-global", "graph/sbm-inject"}  # a sample is the drawn graph itself: tests of bundles
TASKS = [name for name, row in registry.tasks().items() if row.get("generator") and name not in WHOLE]
COUNT = 40


def drawn(name: str, seed: int, count: int = COUNT):
    row = registry.task_row(name)[1]
    return make_task(name, dataset=f"{row['dataset']}#{seed}:{count}", victim=row["victim"])


def inputs(task, split, ids):
    batch = task.samples(split, ids)
    x = batch.inputs(batch.look(batch.null()).form)
    return batch, getattr(x, "ids", x)


def same(a, b) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))


def content(task, split, ids):
    """What a sample is: its input, or its own node's features and neighbours on a graph."""
    batch, x = inputs(task, split, ids)
    if hasattr(batch, "graph"):
        return torch.cat([batch.graph.x.flatten(), batch.graph.pairs.flatten().float()])
    return x


def test_every_embedded_generator_is_declared():
    assert set(TASKS) == {
        "image/digits-linf", "image/digits-l2", "image/digits-l1", "image/digits-l0", "image/digits-pixel",
        "image/digits-flow", "image/digits-colour", "image/digits-jpeg", "image/digits-perceptual",
        "image/digits-patch", "text/synth-wordswap", "text/synth-paraphrase",
        "text/synth-charswap", "text/synth-insert", "text/synth-reduction", "text/synth-joint",
        "text/synth-headline", "graph/sbm-edge", "graph/sbm-feature", "graph/sbm-rewire",
        "speech/synth-keyword", "speech/synth-transcribe", "speech/synth-speaker", "speech/synth-verify",
        "speech/synth-rooms", "speech/synth-bands",
    }  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_drawn_samples(name):
    one, more, other = drawn(name, 2**62 + 5), drawn(name, 2**62 + 5, COUNT + 13), drawn(name, 6)
    public = make_task(name)
    ids = list(range(COUNT))
    assert one.sizes == {**public.sizes, SPLIT: COUNT}
    assert same(content(one, SPLIT, ids), content(more, SPLIT, ids))  # whatever else is drawn
    assert same(one.samples(SPLIT, ids).labels, more.samples(SPLIT, ids).labels)
    assert not same(content(one, SPLIT, ids), content(other, SPLIT, ids))
    assert not same(content(one, SPLIT, ids), content(public, "test", ids))
    batch = one.samples(SPLIT, ids)
    labels = batch.labels.view(COUNT, -1)[:, 0]
    assert len(labels.unique()) > 1
    turns = labels == labels[torch.arange(COUNT) % 2]  # no label follows from a sample's place
    assert not bool(turns.all())
    right = one.goal.right(answer(one.victim, batch, one.goal), batch.labels).double().mean()
    assert right >= (0.6 if name.startswith("graph/") else 0.85)  # the shipped victim has never seen this graph


def test_images_stay_on_their_levels():
    x = inputs(drawn("image/digits-linf", 3, 451), SPLIT, list(range(451)))[1]
    assert bool((x * 16 == (x * 16).round()).all()) and float(x.min()) >= 0 and float(x.max()) <= 1
    assert not same(x[0], x[450])  # the same digit of the test set, turned otherwise


def test_a_graph_has_no_more_nodes_than_it_has():
    with pytest.raises(DataError, match="240 test nodes"):
        drawn("graph/sbm-edge", 3, 241)


@pytest.mark.parametrize("name", ["text/synth-wordswap", "graph/karate-edge", "speech/synth-keyword"])
def test_what_has_no_generator_says_so(name):
    with pytest.raises(AdvgymError):
        make_task(name, dataset="nothing#1:2", victim=registry.task_row(name)[1]["victim"]).samples(SPLIT, [0])


@given(st.from_regex(r"[a-z-]{1,8}#[0-9a-z:+-]{0,24}", fullmatch=True))
def test_any_spelling_is_read_or_refused(text):
    try:
        found = read_drawn(text)
    except DataError:
        return
    assert found is not None and 0 <= found.seed < 2**63 and 1 <= found.count <= MOST
    assert read_drawn(f"{found.name}#{found.seed}:{found.count}") == found
