"""What a scraped record means: raw text in, a typed and valid book out, or one reason per field that is not.

Nothing is guessed. An amount that can be read two ways, a text that may or may not be mojibake, a stock that is not
told: the first and the last are refused with a reason, the second stays as the shop wrote it.

Every function takes time linear in its text for what shops write, and raw text is refused beyond `RAW_MAX`, so that
no page can keep a worker busy. A record costs some 30 us; with ftfy looking at every text
it would be ten times as much, and that is what the fast paths below are for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from ftfy.badness import is_bad

from catalog.records import BookRecord, FieldError, RejectedRecord, ScrapedBook

#: Moves whenever the same raw record gives another clean one, so that unchanged records are cleaned again.
CLEANER_VERSION = 1

# Lengths are in characters, after cleaning.
TITLE_MAX = 500
UPC_MAX = 64
CATEGORY_MAX = 100
URL_MAX = 2000
PRODUCT_TYPE_MAX = 50
AVAILABILITY_MAX = 100
AUTHOR_MAX = 200
AUTHORS_MAX = 100  # names
DESCRIPTION_MAX = 50_000
RAW_MAX = 2 * DESCRIPTION_MAX  # characters of any raw field; a teaser may double a description
MONEY_MAX = Decimal("99999999.99")  # NUMERIC(10, 2)
STOCK_MAX = 1_000_000  # copies
REVIEWS_MAX = 1_000_000_000

T = TypeVar("T")

_NOBODY: tuple[str, ...] = ()
_NO_WORDS: tuple[str, str | None] = ("", None)


def clean(scraped: ScrapedBook) -> BookRecord:
    """The book that a scraped record tells about.

    Raises:
        RejectedRecord: with one error for each field that is missing or wrong; every field is judged.
    """
    errors: list[FieldError] = []
    title = _judge(errors, "title", scraped.title, _title, "")
    upc = _judge(errors, "upc", scraped.upc, _upc, "")
    authors = _judge(errors, "authors", scraped.authors, _authors, _NOBODY)
    description = _judge(errors, "description", scraped.description, _description, "")
    category = _judge(errors, "category", scraped.category, _category, "")
    money = _money(errors, scraped)
    rating = _judge(errors, "rating", scraped.rating, _rating, 0)
    availability, told = _judge(errors, "availability", scraped.availability, _availability, _NO_WORDS)
    stock = _judge(errors, "stock", scraped.stock, lambda raw: _stock(raw, availability, told), 0)
    review_count = _judge(errors, "review_count", scraped.review_count, _review_count, 0)
    product_type = _judge(errors, "product_type", scraped.product_type, _product_type, "")
    image_url = _judge(errors, "image_url", scraped.image_url, _optional_url, "")
    source_url = _judge(errors, "source_url", scraped.source_url, _optional_url, "")
    if errors:
        raise RejectedRecord(errors)
    return BookRecord(
        upc=upc,
        title=title,
        authors=authors,
        description=description,
        category=category,
        price=money.price,
        price_excl_tax=money.price_excl_tax,
        tax=money.tax,
        currency=money.currency,
        rating=rating,
        stock=stock,
        availability=availability,
        in_stock=stock > 0,
        review_count=review_count,
        product_type=product_type,
        image_url=image_url,
        source_url=source_url,
    )


class _Refusal(Exception):
    """Why a value is refused; becomes a FieldError when the field is known."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def _judge(errors: list[FieldError], field: str, raw: Any, rule: Callable[[Any], T], fallback: T) -> T:
    """What the rule makes of a raw value; where it refuses, its reason joins the errors and the fallback stands in."""
    try:
        if len(raw) > RAW_MAX:
            raise _Refusal("too_long", f"{len(raw)} characters or names, at most {RAW_MAX} are read.")
        return rule(raw)
    except _Refusal as refusal:
        errors.append(FieldError(field, refusal.code, refusal.detail))
    except UnicodeEncodeError:
        errors.append(FieldError(field, "invalid", f"Holds half of a surrogate pair: {_shown(raw)}."))
    except (TypeError, AttributeError):
        # Records also come from files, where anything can stand for a text.
        errors.append(FieldError(field, "invalid", f"Is not a text: {_shown(raw)}."))
    return fallback


