"""Instants as logs print them, against `datetime`; what is no time is None."""

import datetime as dt
import json
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.logs.timestamp import Clock

SECOND = 1_000_000_000


def at(*date, ns=0, minutes=0):
    """Nanoseconds of a wall clock time, so many minutes ahead of UTC."""
    zone = dt.timezone(dt.timedelta(minutes=minutes))
    return int(dt.datetime(*date, tzinfo=zone).timestamp()) * SECOND + ns


THEN = (2026, 11, 21, 10, 11, 12)
NEWEST = at(2027, 1, 5, 12)
EPOCH_S = 1_795_255_872


def clock(zone=dt.UTC, newest_ns=NEWEST):
    return Clock(zone=zone, newest_ns=newest_ns)


def test_the_epoch_of_this_table_is_the_time_of_this_table():
    assert at(*THEN) == EPOCH_S * SECOND


ZONED = [
    ("2026-11-21T10:11:12Z", at(*THEN)),
    ("2026-11-21T10:11:12.5Z", at(*THEN, ns=500_000_000)),
    ("2026-11-21T10:11:12.123456789Z", at(*THEN, ns=123_456_789)),
    ("2026-11-21T10:11:12,123Z", at(*THEN, ns=123_000_000)),
    ("2026-11-21 10:11:12.000001+00:00", at(*THEN, ns=1_000)),
    ("2026-11-21T10:11:12+02:00", at(*THEN, minutes=120)),
    ("2026-11-21T10:11:12.123+0200", at(*THEN, ns=123_000_000, minutes=120)),
    ("2026-11-21T10:11:12.1234567-05:30", at(*THEN, ns=123_456_700, minutes=-330)),
    ("2026-11-21 10:11:12 +0200", at(*THEN, minutes=120)),
    ("2026-11-21 10:11:12 UTC", at(*THEN)),
    ("2026-11-21 10:11:12.250 UTC [12] LOG:", at(*THEN, ns=250_000_000)),
    ("2026-11-21T10:11:12.123+14:00", at(*THEN, ns=123_000_000, minutes=840)),
    ('10.0.0.1 - - [21/Nov/2026:10:11:12 +0100] "GET /ws HTTP/1.1" 101 7', at(*THEN, minutes=60)),
    ('10.0.0.1 - - [21/Nov/2026:10:11:12 -0800] "GET /ws HTTP/1.1" 101 7', at(*THEN, minutes=-480)),
    ("Sat Nov 21 2026 10:11:12 GMT+0100 (Central European Standard Time)", at(*THEN, minutes=60)),
    ("Sat Nov 21 2026 10:11:12 GMT-0330", at(*THEN, minutes=-210)),
    ("Sat, 21 Nov 2026 10:11:12 GMT", at(*THEN)),
    (f"{EPOCH_S}", at(*THEN)),
    (f"[{EPOCH_S}.123456] closed", at(*THEN, ns=123_456_000)),
    (f"{EPOCH_S}.000000001 closed", at(*THEN, ns=1)),
    (f"{EPOCH_S}123 closed", at(*THEN, ns=123_000_000)),
    (f"{EPOCH_S}123456 closed", at(*THEN, ns=123_456_000)),
    (f"{EPOCH_S}123456789 closed", at(*THEN, ns=123_456_789)),
    (f"ts={EPOCH_S}.5 level=error", at(*THEN, ns=500_000_000)),
    (f'{{"ts":{EPOCH_S}123,"msg":"cut', at(*THEN, ns=123_000_000)),
]

UNZONED = [
    ("2026-11-21 10:11:12 closed", at(*THEN)),
    ("2026-11-21 10:11:12,345 ERROR [main] closed", at(*THEN, ns=345_000_000)),
    ("[2026-11-21 10:11:12.345] closed", at(*THEN, ns=345_000_000)),
    ("2026/11/21 10:11:12 [error] 7#7: *3 closed", at(*THEN)),
    ("2026/11/21 10:11:12.345678 main.go:12: closed", at(*THEN, ns=345_678_000)),
    ("INFO:app:2026-11-21 10:11:12 closed", at(*THEN)),
    ("[Sat Nov 21 10:11:12 2026] [error] closed", at(*THEN)),
    ("[Sat Nov 21 10:11:12.345678 2026] [proxy:error] [pid 7] closed", at(*THEN, ns=345_678_000)),
    ("[Sun Nov  1 10:11:12 2026] [error] closed", at(2026, 11, 1, 10, 11, 12)),
    ("Nov 21, 2026 10:11:12 AM org.apache.Foo bar", at(*THEN)),
    ("Nov 21, 2026 10:11:12 PM org.apache.Foo bar", at(2026, 11, 21, 22, 11, 12)),
    ("Nov 1, 2026 12:00:01 AM org.apache.Foo bar", at(2026, 11, 1, 0, 0, 1)),
    ("Nov 1, 2026 12:00:01 PM org.apache.Foo bar", at(2026, 11, 1, 12, 0, 1)),
    ("Nov 21, 2026 @ 22:11:12.345", at(2026, 11, 21, 22, 11, 12, ns=345_000_000)),
    ("Nov 21 10:11:12 host app[7]: closed", at(*THEN)),
    ("<30>Nov  1 10:11:12 host app: closed", at(2026, 11, 1, 10, 11, 12)),
    ("E1121 10:11:12.345678       7 server.go:9] closed", at(*THEN, ns=345_678_000)),
    ("1969-12-31 23:59:59 then 1970-01-01 00:00:01", SECOND),
]


