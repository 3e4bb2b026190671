"""The page as a file: the samples in it, Python's logits, what is refused, and that no text of a file becomes code."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from models.spike.network import save
from sdn.errors import UserError
from src import export
from src.dataloaders.digits import Digits
from src.live.page import HERE, SCRIPTS, entry, write_live_page
from src.live.samples import MOST_POINTS, Samples, choose, picture_of

READ = """
const samples = new Samples(entry);
const found = check(entry, tensors(entry.shapes, entry.weights), samples);
const all = Array.from({ length: samples.count }, (_, i) => samples.get(i));
return { found, x: all.map((s) => Array.from(s.x)), y: all.map((s) => (s.labels ? Array.from(s.labels) : s.label)) };
"""


def test_samples_come_back_and_answers_agree_for_ragged_signals_with_a_class_a_step(signals, make_network, javascript):
    network = make_network(decoder={"kind": "per_step", "d_output": 3})
    found = javascript(READ, entry=entry(network, signals, "signals"))
    x, y = signals.test[range(6)]
    for i in range(6):
        np.testing.assert_array_equal(np.float32(found["x"][i]), x[i, : 35 + i].flatten())
        assert found["y"][i] == y[i, : 35 + i].tolist()
    assert found["found"]["compared"] == found["found"]["same"] == 6 * MOST_POINTS
    assert found["found"]["worst"] < 1e-4


def test_samples_come_back_and_answers_agree_for_tokens(tokens, make_network, javascript):
    network = make_network(encoder={"kind": "embedding", "n_tokens": 7})
    found = javascript(READ, entry=entry(network, tokens, "tokens"))
    x, y = tokens.test[range(5)]
    assert found["x"] == x.tolist()
    assert found["y"] == y.tolist()
    assert found["found"]["same"] == 5
    assert found["found"]["worst"] < 1e-4


def test_a_picture_says_where_writing_stands_and_in_which_order_pixels_arrive():
    data = Digits()
    data.setup()
    samples = choose(data, 50)
    picture = picture_of(data, samples)
    assert (picture["rows"], picture["columns"], picture["order"]) == (8, 8, None)
    assert (picture["paper"], picture["ink"]) == (0, 1)
    top, left, bottom, right = picture["box"]
    assert top < 0.1 < left < right < bottom
    assert 0.1 < picture["pen"] < 0.2
    order = torch.randperm(64)
    data.order = lambda: order
    permuted = picture_of(data, Samples(samples.x[:, order], samples.lengths, samples.y))
    assert permuted["order"] == order.tolist()
    assert permuted["box"] == picture["box"]
    photographs = Samples(torch.rand(5, 64, 1), samples.lengths[:5], samples.y[:5])
    assert picture_of(data, photographs)["box"] is None


class _Scripts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.scripts, self.tags = None, [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open = tag

    def handle_data(self, data):
        if self.open in ("script", "style"):
            self.scripts.append((self.open, data))
            self.open = None


def test_text_of_a_file_stays_text_and_nothing_is_loaded(signals, make_network, tmp_path):
    evil = "</script><img src=x onerror=alert(1)><!--<script>"
    network = make_network(decoder={"kind": "per_step", "d_output": 3})
    network.spec["facts"] = {"about": evil, "dataset": evil, "figures": {"test/" + evil.replace("/", ""): 1.0}}
    write_live_page(tmp_path / "page.html", [entry(network, signals, evil)])
    text = (tmp_path / "page.html").read_text()
    assert "onerror=alert(1)>" not in text
    parser = _Scripts()
    parser.feed(text)
    style, data, script = parser.scripts
    assert [style[0], data[0], script[0]] == ["style", "script", "script"]
    read = json.loads(data[1])[0]
    assert read["name"] == read["about"] == evil
    assert read["class_names"] == list(signals.class_names)
    policy = next(a["content"] for _, a in parser.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for kind, source in (style, script):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attributes in parser.tags:
        assert tag != "img"
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert re.match(r"#|data:,$", attributes.get("href", attributes.get("src", "#")))


def test_the_sources_are_plain_scripts_without_network():
    for name in SCRIPTS:
        source = (HERE / name).read_text()
        assert "</script" not in source
        assert not re.search(r"fetch\(|XMLHttp|WebSocket|import |innerHTML|eval\(|https?:", source), name


def _another_neuron(network):
    class Resonator(torch.nn.Module):
        pass

    network.backbone.layers[1].neuron = Resonator()


@pytest.mark.parametrize(
    ("options", "change", "sentence"),
    [
        (dict(layer={"bidirectional": True}), None, "bidirectional"),
        (dict(decoder={"kind": "retrieval", "d_output": 2}), None, "retrieval compares two finished texts"),
        (dict(decoder={"kind": "sequence", "d_output": 300}), None, "300 classes are too many"),
        (dict(), _another_neuron, "the neuron Resonator cannot run"),
        (dict(), lambda net: net.backbone.layers[0].mix.bias.data.fill_(torch.nan), "no finite numbers"),
        (dict(encoder={"kind": "linear", "d_input": 5}), None, "reads 5 inputs"),
    ],
)
def test_what_cannot_run_on_a_page_is_refused_in_a_sentence(options, change, sentence, signals, make_network):
    network = make_network(**options)
    if change:
        change(network)
    with pytest.raises(UserError, match=sentence):
        entry(network, signals, "x")


def test_a_language_model_is_refused(tokens, make_network):
    adaptive = {"kind": "adaptive", "n_tokens": 7, "cutoffs": [3], "div_val": 1}
    network = make_network(encoder=adaptive, decoder={"kind": "adaptive"})
    with pytest.raises(UserError, match="large vocabulary"):
        entry(network, tokens, "x")


def test_targets_that_are_numbers_and_signals_to_draw_on_are_refused(signals, make_network):
    network = make_network(decoder={"kind": "per_step", "d_output": 3})
    with pytest.raises(UserError, match="no grey pictures"):
        entry(network, signals, "x", view="image")
    with pytest.raises(UserError, match="choose one of image, series"):
        entry(network, signals, "x", view="film")
    signals.test.y = signals.test.y.float()
    with pytest.raises(UserError, match="other targets"):
        entry(network, signals, "x")


def test_the_command_takes_checkpoints_files_and_names(run_in, tmp_path, capsys):
    run_in("run")
    checkpoint = str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    file = str(tmp_path / "network.safetensors")
    assert export.main([checkpoint, file]) == 0
    page = tmp_path / "page.html"
    words = [checkpoint, file, "digits", "--name", "mine", "--samples", "5", str(page)]
    assert export.main(words) == 0
    parser = _Scripts()
    parser.feed(page.read_text())
    entries = json.loads(parser.scripts[1][1])
    assert [e["name"] for e in entries] == ["mine", "digits", "digits"]
    assert [e["samples"]["count"] for e in entries] == [5, 5, 5]
    assert entries[0]["weights"] == entries[1]["weights"]
    assert entries[2]["facts"]["test accuracy"].startswith("0.98")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["digits", "page.pdf"], "must end in .safetensors, .onnx or .html, not .pdf"),
        (["digits", "digits", "two.onnx"], "several networks"),
        (["digits", "--samples", "0", "page.html"], "--samples must be at least 1"),
        (["digits", "--name", "a", "--name", "b", "page.html"], "2 names for 1 networks"),
        (["nothing.safetensors", "page.html"], "no network file at nothing.safetensors"),
        (["nothing.ckpt", "page.html"], "does not exist"),
    ],
)
def test_mistakes_at_the_door_are_sentences(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export.main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.html"))


def test_a_network_file_cannot_name_any_class_as_its_data(make_network, tmp_path, capsys):
    network = make_network()
    for name in ("os.system", None, ["digits"]):
        network.spec["facts"] = {"dataset": name}
        save(network, tmp_path / "n.safetensors")
        assert export.main([str(tmp_path / "n.safetensors"), str(tmp_path / "page.html")]) == 2
        assert "names no data set of this repository" in capsys.readouterr().err


def test_the_page_in_docs_is_the_one_the_sources_make_and_small():
    path = HERE.parent.parent / "docs" / "live.html"
    parser = _Scripts()
    parser.feed(path.read_text())
    style, data, script = (text for _, text in parser.scripts)
    hint = "run python tools/screenshots.py"
    assert script == "\n".join((HERE / name).read_text() for name in SCRIPTS), hint
    assert style == (HERE / "page.css").read_text(), hint
    assert [e["name"] for e in json.loads(data)] == ["digits", "electrocardiogram"]
    assert path.stat().st_size < 1_500_000
