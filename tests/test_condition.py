"""Conditions that make a run fail."""

import pytest

from analyzer.errors import UsageError
from analyzer.report.condition import find_met, parse_condition

DOCUMENT = {
    "established": {"client": 20, "server": 10},
    "frequencies": [
        {"endpoint": "client", "code": 1006, "provenance": "synthesized", "initiator": "none", "count": 1},
        {"endpoint": "client", "code": 1000, "provenance": "wire", "initiator": "client", "count": 15},
        {"endpoint": "server", "code": 1006, "provenance": "synthesized", "initiator": "none", "count": 3},
        {"endpoint": "server", "code": 4001, "provenance": "wire", "initiator": "client", "count": 6},
    ],
    "illegal": [{"endpoint": "client", "code": 1006, "provenance": "wire", "initiator": "server", "count": 1}],
    "undetermined": [
        {"endpoint": "client", "evidence": "gap", "count": 3},
        {"endpoint": "server", "evidence": "gap", "count": 1},
    ],
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("code=1006 share>5%", [("client", 2, 20), ("server", 3, 10)]),
        ("code=1006 share>10%", [("server", 3, 10)]),
        ("code=1006 share>=0.1", [("client", 2, 20), ("server", 3, 10)]),
        ("code=1006 endpoint=client share>10%", []),
        ("code=1006 provenance!=wire count>=3", [("server", 3, 10)]),
        ("code=4000-4999,1006 count > 8", [("server", 9, 10)]),
        ("code=none share>12%", [("client", 3, 20)]),
        ("code!=1000 endpoint=client count<6", [("client", 5, 20)]),
        ("initiator=server", [("client", 1, 20)]),
        ("code=1012", []),
        ("code=1000 share<1%", [("server", 0, 10)]),
    ],
)
def test_what_is_met(text, met):
    assert [tuple(outcome) for outcome in find_met(parse_condition(text), DOCUMENT)] == met


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a condition"),
        ("1006", "not a condition"),
        ("code=1006 and more", "not a condition"),
        ("code=1006 share>200%", "200% is not a share between 0% and 100%"),
        ("code=1006 share>lots", "lots is not a share"),
        ("code=1006 count>2.5", "2.5 is not a whole number"),
        ("code>1000", "code> is not understood"),
        ("colour=red", "colour= is not understood"),
        ("endpoint=me", "endpoint is one of client, proxy, server, unknown"),
        ("code=x", "x: not a close code"),
        ("share>1% count>2", "more than one measure"),
    ],
)
def test_nonsense_is_refused(text, message):
    with pytest.raises(UsageError) as refused:
        parse_condition(text)
    assert message in str(refused.value)
