"""What the endpoints of the sample captures logged: one row each, as worked out by hand, and as their APIs reported."""

import tomllib

import pytest
from conftest import SAMPLES

FIELDS = ("endpoint", "code", "provenance", "sent_code", "reason")
LOGS = sorted(SAMPLES.glob("*.log"))


def read_metadata(log):
    """The metadata of a log's sample, and whose log it is."""
    name, side, _ = log.name.split(".")
    return tomllib.loads((SAMPLES / f"{name}.toml").read_text(encoding="utf-8")), side


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_a_log_gives_the_row_worked_out_by_hand(log, read_rows):
    about, side = read_metadata(log)
    closes, connections, inputs = read_rows(log)
    assert (inputs[0]["kind"], inputs[0]["status"], inputs[0]["assumed_tz"]) == ("log", "ok", None)
    assert connections == []
    wanted = about["log"][side].get("row")
    assert len(closes) == (wanted is not None)
    for row in closes:
        found = {name: row[name] for name in FIELDS}
        assert found | {"reason": found["reason"] or ""} == {name: wanted.get(name) for name in FIELDS}
        assert row["initiator"] in ((wanted["initiator"],) if "initiator" in wanted else possible_initiators(about))
        # no connection of the samples lasts longer; the close is the log's last event
        assert inputs[0]["first"] <= row["time"] <= inputs[0]["last"]


def possible_initiators(about):
    return about["connection"]["initiator"], "unknown"


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_a_log_agrees_with_the_api_or_the_difference_is_explained(log):
    about, side = read_metadata(log)
    told = about["log"][side]
    if side not in about["api"]:
        assert "row" not in told  # nothing was ever open
        return
    agrees = "row" in told and told["row"].get("code") == about["api"][side].get("code")
    assert agrees != ("differs" in told)


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_without_dedupe_every_line_says_the_same_or_less(log, read_rows):
    """Each line by itself may know less than all together; none says something else."""
    about, side = read_metadata(log)
    together, _, _ = read_rows(log)
    apart, _, _ = read_rows(log, dedupe=False)
    assert len(apart) == sum(row["lines"] for row in together)
    wanted = about["log"][side].get("row", {})
    assert {row["code"] for row in apart} <= {wanted.get("code"), about["api"].get(side, {}).get("code"), None}
    assert {row["sent_code"] for row in apart} <= {wanted.get("sent_code"), None}


def test_every_library_endpoint_has_its_log():
    wanted = set()
    for metadata in SAMPLES.glob("*.toml"):
        about = tomllib.loads(metadata.read_text(encoding="utf-8"))
        if "transport" in about:
            continue  # several WebSockets at once; what their APIs said stands in the TOML
        sides = {side for side in ("client", "server") if about["recorded"][side] != "raw socket"}
        assert sides == set(about.get("log", ()))
        for side in sides:
            wanted.add(f"{metadata.stem}.{side}.log")
            assert about["log"][side]["program"] == about["recorded"][side]
    assert {log.name for log in LOGS} == wanted


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_logs_are_small_and_name_no_directory_of_the_machine(log):
    text = log.read_text(encoding="utf-8")
    assert 0 < len(text) < 4096
    assert text.endswith("\n")
    for place in ("/tmp/", "/home/", "/root/", "/usr/", "/work/", "site-packages", "node_modules"):
        assert place not in text
