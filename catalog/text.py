"""Text as it is compared, without case and accents; and as every database stores it."""

import unicodedata

_ASCII = bytes(range(0x80))


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


#: Latin letters and punctuation, which fold one by one; letters of other scripts can join with their neighbors.
_ONE_BY_ONE = {c: _without_accents(c) for c in map(chr, (*range(0x80, 0x250), *range(0x2010, 0x2060)))}


def fold(text: str) -> str:
    """`text` without case and accents, so that "Café" finds "CAFE".

    >>> fold("Être à l'Œuvre")
    "etre a l'œuvre"
    """
    folded = text.casefold()
    if folded.isascii():
        return folded
    others = set(folded.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass"))
    if not others <= _ONE_BY_ONE.keys():
        return _without_accents(folded)
    # Few different characters in a text are beyond ASCII: some replacements are a tenth of the work.
    for c in others:
        folded = folded.replace(c, _ONE_BY_ONE[c])
    return folded


def printable(text: str) -> str:
    r"""`text` as every database stores it: NUL and halves of surrogate pairs are shown as escapes.

    >>> printable("NUL \0, half \ud83d")
    'NUL \\x00, half \\ud83d'
    """
    if "\0" in text:
        text = text.replace("\0", r"\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
