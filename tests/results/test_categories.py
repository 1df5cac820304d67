"""Labels become categories by their names, or by the ids of a COCO file."""

import pytest

from seggpt_jax.results.categories import categories, categories_of, read_names

KNOWN = {3: "cat", 17: "dog", 20: "owl"}


def test_names_are_pairs_or_a_class_table(tmp_path):
    assert read_names("1=cat, 7=hot dog") == {1: "cat", 7: "hot dog"}
    table = tmp_path / "classes.tsv"
    table.write_text("id\tname\timages\n0\tnothing\t9\n4\tcat, tame\t3\n")
    assert read_names(str(table)) == read_names(str(tmp_path)) == {4: "cat, tame"}


def test_the_one_class_of_masks_of_0_and_255_is_label_1(tmp_path):
    """`seggpt index` writes it as 255, and prompts call it 1."""
    table = tmp_path / "classes.tsv"
    table.write_text("id\tname\timages\n255\tcat\t3\n")
    assert read_names(str(table)) == {1: "cat"}
    table.write_text("id\tname\timages\n4\towl\t1\n255\tcat\t3\n")
    assert read_names(str(table)) == {4: "owl", 255: "cat"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat", "--names cat: 1=cat,2=dog is wanted, or the classes.tsv of a folder"),
        ("1=cat,dog", "'dog' is not such as 1=cat"),
        ("0=cat", "'0=cat' is not such as 1=cat"),
        ("1=", "'1=' is not such as 1=cat"),
        ("1=cat,1=dog", "label 1 is named twice"),
    ],
)
def test_names_out_of_form_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        read_names(text)


def test_categories_without_a_file():
    assert categories([0, 2, 5], "category", {}) == ({2: 2, 5: 5}, {2: "2", 5: "5"})
    table = {1: "ant", 2: "bee", 5: "cow"}
    found = categories([0, 2, 5], "category", table)
    assert found == ({2: 2, 5: 5}, table)
    assert [found.place(2), found.place(5), found.name(5)] == [1, 2, "cow"]
    assert categories([0, 4, 9], "instance", {}) == ({4: 1, 9: 1}, {1: "object"})
    named = {4: "cat", 6: "dog", 9: "cat"}
    assert categories([0, 4, 6, 9], "instance", named) == (
        {4: 1, 6: 2, 9: 1}, {1: "cat", 2: "dog"}
    )  # fmt: skip
    with pytest.raises(ValueError, match="labels 9 have no name; named are 4, 6"):
        categories([0, 4, 9], "category", {4: "cat", 6: "dog"})
    with pytest.raises(ValueError, match="labels 4 and 9 are both named 'cat'"):
        categories([0, 4, 9], "category", named)


def test_categories_of_a_file():
    def of(labels, kind, names, known=KNOWN):
        return categories_of(known, "gt.json", labels, kind, names)

    found = of([0, 1, 2], "category", {1: "owl", 2: "cat"})
    assert found == ({1: 20, 2: 3}, KNOWN) and found.place(1) == 2
    assert of([0, 3, 17], "category", {}) == ({3: 3, 17: 17}, KNOWN)
    assert of([0, 5, 6], "instance", {}, {9: "pig"}).ids == {5: 9, 6: 9}
    with pytest.raises(ValueError, match="'dgo', which is no category of gt.json; did"):
        of([0, 1], "category", {1: "dgo"})
    for kind, labels in (("category", [3, 4]), ("instance", [3, 17])):
        with pytest.raises(ValueError, match="name them, as in --names 3=cat"):
            of(labels, kind, {})