@pytest.mark.parametrize(("text", "expected"), ZONED)
def test_times_that_name_their_zone(text, expected):
    assumed = clock(zoneinfo.ZoneInfo("Asia/Tokyo"))
    found = assumed.find(text)
    assert (found.ns, found.has_zone) == (expected, True)
    assert assumed.use(found) == expected
    assert not assumed.assumed_zone


@pytest.mark.parametrize(("text", "expected"), UNZONED)
@pytest.mark.parametrize(("name", "ahead_s"), [("UTC", 0), ("Asia/Tokyo", 9 * 3600)])
def test_times_without_a_zone_take_the_assumed_one(text, expected, name, ahead_s):
    assumed = clock(zoneinfo.ZoneInfo(name))
    found = assumed.find(text)
    assert (found.ns, found.has_zone) == (expected - ahead_s * SECOND, False)
    assert not assumed.assumed_zone
    assumed.use(found)
    assert assumed.assumed_zone


@pytest.mark.parametrize(("text", "expected"), ZONED + UNZONED)
def test_the_time_of_a_line_is_the_same_each_time(text, expected):
    one = clock()
    assert [one.time_of(text) for _ in range(3)] == [expected] * 3
    assert one.time_of(f"level=error at {text}") == one.use(one.find(f"level=error at {text}"))


@pytest.mark.parametrize("zone", ["Z", " Z", " UTC", " GMT", "+02:00", " -0330", " GMT+0100", " UTC+02:00", ""])
def test_the_quick_way_knows_a_zone_like_the_slow_way_or_leaves_it(zone):
    one = clock()
    text = f"2026-11-21 10:11:12.5{zone} closed"
    assert one.lead(text) == (None, 0)
    found = one.find(text)
    quick, end = one.lead(text)
    assert quick in (None, found.ns)
    assert end in (0, found.end)
    assert (quick is None) == (not end)
    if zone in ("Z", "+02:00"):
        assert quick == at(*THEN, ns=500_000_000, minutes=0 if zone == "Z" else 120)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "closed",
        "2026-13-21 10:11:12",
        "2026-00-21 10:11:12",
        "2026-02-29 10:11:12",
        "2026-11-31T10:11:12Z",
        "2026-11-21 25:00:00",
        "2026-11-21 10:60:00",
        "2026-11-21 10:11:61",
        "2026-11-21",
        "10:11:12",
        "2026-11/21 10:11:12",
        "0000-01-01 00:00:00",
        "1650-01-01 00:00:00",
        "9999-12-31 23:59:59",
        "30/Feb/2026:10:11:12 +0100",
        "21/Foo/2026:10:11:12 +0100",
        "Nov 31 10:11:12 host",
        "Nov 21 24:11:12 host",
        "Nov 31, 2026 10:11:12 AM",
        "[Sat Nov 31 10:11:12 2026] x",
        "E1321 10:11:12.345678 7 x.go:1] closed",
        "version 1.2.3.4 build 20261121",
        "v2026.11.21-10.11",
        "took 00:05:12.345 in all",
        "duration=3600.123456s after 1234567 ms",
        "uptime 12345678901 ticks",
        "call 555-123-4567 or +4366412345678",
        "call (555) 123-4567",
        "session 1795255872abc and abc1795255872 and 1795255872.5.1",
        "peer 2001:db8::10:11:12 left, 10.0.0.1:49152",
        "trace 17952558721 and 179525587212345",
        "\u0000\u0000",
    ],
)
def test_what_is_no_time_is_none(text):
    assert clock().find(text) is None
    assert clock().time_of(text) is None


@pytest.mark.parametrize("number", ["5551234567", "9876543210", "0012345678"])
def test_ten_digits_beyond_the_age_of_the_log_are_no_time(number):
    """A phone number; nothing in a log lies later than its last write, or before 1973."""
    assert clock().find(f"call {number} now") is None


def test_of_several_the_first_that_is_one():
    assert clock().find("2026-13-21 10:11:12 then 2026-11-21 10:11:12").ns == at(*THEN)
    assert clock().find("2026-11-21 10:11:12 then 2027-01-01 00:00:00").ns == at(*THEN)


