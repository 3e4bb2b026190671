"""What this repository prints can be believed: figures are in records, commands give what was run."""

from src.results.check import problems


def test_every_printed_figure_is_in_a_record_and_every_command_repeats_it():
    assert problems() == []
