"""Dates of text: the day before or after the month, the forms in which dates are, and the periods they are of."""

import pandas as pd
import pytest

from subo.data.tables.dates import dates, every_of, form_of, in_form, puts_day_first
from subo.data.tables.kinds import kind_of_column


@pytest.mark.parametrize(
    "texts, day_first",
    [
        (["03/04/2020", "05/06/2020"], False),
        (["03/04/2020", "05/13/2020"], False),
        (["03/04/2020", "13/06/2020"], True),
        (["2020-03-14", "3.4.20", "14.4.20"], True),
        (["2020-13-03"], False),
    ],
)
def test_the_day_comes_first_where_some_month_would_be_the_13th(texts, day_first):
    assert puts_day_first(pd.Series([*texts, None])) == day_first


@pytest.mark.parametrize(
    "text, month_first, day_first",
    [
        ("2020-03-04", "2020-03-04", "2020-03-04"),
        ("2020/03/04", "2020-03-04", "2020-03-04"),
        ("03/04/2020", "2020-03-04", "2020-04-03"),
        ("3.4.20", "2020-03-04", "2020-04-03"),
        ("13/04/2020", None, "2020-04-13"),
        ("04-13-2020", "2020-04-13", None),
        ("2020-03-04 12:30", "2020-03-04T12:30", "2020-03-04T12:30"),
        ("2020-03-04T00:30+01:00", "2020-03-03T23:30", "2020-03-03T23:30"),
        ("2020-02-30", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
@pytest.mark.parametrize("beside", [[], [None], ["never"], ["03/04/2020"]])
def test_each_date_is_read_alike_whatever_is_beside_it(text, month_first, day_first, beside):
    for expected, first in ((month_first, False), (day_first, True)):
        found = dates(pd.Series([text, *beside], dtype="str"), day_first=first).dt.tz_localize(None)
        assert found.isna()[0] if expected is None else found[0] == pd.Timestamp(expected)


@pytest.mark.parametrize(
    "texts, form",
    [
        (["2020-03-04", "2020-12-24"], "%Y-%m-%d"),
        (["24.12.2020", "04.03.2020"], "%d.%m.%Y"),
        (["12/24/20", "03/04/20"], "%m/%d/%y"),
        (["2013-01-01 05:00:00", "2013-01-01 16:00:00"], "%Y-%m-%d %H:%M:%S"),
        (["2020-03-04T10:20", "2020-03-04T10:21"], "%Y-%m-%dT%H:%M"),
        (["04.03.2020", "2020-12-24"], ""),
        (["24.3.2020", "4.12.2020"], "%-d.%-m.%Y"),
        (["24.03.2020", "4.12.2020"], ""),
        (["4/3/2020 9:05", "12/13/2020 10:00"], "%-m/%-d/%Y %-H:%M"),
        (["4/3/2020 09:05", "12/13/2020 10:00"], "%-m/%-d/%Y %H:%M"),
        (["04/03/2020 12:05 AM", "12/13/2020 10:00 PM"], "%m/%d/%Y %I:%M %p"),
        (["4/3/2020 1:05:07 PM", "12/13/2020 12:00:00 AM"], "%-m/%-d/%Y %-I:%M:%S %p"),
        (["24-Mar-2020", "04-Dec-2020"], "%d-%b-%Y"),
        (["March 24, 2020", "December 4, 2020"], "%B %-d, %Y"),
        (["2020-03-04 10:20:30.250", "2020-03-05 10:20:30.000"], "%Y-%m-%d %H:%M:%S.%3f"),
        (["2020-03-04T10:20:30.250125", "2020-03-05T10:20:30.000000"], "%Y-%m-%dT%H:%M:%S.%f"),
        (["04/03/2020 10:20:30,250", "24/03/2020 10:20:30,007"], "%d/%m/%Y %H:%M:%S,%3f"),
        (["2020-03-04T00:30+01:00", "2020-03-04T00:30+02:00"], "%Y-%m-%dT%H:%M:%SZ"),
        (["2020-03-04T00:30:00.250+02:00", "2020-03-04T23:30:00.000+02:00"], "%Y-%m-%dT%H:%M:%S.%3f+02:00"),
        (["2020-03-04 00:30:00-0330", "2020-03-04 23:30:00-0330"], "%Y-%m-%d %H:%M:%S-0330"),
        (["20-May-2020", "03-Nov-2020"], "%d-%b-%Y"),
        (["2020-03-04 00:30:00Z", "2020-03-04 00:30:00.5Z"], "%Y-%m-%dT%H:%M:%S.%3fZ"),
        (["2020-03-04T00:30+01:00", "2020-03-04T00:30"], ""),
    ],
)
def test_the_form_of_dates_is_one_in_which_all_of_them_are(texts, form):
    assert form_of(pd.Series(texts), day_first=puts_day_first(pd.Series(texts))) == form


@pytest.mark.parametrize(
    "form",
    [
        "%-d.%-m.%Y %-H:%M",
        "%m/%d/%Y %I:%M %p",
        "%-m/%-d/%y %-I:%M %p",
        "%-d %b %Y",
        "%Y-%m-%d",
        "%Y-%m-%d %H:%M:%S,%3f",
    ],
)
def test_what_is_written_in_a_form_is_read_again(form):
    days = pd.Series(pd.date_range("2019-12-29 00:00", "2020-12-31", freq="1441min"))
    days = days if "%M" in form else days.dt.normalize()
    texts = in_form(days, form)
    first = puts_day_first(texts)
    assert form_of(texts, day_first=first) == form
    assert kind_of_column(texts).kind == "date"
    assert (dates(texts, day_first=first).dt.tz_localize(None) == days).all()
    assert in_form(pd.Series([pd.NaT, days[0]]), form).isna().tolist() == [True, False]


@pytest.mark.parametrize("text", ["13:45", "7:05:30", "07:05:30.5"])
def test_times_without_a_day_are_no_dates(text):
    assert dates(pd.Series([text, "2020-03-04"]), day_first=False).isna().tolist() == [True, False]


@pytest.mark.parametrize(
    "texts, words",
    [
        (["2020-03-04", "2020-12-24"], ""),
        (["03/04/2020", "05/06/2020"], ", the month before the day"),
        (["24.03.1968", "01.02.2020"], ", the day before the month"),
        (["24.03.68 10:30", "01.02.20 11:00"], ", the day before the month, years of two digits as 1969 to 2068"),
    ],
)
def test_how_dates_are_read_is_said_where_they_may_be_read_otherwise(texts, words):
    assert kind_of_column(pd.Series(texts * 10)) == ("date", f"text in the form of dates{words}")


@pytest.mark.parametrize(
    "texts, every",
    [
        (["2020-03-04", "9999-12-31"], "D"),
        (["1700-03-04 10:00", "2250-01-01 07:00"], "h"),
        (["2160-03-04 10:30", "2250-01-01 07:00"], "min"),
        (["2160-03-04 10:30:00.000001", "2250-01-01 07:00:00.000000"], ""),
    ],
)
@pytest.mark.parametrize("zone", [None, "Asia/Kolkata", "America/New_York"])
def test_periods_are_those_of_the_clock_also_far_away(texts, every, zone):
    moments = pd.Series(pd.to_datetime(texts).as_unit("us")).dt.tz_localize(zone)
    assert every_of(moments) == every


def test_dates_that_are_no_text_have_no_form():
    assert form_of(pd.Series(pd.date_range("2020-01-01", periods=3)), day_first=False) == ""