def test_a_time_far_into_the_line_is_none_of_it():
    text = "2026-11-21T10:11:12Z closed"
    assert clock().find("x" * 150 + " " + text).ns == at(*THEN)
    assert clock().find("x" * 250 + " " + text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nov 21 10:11:12 host app: 2026-11-21T08:11:12.5Z closed", at(2026, 11, 21, 8, 11, 12, ns=500_000_000)),
        ("2026-11-21 10:11:12 app 2026-11-21T10:11:13+02:00 closed", at(2026, 11, 21, 10, 11, 13, minutes=120)),
        ("2026-11-21T10:11:12Z stderr F 2026-11-21 12:11:13,5 closed", at(*THEN)),
        ("2026-11-21T10:11:12Z stderr F 2026-11-21T12:11:13+02:00 closed", at(*THEN)),
        ("2026-11-21 10:11:12 - [21/Nov/2026:10:11:13 +0100] x", at(2026, 11, 21, 10, 11, 13, minutes=60)),
    ],
)
def test_a_zone_is_preferred_to_none(text, expected):
    found = clock().find(text)
    assert (found.ns, found.has_zone) == (expected, True)


# ---- years that are not written


@pytest.mark.parametrize(
    ("newest", "text", "year"),
    [
        (at(2027, 1, 5, 12), "Dec 31 23:59:59", 2026),
        (at(2027, 1, 5, 12), "Jan  5 11:59:59", 2027),
        (at(2027, 1, 5, 12), "Jan  6 11:59:59", 2027),  # a day of grace
        (at(2027, 1, 5, 12), "Jan  7 11:59:59", 2026),
        (at(2026, 12, 31, 23), "Jan  1 00:30:00", 2027),
        (at(2026, 12, 31, 23), "Dec 31 22:00:00", 2026),
        (at(2024, 3, 5), "Feb 29 10:00:00", 2024),
        (at(2025, 1, 5), "Feb 29 10:00:00", 2024),
    ],
)
def test_a_year_that_is_not_written_is_the_latest_that_can_be(newest, text, year):
    one = clock(newest_ns=newest)
    found = one.find(text)
    assert found is not None
    assert found.ns == int(dt.datetime.strptime(f"{year} {text} +0000", "%Y %b %d %H:%M:%S %z").timestamp()) * SECOND
    assert one.assumed_year == year


def test_without_a_newest_time_no_year_is_made_up():
    assert Clock().find("Nov 21 10:11:12 host closed") is None
    assert Clock().assumed_year is None


# ---- zones


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-03-29 01:59:59", (2026, 3, 29, 0, 59, 59)),
        ("2026-03-29 03:00:00", (2026, 3, 29, 1, 0, 0)),
        ("2026-07-01 12:00:00", (2026, 7, 1, 10, 0, 0)),
        ("2026-10-25 01:59:59", (2026, 10, 24, 23, 59, 59)),
        ("2026-10-25 03:00:00", (2026, 10, 25, 2, 0, 0)),
        ("Dec 24 12:00:00", (2026, 12, 24, 11, 0, 0)),
        ("Jul  1 12:00:00", (2026, 7, 1, 10, 0, 0)),
        ("[Wed Jul 01 12:00:00.5 2026]", (2026, 7, 1, 10, 0, 0)),
    ],
)
def test_a_zone_with_summer_time(text, utc):
    assert clock(zoneinfo.ZoneInfo("Europe/Vienna")).find(text).ns // SECOND == at(*utc) // SECOND


def test_the_hour_that_comes_twice_is_one_of_the_two():
    found = clock(zoneinfo.ZoneInfo("Europe/Vienna")).find("2026-10-25 02:30:00")
    assert found.ns in (at(2026, 10, 25, 0, 30), at(2026, 10, 25, 1, 30))


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "2016-12-31 23:59:60.5 UTC", "31/Dec/2016:23:59:60 +0000"])
def test_a_leap_second_is_the_second_before(text):
    assert clock().find(text).ns // SECOND == at(2016, 12, 31, 23, 59, 59) // SECOND


