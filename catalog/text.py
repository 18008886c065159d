"""Text as it is compared: without case and accents."""

import unicodedata


def fold(text: str) -> str:
    """`text` without case and accents, so that "Café" finds "CAFE".

    >>> fold("Être à l'Œuvre")
    "etre a l'œuvre"
    """
    folded = text.casefold()
    if folded.isascii():
        return folded
    decomposed = unicodedata.normalize("NFKD", folded)
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))
