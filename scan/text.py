"""Text of foreign origin, such as names of files and messages of libraries, in one line."""

MAX_CHARS = 2000  # of a message, as a terminal still shows it
MAX_REASON_CHARS = 400  # there may be one reason for each field


def one_line(text: str, limit: int = MAX_CHARS) -> str:
    """Return text that is safe to print: in one line, without control characters, and bounded.

    What a terminal would act on, or not show, is escaped as in Python: line breaks, ESC, marks that
    change the direction of writing, parts of undecodable names.
    """
    text = text.strip()
    more = len(text) - limit
    if more > 0:
        text = f"{text[:limit]}… and {more} characters more"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def describe(error: BaseException, limit: int = MAX_REASON_CHARS) -> str:
    """Return type and message of any exception in one line, also of one that has no message."""
    try:
        message = str(error)
    except BaseException as another:  # of a user's code: its __str__ may raise anything
        message = f"its message raises {type(another).__name__}"
    return one_line(f"{type(error).__name__}: {' '.join(message.split())}", limit)
