"""Text of foreign origin, such as names of files and messages of libraries, in one line."""

MAX_CHARS = 2000  # of a message, as a terminal still shows it
MAX_REASON_CHARS = 400  # there may be one reason for each field


def one_line(text: str, limit: int = MAX_CHARS) -> str:
    """Return text that is safe to print: in one line, without control characters, and bounded.

    What a terminal would act on, or not show, is escaped as in Python: line breaks, ESC, marks that
    change the direction of writing, parts of undecodable names.
    """
    text = text.strip()
    head = "".join(map(_escaped, text[:limit])) if not text[:limit].isprintable() else text[:limit]
    if len(text) <= limit >= len(head):
        return head
    mark = f"… ({len(text)} characters)"
    return head[: limit - len(mark)] + mark


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


def message_of(error: BaseException) -> str:
    """Return the message of any exception, also of a user's whose ``__str__`` raises another."""
    try:
        return str(error)
    except BaseException as another:
        return f"its message raises {type(another).__name__}"


def describe(error: BaseException, limit: int = MAX_REASON_CHARS) -> str:
    """Return type and message of any exception in one line."""
    return one_line(f"{type(error).__name__}: {' '.join(message_of(error).split())}", limit)
