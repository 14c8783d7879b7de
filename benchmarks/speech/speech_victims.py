"""What the speech victims are worth on recordings they have not seen, and beam search beside greedy decoding."""

from __future__ import annotations

import torch

from advgym.core.task import load_victim, make_task
from advgym.envs.speech.data import speakers
from advgym.envs.speech.goals.beam import beam
from advgym.envs.speech.goals.decode import greedy
from advgym.envs.speech.measures.errors import corpus_wer
from advgym.envs.speech.victims.voices import all_claims, equal_error, error_rates
from benchmarks._common import arguments, clock, table


def accuracy(name: str, dataset: str) -> float:
    """The share of the test split that a speaker victim has right."""
    clips, victim = speakers.speakers(dataset, "test"), load_victim(name)
    with torch.no_grad():
        said = torch.cat([victim(part).argmax(1) for part in torch.split(clips.wave.float() / 32768, 100)])
    return float((said == clips.labels).float().mean())


def verification(name: str, dataset: str) -> list[object]:
    """Equal error rate on the test claims, and both rates at the threshold that was set on others."""
    victim = load_victim(name)
    scores, genuine = all_claims(victim.module, dataset, "test")  # type: ignore[arg-type]
    accept, reject = error_rates(scores, genuine, float(victim.module.threshold))  # type: ignore[union-attr]
    return [name, len(scores), equal_error(scores, genuine)[0], accept, reject]


def decoding(task_name: str) -> list[list[object]]:
    """WER and CPU seconds of both ways to read the same scores."""
    task = make_task(task_name)
    batch = task.samples("test", list(range(task.sizes["test"])))
    with torch.no_grad():
        scores = torch.cat([task.victim(part) for part in torch.split(batch.x, 50)])
    rows: list[list[object]] = []
    for name, read in (("greedy", greedy), *((f"beam {w}", lambda s, w=w: beam(s, width=w)) for w in (4, 8, 16))):
        rows.append([task_name, name, corpus_wer(read(scores), batch.labels), clock(lambda read=read: read(scores))])
    return rows


def main() -> None:
    args = arguments(__doc__, data="synth-digits,fsdd")
    found = args.data.split(",")
    short = {"synth-digits": "synth", "fsdd": "fsdd"}
    rows = [
        [f"{short[d]}-speaker-{k}", accuracy(f"{short[d]}-speaker-{k}", d)] for d in found for k in ("cnn", "small")
    ]
    table("who speaks, share right of the test split", ["victim", "right"], rows, args.json)
    claims = [verification(f"{short[d]}-verify{k}", d) for d in found for k in ("", "-small")]
    head = ["victim", "claims", "equal error", "false accept", "false reject"]
    table("verification, every test word claimed by every enrolled speaker", head, claims, args.json)
    lines = [row for d in found for row in decoding(f"speech/{short[d]}-transcribe")]
    table("decoding 200 utterances", ["task", "by", "WER", "CPU s"], lines, args.json)


if __name__ == "__main__":
    main()
