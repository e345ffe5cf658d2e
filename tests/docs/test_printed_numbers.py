"""The comparison of shown and printed numbers finds what differs, and nothing else."""

import pytest
from doc_pages import fenced, shell_lines
from printed_numbers import check_comment, check_output, same

TABLE = """\
two, 45 images
           mean rank  passes  ms per image
  rollout       1.38    1.00           8.9
  chefer        1.62    2.02          18.6
"""


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("0.111", "0.1114", True),
        ("0.111", "0.112", True),
        ("0.111", "0.113", False),
        ("45", "46", False),
        ("±0.05", "±0.05", True),
        ("1,800", "1800", True),
        ("5.3e-07", "2.1e-07", True),
        ("5.3e-07", "2.1e-03", False),
        ("5.3e-07", "-5.3e-07", False),
    ],
)
def test_shown_digits_count(shown, printed, expected):
    assert same(shown, printed) is expected


def test_times_are_ignored_and_lines_may_lie_between():
    printed = TABLE.replace("8.9", "123.4").replace("two,", "wrote a file\ntwo,")
    assert check_output(TABLE, printed, ["ms per image"]) == 1 + 2 * 2


@pytest.mark.parametrize(("old", "new"), [("2.02", "2.52"), ("chefer", "legrad"), ("8.9", "9.9"), ("45", "44")])
def test_what_differs_is_found(old, new):
    with pytest.raises(AssertionError, match="the page shows"):
        check_output(TABLE, TABLE.replace(old, new), [])


def test_lines_in_another_order_are_found():
    lines = TABLE.splitlines()
    with pytest.raises(AssertionError, match="the page shows"):
        check_output(TABLE, "\n".join([*lines[:2], lines[3], lines[2]]), [])


def test_comments_name_numbers_in_order():
    assert check_comment("# (1, 7, 7)", "torch.Size([1, 7, 7])") == 3
    assert check_comment("# (1, classes); (1, 2, rows)", "(1, 9) (1, 2, 12)") == 3
    with pytest.raises(AssertionError, match="has 8"):
        check_comment("# (1, 8)", "(1, 7)")


def test_comments_above_a_block_are_read():
    (first, second) = fenced(
        "text\n<!-- given: cat.jpg -->\n<!-- not run: needs a GPU -->\n```bash\nvitrail list  # all\n```\n\n```python\n1\n```\n"
    )
    assert first.asked == {"not run": "needs a GPU"}
    assert (first.language, first.line, shell_lines(first.text)) == ("bash", 5, [["vitrail", "list"]])
    assert second.asked == {}
