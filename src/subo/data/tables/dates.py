"""Dates of text: which of their numbers is the day, the form in which they are written, the periods they are of."""

import re
import warnings
from collections.abc import Iterator

import pandas as pd
from pandas.api import types
from pandas.tseries.api import guess_datetime_format

from subo.data.tables.schema import PERIODS

__all__ = [
    "as_texts",
    "dates",
    "every_of",
    "form_of",
    "in_form",
    "looks_like_a_date",
    "moments",
    "order_of",
    "puts_day_first",
    "read_dates",
]

_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}/\d{1,2}/\d{1,2}"
    rf"|\d{{1,2}}[ -]{_MONTH}[ -]\d{{4}}|{_MONTH} \d{{1,2}}, \d{{4}}"
)
_TIME = r"\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*"
_ZONE = r":\d{2}(?:\.\d+)?\s?(?:Z|[+-]\d{2}:?\d{2})$"
_TWO_DIGITS = r"\d{1,2}[./-]\d{1,2}[./-]\d{2}\b.*"
_PARTS = r"^(\d{1,2})[./-](\d{1,2})[./-]\d{2}"
_SHORT_YEAR = r"^(\d{1,2}[./-]\d{1,2}[./-])(\d{2})(?!\d)"
_HALF_DAY = re.compile(r"(.+) \d{1,2}:\d{2}(:\d{2})? [AP]M")
_UNPADDED, _THREE = "\x01", "\x02"  # before a number that loses its 0, and after one that loses three digits
_OFFSET = r"([+-])(\d{2}):?(\d{2})$"
_COMMA = r"(:\d{2}),(\d+)$"  # before a fraction


def as_texts(cells: pd.Series) -> pd.Series:
    """Cells as text that dates are read from; numbers that became floats beside a missing cell as whole ones.

    Example:
        >>> as_texts(pd.Series([20210301.0, 20211224.0])).tolist()
        ['20210301', '20211224']
    """
    numbers = types.is_float_dtype(cells) and bool((cells == cells.round()).all())
    return (cells.astype("int64") if numbers else cells).astype("str")


def looks_like_a_date(text: str) -> bool:
    """Whether a text begins as dates do."""
    return _DATE.match(text) is not None


def puts_day_first(texts: pd.Series) -> bool:
    """Whether the day comes before the month: somewhere a 13th month would follow otherwise."""
    return bool((_parts(texts)[0] > 12).any())


def moments(days: pd.Series) -> pd.Series:
    """Dates of pandas' own types: Arrow's days have neither a time nor a zone to ask for."""
    return days.astype("datetime64[us]") if str(days.dtype).startswith(("date32", "date64")) else days


def dates(texts: pd.Series, *, day_first: bool) -> pd.Series:
    """Texts as dates in UTC, NaT where one is none; of 03/04/2020 the day comes first or second, as in all others."""
    iso = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    if iso[texts.notna()].notna().all():
        return iso
    form = _guessed(texts.dropna(), day_first=day_first)  # each text by itself takes ten times as long
    if form is not None and (read := _by_form(texts, form))[texts.notna()].notna().all():
        return read
    days = texts.mask(texts.astype("str").str.fullmatch(_TIME).fillna(False).astype(bool))  # times would be of today
    mixed = pd.to_datetime(days, errors="coerce", format="mixed", dayfirst=day_first, utc=True)
    month = _parts(texts)[1 if day_first else 0]
    return iso.where(iso.notna(), mixed.mask(month.notna() & (month != mixed.dt.month)))


def read_dates(cells: pd.Series, *, day_first: bool) -> pd.Series:
    """Cells as dates: those of pandas' own types, of Arrow, of text, or whole numbers such as 20210301."""
    return moments(cells) if types.is_datetime64_any_dtype(cells) else dates(as_texts(cells), day_first=day_first)


def form_of(texts: pd.Series, *, day_first: bool) -> str:
    """The form of dates in which all texts are; empty where there is none, or they are no text.

    Where each names its zone, and not in one form, it is that of ISO 8601 in UTC, so that no zone is lost.

    Example:
        >>> form_of(pd.Series(["03.04.2020", "13.04.2020"]), day_first=True)
        '%d.%m.%Y'
        >>> form_of(pd.Series(["4/3/2020 9:05", "12/13/2020 10:00"]), day_first=False)
        '%-m/%-d/%Y %-H:%M'
    """
    found = ""
    if (form := _guessed(texts, day_first=day_first)) is not None:
        days = _by_form(texts, form)
        zone = re.search(_OFFSET, texts.iloc[0])
        forms = (form, *(() if zone is None else (form.replace("%z", zone[0]),)))
        padded = (padded for own in forms for padded in _paddings(own))
        found = next((padded for padded in padded if (in_form(days, padded) == texts).all()), "")
    zoned = not found and types.is_string_dtype(texts) and bool(texts.astype("str").str.contains(_ZONE).all())
    if not zoned:
        return found
    fractions = bool(texts.astype("str").str.contains(r":\d{2}\.\d").any())
    return "%Y-%m-%dT%H:%M:%S.%3fZ" if fractions else "%Y-%m-%dT%H:%M:%SZ"


