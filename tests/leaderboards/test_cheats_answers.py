"""Cheats in what is handed in: objects, NaN, sizes, roundings, words. Nothing but a valid success counts."""

from __future__ import annotations

import math
import unicodedata
from itertools import pairwise

import msgspec
import pytest
import torch
from cheating import BOARD, HONEYPOT, NOISE, SOFT, WHITE, Place, each, place, stage_of  # noqa: F401

from advgym.core.task import make_task
from advgym.judge.verdict import judge
from advgym.leaderboards.entries.entry import Rows, canonical

BROKEN = ("malformed", "crashed", "exited")


# -- row 4 -----------------------------------------------------------------------------------------------------
OBJECTS = """
import pickle, struct
import numpy as np
import msgspec
class Evil(torch.Tensor):
    def __eq__(self, other): return torch.ones(1, dtype=torch.bool)
    def __le__(self, other): return torch.ones(1, dtype=torch.bool)
    def numpy(self): return Array(super().numpy() * 0 + 9)
class Array(np.ndarray):
    def __new__(cls, like): return np.asarray(like).view(cls)
    def __array_finalize__(self, other): pass
    def __eq__(self, other): return True
class Three(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def frame(message, specs, data=b""):
    header = msgspec.msgpack.encode((message, specs))
    body = header + bytes(-len(header) % 8) + data
    return struct.pack("<IH", len(body) + 2, len(header)) + body
def attack(env, *, seed):
    n, sock = env.num_envs * 64, env._channel.sock
    like = {"type": "Step", "view": 0}
    WAY
    if not KEPT: env._channel.recv()
"""


@each(
    subclass="env.step(torch.full((env.num_envs, *env.shape), 9.0).as_subclass(Evil)); KEPT = True",
    array="env.step(Array(np.full((env.num_envs, *env.shape), 9.0, np.float32))); KEPT = True",
    number="env.victim(torch.full((3, *env.shape), 9.0), [Three(0)] * 3); KEPT = True",
    pickle="sock.sendall(pickle.dumps({'score': 1.0}) * 100); KEPT = False",
    dtype="sock.sendall(frame(like, [('O8', [n])], bytes(8 * n))); KEPT = False",
    negative="sock.sendall(frame(like, [('f4', [-1])], b'')); KEPT = False",
    overflow="sock.sendall(frame(like, [('f4', [1 << 62, 4])], b'')); KEPT = False",
    long="sock.sendall(struct.pack('<IH', 0xffffffff, 10) + bytes(64)); KEPT = False",
    bools="sock.sendall(frame(like, [('b1', [8])], bytes([2] * 8))); KEPT = False",
    verdict="sock.sendall(frame({'type': 'Answer', 'names': ['a']}, [('b1', [8])], bytes([1] * 8))); KEPT = False",
    fields="sock.sendall(frame({**like, 'success': True}, [('f4', [n])], bytes(4 * n))); KEPT = False",
    nesting="sock.sendall(struct.pack('<IH', 60002, 60000) + bytes([0x91]) * 60000); KEPT = False",
    garbage="sock.sendall(os.urandom(4096)); KEPT = False",
)
def test_only_arrays_cross(place: Place, code: str) -> None:  # noqa: F811
    found = place.play(OBJECTS.replace("WAY", code), WHITE.replace("samples = 6", "samples = 3"))
    assert found.gain == 0 and not any(s.success for s in found.samples)
    if "KEPT = True" not in code:
        assert found.failure is not None and found.failure.code == "malformed", (found.failure, found.log)
    for s in found.samples:
        assert s.distance <= 1e-4 + 1e-6


# -- row 5 -----------------------------------------------------------------------------------------------------
NUMBERS = """
def attack(env, *, seed):
    env.reset(seed=seed)
    seen = []
    for value in (float("nan"), float("inf"), -float("inf"), 3e38):
        for first in (False, True):
            p = torch.zeros(env.num_envs, *env.shape)
            p[(slice(None), 0, 0, 0) if first else ...] = value
            obs, reward, *_ = env.step(p)
            seen.append([bool(obs["valid"].any()), bool((reward > 0).any()), bool(torch.isfinite(reward).all())])
    tell(seen=seen)
"""


