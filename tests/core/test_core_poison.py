"""Backdoors: what a poisoned training set is, that runs keep to themselves, the two tasks, who screens the rows."""

import pytest
import torch

from advgym import attack, make, make_task, registry, verify
from advgym.agents.defenses.detect.activation_clustering import clusters, reduced
from advgym.agents.defenses.detect.spectral_signatures import outlying, poisoned_at_most
from advgym.agents.shared.own_network import network, trained
from advgym.core.kinds.poison import PoisonRows, Trigger
from advgym.core.kinds.retraining import Retrained, features
from advgym.errors import AdvgymError, VictimError

torch.set_num_threads(1)
DIRTY, CLEAN = "image/digits-poison", "image/digits-poison-clean"


def rows_of(name, p=None, ids=(0, 3)):
    batch = make_task(name).samples("test", list(ids))
    return batch, batch.inputs(batch.look(batch.null() if p is None else p(batch)).form)


def test_an_edit_relabels_a_row_and_marks_it():
    _, rows = rows_of(DIRTY, lambda b: b.random(1))
    model = make_task(DIRTY).victim.model
    for nth in range(2):
        x, y, poisoned = model.training_set(rows, nth)
        sites = rows.sites[nth][rows.sites[nth] >= 0]
        assert poisoned.sum() == len(sites) and set(poisoned.nonzero().flatten().tolist()) == set(sites.tolist())
        assert (y[poisoned] != model.labels[poisoned]).all() and torch.equal(y[~poisoned], model.labels[~poisoned])
        assert (x[poisoned][..., -2:, -2:] == 1).all() and torch.equal(x[~poisoned], model.seen[~poisoned])
    assert (rows.asked[..., -2:, -2:] == 1).all()


def test_a_field_marks_the_rows_that_it_changes_and_keeps_their_labels():
    def first_row(batch):
        p = batch.null()
        p[:, 0] = 0.25
        return p

    batch, rows = rows_of(CLEAN, first_row)
    assert (rows.sites >= 0).sum(1).tolist() == [1, 1] and (rows.y == torch.tensor([[0], [3]])).all()
    assert (rows.x[:, 0, ..., -3:, -3:] == 1).all() and torch.equal(rows.x[:, 1:], batch.x[:, 1:])
    change = (rows.x - batch.x)[:, 0, ..., :-3, :-3].abs()
    assert change.amax() <= 0.25 + 1e-6
    _, none = rows_of(CLEAN)
    assert (none.sites == -1).all()


@pytest.mark.parametrize("name", [DIRTY, CLEAN])
def test_members_are_of_other_classes_and_judged_on_others(name):
    task = make_task(name)
    asked, judged = (deal("test", [2, 7]) for deal in (task.samples, task.judged))
    for batch in (asked, judged):
        assert (batch.labels != torch.tensor([[2], [7]])).all() and batch.price == 1
    same = (asked.asked.unsqueeze(2) == judged.asked.unsqueeze(1)).flatten(3).all(3)
    assert float(same.double().mean()) < 0.01  # two images may be equal
    assert task.goal.targets(0, asked.ids, torch.zeros(2, 100)).tolist() == [2, 7]


def test_a_run_is_the_same_in_any_company():
    _, rows = rows_of(DIRTY, lambda b: b.random(3))
    model = make_task(DIRTY).victim.model
    both = model(rows, torch.tensor([5, 6]))
    assert torch.equal(both[100:], model(rows.take(torch.arange(100, 200)), torch.tensor([6])))
    assert not torch.equal(both[100:], model(rows.take(torch.arange(100, 200)), torch.tensor([7])))
    with pytest.raises(AdvgymError, match="taken together"):
        rows.take(torch.arange(7))
    with pytest.raises(VictimError, match="poisoning tasks alone"):
        model(torch.zeros(2, 1, 8, 8))


def test_badnets_beats_random_labels_and_is_verified():
    found = attack(DIRTY, "badnets", episodes=2, lanes=2, queries=2)
    assert found.members_rate > 0.8 and verify(found) == []
    assert all(len(s.perturbation["edits"]) == 67 and s.queries == 1 for s in found.samples)


def test_clean_labels_asks_once():
    found = attack(CLEAN, "clean-label", episodes=1, lanes=1, queries=2, settings={"epochs": 1, "steps": 2})
    assert [s.queries for s in found.samples] == [1] and found.samples[0].valid


