import io

import pytest
from rich.table import Table
from rich.text import Text

from datamodules.console import plain_console


@pytest.mark.parametrize("line", ["a [/x] b", "t/[red]y", "p:ok:", "1 of 2 'x'", "long " * 40])
def test_a_line_is_printed_as_it_is(line: str) -> None:
    file = io.StringIO()
    plain_console(file=file, force_terminal=True, width=40, color_system="truecolor").print(line)
    assert file.getvalue() == line + "\n"


def test_tables_keep_their_styles_and_take_no_name_for_one() -> None:
    file = io.StringIO()
    table = Table("what", title="p:ok:[red]q")
    table.add_row("[bold]a folder of some length")
    table.add_row(Text("red", style="red"))
    plain_console(file=file, force_terminal=True, width=40, color_system="truecolor").print(table)
    said = file.getvalue()
    assert "p:ok:[red]q" in said
    assert "[bold]a folder of some length" in said
    assert "\x1b[31mred " in said
