import json

import pytest

import advgym
from advgym.core.task import make_task
from advgym.envs.text.data.readers import read
from advgym.errors import AdvgymError, DataError

GROUPS = {"fine": ["good"], "film": ["movie"], "awful": ["terrible"]}


def score(texts):
    return [[float("awful" in t), 0.5] for t in texts]


def put(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_every_kind_of_file_reads_the_same(tmp_path):
    import pyarrow
    import pyarrow.parquet

    want = [("a fine, long film", 1), ('say "no"\nto it', 0), ("awful", 0)]
    rows = [{"Review": t, "LABEL": y, "id": i} for i, (t, y) in enumerate(want)]
    lines = "\n".join(json.dumps(r) for r in rows) + "\n\n"
    quoted = "".join('{},"{}",{}\n'.format(r["id"], r["Review"].replace('"', '""'), r["LABEL"]) for r in rows)
    files = [
        put(tmp_path, "a.jsonl", lines),
        put(tmp_path, "a.json", json.dumps(rows)),
        put(tmp_path, "a.csv", "\ufeffid,Review,LABEL\n" + quoted),
        put(tmp_path, "a.tsv", "id\tReview\tLABEL\n" + quoted.replace(',"', '\t"').replace('",', '"\t')),
        str(tmp_path / "a.parquet"),
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), files[-1])
    for path in files:
        assert read(path) == want, path
    assert read(want) == want


def test_labels_of_words_and_named_columns_and_pairs(tmp_path):
    path = put(tmp_path, "a.csv", "body,stars,mood\nfine,4,pos\nawful,1,neg\nfilm,2,pos\n")
    assert read(path, text="body", label="mood") == [("fine", 1), ("awful", 0), ("film", 1)]
    assert read(f"{path}?text=body&label=stars") == [("fine", 4), ("awful", 1), ("film", 2)]
    pairs = put(tmp_path, "nli.csv", "premise,hypothesis,label\na man,nobody,2\n")
    assert read(pairs) == [(("a man", "nobody"), 2)]
    assert read(pairs, text="hypothesis") == [("nobody", 2)]
    assert read(pairs, text="hypothesis,premise") == [(("nobody", "a man"), 2)]
    assert read(put(tmp_path, "b.csv", "text\nfine\n"), labelled=False) == [("fine", 0)]
    assert read(put(tmp_path, "c.csv", "text,label\nfine,1.0\nno,True\n"[:-8]), label="label") == [("fine", 1)]


def test_folders_and_saved_datasets(tmp_path):
    import datasets

    put(tmp_path, "train.jsonl", '{"text": "train", "label": 0}')
    put(tmp_path, "test.jsonl", '{"text": "test", "label": 1}')
    assert read(str(tmp_path)) == [("test", 1)] and read(f"{tmp_path}?split=train") == [("train", 0)]
    with pytest.raises(AdvgymError, match="unknown split"):
        read(f"{tmp_path}?split=dev")
    made = datasets.Dataset.from_dict({"sentence": ["fine", "awful"], "label": [1, 0]})
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made, "validation": made.select([1])}).save_to_disk(tmp_path / "more")
    assert read(str(tmp_path / "one")) == [("fine", 1), ("awful", 0)]
    assert read(str(tmp_path / "more")) == [("awful", 0)]
    empty = tmp_path / "none"
    empty.mkdir()
    with pytest.raises(DataError, match="holds none of"):
        read(str(empty))


def test_a_name_goes_to_datasets(monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, config=None):
        asked.append((name, config))
        if name == "gone":
            raise FileNotFoundError("Couldn't find 'gone' on the Hub")
        return {"train": [], "test": [{"text": "a film", "label": 1}]}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("glue?config=sst2") == [("a film", 1)] and asked == [("glue", "sst2")]
    with pytest.raises(DataError, match=r"'gone' is no local file.*Couldn't find 'gone'.*work without it"):
        read("gone")


