"""Tables on pages are those of the records."""

from pathlib import Path

import pytest
from pages import BLOCK, PAGES, filled, printed


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(Path(path.parent.name, path.name)))
def test_every_table_is_that_of_its_records(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert BLOCK.search(text), "the page has no table: take it off the list"
    assert filled(text) == text, "run `make tables`"


def test_what_stood_there_is_replaced() -> None:
    table = printed("densescan results table --help")
    assert filled("a\n<!-- densescan results table --help -->\nold\n<!-- end -->\nb") == (
        f"a\n<!-- densescan results table --help -->\n\n{table}\n\n<!-- end -->\nb"
    )


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"densescan results table nowhere: .*nowhere"):
        filled("<!-- densescan results table nowhere -->\n<!-- end -->")
