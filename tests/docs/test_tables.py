"""The tables of docs/results.md are those that benchmarks/tables.py writes."""

import pytest

from benchmarks import tables


def test_the_page_is_what_the_files_say():
    page = tables.PAGE.read_text()
    assert tables.written(page) == page
    for name in tables.TABLES:
        assert page.count(f"<!-- table: {name} -->\n|") == 1


def test_a_table_is_made_anew_and_the_rest_is_left():
    text = "a\n<!-- table: search -->\n| old |\n|---|\n| 1 |\n\n| by hand |\n"
    before, after = tables.written(text).split("| prompts | random |")
    assert before == "a\n<!-- table: search -->\n"
    assert after.endswith("\n\n| by hand |\n") and "old" not in after
    with pytest.raises(ValueError, match="'serch' is unknown; choices: shapes"):
        tables.written("<!-- table: serch -->\n")


@pytest.mark.parametrize(
    "value, places, text",
    [(27.69, 1, "27.6"), (-1.39, 1, "-1.3"), (29.3, 1, "29.3"), (5.0865, 2, "5.08")],
)
def test_numbers_are_cut(value, places, text):
    assert tables.cut(value, places) == text