def test_what_is_no_number_earns_nothing(place: Place) -> None:  # noqa: F811
    for board in (HONEYPOT, SOFT):
        found = place.play(NUMBERS, board)
        assert found.entry is not None and found.rows is not None and found.gain == 0
        assert all(row == [False, False, True] for said in found.said for row in said["seen"]), found.said
        assert all(s.queries == 8 and s.distance == 0 and math.isfinite(s.objective) for s in found.samples)
        assert b"null" not in canonical(msgspec.structs.replace(found.entry, proposals=0))  # how JSON would say NaN


# -- row 6 -----------------------------------------------------------------------------------------------------
FIELD = """
def attack(env, *, seed):
    env.reset(seed=seed)
    valid = []
    reach = env.threat.project(torch.ones(env.num_envs, *env.shape) * 99).abs().amax().item()
    for i, size in enumerate((1.5, 3.0, 30.0, 3e3)):
        sign = env.threat.random(seed + i).sign()
        sign[sign == 0] = 1
        obs, *_ = env.step(sign * reach * size)
        valid.append(bool(obs["valid"].any()))
    tell(valid=valid)
"""
EDITS = """
def attack(env, *, seed):
    env.reset(seed=seed)
    table, valid = env.table, []
    def step(p):
        obs, *_ = env.step(p)
        valid.append(bool(obs["valid"].any()))
    one = env.threat.random(seed)
    blank = torch.full_like(one, -1)
    edit = torch.where((one[:, :1] >= 0).all(2, keepdim=True), one[:, :1], torch.zeros_like(one[:, :1]))
    step(edit.expand_as(one).contiguous())                                  # the same edit over and over
    for site, choice in ((table.sites, 0), (-2, 0), (0, table.choices), (0, -7), (2**62, 0), (-1, 0), (0, -1)):
        p = blank.clone()
        p[:, 0, 0], p[:, 0, 1] = site, choice
        step(p)
    tell(valid=valid)
"""


@pytest.mark.parametrize(
    ("task", "code"),
    [("image/digits-linf", FIELD), ("image/digits-l2", FIELD), ("speech/synth-keyword", FIELD),
     ("image/digits-pixel", EDITS), ("text/synth-wordswap", EDITS), ("graph/karate-edge", EDITS)],
)  # fmt: skip
def test_what_breaks_the_rules_counts_as_nothing(place: Place, task: str, code: str) -> None:  # noqa: F811
    """It is charged, answered as not valid, never put right in silence, and never held."""
    board = BOARD.format(knowledge="score", more="").replace("image/digits-linf", task)
    found = place.play(code, board.replace("samples = 6", "samples = 3"))
    assert found.entry is not None and found.gain == 0, (found.failure, found.log)
    assert found.said and not any(v for said in found.said for v in said["valid"]), found.said
    assert all(not s.success and s.distance == 0 and s.queries >= 1 for s in found.samples)


def test_too_many_edits_are_not_cut_to_fit(place: Place) -> None:  # noqa: F811
    """One more than allowed is invalid as a whole, although all but one would do."""
    code = """
def attack(env, *, seed):
    env.reset(seed=seed)
    p = torch.full((env.num_envs, *env.shape), -1)
    p[:, :, 0] = torch.arange(p.shape[1]) * 5
    p[:, :, 1] = 7
    obs, *_ = env.step(p)
    tell(rows=p.shape[1], limit=env.table.limit.tolist(), valid=obs["valid"].tolist())
"""
    board = BOARD.format(knowledge="score", more="constraint = { pixels = 2 }").replace("digits-linf", "digits-pixel")
    found = place.play(code, board)
    assert found.entry is not None and not any(s.success for s in found.samples)
    for said in found.said:
        assert said["rows"] > 2 or said["limit"] == [2] * len(said["limit"])
        assert said["rows"] <= 2 or not any(said["valid"])


# -- rows 7 and 8 ----------------------------------------------------------------------------------------------
ROUNDING = """
def attack(env, *, seed):
    env.reset(seed=seed)
    sign = env.threat.random(seed).sign()
    for k in (6 + 1e-5, 6.2, 6.49, 6.51, 7, 6.0001, 5.9999):
        if not env.done:
            env.step(sign * (k / 16))
    x = env._batch.x + sign * 0.49 / 16
    if not env.done:
        env.victim(x, torch.arange(env.num_envs)[env.live] if False else torch.arange(env.num_envs))
"""


