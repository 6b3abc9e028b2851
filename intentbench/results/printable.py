"""Text of others on one line: reasons quote what a method or library said, escape codes too."""


def printable(text: str) -> str:
    r"""Text with a space for each character that is no letter, sign or plain space.

    Line breaks, a terminal's escape codes and what XML cannot hold are among these.

    >>> printable("\x1b[31mnan\x00 in\nscores")
    ' [31mnan  in scores'
    """
    return "".join(c if c.isprintable() else " " for c in text)
