import torch

from advgym.core.task import make_task


def test_a_line_and_a_fragment_of_a_word_swap():
    groups = {"film": ["movie<b>"], "dull": ["slow"]}
    task = make_task("text/wordswap", victim=lambda t: [[0.0, 1.0]] * len(t), candidates=groups,
                     samples=[("the film is <i>dull & dull", 1)])  # fmt: skip
    b = task.samples("test", [0])
    p = b.null()
    p[0, 0] = torch.tensor([1, 0])
    p[0, 1:2] = torch.tensor([5, b.probe])
    form = b.look(p).form[0]
    assert task.line(b, 0, form, task) == "the film(->movie<b>) is <i>dull & dull(->)"
    html = task.show(b, 0, form, torch.tensor(0), torch.tensor(1), task)
    assert "movie&lt;b&gt;" in html and "<i>" not in html and html.count("<del") == 2 and html.count("<ins") == 1
    assert "var(--bad)" in html and "<script" not in html


def test_sentences_are_blocks_and_headlines_are_words():
    task = make_task("text/synth-paraphrase")
    b = task.samples("test", [0])
    form = b.look(b.random(0)).form[0]
    n = int((form[:, 0] >= 0).sum())
    assert task.line(b, 0, form, task).count("->") == n
    html = task.show(b, 0, form, torch.tensor(0), torch.tensor(1), task)
    assert html.count("<ins") == n and "blame" in html and "praise" in html
    head = make_task("text/synth-headline")
    b = head.samples("test", [0])
    out = head.goal.output(head.victim(b.inputs(b.null())))[0]
    html = head.show(b, 0, b.null()[0], out, out, head)
    assert head.goal.describe(b.labels[0]) in html and "<del" not in html and "var(--good)" in html
