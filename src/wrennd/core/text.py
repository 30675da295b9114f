"""Text from strangers, made fit for a terminal."""


def printable(text: str) -> str:
    """With what a terminal would act upon as escapes; line ends stay."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )
