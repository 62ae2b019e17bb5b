"""What is taken out of reports that are passed on, and what stays."""

import pytest

from analyzer.model import CLOSES
from analyzer.report.redaction import redact, redact_path, redact_table, redacted
from analyzer.table import Table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("keepalive ping timeout", "keepalive ping timeout"),
        ("token expired", "token expired"),
        ("Bearer abcdef123456", "…"),
        ("session=9f8e7d6c5b4a", "session=…"),
        ("write to ann@example.org", "write to …@…"),
        ("eyJhbGciOi.eyJzdWIi.c2ln", "…"),
        ("kicked by 192.0.2.17", "kicked by …"),
        ("from 192.0.2.17:5000!", "from …:5000!"),
        ("peer 2001:db8::1:2", "peer …"),
        ("at 12:30:45", "at 12:30:45"),
        ("version 1.2.3", "version 1.2.3"),
        ("peer ::ffff:10.1.2.3 left", "peer … left"),
        ("peer fe80::1", "peer …"),
        ("token abc123", "token …"),
        ("sid: 99887766", "sid: …"),
        ("api_key sk-live-51H8", "api_key …"),
        ("apikey='secret key one'", "apikey=…"),
        ("session closed", "session closed"),
        ("Token abcdef123456", "Token …"),
        ("a1b2c3d4e5f6a7b8c9d0e1f2", "…"),
        ("internationalisation_of_everything", "internationalisation_of_everything"),
    ],
)
def test_reasons(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/chat", "/chat"),
        ("/chat?room=7", "/chat?room=…"),
        ("/chat?token=abc&v", "/chat?token=…&v"),
        ("/chat%3Ftoken%3Dabc123secret", "/chat?token=…"),
        ("/chat#access_token=abc", "/chat#access_token=…"),
        ("/chat;jsessionid=AB", "/chat;jsessionid=…"),
        ("/u/a1b2c3d4e5f6a7b8c9d0e1f2/ws", "/u/…/ws"),
        ("/proxy/10.1.2.3/ws", "/proxy/…/ws"),
    ],
)
def test_paths(path, shown):
    assert redact_path(path) == shown


def test_hostile_text_costs_no_time():
    assert len(redact("=" * 1_000_000)) < 500
    assert len(redact_path("/?" + "a=b&" * 100_000)) < 2000
    redact("::" * 200)
    redact("1." * 200)


def test_tables():
    table = Table(CLOSES, {"reason": ["by 192.0.2.1", None], "path": ["/a?k=v", None], "host": ["h", None]})
    clean = redact_table(table)
    assert (clean["reason"], clean["path"], clean["host"]) == (["by …", None], ["/a?k=…", None], ["h", None])
    assert table["path"] == ["/a?k=v", None]


def test_documents_are_copied():
    document = {
        "by": [{"dimension": "path", "value": "/u/10.1.2.3"}, {"dimension": "host", "value": "10.1.2.3"}],
        "codes": [{"path": [{"value": "/u/10.1.2.3"}], "meaning": "m"}],
        "stories": [{"path": "/a?t=1", "client_close_reason": "by 192.0.2.1", "views": [{"reason": None}]}],
        "rows": [{"reason": "ann@example.org", "path": None}],
        "version": "1",
    }
    clean = redacted(document)
    assert clean["by"] == [{"dimension": "path", "value": "/u/…"}, {"dimension": "host", "value": "10.1.2.3"}]
    assert clean["codes"][0]["path"] == [{"value": "/u/…"}]
    assert clean["stories"][0]["path"] == "/a?t=…"
    assert clean["stories"][0]["client_close_reason"] == "by …"
    assert clean["rows"] == [{"reason": "…@…", "path": None}]
    assert clean["redacted"] is True
    assert document["stories"][0]["path"] == "/a?t=1"
    assert document["by"][0]["value"] == "/u/10.1.2.3"