def _shown(raw: object) -> str:
    """A value as an error shows it: at most 80 characters, none that a database or a terminal would choke on."""
    shown = repr(raw[:80] if isinstance(raw, str) else raw)
    return shown if len(shown) <= 80 else shown[:77] + "..."


# -- text -----------------------------------------------------------------------------------------------------------

_PRINTABLE_ASCII = bytes(range(0x20, 0x7F))

#: White space that `str.split` knows besides the blank; all of it becomes single blanks.
_SPACES = frozenset(c for c in map(chr, range(0x3001)) if c.isspace() and c != " ")

#: Controls, C1 apart, which mojibake is made of; and what is invisible and turns text around or marks a byte order.
_CONTROLS = {c: None for c in (*range(0x20), 0x7F) if not chr(c).isspace()}
_CONTROLS |= dict.fromkeys((0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
_C1 = {c: None for c in range(0x80, 0xA0) if not chr(c).isspace()}

#: What UTF-8's first bytes look like in Latin-1 and Windows-1252, and what its other bytes look like in either.
_LEADS = frozenset(map(chr, range(0xC2, 0xF5)))
_FOLLOWERS = "".join({bytes([b]).decode(c) for b in range(0x80, 0xC0) for c in ("latin-1", "sloppy-windows-1252")})
_SUSPICIOUS = re.compile(f"[\xc2-\xf4][{re.escape(_FOLLOWERS)}]")

#: Characters beyond ASCII that need nothing: composed already, printable, and no mojibake without a lead.
_QUIET_RANGES = ((0xA1, 0x234), (0x2010, 0x2028), (0x2030, 0x205F), (0x20A0, 0x20C0), (0x2122, 0x2123))
_QUIET = frozenset(chr(c) for low, high in _QUIET_RANGES for c in range(low, high)) - _LEADS
_TAME = _QUIET | _SPACES
_TAME_WITH_LEADS = _TAME | _LEADS


def clean_text(raw: str) -> str:
    """The text on one line, in NFC, without controls, its white space single blanks, certain mojibake repaired.

    Typographic quotes, ligatures and full-width letters stay as they are: they are what the shop wrote. Cleaning the
    result again changes nothing.

    Raises:
        UnicodeEncodeError: it holds a lone surrogate, which no database stores.
    """
    return _tidied(raw)[0]


def _tidied(raw: str) -> tuple[str, bool]:
    """The clean text, and whether it may hold mojibake."""
    # All that is unusual about the text, at the speed of memcpy.
    unusual = raw.encode().translate(None, _PRINTABLE_ASCII)
    if unusual and not (kinds := set(unusual.decode())) <= _QUIET:
        if not (kinds <= _TAME or (kinds <= _TAME_WITH_LEADS and not _SUSPICIOUS.search(raw))):
            return _settled(raw), True
        for space in kinds & _SPACES:
            raw = raw.replace(space, " ")
    # A few blanks too many cost less this way than cutting the text into words; a long run halves each time.
    while "  " in raw:
        raw = raw.replace("  ", " ")
    return raw.strip(" "), False


def _settled(text: str) -> str:
    """The text after every rule has nothing left to do: dropping a control may complete a broken sequence."""
    while True:
        tidy = unicodedata.normalize("NFC", text.translate(_CONTROLS))
        # Repair comes before blanks are made of no-break spaces, which mojibake is also made of.
        tidy = unicodedata.normalize("NFC", _repaired(tidy).translate(_C1))
        tidy = " ".join(tidy.split())
        if tidy == text:
            return text
        text = tidy


#: Mojibake that is certain wherever it stands: UTF-8's quotes, dashes, bullets and ellipsis, and letters and signs
#: whose second half never follows an A with tilde or circumflex. A quote after such an A proves nothing ("A CANÇÃ”").
_CERTAIN = re.compile("â(?:€[‘’“”•–—˜™š›œ\x9d\x9dž¡¢¦°¹º]|\x80[\x90-\xa7\xb0\xb9\xba])|Â[\xa0£©®°]|Ã[¡-ª¬®-¶¸-º¼-¿]")

#: What is left of a dash or quote whose last byte went missing: books.toscrape.com really has 'â€"'. Which one it was
#: nobody can tell, so the text stays as it is as a whole, rather than half repaired.
_LOST = re.compile("â[€\x80]")


def _repaired(text: str) -> str:
    """The text with the mojibake decoded that is certain, layer by layer."""
    # The look for a lead and its follower comes first because ftfy's own test costs half a millisecond a text.
    while _SUSPICIOUS.search(text):
        fixed = _decoded(text)
        if fixed == text:
            break
        text = fixed
    return text


def _decoded(text: str) -> str:
    """One layer less: the text as a whole where all of it decodes, else the sequences that are certain."""
    if is_bad(text):
        for encoding in ("latin-1", "sloppy-windows-1252"):
            try:
                return text.encode(encoding).decode("utf-8")
            except UnicodeError:
                continue
    fixed = _CERTAIN.sub(_decoded_sequence, text)
    return text if _LOST.search(fixed) else fixed


def _decoded_sequence(match: re.Match[str]) -> str:
    encoding = "latin-1" if match[0].startswith("â\x80") else "sloppy-windows-1252"
    try:
        return match[0].encode(encoding).decode("utf-8")
    except UnicodeError:
        return match[0]


def _within(text: str, limit: int) -> str:
    if len(text) > limit:
        raise _Refusal("too_long", f"{len(text)} characters, at most {limit} fit: {_shown(text)}.")
    return text


def _required(text: str) -> str:
    if not text:
        raise _Refusal("missing", "Is missing or blank.")
    return text


def _title(raw: str) -> str:
    return _within(_required(clean_text(raw)), TITLE_MAX)


def _category(raw: str) -> str:
    return _within(_required(clean_text(raw)), CATEGORY_MAX)


def _product_type(raw: str) -> str:
    return _within(clean_text(raw), PRODUCT_TYPE_MAX)


def _upc(raw: str) -> str:
    """The code without the white space around it. It is an identity: what is odd within it is refused, not removed."""
    upc = raw.strip()
    if not upc.isascii():
        upc = unicodedata.normalize("NFC", upc)
    if not _required(upc).isprintable() or " " in upc:
        raise _Refusal("invalid", f"Holds white space or characters that cannot be printed: {_shown(raw)}.")
    return _within(upc, UPC_MAX)


def _authors(raw: tuple[str, ...]) -> tuple[str, ...]:
    """The names in their order, each once."""
    if not raw:
        return ()
    if len(raw) > AUTHORS_MAX:
        raise _Refusal("too_long", f"{len(raw)} names, at most {AUTHORS_MAX} fit.")
    if any(len(name) > RAW_MAX for name in raw):
        raise _Refusal("too_long", f"A name has more than {RAW_MAX} characters.")
    names = dict.fromkeys(_within(clean_text(name), AUTHOR_MAX) for name in raw)
    names.pop("", None)
    return tuple(names)


# -- description ----------------------------------------------------------------------------------------------------

#: A teaser has at least as many letters and digits; what is shorter may repeat by chance.
_TEASER_MIN = 30

_MORE = ("...more", "... more", "…more", "… more")
_ASCII = bytes(range(0x80))
_FOLD = bytes(range(0x80)).lower() + bytes(range(0x80, 0x100))
_NOT_ASCII_ALPHANUMERIC = bytes(b for b in range(0x100) if b > 0x7F or not chr(b).isalnum())
_NOT_ALPHANUMERIC = bytes(b for b in range(0x80) if not chr(b).isalnum())


def _description(raw: str) -> str:
    return _within(clean_description(raw), DESCRIPTION_MAX)


def clean_description(raw: str) -> str:
    """The clean text without a trailing "...more" and without the teaser that some shops put before the whole text.

    A teaser is the beginning of a text whose letters and digits, at least 30 and compared without case, are also the
    beginning of what follows it. What is left is the end of `clean_text(raw)` without its "...more", its mojibake
    decoded where only the teaser stood in the way. Cleaning it again changes nothing.

    Raises:
        UnicodeEncodeError: it holds a lone surrogate.
    """
    text, suspicious = _tidied(raw)
    text = _without_teaser(_without_more(text))
    # Without its teaser a text may decode that did not as a whole.
    while suspicious and clean_text(text) != text:
        text = _without_teaser(_without_more(clean_text(text)))
    return text


def _without_teaser(text: str) -> str:
    while place := _verbatim_teaser(text):
        text = text[place:]
    if not _may_have_teaser(text):
        return text
    letters = _letters(text)
    while size := _teaser_size(letters):
        text = text[_end_of_teaser(text, letters[:size]) :]
        letters = letters[size:]
    return text


def _verbatim_teaser(text: str) -> int:
    """Where the whole text begins behind a teaser that it repeats to the letter, as nearly all do; else 0."""
    place = text.rfind(text[:_TEASER_MIN], _TEASER_MIN, len(text) // 2 + 2 * _TEASER_MIN)
    if place > 0 and text.startswith(text[:place].rstrip(" "), place):
        letters = text[:place].encode().translate(None, _NOT_ASCII_ALPHANUMERIC)
        if len(letters) >= _TEASER_MIN or sum(map(str.isalnum, text[:place])) >= _TEASER_MIN:
            return place
    return 0


def _may_have_teaser(text: str) -> bool:
    """Whether the first few letters come again: an answer in two passes, which for nearly all texts is no."""
    letters = text.encode().translate(_FOLD, _NOT_ASCII_ALPHANUMERIC)
    if len(letters) < len(text) // 2:
        return True  # not mainly in Latin letters, which alone were looked at
    head = letters[: _TEASER_MIN // 2]
    return letters.find(head, len(head)) > 0


def _without_more(text: str) -> str:
    end = len(text)
    while text.endswith(_MORE, 0, end):
        end -= next(len(more) for more in _MORE if text.endswith(more, 0, end))
        while end and text[end - 1] == " ":
            end -= 1
    return text[:end]


def _letters(text: str) -> bytes:
    """Letters and digits alone, in lower case, as UTF-8: bytes can be filtered at the speed of memcpy."""
    letters = text.encode().translate(_FOLD, _NOT_ALPHANUMERIC)
    if text.isascii():
        return letters
    others = set(letters.translate(None, _ASCII).decode())
    if len(others) > 64:
        return "".join([_lower(c) for c in text if c.isalnum()]).encode()
    for c in others:
        if not c.isalnum():
            letters = letters.replace(c.encode(), b"")
        elif _lower(c) != c:
            letters = letters.replace(c.encode(), _lower(c).encode())
    return letters


def _lower(c: str) -> str:
    """One character in lower case, where that is one character."""
    lower = c.lower()
    return lower if len(lower) == 1 else c


def _teaser_size(letters: bytes) -> int:
    """Bytes of the longest teaser; 0 when there is none.

    A teaser's first bytes stand again right behind it, which `find` looks for; in all but texts made for the purpose
    that leaves one place to compare. The worst text of `RAW_MAX` takes a fraction of a second.
    """
    half = len(letters) // 2
    head = letters[:_TEASER_MIN]
    size = letters.find(head, _TEASER_MIN)
    if not 0 < size <= half:
        return 0
    size = letters.rfind(head, _TEASER_MIN, half + _TEASER_MIN)
    while size > 0:
        # Its last bytes are compared first: they tell most false ones without copying a long prefix.
        if letters[size - 8 : size] == letters[2 * size - 8 : 2 * size] and letters.startswith(letters[:size], size):
            return size if len(letters[:size].decode()) >= _TEASER_MIN else 0
        size = letters.rfind(head, _TEASER_MIN, size + _TEASER_MIN - 1)
    return 0


def _end_of_teaser(text: str, teaser: bytes) -> int:
    """Where the whole text begins, with the quote or bracket it opens with."""
    # The text's own beginning nearly always shows the place; where it is written otherwise, the letters are counted.
    place = text.find(text[:20], 1)
    if place < 0 or _letters(text[:place]) != teaser:
        left = len(teaser.decode())
        place = 0
        while left or not text[place].isalnum():
            left -= text[place].isalnum()
            place += 1
    opening = place
    while not text[opening - 1].isalnum() and text[opening - 1] != " ":
        opening -= 1
    return opening if text[opening - 1] == " " else place


# -- money ----------------------------------------------------------------------------------------------------------

_DOLLARS = (
    "USD ARS AUD BBD BMD BND BSD BZD CAD CLP COP CUP CVE DOP FJD GYD HKD JMD KYD LRD MXN NAD NZD SBD SGD SRD TTD TWD "
    "UYU XCD"
)
_POUNDS = "GBP EGP FKP GIP SHP SSP"

#: What a sign can stand for; the first where nothing else is said.
_SIGNS: dict[str, list[str]] = {
    "£": _POUNDS.split(),
    "€": ["EUR"],
    "R$": ["BRL"],
    "US$": ["USD"],
    "$": _DOLLARS.split(),
    "¥": ["JPY", "CNY"],
}

#: ISO 4217, currencies in use.
_CODES = frozenset(
    f"{_DOLLARS} {_POUNDS} EUR BRL JPY CNY "
    "AED AFN ALL AMD AOA AWG AZN BAM BDT BGN BHD BIF BOB BTN BWP BYN CDF CHF CRC CZK DJF DKK DZD ERN ETB GEL GHS GMD "
    "GNF GTQ HNL HTG HUF IDR ILS INR IQD IRR ISK JOD KES KGS KHR KMF KPW KRW KWD KZT LAK LBP LKR LSL LYD MAD MDL MGA "
    "MKD MMK MNT MOP MRU MUR MVR MWK MYR MZN NGN NIO NOK NPR OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR "
    "SCR SDG SEK SLE SOS STN SVC SYP SZL THB TJS TMT TND TOP TRY TZS UAH UGX UZS VES VND VUV WST XAF XOF XPF YER ZAR "
    "ZMW ZWG".split()
)

#: Which mark groups thousands where one group alone would leave it open: 1,234 pounds, 1.234 reais.
_GROUPING = {"GBP": ",", "USD": ",", "JPY": ",", "CNY": ",", "BRL": "."}

_AMOUNT_MAX = 64  # characters
_AMOUNT = re.compile(
    r"(?P<minus>[-−] ?)?(?P<code>[A-Za-z]{3} ?)?(?P<sign>R\$|US\$|[£€$¥])? ?(?P<minus_within>[-−] ?)?"
    r"(?P<number>[0-9.,][0-9.,'’ ]*)"
    r"(?P<sign_after>R\$|US\$|[£€$¥])? ?(?P<code_after>[A-Za-z]{3})?"
)
_PLAIN_NUMBER = re.compile(r"(?P<whole>[0-9]*)(?:(?<=[0-9])|(?=[.,]))(?:[.,](?P<cents>[0-9]{1,2}))?")
_GROUPED_NUMBER = re.compile(
    r"(?P<whole>[1-9][0-9]{0,2}(?P<group>[.,' ])[0-9]{3}(?:(?P=group)[0-9]{3})*)"
    r"(?:(?!(?P=group))[.,](?P<cents>[0-9]{1,2}))?"
)


class _Amount(NamedTuple):
    value: Decimal | None  # None when the page does not tell
    marks: tuple[str, ...]  # signs and codes beside it


class _Money(NamedTuple):
    price: Decimal
    price_excl_tax: Decimal
    tax: Decimal
    currency: str


_ZERO = Decimal("0.00")
_UNTOLD = _Amount(None, ())


def _money(errors: list[FieldError], scraped: ScrapedBook) -> _Money:
    """The three amounts and their currency, each derived from the others where the page does not tell it."""
    told = (scraped.currency, scraped.price, scraped.price_excl_tax, scraped.tax)
    try:
        short = len("".join(told)) <= _AMOUNT_MAX
    except TypeError:  # one of them is no text
        short = False
    money, wrong = _money_of(*told) if short else _money_of.__wrapped__(*told)
    errors += wrong
    return money


@lru_cache(maxsize=8192)
def _money_of(code: str, price_text: str, net_text: str, tax_text: str) -> tuple[_Money, Sequence[FieldError]]:
    """The money and what is wrong with it. Shops name the same prices over and over: each costs once."""
    errors: list[FieldError] = []
    named = _judge(errors, "currency", code, _code, "")
    price = _judge(errors, "price", price_text, lambda raw: _amount(raw, named), _UNTOLD)
    if price.value is None and not any(e.field == "price" for e in errors):
        errors.append(FieldError("price", "missing", "Is missing or blank."))
    context = named or _meant(price.marks)
    net = _judge(errors, "price_excl_tax", net_text, lambda raw: _amount(raw, context), _UNTOLD)
    tax = _judge(errors, "tax", tax_text, lambda raw: _amount(raw, context), _UNTOLD)
    refused = {e.field for e in errors}

    currency = ""
    if "currency" not in refused:
        marks = price.marks + net.marks + tax.marks
        # Where an amount was refused, the currency it may have named is not missed as well.
        if named or marks or not refused:
            currency = _judge(errors, "currency", code, lambda _: _currency(named, marks), "")
    if price.value is None or "price_excl_tax" in refused or "tax" in refused:
        return _Money(_ZERO, _ZERO, _ZERO, currency), errors
    whole = price.value
    shares = _judge(errors, "tax", tax_text, lambda _: _shares(whole, net.value, tax.value), (_ZERO, _ZERO))
    return _Money(whole, *shares, currency), errors


def _shares(price: Decimal, net: Decimal | None, tax: Decimal | None) -> tuple[Decimal, Decimal]:
    """The price without tax, and the tax."""
    if net is None:
        net = price - (tax or _ZERO)
    if tax is None:
        tax = price - net
    if net < 0 or tax < 0 or net + tax != price:
        raise _Refusal("invalid", f"Price without tax {net} and tax {tax} do not make the price {price}.")
    return net, tax


def _amount(raw: str, currency: str) -> _Amount:
    text = raw.strip()
    if not text:
        return _UNTOLD
    if len(text) > _AMOUNT_MAX:
        raise _Refusal("invalid", f"Is too long for an amount of money: {_shown(text)}.")
    match = _AMOUNT.fullmatch(clean_text(text))
    if match is None:
        raise _Refusal("invalid", f"Is not an amount of money: {_shown(text)}.")
    marks = [(mark or "").strip() for mark in match.group("code", "sign", "sign_after", "code_after")]
    marks = [mark if mark in _SIGNS else mark.upper() for mark in marks if mark]
    for mark in marks:
        if mark not in _SIGNS and mark not in _CODES:
            raise _Refusal("invalid", f"Is in no known currency: {_shown(text)}.")
    value = _number(match["number"].strip().replace("’", "'"), currency or _meant(tuple(marks)))
    if (match["minus"] or match["minus_within"]) and value:
        raise _Refusal("out_of_range", f"Is negative: {_shown(text)}.")
    return _Amount(value, tuple(marks))


def _number(text: str, currency: str) -> Decimal:
    match = _PLAIN_NUMBER.fullmatch(text)
    if match is None:
        match = _GROUPED_NUMBER.fullmatch(text)
        if match is None:
            raise _Refusal("invalid", f"Is not a number with at most two decimals: {_shown(text)}.")
        # "1.234" may be a thousand, or one with three decimals: only the currency's own custom can tell.
        group = match["group"]
        if len(text) <= 7 and match["cents"] is None and group in ",." and _GROUPING.get(currency) != group:
            raise _Refusal("invalid", f"May mean thousands or three decimals: {_shown(text)}.")
    whole = re.sub("[^0-9]", "", match["whole"]).lstrip("0") or "0"
    if len(whole) > 8:
        raise _Refusal("out_of_range", f"Is above {MONEY_MAX}: {_shown(text)}.")
    return Decimal(f"{whole}.{(match['cents'] or '').ljust(2, '0')}")


def _code(raw: str) -> str:
    code = raw.strip().upper()
    if code and code not in _CODES:
        raise _Refusal("invalid", f"Is not a currency of ISO 4217: {_shown(raw)}.")
    return code


def _meant(marks: tuple[str, ...]) -> str:
    """The currency that the marks beside an amount mean, as far as they alone can tell; "" when there are none."""
    return next((mark for mark in marks if mark in _CODES), "") or (_SIGNS[marks[0]][0] if marks else "")


def _currency(named: str, marks: tuple[str, ...]) -> str:
    currency = named or _meant(marks)
    if not currency:
        raise _Refusal("missing", "Neither the price nor the record names a currency.")
    for mark in marks:
        if currency not in _SIGNS.get(mark, (mark,)):
            raise _Refusal("invalid", f"The record is in {currency}, an amount in {mark}.")
    return currency


# -- numbers and words ----------------------------------------------------------------------------------------------

_RATINGS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5} | {str(n): n for n in range(1, 6)}
_WHOLE = re.compile(r"(-?)(?:([0-9]{1,20})|([0-9]{1,3}(?:,[0-9]{3}){1,5}))")
_COUNTED = re.compile(r"(?P<words>.*?) ?\( ?(?P<count>-?[0-9][0-9,]*) available ?\)", re.IGNORECASE)
_SOLD_OUT = frozenset({"out of stock", "sold out", "not available", "unavailable"})


def _whole(text: str, low: int, high: int) -> int:
    match = _WHOLE.fullmatch(text)
    if match is None:
        # So many digits are not read: Python refuses them, and no count is that large.
        code = "out_of_range" if len(text) > 20 and text.isdecimal() else "invalid"
        raise _Refusal(code, f"Is not a whole number from {low} to {high}: {_shown(text)}.")
    number = int(text.replace(",", ""))
    if not low <= number <= high:
        raise _Refusal("out_of_range", f"Is not from {low} to {high}: {_shown(text)}.")
    return number


def _rating(raw: str) -> int:
    rating = _RATINGS.get(raw.strip().lower())
    if rating is None:
        text = _required(raw.strip())
        _whole("0" if text.lower() == "zero" else text, 1, 5)
        raise _Refusal("invalid", f"Is not a number of stars: {_shown(raw)}.")
    return rating


def _review_count(raw: str) -> int:
    text = raw.strip()
    return _whole(text, 0, REVIEWS_MAX) if text else 0


@lru_cache(maxsize=1024)
def _availability_of(text: str) -> tuple[str, str | None]:
    words = clean_text(text)
    if match := _COUNTED.fullmatch(words):
        return match["words"], match["count"]
    return words, None


def _availability(raw: str) -> tuple[str, str | None]:
    """The shop's words, and the count beside them where there is one."""
    words, count = _availability_of(raw) if len(raw) <= AVAILABILITY_MAX else _availability_of.__wrapped__(raw)
    return _within(words, AVAILABILITY_MAX), count


def _stock(raw: str, availability: str, told: str | None) -> int:
    """Copies: the field of its own, else the count beside the availability, else none for words that say none."""
    if text := raw.strip():
        return _whole(text, 0, STOCK_MAX)
    sold_out = availability.lower() in _SOLD_OUT
    if told is None:
        if sold_out:
            return 0
        raise _Refusal("missing", f"The page does not count the copies: {_shown(availability)}.")
    copies = _whole(told, 0, STOCK_MAX)
    if sold_out and copies:
        raise _Refusal("invalid", f"{_shown(availability)}, yet {copies} available.")
    return copies


# -- addresses ------------------------------------------------------------------------------------------------------

#: A host is required; a name and password before it are not ours to publish.
_ADDRESS = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[^/?#:@\[\]\\]+)(?::[0-9]{1,5})?(?:[/?#].*)?", re.IGNORECASE)


def _url(raw: str) -> str:
    url = _required(raw.strip())
    if len(url) > URL_MAX:
        raise _Refusal("too_long", f"{len(url)} characters, at most {URL_MAX} fit: {_shown(url)}.")
    if not url.isprintable() or " " in url or not _ADDRESS.fullmatch(url):
        raise _Refusal("invalid", f"Is not an absolute http or https address: {_shown(raw)}.")
    return url


def _optional_url(raw: str) -> str:
    return _url(raw) if raw.strip() else ""
