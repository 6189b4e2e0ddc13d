"""Dates of text: which of their numbers is the day, the form in which they are written, the periods they are of."""

import re
import warnings
from collections.abc import Iterator

import pandas as pd
from pandas.api import types
from pandas.tseries.api import guess_datetime_format

from subo.data.tables.schema import PERIODS

__all__ = ["dates", "every_of", "form_of", "looks_like_a_date", "order_of", "puts_day_first"]

_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}/\d{1,2}/\d{1,2}")
_TIME = r"\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*"
_ZONE = r":\d{2}(?:\.\d+)?\s?(?:Z|[+-]\d{2}:?\d{2})$"
_TWO_DIGITS = r"\d{1,2}[./-]\d{1,2}[./-]\d{2}\b.*"
_PARTS = r"^(\d{1,2})[./-](\d{1,2})[./-]\d{2}"


def looks_like_a_date(text: str) -> bool:
    """Whether a text begins as dates do."""
    return _DATE.match(text) is not None


def puts_day_first(texts: pd.Series) -> bool:
    """Whether the day comes before the month: somewhere a 13th month would follow otherwise."""
    return bool((_parts(texts)[0] > 12).any())


def dates(texts: pd.Series, *, day_first: bool) -> pd.Series:
    """Texts as dates in UTC, NaT where one is none; of 03/04/2020 the day comes first or second, as in all others."""
    iso = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    if iso[texts.notna()].notna().all():
        return iso
    for form in _forms(texts.dropna(), day_first=day_first):  # each text by itself takes ten times as long
        if (read := _by_form(texts, form))[texts.notna()].notna().all():
            return read
    days = texts.mask(texts.astype("str").str.fullmatch(_TIME).fillna(False).astype(bool))  # times would be of today
    mixed = pd.to_datetime(days, errors="coerce", format="mixed", dayfirst=day_first, utc=True)
    month = _parts(texts)[1 if day_first else 0]
    return iso.where(iso.notna(), mixed.mask(month.notna() & (month != mixed.dt.month)))


def form_of(texts: pd.Series, *, day_first: bool) -> str:
    """The form of dates in which all texts are; empty where there is none, or they are no text.

    Where each names its zone, and not in one form, it is that of ISO 8601 in UTC, so that no zone is lost.

    Example:
        >>> form_of(pd.Series(["03.04.2020", "13.04.2020"]), day_first=True)
        '%d.%m.%Y'
    """
    forms = _forms(texts, day_first=day_first)
    found = next((form for form in forms if bool((_by_form(texts, form).dt.strftime(form) == texts).all())), "")
    zoned = not found and types.is_string_dtype(texts) and bool(texts.astype("str").str.contains(_ZONE).all())
    return "%Y-%m-%dT%H:%M:%SZ" if zoned else found


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
    known = days.dropna()
    clock = known if known.dt.tz is None else known.dt.tz_localize(None)
    microseconds = clock.astype("datetime64[us]").astype("int64").to_numpy()
    whole = clock.dt.nanosecond.to_numpy() == 0
    divides = (name for name, seconds in PERIODS.items() if not (microseconds % (seconds * 1_000_000)).any())
    return next(divides, "") if whole.all() else ""


def _forms(texts: pd.Series, *, day_first: bool) -> Iterator[str]:
    """Forms in which the first text may be a date."""
    if not types.is_string_dtype(texts) or len(texts) == 0 or not isinstance(first := texts.iloc[0], str):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a day that does not come where it does otherwise
        form = guess_datetime_format(first, dayfirst=day_first)
    if (
        form is not None
        and "%y" in form.lower()
        and (form[:2] not in ("%d", "%m") or form.startswith("%d") == day_first)
    ):
        yield form
    mark = first[2:3]  # of years of two digits nothing is guessed
    yield f"%d{mark}%m{mark}%y" if day_first else f"%m{mark}%d{mark}%y"


def _by_form(texts: pd.Series, form: str) -> pd.Series:
    return pd.to_datetime(texts, errors="coerce", format=form, utc=True)


def _parts(texts: pd.Series) -> pd.DataFrame:
    """The first two numbers of dates that end in their year."""
    return texts.astype("str").str.extract(_PARTS).astype("float64")
