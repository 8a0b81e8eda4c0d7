from vl_alignment.analysis.layout import Column, Row, Table, display_name, ordered


def test_rows_are_in_the_papers_order_with_its_names():
    names = [
        "mine",
        "additive",
        "activated_general_key",
        "general_key (released)",
        "general_key",
        "general_query",
        "cosine",
    ]
    assert [display_name(name) for name in ordered(names)] == [
        "Cosine similarity",
        "General*",
        "General†",
        "Activated general†",
        "Additive",
        "mine",
        "General† (released)",
    ]


def test_rows_that_are_written_alike_are_best_together():
    rows = (Row("a", "a", (1.04,)), Row("b", "b", (0.96,)), Row("c", "c", (0.9,)), Row("d", "d", (9.0,), control=True))
    assert Table("", (Column("x", "X"),), rows).best() == [frozenset("ab")]