def test_rounding_gives_no_room(place: Place) -> None:  # noqa: F811
    """What counts lies on whole grey levels, at most 6 from the clean image, in integers."""
    found = place.play(ROUNDING, SOFT)
    task = stage_of(SOFT).tasks[0].task
    assert len(found.samples) == 6, found.log
    for s in found.samples:
        batch = task.samples("test", [s.id])
        levels = (batch.x + batch.load([s.perturbation])).double() * 16
        assert torch.equal(levels, levels.round())
        assert int((levels - batch.x.double() * 16).abs().max()) <= 6


def test_a_float_ball_ends_where_it_says(place: Place) -> None:  # noqa: F811
    """Radius 1e-4, tolerance 1e-6: the verdict is on the stored form, in float64."""
    code = """
def attack(env, *, seed):
    env.reset(seed=seed)
    sides = torch.where(env._batch.x > 0.5, -1.0, 1.0)
    tell(valid=[bool(env.step(sides * r)[0]["valid"].any()) for r in (1.02e-4, 1.1e-4, 2e-4)])
"""
    found = place.play(code)
    assert found.said == [{"valid": [False] * 3}] * 2, found.log
    assert all(s.distance == 0 for s in found.samples)


def test_the_stored_form_is_what_is_judged(place: Place) -> None:  # noqa: F811
    """A success survives the round trip through the file; one that lives between two grey levels is none."""
    found = place.play(NOISE, SOFT)
    task = stage_of(SOFT).tasks[0].task
    assert found.rows is not None and found.gain > 0
    again = msgspec.json.decode(canonical(found.rows), type=Rows).sets[0].samples
    verdict = judge(task, "test", [s.id for s in again], [s.perturbation for s in again])
    assert verdict.success.tolist() == [s.success for s in again]
    between = """
def attack(env, *, seed):
    env.reset(seed=seed)
    for i in range(12):
        env.step(env.threat.random(seed + i).sign() * 0.49 / 16)
"""
    found = place.play(between, SOFT)
    assert found.gain == 0 and all(s.distance == 0 for s in found.samples), found.log


# -- rows 9 and 11 ---------------------------------------------------------------------------------------------
WORDS = """
def attack(env, *, seed):
    env.reset(seed=seed)
    ids, asked = [], []
    for word in (*MORE, -1, 10**6, 2**40, *EXTRA):
        ids.append(env.append(torch.full((env.num_envs, 1), word)).tolist())
    for word, choice in zip(MORE, ids):
        for site in range(env.table.sites):
            p = torch.full((env.num_envs, *env.shape), -1)
            p[:, 0, 0], p[:, 0, 1] = site, torch.tensor(choice)
            obs, *_ = env.step(p)
            asked.append([word, site, (obs["evaluated"] & obs["valid"]).tolist()])
    tell(ids=ids)
    for row in asked:
        if any(row[2]):
            tell(row=row)
    tell(many=len(asked))
"""


def test_words_come_from_a_table_that_was_there_before(place: Place) -> None:  # noqa: F811
    """Words of the agent's choice become swaps only where the frozen relation of synonyms has them, two a sample."""
    board = BOARD.format(knowledge="score", more="constraint = { slots = 2 }").replace("queries = 12", "queries = 200")
    board = board.replace("image/digits-linf", "text/synth-wordswap").replace("samples = 6", "samples = 3")
    here = stage_of(board)
    batch = here.tasks[0].task.samples("test", here.facts[0].right)
    clean = batch.clean[:, :, 0]
    kin = next(w for w in range(batch.alphabet) if bool(batch.lexicon.related(clean, torch.tensor(w)).any()))
    words = [kin, next(w for w in range(kin + 1, batch.alphabet) if not bool((clean == w).any()))]
    extra = [w for w in range(10) if w not in words][:4]
    found = place.play(f"MORE, EXTRA = {words}, {extra}\n" + WORDS, board)
    assert found.entry is not None, (found.failure, found.log)
    told = {k: [s[k] for s in found.said if k in s] for k in ("ids", "row", "many")}
    assert told["many"] == [2 * batch.sites]
    taken, refused = told["ids"][0][:2], told["ids"][0][2:]
    assert all(i >= 0 for ids in taken for i in ids) and all(i == -1 for ids in refused for i in ids)
    assert told["row"]  # elsewhere they are answered, as probes are, and count for nothing
    for word, site, valid in told["row"]:
        related = batch.lexicon.related(clean[:, site], torch.tensor(word)) & batch.open[:, site]
        assert not bool((torch.tensor(valid) & ~related).any()), (word, site)
    for s in found.samples:
        row = here.facts[0].right.index(s.id)
        for site, _, word in s.perturbation["edits"]:
            assert bool(batch.lexicon.related(clean[row, site], torch.tensor(batch.lexicon.vocabulary.index[word])))


