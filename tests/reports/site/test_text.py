import pytest

from intentbench.reports.site.blocks import take_apart
from intentbench.reports.site.names import slug
from intentbench.reports.site.tables import text_cell
from intentbench.reports.site.text import citation, inline


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("0.0012", "0.0012"),
        ("<ins>0.0558</ins> ± 0.0006", "<ins>0.0558</ins> ± 0.0006"),
        ("*`oracle` (ceiling)*", "<em><code>oracle</code> (ceiling)</em>"),
        (r"+0.2 [-0.1, +0.5] \~†", "+0.2 [-0.1, +0.5] ~†"),
        ("leave_one_out", "leave_one_out"),
        ("<script>x</script> & [a](javascript:x)", None),
        ("\"quoted\" 'too'", "&#34;quoted&#34; &#39;too&#39;"),
        ("![a](https://example.org/x.png)", "![a](https://example.org/x.png)"),
    ],
)
def test_markdown_of_cells(text: str, html: str | None) -> None:
    found = str(inline(text))
    if html is None:
        html = "&lt;script&gt;x&lt;/script&gt; &amp; [a](javascript:x)"
    assert found.replace("&quot;", "&#34;").replace("'", "&#39;") == html.replace("'", "&#39;")


def test_citations_are_linked_and_escaped() -> None:
    found = citation("A <b>, doi:10.1145/3726302.3730010, https://github.com/a/b-c.d. 'E'")
    assert found == (
        'A &lt;b&gt;, <a href="https://doi.org/10.1145/3726302.3730010">'
        'doi:10.1145/3726302.3730010</a>, <a href="https://github.com/a/b-c.d">'
        "https://github.com/a/b-c.d</a>. &#39;E&#39;"
    )


def test_names_of_files_are_safe_and_apart() -> None:
    odd = ["A", "a", "../a", "a/b", "a b", "", "é", ".", "..", "CON", "a" * 300, "x\n", '"<>|']
    found = [slug(name) for name in odd]
    assert len({name.casefold() for name in found}) == len(odd)
    for name in found:
        assert name
        assert len(name) <= 100
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.")
        assert not name.startswith((".", "-"))
    assert slug("yelp-cf") == "yelp-cf"
    assert slug("irllrec.yelp-cf.groups") == "irllrec.yelp-cf.groups"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("0.0562 ± 0.0006", 0.0562),
        ("**0.0562** ± 0.0006", 0.0562),
        ("-51.9 [-54.6, -49.1] v", -51.9),
        ("+0.6 [-4.5, +5.8] =†", 0.6),
        ("4 / 88 / 8", 4.0),
        ("12,345,678", 12345678.0),
        ("1/3", 1.0),
        ("0.0830 (+10.2 %)", 0.083),
        ("-", None),
        ("reference", None),
    ],
)
def test_cells_are_sorted_by_the_number_they_begin_with(text: str, key: float | None) -> None:
    assert text_cell(text).key == key


def test_a_page_is_taken_apart_in_order() -> None:
    page = """# Title

**Note.** More.

## one

| a | b |
| :-- | --: |
| `x` | 1 |
| *all* | <ins>2</ins> |

Costs:

| a |
| :-- |
| `x` |

![A picture](one.svg)

- first
- **second**

## How

```
run this   # now
```
"""
    above, one, how = take_apart(page)
    assert [block.text for block in above.blocks] == ["**Note.** More."]
    assert one.heading == "one"
    assert [block.kind for block in one.blocks] == ["table", "table", "picture", "list"]
    assert one.blocks[0].columns == (("a", ["`x`", "*all*"]), ("b", ["1", "<ins>2</ins>"]))
    assert one.blocks[1].text == "Costs"
    assert (one.blocks[2].text, one.blocks[2].file) == ("A picture", "one.svg")
    assert one.blocks[3].items == ("first", "**second**")
    assert how.blocks[0].text == "run this   # now\n"
