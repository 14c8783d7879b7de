"""Examples a second against TextAttack's own loop: same victim, sentences, candidates, word limit and searches.

TextAttack plays one sentence after another (`Attack.attack`), once per model wrapper; advgym plays them as lanes. Both
search the task's table, so verdicts and distinct queries can be compared sentence by sentence. The BERT is trained on
MR once, as a Hugging Face folder with a WordPiece tokeniser, and kept in the cache.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

import advgym
from advgym import make_task, registry
from advgym.agents.shared.libraries import textattack_parts as peer
from advgym.agents.shared.libraries.sentences import Sentences
from advgym.core.env import AttackEnv
from advgym.core.task import load_victim
from advgym.judge.evaluator import evaluator
from advgym.lib.weights import cache_dir, data_dir
from benchmarks._common import arguments, clock, table

SEARCHES = {"wir-delete": ("wir", {"importance": "delete"}), "pwws": ("wir", {"importance": "pwws"})}


# -- a BERT that both sides can read -------------------------------------------------------------------------
def movie_reviews(split: str) -> list[dict]:
    """Lines of the MR files."""
    lines = (data_dir() / "text" / "mr" / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def small_bert(folder: Path, epochs: int = 3) -> Path:
    """A BERT of 2 layers, 64 wide, in the format of transformers."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    if (folder / "model.safetensors").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = movie_reviews("train")
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator((r["text"] for r in rows), vocab_size=8000, show_progress=False)
    words.save_model(str(folder))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512)
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=128, max_position_embeddings=512, hidden_dropout_prob=0.2, num_labels=2,
    ))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(rows)).split(64):
            part = [rows[i] for i in index.tolist()]
            x = tokenizer([r["text"] for r in part], padding=True, truncation=True, return_tensors="pt")
            optimizer.zero_grad()
            model(**x, labels=torch.tensor([r["label"] for r in part])).loss.backward()
            optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def their_wrappers(victim: str) -> dict[str, object]:
    """Models of TextAttack's for a victim of ours."""
    peer.library()
    if not victim.startswith("transformers:"):
        from advgym.envs.text.victims.textattack_model import model_wrapper

        return {"its loop": model_wrapper(victim)}
    from textattack.models.wrappers import HuggingFaceModelWrapper
    from transformers import BertForSequenceClassification, BertTokenizerFast

    folder = victim.partition(":")[2]
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = BertTokenizerFast.from_pretrained(folder)

    class Dynamic(HuggingFaceModelWrapper):
        """The same with padding to the longest text of a batch."""

        def __call__(self, text_input_list):
            x = self.tokenizer(list(text_input_list), padding=True, truncation=True, return_tensors="pt")
            with torch.no_grad():
                return self.model(**x).logits

    return {"its own wrapper": HuggingFaceModelWrapper(model, tokenizer), "dynamic padding": Dynamic(model, tokenizer)}


# -- both sides ----------------------------------------------------------------------------------------------
def ours(env: AttackEnv, search: str, seed: int = 0) -> None:
    """The episodes of an environment."""
    name, settings = SEARCHES[search]
    registry.agent(name).attack(env, seed=seed, **settings)


def theirs(texts: Sentences, labels: list[int], limit: list[int], search: str, wrapper: object) -> list[tuple]:
    """(success, distinct texts asked) of every sentence; the clean text is not counted."""
    import textattack

    out = []
    for i, label in enumerate(labels):
        asked = set()

        def told(batch, asked=asked):
            asked.update(batch)
            return wrapper(batch)

        class Counted(textattack.models.wrappers.ModelWrapper):
            """Which texts were asked."""

            model = getattr(wrapper, "model", None)

            def __call__(self, batch, told=told):
                return told(batch)

        attack = peer.table_space(
            search, Counted(), texts, i, limit[i], textattack.goal_functions.UntargetedClassification
        )
        found = attack.attack(texts.text(i), label)
        won = isinstance(found, textattack.attack_results.SuccessfulAttackResult)
        out.append((won, len(asked - {texts.text(i)})))
    return out


def compare(args, victim: str, search: str) -> list[list]:
    """One row per wrapper: both speeds, success, agreement, queries."""
    task = make_task("text/mr-wordswap", victim=load_victim(victim), knowledge="score", queries=10_000)
    chosen = [i for i in range(task.sizes["test"])][: 2 * args.sentences]
    batch = task.samples("test", chosen)
    scores = task.victim(batch.inputs(batch.null()))
    chosen = [i for i, right in zip(chosen, task.goal.right(scores, batch.labels).tolist(), strict=True) if right]
    chosen = chosen[: args.sentences]
    proposals = registry.agent(SEARCHES[search][0]).proposals

    def fresh() -> AttackEnv:
        env = AttackEnv(task, proposals=proposals, assigned=chosen)
        env.reset(seed=0)
        return env

    times, env = [], fresh()
    for _ in range(args.repeat):
        env = fresh()
        times.append(clock(lambda env=env: ours(env, search)))
    mine = sorted(times)[len(times) // 2]
    verdict, distinct = evaluator(env).book.success.tolist(), evaluator(env).book.queries_distinct().tolist()
    plain = fresh()
    obs, _ = plain.reset()
    sentences, labels = Sentences(plain, obs["words"]), obs["output"][:, 0].tolist()
    rows = []
    for name, wrapper in their_wrappers(victim).items():
        found: list = []
        took = clock(
            lambda w=wrapper, f=found: f.extend(theirs(sentences, labels, plain.table.limit.tolist(), search, w))
        )
        n = len(chosen)
        rows.append([
            victim.partition(":")[0], search, name, n / mine, n / took, took / mine, sum(verdict) / n,
            sum(w for w, _ in found) / n, sum(a == b for a, (b, _) in zip(verdict, found, strict=True)) / n,
            sum(distinct) / n, sum(q for _, q in found) / n,
        ])  # fmt: skip
    return rows


def main() -> None:
    args = arguments(__doc__.split("\n")[0], sentences=200, victims="mr-tfidf,bert")
    args.repeat = min(args.repeat, 3)
    victims = args.victims.split(",")
    names = [f"transformers:{small_bert(cache_dir() / 'peer-bert')}" if v == "bert" else v for v in victims]
    rows = [row for victim in names for search in SEARCHES for row in compare(args, victim, search)]
    head = ["victim", "search", "against", "ours ex/s", "theirs ex/s", "ratio", "our ASR", "their ASR", "same verdict",
            "our distinct queries", "theirs"]  # fmt: skip
    table(f"advgym {advgym.__version__} against TextAttack on {args.sentences} MR sentences", head, rows, args.json)


if __name__ == "__main__":
    main()
