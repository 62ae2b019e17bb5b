"""From what a line says to an endpoint's view: rows 37 to 39 of the decision table, and what holds for every one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.model import LOCAL_ONLY, Confidence, Endpoint, Evidence, Initiator, Provenance, Received
from analyzer.verdict.statement import Means, Said, decide, settle

DECIDED = [
    # means, code, sent: code, provenance, evidence, confidence, received, wire_code
    ("rfc", 1000, "unknown", (1000, "reported", "log_received", "high", "status", 1000)),
    ("rfc", 1005, "unknown", (1005, "synthesized", "log_received", "high", "empty", None)),
    ("rfc", 1006, "unknown", (1006, "synthesized", "log_stated", "high", "none", None)),
    ("rfc", 1015, "unknown", (1015, "synthesized", "log_stated", "high", "unknown", None)),
    ("rfc", None, "unknown", (None, "undetermined", "log_received", None, "unknown", None)),
    ("received", 4001, "unknown", (4001, "reported", "log_received", "high", "status", 4001)),
    ("received", 1006, "unknown", (1006, "reported", "log_received", "high", "status", 1006)),
    ("received", None, "unknown", (None, "undetermined", "log_received", None, "unknown", None)),
    ("frame", 1001, "unknown", (1001, "wire", "log_received", "high", "status", 1001)),
    ("frame", 1005, "unknown", (1005, "wire", "log_received", "high", "status", 1005)),
    ("frame", None, "unknown", (None, "undetermined", "log_received", None, "unknown", None)),
    ("empty", None, "unknown", (1005, "synthesized", "log_received", "high", "empty", None)),
    ("empty", 1000, "unknown", (1005, "synthesized", "log_received", "high", "empty", None)),
    ("none", None, "unknown", (1006, "synthesized", "log_stated", "high", "none", None)),
    ("none", 1011, "status", (1006, "synthesized", "log_sent", "high", "none", None)),
    ("none", None, "empty", (1006, "synthesized", "log_sent", "high", "none", None)),
    ("none", None, "none", (1006, "synthesized", "log_stated", "high", "none", None)),
    ("refused", 1006, "unknown", (1006, "reported", "log_received", "high", "status", 1006)),
    ("refused", 1005, "unknown", (1006, "synthesized", "log_received", "high", "status", 1005)),
    ("refused", 999, "status", (1006, "synthesized", "log_received", "high", "status", 999)),
    ("refused", None, "status", (1006, "synthesized", "log_received", "high", "unknown", None)),
    ("made_up", 1005, "unknown", (1005, "synthesized", "log_stated", "high", "unknown", None)),
    ("made_up", 1006, "unknown", (1006, "synthesized", "log_stated", "high", "unknown", None)),
    ("made_up", 1015, "unknown", (1015, "synthesized", "log_stated", "high", "unknown", None)),
    ("made_up", 1000, "unknown", (None, "undetermined", "log_stated", None, "unknown", None)),
    ("made_up", None, "unknown", (None, "undetermined", "log_stated", None, "unknown", None)),
    ("stated", 1000, "unknown", (1000, "reported", "log_stated", "medium", "unknown", None)),
    ("stated", 1005, "unknown", (1005, "inferred", "log_stated", "medium", "unknown", None)),
    ("stated", 1006, "unknown", (1006, "inferred", "log_stated", "medium", "unknown", None)),
    ("stated", 1015, "unknown", (1015, "inferred", "log_stated", "medium", "unknown", None)),
    ("stated", None, "status", (None, "undetermined", "log_sent", None, "unknown", None)),
    ("unknown", 1006, "unknown", (None, "undetermined", "log_stated", None, "unknown", None)),
    ("unknown", None, "status", (None, "undetermined", "log_sent", None, "unknown", None)),
    ("unknown", None, "empty", (None, "undetermined", "log_sent", None, "unknown", None)),
    ("unknown", None, "none", (None, "undetermined", "log_stated", None, "unknown", None)),
]


@pytest.mark.parametrize(("means", "code", "sent", "expected"), DECIDED)
def test_each_meaning_with_and_without_a_code(means, code, sent, expected):
    view = decide(Said("x", Means(means), code, Received(sent), endpoint=Endpoint.SERVER))
    got = (view.code, view.provenance, view.evidence, view.confidence, view.received, view.wire_code)
    assert got == expected
    assert (view.endpoint, view.system, view.sent) == ("server", "x", sent)


def test_every_meaning_has_rows_with_and_without_a_code():
    assert {means for means, code, _, _ in DECIDED if code is not None} == set(Means)
    assert {means for means, code, _, _ in DECIDED if code is None} == set(Means)


@pytest.mark.parametrize("means", [Means.STATED, Means.MADE_UP, Means.UNKNOWN])
@pytest.mark.parametrize("code", [None, 1000, 1006])
def test_a_tunnel_reports_no_code(means, code):
    view = decide(Said("nginx", means, code, raw_code="1006", endpoint=Endpoint.PROXY, ended_by="client"))
    assert (view.code, view.wire_code, view.confidence) == (None, None, None)
    assert (view.provenance, view.evidence, view.received) == ("undetermined", "log_stated", "unknown")
    assert (view.endpoint, view.ended_by, view.raw_code) == ("proxy", "client", "1006")


@pytest.mark.parametrize("means", sorted(set(Means) - {Means.STATED, Means.MADE_UP, Means.UNKNOWN}))
def test_a_proxy_that_reads_frames_has_a_view_like_any_endpoint(means):
    proxy = decide(Said("mitmproxy", means, 1001, endpoint=Endpoint.PROXY))
    assert proxy == decide(Said("mitmproxy", means, 1001, endpoint=Endpoint.SERVER))._replace(endpoint=Endpoint.PROXY)


@pytest.mark.parametrize(
    ("code", "provenance"),
    [(1000, "reported"), (4999, "reported"), (1005, "inferred"), (1006, "inferred"), (1015, "inferred")],
)
def test_of_an_unknown_system_no_code_is_proven(code, provenance):
    view = decide(Said(None, Means.STATED, code, is_known=False))
    assert (view.code, view.provenance, view.confidence, view.evidence) == (code, provenance, "low", "log_stated")
    assert (view.received, view.wire_code, view.system) == ("unknown", None, None)


@pytest.mark.parametrize(
    ("code", "raw", "kept"),
    [
        (1001, "1001", None),
        (1005, "0", "0"),
        (1005, "None", "None"),
        (1006, "1006", None),
        (None, "1006", "1006"),
        (1001, None, None),
    ],
)
def test_what_was_printed_is_kept_where_it_differs(code, raw, kept):
    means = {1001: Means.RECEIVED, 1005: Means.EMPTY, 1006: Means.NONE, None: Means.UNKNOWN}[code]
    assert decide(Said("x", means, code, raw_code=raw)).raw_code == kept


@pytest.mark.parametrize(
    ("said", "initiator"),
    [
        (Said("x", Means.NONE, sent=Received.STATUS, sent_code=1011), "local"),
        (Said("x", Means.NONE, sent=Received.EMPTY), "local"),
        (Said("x", Means.NONE, sent=Received.STATUS, sent_code=1002), "unknown"),
        (Said("x", Means.NONE, sent=Received.STATUS, sent_code=1009), "unknown"),
        (Said("x", Means.NONE, sent=Received.NONE), "unknown"),
        (Said("x", Means.NONE), "unknown"),
        (Said("x", Means.RECEIVED, 1001, Received.STATUS, 1001), "unknown"),
        (Said("x", Means.UNKNOWN, sent=Received.STATUS, sent_code=1001), "unknown"),
        (Said("x", Means.NONE, sent=Received.STATUS, sent_code=1011, initiator="remote"), "remote"),
    ],
)
def test_a_close_sent_where_none_came_in_was_the_first(said, initiator):
    assert decide(said).initiator == initiator


# ---- local and remote


@pytest.mark.parametrize(
    ("endpoint", "local", "remote"),
    [
        ("client", "client", "server"),
        ("server", "server", "client"),
        ("proxy", "unknown", "unknown"),
        ("unknown", "unknown", "unknown"),
    ],
)
def test_settle(endpoint, local, remote):
    view = decide(Said("x", Means.NONE, endpoint=Endpoint(endpoint), initiator="local", ended_by="remote", end="rst"))
    assert settle(view) == view._replace(initiator=local, ended_by=remote)
    swapped = view._replace(initiator="remote", ended_by="local")
    assert settle(swapped) == view._replace(initiator=remote, ended_by=local)
    for one in ("client", "server", "both", "none", "unknown"):
        plain = view._replace(initiator=one, ended_by=one)
        assert settle(plain) == plain
        half = view._replace(initiator=one, ended_by="local")
        assert settle(half) == view._replace(initiator=one, ended_by=local)


# ---- for everything that a line can say

SAID = st.builds(
    Said,
    st.sampled_from(["x", None]),
    st.sampled_from(Means),
    st.none() | st.sampled_from([0, 999, 1000, 1001, 1004, 1005, 1006, 1015, 2999, 3000, 4999, 65535]),
    st.sampled_from(Received),
    st.none() | st.sampled_from([1000, 1002, 1009, 1011, 4000]),
    st.none() | st.sampled_from(["0", "None", "1000", "1005", "1006"]),
    st.sampled_from(Endpoint),
    st.sampled_from([*Initiator, "local", "remote"]),
    st.sampled_from(["fin", "rst", "unknown"]),
    st.sampled_from([*Endpoint, "both", "local", "remote"]),
    st.booleans(),
)


@given(SAID)
def test_what_holds_for_every_view(said):
    view = settle(decide(said))
    assert (view.code is None) == (view.provenance is Provenance.UNDETERMINED) == (view.confidence is None)
    if view.provenance is Provenance.WIRE:
        assert view.wire_code == view.code
    if view.provenance in (Provenance.SYNTHESIZED, Provenance.INFERRED):
        assert view.code in LOCAL_ONLY
    if view.received is Received.STATUS:
        assert view.wire_code is not None
    else:
        assert view.wire_code is None
    if view.endpoint is Endpoint.PROXY and said.means in (Means.STATED, Means.MADE_UP, Means.UNKNOWN):
        assert view.code is None
    if not said.is_known:
        assert view.provenance not in (Provenance.WIRE, Provenance.SYNTHESIZED)
        assert view.confidence in (None, Confidence.LOW)
    assert view.evidence in (Evidence.LOG_RECEIVED, Evidence.LOG_SENT, Evidence.LOG_STATED)
    assert {view.initiator, view.ended_by}.isdisjoint({"local", "remote"})
    assert (view.sent, view.sent_code, view.endpoint, view.end) == (said.sent, said.sent_code, said.endpoint, said.end)
    assert view.code is None or view.raw_code != str(view.code)
    assert decide(said) == decide(said)
    assert settle(view) == view