def test_a_name_without_a_connection_says_so():
    with pytest.raises(DataError, match=r"'nobody/knows-it'.*samples="):
        read("nobody/knows-it")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "", r"a\.csv is empty"),
        ("a.csv", "text,label\n", "holds no texts"),
        ("a.csv", "text,label\nfine,1\nawful\n", r"a\.csv, line 3: 1 fields"),
        ("a.csv?empty=error", "text,label\nfine,1\n,0\n", r"line 3: 'text' is empty; .*empty=skip"),
        ("a.csv", "text,label\nfine,1\nawful,-1\n", r"line 3: labels are whole numbers from 0 on.*'-1'"),
        ("a.csv", "text,label\nfine,1\nawful,bad\n", r"line 3: labels are"),
        ("a.csv", "text,label\nfine,1.5\n", r"line 2: labels are"),
        ("a.csv", "words,label\nfine,1\n", r"columns words, label; say which holds the text"),
        ("a.csv", "text,mood_\nfine,1\n", "say which holds the label"),
        ("a.jsonl", '{"text": "fine", "label": 1}\n{"text": "aw', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"text": "fine", "label": 1}\n[1]\n', r"line 2: want"),
        ("a.jsonl", '{"text": null, "label": 1}', r"line 1: 'text' is a text, not missing"),
        ("a.jsonl", '{"text": 3, "label": 1}', r"line 1: 'text' is a text, not 3"),
        ("a.json", '[{"text": "fine", "label": 1}, 4]', "entry 1: want"),
        ("a.json", "[1,", r"a\.json, line 1: not JSON"),
        ("a.parquet", "no parquet", r"a\.parquet is no parquet file"),
        ("a.xlsx", "x", "unknown kind of file"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, name, content, says):
    with pytest.raises(AdvgymError, match=says):
        file, mark, query = name.partition("?")
        read(put(tmp_path, file, content) + mark + query)


def test_encodings_and_options(tmp_path):
    path = put(tmp_path, "a.csv", "text,label\nfine,1\ncafé,0\n", "latin-1")
    with pytest.raises(DataError, match=r"a\.csv, line 3: byte 0xe9 is not utf-8.*encoding=latin-1"):
        read(path)
    assert read(f"{path}?encoding=latin-1")[1] == ("café", 0)
    for query, says in (("encoding=klingon", "no encoding"), ("colour=red", "unknown option of a dataset"),
                        ("encoding=latin-1&text=body", "unknown column"),
                        ("empty=maybe", "unknown value of empty")):  # fmt: skip
        with pytest.raises(AdvgymError, match=says):
            read(f"{path}?{query}")
    with pytest.raises(DataError, match="no file or folder"):
        read("./nowhere.csv")
    gaps = put(tmp_path, "b.csv", "text,label\nfine,1\n ,0\n")
    assert read(f"{gaps}?empty=skip") == [("fine", 1)] and read(f"{gaps}?empty=keep")[1] == (" ", 0) == read(gaps)[1]


def test_a_task_reads_a_dataset(tmp_path):
    path = put(tmp_path, "a.csv", "text,label\na fine film,1\nawful film,0\nawful,0\n")
    env = advgym.make("text/wordswap", lanes=2, victim=score, dataset=path, candidates=GROUPS, edits=1, queries=3)
    env.reset(seed=0)
    while not env.done:
        env.step(env.threat.random(0))
    task = make_task("text/wordswap", victim=score, dataset=path, candidates=GROUPS)
    b = task.samples("test", [2])
    assert task.sizes["test"] == 3 and b.inputs(b.null()).strings() == ["awful"]
    wrong = put(tmp_path, "b.csv", "text,label\na fine film,1\nfilm,7\n")

    def two(texts):
        return [[1.0, 0.0]] * len(texts)

    with pytest.raises(DataError, match=r"b\.csv, line 3: labels are whole numbers 0 to 1"):
        make_task("text/wordswap", victim=two, dataset=wrong, candidates=GROUPS)
    with pytest.raises(AdvgymError, match=r"pass samples=.*dataset="):
        make_task("text/wordswap", victim=score)
