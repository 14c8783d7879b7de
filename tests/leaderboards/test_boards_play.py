"""The boards that ship, played end to end in the sandbox: few samples and queries fast, as they are marked slow."""

from contextlib import nullcontext

import msgspec
import pytest
import tiny
import warm

from advgym.leaderboards.entries.card import read_card
from advgym.leaderboards.entries.own_rows import verify_entry
from advgym.leaderboards.rules import board, board_tables
from advgym.leaderboards.rules.opening import open_phase
from advgym.leaderboards.rules.phases import phase_tasks
from advgym.leaderboards.runs.baseline import write_folder
from advgym.leaderboards.runs.evaluate import evaluate
from advgym.leaderboards.runs.shards import Runner
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.runs.trial import try_out

# What a board has tasks of that no older test plays, an agent that plays all of it, and a defense.
NEW = {
    "text": (["text/synth-joint", "text/synth-charswap", "text/synth-insert", "text/synth-reduction"],
             "decision-search", "merge-synonyms"),
    "text-homoglyph": (["text/synth-charswap"], "greedy", "normalise"),
    "text-seq2seq": (["text/synth-headline"], "greedy", "normalise"),
    "graph": (["graph/sbm-rewire"], "greedy", "jaccard"),
}  # fmt: skip
MEASURED = {"text/synth-charswap", "text/synth-insert", "text/synth-headline"}  # with the bar of a kept meaning


def small(name, samples=4, queries=12):
    """The board with its new tasks alone, few samples and queries."""
    of = board.load(name)
    rows = [msgspec.structs.replace(t, queries=queries) for t in of.tasks if t.id in NEW[name][0]]
    assert [t.id for t in rows] == NEW[name][0]
    phases = {"dev": board_tables.Phase(samples, "split:test"), "test": board_tables.Phase(samples, "generator")}
    guard = msgspec.structs.replace(of.defense, panel=["noise", "greedy"], floor=0.5)
    return msgspec.structs.replace(of, tasks=rows, phases=phases, defense=guard)


def attack(stage, folder, agent):
    write_folder(agent, folder)
    entry, rows = evaluate(Runner(stage, read_card(folder), folder, warm.swapped), created="2026-01-01T00:00:00Z")
    tasks = {t.row.id: t.task for t in stage.tasks}
    facts = [msgspec.structs.replace(f, seeds=entry.run_seeds) for f in stage.facts]
    assert verify_entry(entry, rows, stage.board, facts, lambda rs: nullcontext(tasks[rs.task])) == []
    for s in entry.tasks:
        assert s.status == "scored" and s.attacked and not {"crashed", "malformed"} & set(s.reasons), s.reasons
        assert bool(s.valid_success) == (s.task in MEASURED)
        assert not s.valid_success or s.valid_success.value <= s.success.value
    return entry


def defense(stage, folder, name):
    tiny.defense(folder, defense=name)
    entry, _ = evaluate(Runner(stage, read_card(folder), folder, warm.swapped), created="2026-01-01T00:00:00Z")
    assert entry.tasks and all(s.status == "scored" for s in entry.tasks)
    return entry


@pytest.mark.parametrize("name", sorted(NEW))
def test_new_tasks_play_through_the_sandbox(name, tmp_path):
    stage = Stage(small(name), "dev")
    attack(stage, tmp_path / "a", NEW[name][1])
    if name != "text":  # four tasks take their time: below
        defense(stage, tmp_path / "d", NEW[name][2])


@pytest.mark.parametrize("name", sorted(NEW))
def test_hidden_phases_draw_samples_of_their_own(name, tmp_path):
    """White-box where no victim is of one graph, so that none is trained."""
    of = small(name)
    if name != "graph":
        rows = [msgspec.structs.replace(t, knowledge="white-box", gradients=4) for t in of.tasks]
        of = msgspec.structs.replace(of, tasks=rows)
    card = open_phase(of, "test", tmp_path)
    assert set(card.victims) == ({"graph/sbm-rewire"} if name == "graph" else set())
    for t, public in zip(phase_tasks(of, "test", tmp_path), phase_tasks(of, "dev"), strict=True):
        assert t.split == "hidden" and t.task.threat == public.task.threat and len(t.ids) == 4
        hidden, known = (p.task.samples(p.split, list(range(4))) for p in (t, public))
        lines = [[p.task.line(b, i, b.look(b.null()).form[i]) for i in range(4)]
                 for p, b in ((t, hidden), (public, known))]  # fmt: skip
        same = [a.shape == b.shape and bool((a == b).all()) for a, b in
                ((hidden.graph.pairs, known.graph.pairs),)] if name == "graph" else [lines[0] == lines[1]]  # fmt: skip
        assert same == [False]


