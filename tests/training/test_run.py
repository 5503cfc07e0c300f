"""The run folder: complete, readable by programs, and never overwritten unasked."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from toy import toy_dataset, toy_model

from midpg_np.training.checkpoint import load_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import evaluate
from midpg_np.training.loop import fit
from midpg_np.training.metrics import evaluate_logits
from midpg_np.training.report import auc_standard_error, verdict
from midpg_np.training.run import RunResult, write_run
from midpg_np.tree import tree_items

CONFIG = TrainConfig(epochs=2, batch_size=64)


def result_of(model, run_dir=None):
    fitted = fit(model, toy_dataset(300), toy_dataset(100, 1), CONFIG, run_dir=run_dir)
    return RunResult(model, CONFIG, fitted, evaluate(model, fitted.params, toy_dataset(200, 2)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="the report holds a picture")
    folder = tmp_path_factory.mktemp("runs") / "x"
    results = {
        "<main> & co": result_of(toy_model(), folder),
        "dnn": result_of(toy_model(activation="tanh")),
    }
    check = "12 parameters, largest error 1e-15"
    write_run(folder, results, data={"name": "toy <3"}, gradient_check=check)
    return folder, results


def test_the_folder_holds_exactly_these_files(run):
    folder, _ = run
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "curves.png",
        "history.jsonl",
        "metrics.json",
        "model.safetensors",
        "report.html",
    ]


def test_programs_can_read_it(run):
    folder, results = run
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["dnn"]["auc"] == results["dnn"].metrics.auc
    assert len(metrics["dnn"]["scenarios"]) == 3
    config = json.loads((folder / "config.json").read_text())
    main = config["runs"]["<main> & co"]
    assert TrainConfig.from_dict(main["training"]) == CONFIG
    assert {"numpy", "python", "midpg_np"} <= config["versions"].keys()
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines] == ["<main> & co"] * 2 + ["dnn"] * 2
    loaded = load_model(folder / "model.safetensors")
    stored = dict(tree_items(loaded.params))
    for path, leaf in tree_items(results["<main> & co"].fit.params):
        np.testing.assert_array_equal(stored[path], leaf)


class Reader(HTMLParser):
    """Collects tags and text, and checks that what is opened is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.headings, self.attributes, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_report_is_well_formed_escaped_and_self_contained(run):
    folder, _ = run
    html = (folder / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert reader.headings[0] == 1 and reader.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(reader.headings, reader.headings[1:], strict=False))
    sources = [value for _, name, value in reader.attributes if name in ("src", "href")]
    assert len(sources) == 1 and sources[0].startswith("data:image/png;base64,")
    assert "http" not in html and "@import" not in html and "url(" not in html
    assert "<main> &" not in html and "toy <3" not in html
    assert "<main> & co" in reader.text and "toy <3" in reader.text
    assert "12 parameters, largest error 1e-15" in reader.text
    assert "$" not in html


def test_a_finished_run_is_refused_and_intact(run):
    folder, results = run
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match="holds a finished run; choose another folder"):
        write_run(folder, results)
    with pytest.raises(FileExistsError, match="holds a finished run"):
        fit(toy_model(), toy_dataset(300), None, CONFIG, run_dir=folder, resume=True)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_single_run_may_overwrite_when_told(tmp_path):
    pytest.importorskip("matplotlib", reason="the report holds a picture")
    result = result_of(toy_model())
    write_run(tmp_path, {"dnn": result})
    report = write_run(tmp_path, {"dnn": result}, overwrite=True)
    assert "No gradient check was run" in report.read_text(encoding="utf-8")


def metrics_of(logits, label):
    return evaluate_logits(np.asarray(logits), np.asarray(label), np.zeros(len(label), int), ("a",))


def test_the_verdict_does_not_flatter():
    rng = np.random.default_rng(0)
    label = (rng.random(400) < 0.5).astype(float)
    weak, strong = rng.normal(size=400) + 0.3 * label, rng.normal(size=400) + 3 * label
    good, bad = metrics_of(strong, label), metrics_of(weak, label)
    assert "below good" in verdict({"bad": bad, "good": good})
    assert "more than two standard errors" in verdict({"good": good, "bad": bad})
    assert "do not separate the two" in verdict({"one": good, "two": good})
    assert "One seed each" in verdict({"one": good, "two": good})
    assert "not defined" in verdict({"one": metrics_of([0.1, 0.2], [1.0, 1.0])})


def test_the_standard_error_is_that_of_repeated_draws():
    rng = np.random.default_rng(1)
    aucs = []
    for _ in range(200):
        label = np.repeat([0.0, 1.0], [150, 50])
        drawn = metrics_of(rng.normal(size=200) + label, label)
        aucs.append(drawn.auc)
    assert auc_standard_error(drawn) == pytest.approx(np.std(aucs), rel=0.2)
