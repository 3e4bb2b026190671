import matplotlib.pyplot as plt

from src.evaluation.report.page import Section, Table, data_uri, write_page


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