@pytest.mark.parametrize("task", ["text/synth-wordswap", "text/synth-headline"])
def test_no_word_hides_what_it_is(task: str) -> None:
    """Every choice of a table is made of visible letters of one alphabet, and no two of them look alike."""
    batch = make_task(task).samples("test", [0, 1, 2])
    data, offsets = batch.strings
    words = [bytes(data[a:b]).decode() for a, b in pairwise(offsets.tolist())]
    assert len(words) > 50
    for word in words:
        assert word.isascii() and unicodedata.normalize("NFKC", word) == word
        assert all(c.isprintable() for c in word)


# -- row 28 ----------------------------------------------------------------------------------------------------
STRONG = """
def attack(env, *, seed):
    env.reset(seed=seed)
    p = torch.zeros(env.num_envs, *env.shape)
    for i in range(10):
        p = p.detach().requires_grad_()
        obs, *_ = env.step(p)
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
        p = env.threat.project(p + 1e-4 * g.sign())
"""
CLAIMS = {
    "forged_info": """
    env.reset(seed=seed)
    obs, reward, done, cut, info = env.step(torch.zeros(env.num_envs, *env.shape))
    obs["success"][:] = True
    info["final_info"] = {"success": [True] * env.num_envs}
    env._book.live[:] = False
""",
    "another_image": """
    env.reset(seed=seed)
    env.victim(torch.rand(env.num_envs * 3, *env.shape), torch.arange(env.num_envs).repeat(3))
    env.step(torch.rand(env.num_envs, *env.shape))
""",
    "swapped_lanes": """
    env.reset(seed=seed)
    x = env._batch.x
    env.step(x.roll(1, 0) - x)
    for i in range(env.num_envs):
        view = env.view([i])
        view.step((x.roll(1, 0) - x)[[i]])
""",
    "own_verdict": """
    from advgym.leaderboards.boundary import messages as m
    env._channel._encoder = __import__("msgspec").msgpack.Encoder()
    env._channel.send(m.Scores(-1), [torch.ones(3, 10).numpy()])
""",
    "a_result_file": """
    rows = [{"id": int(i), "success": True} for i in env._batch.ids]
    open("result.json", "w").write(json.dumps({"samples": rows}))
    print(json.dumps({"status": "scored", "success_rate": 1.0}))
""",
    "crash_at_the_end": """
    env.reset(seed=seed)
    env.step(torch.ones(env.num_envs, *env.shape))
    raise SystemExit("success")
""",
}


def test_a_canary_cannot_be_won(place: Place) -> None:  # noqa: F811
    """An attack with gradients gets nowhere on it: a success there would be proof of cheating."""
    found = place.play(STRONG, WHITE.replace("queries = 12", "queries = 40").replace("gradients = 4", "gradients = 40"))
    assert found.entry is not None and found.gain == 0, (found.failure, found.log)
    assert all(s.queries == 10 and s.valid and 0 < s.distance <= 1.01e-4 for s in found.samples)


@each(**CLAIMS)
def test_a_success_on_a_canary_cannot_be_claimed(place: Place, code: str) -> None:  # noqa: F811
    found = place.play("def attack(env, *, seed):" + code)
    assert found.gain == 0 and not any(s.success for s in found.samples)
    assert found.failure is None or found.failure.code in BROKEN, found.failure
