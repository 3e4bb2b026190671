import re

import matplotlib.pyplot as plt
import numpy as np

from src.evaluation.report.figures import raster
from src.evaluation.report.page import Section, Table, data_uri, drawing, write_page


def test_page_holds_everything_in_one_file_and_escapes_text(tmp_path):
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    section = Section(
        "A & B",
        text="first\n\nsecond",
        command="python x.py > y",
        table=Table(["what", "n"], [["<b>", "1"]]),
        pictures=[(data_uri(figure), "a line")],
        note="done",
    )
    write_page(tmp_path / "deep" / "report.html", "Title", "Lead", [("97 %", "accuracy")], [section])
    plt.close(figure)
    html = (tmp_path / "deep" / "report.html").read_text()
    assert "A &amp; B" in html
    assert "&lt;b&gt;" in html
    assert "data:image/png;base64," in html
    assert 'src="http' not in html
    assert html.count("<p>") == 2


def test_drawings_take_the_colours_of_the_page_and_wide_tables_can_stack(tmp_path):
    figure = raster([np.eye(8, 20, dtype=bool)], np.arange(20.0))
    table = Table(["", "a", "b", "c"], [["row", "1", "2", "3"]])
    write_page(tmp_path / "p.html", "T", "L", [], [Section("S", table=table, pictures=[(drawing(figure), 'a "b"')])])
    html = (tmp_path / "p.html").read_text()
    assert "<svg" in html
    assert 'aria-label="a &#34;b&#34;"' in html
    assert "var(--mark)" in html
    assert not re.search("#b3421f|#24324a|#000000", html.split("</style>", 1)[1])
    assert '<td data-name="c">3</td>' in html
    assert "prefers-color-scheme: dark" in html


def test_marks_of_many_spikes_are_one_picture_inside_the_drawing():
    few, many = (str(drawing(raster([np.ones((8, steps), bool)]))) for steps in (20, 2000))
    assert few.count("<use") > 160 > many.count("<use")
    assert "<image" in many
