"""Tables of pages are made from the files that benchmarks write."""

import json

from src.results import measured
from src.results.pages import render
from src.results.tables import cells, markdown

CSV = """table,case,name,milliseconds,ratio,group,firing_rate
stream,"digits, 1 stream",event engine,0.0183,1.25,trained,0.137
stream,"digits, 1 stream",own dense kernel,0.0229,1,trained,0.137
stream,"2 x 512, 1 stream",event engine,1234.5,2,width,0.1
"""
TABLE = {
    "benchmark": "stream-cpu",
    "group": "trained",
    "columns": [
        {"head": "network", "show": "case"},
        {"head": "firing, %", "show": "firing_rate", "scale": 100, "digits": 0},
        {"head": "event", "show": "event engine/milliseconds", "scale": 1000},
        {"head": "ONNX", "show": "ONNX Runtime/milliseconds"},
    ],
}


def _results(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/stream-cpu.csv").write_text(CSV)
    return tmp_path


def test_a_line_a_case_or_a_line_a_candidate(tmp_path):
    table = measured.resolve(TABLE, _results(tmp_path))
    heads, rows = cells(table, {})
    assert heads == ["network", "firing, %", "event", "ONNX"]
    assert rows == [["digits, 1 stream", "14", "18.3", ""]]
    assert markdown(heads, rows, table["columns"]).splitlines()[1] == "| --- | ---: | ---: | ---: |"
    columns = [{"head": "", "show": "name"}, {"head": "ms", "show": "2 x 512, 1 stream/milliseconds"}]
    other = {"benchmark": "stream-cpu", "by": "name", "labels": {"event engine": "**ours**"}, "columns": columns}
    assert cells(measured.resolve(other, tmp_path), {})[1] == [["**ours**", "1,234"], ["own dense kernel", ""]]
    assert measured.resolve({**other, "cases": "^2"}, tmp_path)["rows"] == [
        {"column 0": "**ours**", "column 1": "1,234"}
    ]


def test_what_was_not_measured_stays_as_it_is(tmp_path):
    page = "<!-- results: streams -->\nold\n<!-- end -->\n<!-- measured: stream-cpu -->then<!-- end -->\n"
    tables = {"streams": measured.resolve({**TABLE, "group": "none"}, _results(tmp_path))}
    assert render(page, tables, {}, tmp_path) == page
    found = {"command": "python -m benchmarks", "processor": "CPU", "gpu": None, "threads": 1, "cores": 2}
    found |= {"load_at_start": 0.04, "versions": {"torch": "2.13.0", "onnx": "1"}, "date": "2026-11-28 17:50"}
    (tmp_path / "benchmarks/stream-cpu.json").write_text(json.dumps(found))
    made = render(page, {"streams": measured.resolve(TABLE, tmp_path)}, {}, tmp_path)
    assert "| digits, 1 stream | 14 | 18.3 |  |\n<!-- end -->" in made
    assert (
        "`python -m benchmarks`, CPU, 1 of 2 cores, load 0.0 at the start, torch 2.13.0, 2026-11-28<!-- end -->" in made
    )