# ---- members of structured records


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        (f"{EPOCH_S}", 0),
        (f"{EPOCH_S}.123456789", 123_456_789),
        (f"{EPOCH_S}.1", 100_000_000),
        (f"{EPOCH_S}123", 123_000_000),
        (f"{EPOCH_S}123.5", 123_500_000),
        (f"{EPOCH_S}123456", 123_456_000),
        (f"{EPOCH_S}123456789", 123_456_789),
        (f'"{EPOCH_S}"', 0),
        (f'"{EPOCH_S}123"', 123_000_000),
        (f'"{EPOCH_S}123456"', 123_456_000),
        (f'"{EPOCH_S}123456789"', 123_456_789),
        (f'"{EPOCH_S}.5"', 500_000_000),
        ('"2026-11-21T10:11:12.5Z"', 500_000_000),
        ('"21/Nov/2026:10:11:12 +0000"', 0),
        ('"2026-11-21 10:11:12,001"', 1_000_000),
        (f"{EPOCH_S}.0", 0),
        ("1.795255872e9", 0),
        ("1.795255872123e12", 123_000_000),
        ("1.795255872123e+18", 123_000_000),
    ],
)
def test_json_values(value, ns):
    """Floats hold an epoch in seconds to some 240 ns: what was printed is what is meant."""
    expected = EPOCH_S * SECOND + ns
    got = clock().read(json.loads(value)).ns
    assert abs(got - expected) <= (256 if "e+18" in value or value.endswith("123456789") else 0)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, [], {}, "", "soon", 0, -1, 12.5, 1006, 99_999_999, 86_400_000),
        *(float("nan"), float("inf"), float("-inf"), 10**25, -(10**400), 1e300, "x" * 500),
        *(20_000_000_000, 20_000_000_000_000_000_000, "9999999999"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_values_that_are_no_time(value):
    """The last ones lie beyond the year 2262: they fit no column."""
    assert clock().read(value) is None


# ---- properties

INSTANTS = st.datetimes(min_value=dt.datetime(1974, 1, 1), max_value=dt.datetime(2026, 12, 31))  # noqa: DTZ001
OFFSETS = st.integers(-12 * 4, 14 * 4).map(lambda quarters: dt.timezone(dt.timedelta(minutes=15 * quarters)))


@given(INSTANTS, OFFSETS, st.integers(0, 999))
def test_what_is_formatted_is_found(naive, zone, nanos):
    moment = naive.replace(tzinfo=zone)
    micros = moment.microsecond
    whole = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(seconds=1)
    if whole < 10**8:  # an epoch of less than ten digits is none
        return
    exact = whole * SECOND + micros * 1000
    offset = moment.strftime("%z")
    seconds = moment.strftime("%Y-%m-%dT%H:%M:%S")
    expected = {
        moment.isoformat(timespec="microseconds"): exact,
        f"{seconds}.{micros:06}{nanos:03}{offset}": exact + nanos,
        f"{seconds},{micros // 1000:03}{offset[:3]}:{offset[3:]}": whole * SECOND + micros // 1000 * 1_000_000,
        moment.strftime("%d/%b/%Y:%H:%M:%S %z"): whole * SECOND,
        moment.strftime("%a %b %d %Y %H:%M:%S GMT%z"): whole * SECOND,
    }
    if whole >= 10**9:
        expected |= {
            f"{whole}": whole * SECOND,
            f"{whole}.{micros:06}": exact,
            f"{whole}{micros:06}": exact,
            f"{whole}{micros:06}{nanos:03}": exact + nanos,
        }
    local = clock(zone)
    for text, ns in expected.items():
        for around in ("{}", "app: {} closed", "[{}] closed", "(at {})"):
            assert local.find(around.format(text)).ns == ns
    for text, ns in {
        moment.strftime("%Y/%m/%d %H:%M:%S"): whole * SECOND,
        f"{moment:%Y-%m-%d %H:%M:%S},{micros // 1000:03}": whole * SECOND + micros // 1000 * 1_000_000,
        f"{moment:%a %b %d %H:%M:%S}.{micros:06} {moment:%Y}": exact,
        f"{moment:%b} {moment.day}, {moment:%Y %I:%M:%S %p}": whole * SECOND,
    }.items():
        found = local.find(f"{text} closed")
        assert (found.ns, found.has_zone) == (ns, False)


PIECES = st.sampled_from(
    [
        "2026",
        "-",
        "/",
        "11",
        "21",
        "T",
        " ",
        "10",
        ":",
        "12",
        ".",
        ",",
        "Z",
        "+02",
        "00",
        "Nov",
        "Sat",
        "AM",
        "@",
        "99",
        "0",
        "[",
        "GMT",
        "1795255872",
        "123",
        "E1121 ",
        "1121/101112.",
        "٢",
        "\n",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join)))
def test_no_text_raises_and_every_time_fits_its_column(text):
    one = clock(zoneinfo.ZoneInfo("America/New_York"))
    found = one.find(text)
    if found is not None:
        assert 0 <= found.end <= len(text)
    for ns in (one.use(found), one.time_of(text), one.use(one.read(text))):
        assert ns is None or -(2**63) <= ns < 2**63


@given(st.one_of(st.integers(), st.floats(), st.none(), st.text(max_size=30)))
def test_no_json_value_raises_and_every_time_fits_its_column(value):
    ns = clock().use(clock().read(value))
    assert ns is None or 0 <= ns < 2**63