def in_form(days: pd.Series, form: str) -> pd.Series:
    """Dates as text in a form of `strftime`, which knows two more: ``%-d``, a number without a leading 0, and ``%3f``.

    The latter are milliseconds. An offset such as +02:00 at a form's end is that of the clock.

    Example:
        >>> in_form(pd.Series(pd.to_datetime(["2020-04-03 00:07", None])), "%-d.%-m.%Y %-H:%M").tolist()
        ['3.4.2020 0:07', nan]
    """
    if (zone := re.search(_OFFSET, form)) is not None:
        ahead = pd.Timedelta(hours=int(zone[2]), minutes=int(zone[3]))
        days = days + ahead if zone[1] == "+" else days - ahead
    texts = days.dt.strftime(form.replace("%-", f"{_UNPADDED}%").replace("%3f", f"%f{_THREE}"))
    texts = texts.str.replace(f"{_UNPADDED}0?", "", regex=True) if "%-" in form else texts
    return texts.str.replace(rf"\d{{3}}{_THREE}", "", regex=True) if "%3f" in form else texts


def _paddings(form: str) -> Iterator[str]:
    """A form with and without leading zeros of the date and of the hour, and with milliseconds only."""
    for fractions in (form, form.replace("%f", "%3f")):
        for hours in (fractions, re.sub("%([HI])", r"%-\1", fractions)):
            yield hours
            yield re.sub("%([dm])", r"%-\1", hours)


def order_of(texts: pd.Series) -> str:
    """In words, how texts are read as dates, as far as another reading is possible."""
    parts, first = _parts(texts), puts_day_first(texts)
    if parts[0].isna().all():
        return ""
    two = bool(texts.astype("str").str.fullmatch(_TWO_DIGITS).all())
    years = ", years of two digits as 1969 to 2068" * two
    return f", the {'day' if first else 'month'} before the {'month' if first else 'day'}{years}"


def every_of(days: pd.Series) -> str:
    """The longest of the periods of which all dates are whole ones, by the clock of their zone; empty if there is none.

    Example:
        >>> every_of(pd.Series(pd.to_datetime(["2020-03-04 10:00", "2020-03-04 10:30"])))
        'min'
    """
    known = moments(days.dropna())
    clock = known if known.dt.tz is None else known.dt.tz_localize(None)
    microseconds = clock.astype("datetime64[us]").astype("int64").to_numpy()
    whole = clock.dt.nanosecond.to_numpy() == 0
    divides = (name for name, length in PERIODS.items() if not (microseconds % length).any())
    return next(divides, "") if whole.all() else ""


def _guessed(texts: pd.Series, *, day_first: bool) -> str | None:
    """The form in which the first text is a date, padded; None where it has none. May alone would be of two forms."""
    if not types.is_string_dtype(texts) or len(texts) == 0 or not isinstance(texts.iloc[0], str):
        return None
    first = next((text for text in texts if "May" not in text), texts.iloc[0])
    half = _HALF_DAY.fullmatch(first)
    day = first if half is None else half[1]
    longer = re.sub(_SHORT_YEAR, r"\g<1>20\g<2>", day)  # of years of two digits nothing is guessed
    comma = re.search(_COMMA, longer) is not None  # nor of decimal commas
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a day that does not come where it does otherwise
        form = guess_datetime_format(re.sub(_COMMA, r"\1.\2", longer), dayfirst=day_first)
    if form is None or "%Y" not in form:
        return None
    if "%m" in form and form[:2] in ("%d", "%m") and form.startswith("%d") != day_first:
        return None
    if comma:
        form = form.replace(".%f", ",%f")
    if half is not None:
        form += " %I:%M:%S %p" if half[2] else " %I:%M %p"
    return form if longer == day else form.replace("%Y", "%y")


def _by_form(texts: pd.Series, form: str) -> pd.Series:
    return pd.to_datetime(texts, errors="coerce", format=form, utc=True)


def _parts(texts: pd.Series) -> pd.DataFrame:
    """The first two numbers of dates that end in their year."""
    return texts.astype("str").str.extract(_PARTS).astype("float64")