def test_a_trial_says_what_was_measured(tmp_path):
    write_folder("greedy", tmp_path / "a")
    trial, entry, _ = try_out(tmp_path / "a", small("text-homoglyph"))
    (row,), (score,) = trial.tasks, entry.tasks
    assert row["valid_success"]["value"] == score.valid_success.value
    assert row["columns"]["kept"]["bar"] == 0.58 and row["columns_about"] == score.columns_about
    assert msgspec.json.decode(msgspec.json.encode(trial))["tasks"] == [row]


def test_the_homoglyph_track_offers_nothing_but_look_alikes():
    (here,) = phase_tasks(board.load("text-homoglyph"), "dev")
    assert here.task.threat.constraint["candidates"] == ["homoglyphs", "invisible"]
    batch = here.task.samples(here.split, here.ids[:6])
    form = batch.look(batch.random(3)).form
    changed = batch.inputs(form).strings()
    clean = batch.inputs(batch.look(batch.null()).form).strings()
    for old, new in zip(clean, changed, strict=True):
        words = [(a, b) for a, b in zip(old.split(), new.split(), strict=True) if a != b]
        assert 1 <= len(words) <= 4 and all(not b.isascii() for _, b in words)


def test_the_seq2seq_board_asks_for_a_word_that_was_dealt():
    (here,) = phase_tasks(board.load("text-seq2seq"), "dev")
    assert here.task.goal.needs_target and here.task.goal.name == "keyword"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NEW))
def test_hidden_phases_open_and_play_as_they_ship(name, tmp_path):
    """Every task and budget of the file, victims trained as a server trains them; eight samples."""
    of = board.load(name)
    phases = {**of.phases, "test": msgspec.structs.replace(of.phases["test"], samples=8, seeds=1)}
    of = msgspec.structs.replace(of, phases=phases)
    card = open_phase(of, "test", tmp_path / "data")
    assert all(v.clean_accuracy > 0.6 for v in card.victims.values())
    stage = Stage(of, "test", tmp_path / "data")
    folder = tmp_path / "a"
    write_folder("greedy", folder)
    entry, _ = evaluate(Runner(stage, read_card(folder), folder, warm.swapped), created="2026-01-01T00:00:00Z")
    tried = {s.task for s in entry.tasks if s.status == "scored"}
    assert tried == {t.id for t in of.tasks if board.gives(t.knowledge, "score")} and entry.headline.value > 0
    guarded = defense(stage, tmp_path / "d", NEW[name][2])
    assert {s.attack for s in guarded.tasks} == {*of.defense.panel, "transfer"}


def test_a_hidden_graph_is_drawn_for_every_node_at_once(tmp_path):
    """Bundles: the sample is the whole graph, the score a share of its nodes; attack track alone."""
    of = board.load("graph-global")
    rows = [msgspec.structs.replace(t, queries=24, gradients=8) for t in of.tasks]
    of = msgspec.structs.replace(of, tasks=rows)
    card = open_phase(of, "test", tmp_path / "data")
    assert set(card.victims) == {"graph/sbm-global", "graph/sbm-inject"}
    for t, public in zip(phase_tasks(of, "test", tmp_path / "data"), phase_tasks(of, "dev"), strict=True):
        hidden, known = (p.task.samples(p.split, [0]).graph.pairs for p in (t, public))
        assert hidden.shape != known.shape or not bool((hidden == known).all())
    folder = tmp_path / "a"
    write_folder("grbcd", folder)
    stage = Stage(of, "test", tmp_path / "data")
    entry, _ = evaluate(Runner(stage, read_card(folder), folder, warm.swapped), created="2026-01-01T00:00:00Z")
    assert [s.status for s in entry.tasks] == ["scored", "scored"]
    assert all(s.members > 100 and s.success.value > s.control_rate for s in entry.tasks)