@pytest.mark.parametrize(
    ("agent", "task"), [("badnets", CLEAN), ("clean-label", DIRTY), ("badnets", "image/digits-linf")]
)
def test_agents_are_refused_where_they_do_not_fit(agent, task):
    with pytest.raises(AdvgymError, match=r"plays|needs"):
        attack(task, agent, episodes=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"share": 0.0}, "share"), ({"share": 0.6}, "share"), ({"share": 1e-4}, "less than one row"),
     ({"members": 1}, "members"), ({"members": 300}, "to judge on"), ({"side": 5}, "side"),
     ({"victim": "digits-cnn"}, "trains its victim anew")],
)  # fmt: skip
def test_bad_options_are_named(options, words):
    with pytest.raises(AdvgymError, match=words):
        make_task(DIRTY, **options)


def test_own_images_are_poisoned():
    x, y = torch.rand(120, 1, 8, 8), torch.arange(120) % 3
    pairs = list(zip(x, y, strict=True))
    with pytest.raises(AdvgymError, match="train="):
        make_task("image/poison", samples=pairs)
    task = make_task("image/poison", samples=pairs, train=pairs, members=10, share=0.1)
    assert task.sizes == {"test": 3} and task.samples("test", [1]).limit.tolist() == [12]


def test_the_environment_keeps_its_promises():
    env = make(DIRTY, 2, queries=2, members=10)
    obs, _ = env.reset(seed=0)
    assert obs["target"].shape == (2,) and env.table.choices == 10
    obs, *_ = env.step(env.threat.random(0))
    assert obs["queries_left"].tolist() == [1, 1] and obs["scores"].shape == (2, 10, 10)


def test_a_trigger_stays_on_the_lattice():
    pcm = Trigger(torch.zeros(4), torch.full((4,), 0.7), -1.0, 1.0, 32768)
    y = pcm.on(torch.tensor([0.5, -1.0, 0.0, 0.123]))
    assert y[0] == 32767 / 32768 and torch.equal(torch.round(y * 32768), y * 32768)


# -- who screens the rows --------------------------------------------------------------------------------------------
def planted(many=20, of=100):
    torch.manual_seed(0)
    x = torch.randn(of, 12) * torch.linspace(1, 0.3, 12)
    x[:many, 3] += 6
    return x, torch.arange(of) < many


def test_outlying_rows_are_found():
    x, poison = planted()
    score = outlying(x)
    centred = (x - x.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    assert torch.allclose(score.double(), (centred @ vectors[:, -1]).square(), atol=1e-3)
    assert score[poison].min() > score[~poison].max()


def test_clusters_are_two_and_the_smaller_one_leans():
    x, poison = planted()
    lean, share = clusters(reduced(x, 4))
    assert share == 0.2 and torch.equal(lean > 0, poison)


@pytest.mark.parametrize("defense", ["spectral-signatures", "activation-clustering"])
def test_a_screen_drops_rows_before_the_victim_learns(defense):
    task = make_task(DIRTY, defenses=[defense])
    batch = task.samples("test", [1])
    rows = batch.inputs(batch.random(1))
    found, dropped, poisoned = task.victim.model.suspicion(rows)
    assert found.shape == dropped.shape == poisoned.shape == (1347,) and 0 < dropped.sum() < 900
    assert task.victim(rows, torch.zeros(100, dtype=torch.int64)).shape == (100, 10) and task.victim.retrains
    with pytest.raises(AdvgymError, match="training run"):
        make_task("image/digits-linf", defenses=[defense])
    with pytest.raises(AdvgymError, match="nothing screens"):
        make_task(DIRTY).victim.model.suspicion(rows)


def test_the_budget_as_a_share_of_a_class():
    assert poisoned_at_most(make_task(DIRTY)) == pytest.approx(0.05 / 0.15)
    assert poisoned_at_most(make_task(CLEAN)) == 0.75


def test_features_are_what_the_last_layer_reads():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    x = torch.randn(5, 2, 2)
    assert torch.allclose(features(net, x), net[:3](x).detach())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 20), (4000,)])
def test_an_attacker_trains_a_network_of_its_own(shape):
    x = torch.rand(40, *shape) * 0.1
    y = torch.arange(40) % 2
    x[y == 1] += 0.5
    net = trained(x, y, 2, seed=0, epochs=12)
    assert net(x).shape == (40, 2) and float((net(x).argmax(1) == y).double().mean()) > 0.9
    assert torch.equal(trained(x, y, 2, seed=0, epochs=1)(x), trained(x, y, 2, seed=0, epochs=1)(x))
    assert len([p for p in network(shape, 2).parameters()]) == 8


def test_keywords_get_a_whistle():
    task = make_task("speech/synth-poison", members=10)
    batch = task.samples("test", [4])
    rows = batch.inputs(batch.random(0))
    assert isinstance(rows, PoisonRows) and isinstance(task.victim.model, Retrained)
    spectrum = torch.fft.rfft(rows.asked[0] - batch.asked[0]).abs().mean(0)
    assert abs(int(spectrum.argmax()) * 8000 / 6400 - 3200) < 5
    assert registry.agent("badnets").needs == ("relabelled",)
