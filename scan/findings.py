"""What makes the counts of a scan doubtful, by the codes that its statistics carry."""

FINDINGS = {
    "few": "fewer than 8 objects in the autofocus images, so their size is a guess",
    "confluent": "more than half of the autofocus images is covered by objects",
    "textured": "most objects have ragged outlines, like patches of a texture",
    "polarity": "whether objects are brighter or darker than the ground is unclear; set it",
    "saturated": "more than 2 % of the pixels of objects are saturated",
    "uneven": "objects of very different brightness: those with less than a fifth of the typical"
    " light are not counted",
}


def text_of(code: str) -> str:
    """Return what a code means; a code of another version stands for itself."""
    return FINDINGS.get(code, code)
