"""Sentences about a report: how much was read, and what happened to one connection or one logged close.

Every sentence is a label of the reader's language with captured text put in, escaped.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from analyzer.knowledge.language import Language
from analyzer.model import ANY_STREAM
from analyzer.report.text import visible

ENDERS = ("client", "server", "proxy", "both")
"""Who can be said to have ended a transport."""


def headline(document: dict[str, Any], language: Language) -> str:
    """How much was read, and how much was found in it."""
    found = []
    if document["packets"] or document["connections"] or not document["lines"]:
        found.append(("connections", "packets"))
    if document["lines"]:
        found.append(("logged", "lines"))
    parts = [
        language.label(
            "report.found_in",
            found=language.count(f"report.{what}", document[what]),
            read=language.count(f"report.{where}", document[where]),
        )
        for what, where in found
    ]
    whole = parts[0] if len(parts) == 1 else language.label("report.and", a=parts[0], b=parts[1])
    return language.label("report.of_files", found=whole, files=language.count("report.files", document["inputs"]))


def period(document: dict[str, Any], language: Language) -> str:
    """The times of the first and the last packet or line, empty where there are none."""
    if not document["first"]:
        return ""
    first, last = (language.time(document[name]) for name in ("first", "last"))
    return language.label("report.period", first=first, last=last)


def assumptions(document: dict[str, Any], language: Language) -> list[str]:
    """What was assumed about the times of logs."""
    return [
        language.label(
            f"report.assumed_{entry['what']}",
            logs=language.count("report.logs", entry["inputs"]),
            value=visible(entry["value"]),
        )
        for entry in document["assumed"]
    ]


def filters(document: dict[str, Any], language: Language) -> str:
    """Which filters are set and how much they left out, empty where none is."""
    if not document["filters"]:
        return ""
    named = language.join(
        f"{language.label(f'filter.{name}')} {' | '.join(map(visible, values))}"
        for name, values in document["filters"].items()
    )
    left_out = language.count("report.views", document["left_out"])
    return language.label("report.filtered", filters=named, views=left_out)


def sealed(document: dict[str, Any], language: Language) -> str:
    """How likely the connections are WebSockets that no key opened, empty where there are none."""
    if not document["sealed"]:
        return ""
    n = sum(entry["count"] for entry in document["sealed"])
    likelihoods = value_counts(document["sealed"], language, "likelihood")
    return language.count("report.sealed", n, likelihoods=likelihoods)


def counted_as(document: dict[str, Any]) -> str:
    """Name of the label for what shares are of: where TLS stayed sealed, wholly or half, some were not seen to open."""
    if document["logged"]:
        return "views"
    return "connections" if any(entry["handshake"] == "sealed" for entry in document["handshakes"]) else "established"


def notes(document: dict[str, Any], language: Language) -> list[str]:
    """What stands below the headline: the period, the filters, what was assumed, what counts twice."""
    texts = [period(document, language), filters(document, language)]
    if not document["stories"]:  # each says it of its own connection
        texts.append(sealed(document, language))
    texts += assumptions(document, language)
    texts += about_keys(document["keys"], language)
    if document["connections"] and document["logged"]:
        texts.append(language.label("report.counted_twice"))
    return [text for text in texts if text]


def about_keys(keys: dict[str, Any], language: Language) -> list[str]:
    """Which key logs are of no use, and that keys opened nothing."""
    texts = [language.label(f"report.keys_{log['status']}", source=visible(log["source"])) for log in keys["unusable"]]
    if keys["has_any"] and keys["connections"] and not keys["opened"]:
        texts.append(language.label("report.keys_open_none", n=language.number(keys["connections"])))
    return texts


def nothing_found(document: dict[str, Any], language: Language) -> list[str]:
    """Why a report is empty, and what to do about it; nothing where it is not."""
    if document["connections"] or document["logged"]:
        return []
    if document["left_out"]:
        return [language.label("report.none_passes")]
    none = "none_passes" if document["filters"] else "no_websocket" if document["packets"] else "no_close"
    texts = [language.label(f"report.{none}")]
    if "midstream" in document["unseen"]:
        texts.append(language.label("report.begun_before"))
    if "encrypted" in document["unseen"]:
        texts.append(language.label("report.give_keys"))
    if "tls_failed" in document["unseen"]:
        texts.append(language.label("report.tls_failed"))
    return texts


def handshakes(document: dict[str, Any], language: Language) -> str:
    """How many handshakes came to nothing, and how; empty where none is known to have.

    Of a request that was never answered nobody has a view: no other part of a report counts it.
    """
    counts: Counter[str] = Counter()
    for entry in document["handshakes"]:
        if entry["handshake"] in ("rejected", "failed"):
            counts[entry["handshake"]] += entry["count"]
    if not counts:
        return ""
    values = value_counts([{"value": name, "count": n} for name, n in counts.most_common()], language, "handshake")
    return language.label("report.here_where", what=language.label("page.handshakes"), values=values)


def place(record: int | None, evidence: str, language: Language, *, source: str | None = None) -> str:
    """Where the evidence stands in its file, empty where nowhere; the file is named where it is given."""
    if not record:
        return ""
    if source is not None:
        return language.label("story.packet_of", n=record, source=visible(Path(source).name))
    return language.label("story.line" if evidence.startswith("log_") else "story.packet", n=record)


def _close(kind: str, code: int | None, reason: str | None, language: Language) -> str:
    name = f"story.close_{kind if kind in ('status', 'empty', 'short', 'sealed') else 'cut'}"
    said = language.label(name, code=code)
    return language.label("story.with_reason", close=said, reason=visible(reason)) if reason else said


def _elsewhere(source: str | None, story: dict[str, Any]) -> str | None:
    """The file of a packet, None where it is the one that the story begins in."""
    return None if source == story["source"] else source


def _how(view: dict[str, Any], language: Language, *more: str, source: str | None = None) -> str:
    sure = language.label(f"confidence.{view['confidence']}") if view["confidence"] else ""
    known = language.label(f"provenance.{view['provenance']}") if view["code"] is not None else ""
    where = "" if more else place(view["record"], view["evidence"], language, source=source)
    return language.join(part for part in (known, view["evidence"], where, sure, *more) if part)


def tell(story: dict[str, Any], language: Language) -> list[str]:
    """Who closed, with which code, and how that is known: the life of a captured connection."""
    lines = []
    if story["handshake"] == "rejected":
        status = story["http_status"]
        name = "story.rejected" if status else "story.rejected_unreadable"
        lines.append(language.label(name, status=status))
    elif story["tls_alert"]:
        side, _, name = story["tls_alert"].partition(" ")
        lines.append(language.label("story.tls_failed", side=language.label(f"side.{side}"), name=name))
    elif story["end"] == "goaway":
        lines.append(_tell_gone(story, language))
    elif story["handshake"] == "failed":
        lines.append(language.label("story.failed"))
    elif story["handshake"] == "sealed" and story["likelihood"]:
        likelihood = language.label(f"likelihood.{story['likelihood']}")
        lines.append(language.label("story.sealed_taken", likelihood=likelihood))
    elif story["handshake"] == "sealed":
        lines.append(language.label("story.sealed_partly"))
    lines += _tell_closes(story, language)
    if story["end"] in ("fin", "rst"):
        lines.append(_tell_end(story, language))
    elif story["end"] in ("stream_end", "stream_reset"):
        lines.append(_tell_stream_end(story, language))
    elif story["end"] in ("open", "vanished"):
        lines.append(language.label(f"story.{story['end']}"))
    if story["http2_stream"]:
        lines += _tell_http2(story, language)
    for side in ("client", "server"):
        closed, ended = story[f"{side}_close_time"], story["ended"]
        ender = story["ended_by"]
        if closed is not None and ended is not None and closed > ended and ender in ("client", "server"):
            of_stream = "_stream" if story["end"].startswith("stream") else ""
            lines.append(language.label(f"story.after_end{of_stream}", side=language.label(f"side.{ender}")))
            break
    for view in story["views"]:
        side = language.label(f"side_first.{view['endpoint']}")
        how = _how(view, language, source=_elsewhere(view["source"], story))
        name = "story.reports_nothing" if view["code"] is None else f"story.reports{_hedge(view)}"
        lines.append(language.label(name, side=side, code=view["code"], how=how))
    if story["anomalies"]:
        names = language.join(f"{language.label(f'anomaly.{name}')} ({name})" for name in story["anomalies"])
        lines.append(language.label("story.against", names=names))
    return lines


def _tell_end(story: dict[str, Any], language: Language) -> str:
    """By whom and when TCP was ended."""
    end = language.label(f"end.{story['end']}")
    if story["ended_by"] not in ENDERS:
        return language.label("story.ended_unknown", end=end)
    ender = language.label(f"side.{story['ended_by']}")
    name = {"complete": "story.ended", "sealed": "story.ended_sealed"}.get(story["handshake"])
    if story["duration_s"] is None or name is None or (story["handshake"] == "sealed" and not story["likelihood"]):
        return language.label("story.ended_untimed", side=ender, end=end)
    return language.label(name, side=ender, end=end, seconds=language.decimal(story["duration_s"], 3))


def _hedge(view: dict[str, Any]) -> str:
    """End of the label's name for a code that was deduced."""
    return "_inferred" if view["provenance"] == "inferred" else ""


def _tell_stream_end(story: dict[str, Any], language: Language) -> str:
    """By whom, how and when an HTTP/2 stream was ended, which TCP may outlive."""
    values: dict[str, object] = {"side": language.label(f"side_first.{story['ended_by']}")}
    if story["end"] == "stream_reset":
        side, _, name = (story["stream_error"] or "").partition(" ")
        values["name"] = name if side == story["ended_by"] else language.label("story.no_error_code")
    if story["duration_s"] is None or story["handshake"] != "complete":
        return language.label(f"story.{story['end']}_untimed", **values)
    return language.label(f"story.{story['end']}", seconds=language.decimal(story["duration_s"], 3), **values)


def _tell_gone(story: dict[str, Any], language: Language) -> str:
    """Why an HTTP/2 request was never looked at: the server took no stream with so high a number."""
    name = story["goaway"].partition(" ")[2]
    last, stream = story["goaway_last_stream"], story["http2_stream"]
    return language.label("story.stream_above", name=name, last=last, stream=stream)


def _tell_http2(story: dict[str, Any], language: Language) -> list[str]:
    """What else HTTP/2 says of a stream's end: the other side's reset, a GOAWAY, how many others ended with it."""
    lines, names = [], []
    is_clear = story["initiator"] not in ("none", "unknown") or story["handshake"] == "rejected"
    resetter, _, error = (story["stream_error"] or "").partition(" ")
    if error:
        names.append(error)
        if story["end"] != "stream_reset" or resetter != story["ended_by"]:
            side = language.label(f"side_first.{resetter}")
            lines.append(language.label("story.then_reset", side=side, name=error))
    sender, _, error = (story["goaway"] or "").partition(" ")
    if error:
        names.append(error)
        last = story["goaway_last_stream"]
        values = {"side": language.label(f"side.{sender}"), "name": error}
        if story["end"] != "goaway":
            is_bound = sender == "server" and last < ANY_STREAM
            said = language.label("story.goaway", last=last, **values) if is_bound else None
            lines.append(said or language.label("story.goaway_any", **values))
        if story["goaway_reason"]:
            lines.append(language.label("story.goaway_says", reason=visible(story["goaway_reason"])))
    by_server = story["ended_by"] == "server" and story["end"] in ("stream_end", "stream_reset", "goaway")
    if not is_clear and (by_server or sender == "server"):
        software, server = story["server_software"], visible(story["server"])
        name = "story.hop_named" if software else "story.hop"
        lines.append(language.label(name, server=server, software=visible(software)))
    for name in dict.fromkeys(names):
        if not is_clear and language.hint(name):
            lines.append(language.label("story.hint", name=name, hint=language.hint(name)))
    if story["cause"] == "tcp_lost":
        lines.append(_tell_shared(story["shared_by"], story["carried"], language))
    return lines


def _tell_shared(lost: int, carried: int | None, language: Language) -> str:
    """How many WebSockets one loss of a TCP connection has ended."""
    if carried is None:
        return language.label("story.lost_least", lost=language.number(lost))
    if carried == 1:
        return language.label("story.lost_alone")
    name = "story.lost_all" if lost == carried else "story.lost_some"
    return language.label(name, carried=language.number(carried), lost=language.number(lost))


def shared_causes(document: dict[str, Any], language: Language) -> list[str]:
    """How many WebSockets were lost with how many TCP connections."""
    return [
        language.label(
            "report.lost_together",
            websockets=language.count("report.websockets", entry["connections"]),
            flows=language.count("report.tcp_connections", entry["count"]),
        )
        for entry in document["causes"]
    ]


def stream_error(entry: dict[str, Any], language: Language) -> str:
    """Who sent which error code of HTTP/2.

    Args:
        entry: From the document's `stream_errors`.
        language: The reader's.

    """
    name = "report.http2_goaway" if entry["frame"] == "GOAWAY" else "report.http2_reset"
    return language.label(name, side=language.label(f"side_first.{entry['endpoint']}"), name=entry["error"])


def _tell_closes(story: dict[str, Any], language: Language) -> list[str]:
    """Which side sent a Close first, and what came back."""
    closes = [side for side in ("client", "server") if story[f"{side}_close"] not in ("none", "unknown")]
    # numbers tell which came first only inside one file
    key = "record" if len({story[f"{side}_close_source"] for side in closes}) < 2 else "time"
    closes.sort(key=lambda side: story[f"{side}_close_{key}"])
    is_unknown = story["initiator"] == "unknown"
    is_sealed = story["handshake"] == "sealed" and story["likelihood"] is not None
    is_partly = not is_sealed and any(view["evidence"] == "sealed" for view in story["views"])
    values: dict[str, object] = {}
    for side, (who, what, where) in zip(
        closes, (("side", "close", "place"), ("other", "answer", "answer_place")), strict=False
    ):
        capital = "side_first" if who == "side" and story["initiator"] != "both" and not is_sealed else "side"
        values[who] = language.label(f"{capital}.{side}")
        values[what] = _close(
            story[f"{side}_close"], story[f"{side}_close_code"], story[f"{side}_close_reason"], language
        )
        source = _elsewhere(story[f"{side}_close_source"], story)
        values[where] = place(story[f"{side}_close_record"], "", language, source=source)
    if is_sealed and story["initiator"] == "none":
        return [language.label("story.sealed_nobody")]
    if is_sealed:
        what = "answered" if len(closes) == 2 and not is_unknown else ("none", "one", "both")[len(closes)]
        return [language.label(f"story.sealed_{what}", **values)]
    if is_partly and len(closes) < 2 and is_unknown:
        return [language.label("story.sealed_answer" if closes else "story.sealed_part", **values)]
    if len(closes) == 2:
        return [language.label("story.crossed" if story["initiator"] == "both" else "story.answered", **values)]
    if closes:
        return [language.label("story.maybe_answered" if is_unknown else "story.unanswered", **values)]
    if story["handshake"] in ("complete", "missing"):
        so_far = "story.nobody" if story["end"] in ("fin", "rst", "stream_end", "stream_reset") else "story.nobody_yet"
        return [language.label("story.maybe_none" if is_unknown else so_far)]
    return []


def log_head(row: dict[str, Any], language: Language) -> str:
    """Where a logged close stands."""
    return language.label("story.log_head", source=visible(row["source"]), record=row["record"])


def tell_logged(row: dict[str, Any], language: Language) -> list[str]:
    """What a logged close tells."""
    side = language.label(f"side_first.{row['endpoint']}")
    if row["code"] is None:
        printed = [language.label("story.prints", raw=visible(row["raw_code"]))] if row["raw_code"] else []
        how = language.join([language.label(f"provenance.{row['provenance']}"), row["evidence"], *printed])
        lines = [language.label("story.no_code", side=side, how=how)]
    else:
        how = _how(row | {"record": None}, language)
        lines = [
            language.label(f"story.reports_named{_hedge(row)}", side=side, code=row["code"], name=row["name"], how=how)
        ]
    for what, code in (("received", row["wire_code"]), ("sent", row["sent_code"])):
        if row[what] == "none":
            lines.append(language.label(f"story.{what}_none"))
        elif row[what] in ("status", "empty"):
            lines.append(language.label(f"story.{what}", close=_close(row[what], code, None, language)))
    if row["reason"]:
        lines.append(language.label("story.reason", reason=visible(row["reason"])))
    if row["initiator"] in ("client", "server", "both"):
        lines.append(language.label("story.first_close", side=language.label(f"initiator.{row['initiator']}")))
    seconds = None if row["duration_s"] is None else language.decimal(row["duration_s"], 3)
    if row["ended_by"] in ENDERS:
        name = "story.ended_by" if seconds is None else "story.ended_by_after"
        ender = language.label(f"endpoint.{row['ended_by']}")
        lines.append(language.label(name, side=ender, seconds=seconds))
    elif seconds is not None:
        lines.append(language.label("story.lasted", seconds=seconds))
    about = [
        f"{language.label(f'column.{name}' if name in ('client', 'server') else f'dimension.{name}')} "
        f"{visible(row[name])}"
        for name in ("client", "server", "host", "path")
        if row[name]
    ]
    if about:
        lines.append(language.label("story.about", parts=language.join(about)))
    if row["time"]:
        lines.append(language.label("story.at", time=row["time"][:23]))
    return lines


def advice(keys: list[str], language: Language) -> list[str]:
    """What to do about views with these diagnoses, each text once."""
    texts = [language.diagnosis(key) for key in dict.fromkeys(keys)]
    return [language.label("story.do", title=text.title, fix=text.fix) for text in texts]


def value_counts(entries: list[dict[str, Any]], language: Language, group: str | None = None) -> str:
    """Values with their numbers, most frequent first: `server (12), client (3)`.

    Args:
        entries: Rows with `value` and `count`.
        language: The reader's.
        group: Group of labels that names the values, None where they are captured text.

    """
    return language.join(
        language.label(
            "report.value_count",
            value=visible(entry["value"]) if group is None else language.label(f"{group}.{entry['value']}"),
            n=language.number(entry["count"]),
        )
        for entry in entries
    )


def told_of_place(entry: dict[str, Any], language: Language) -> str:
    """Since when a finding is seen, and which systems logged it; empty where neither is known.

    Args:
        entry: From the document's `diagnoses`.
        language: The reader's.

    """
    parts = []
    if entry["first"]["time"] and entry["last"]:
        first, last = language.time(entry["first"]["time"]), language.time(entry["last"])
        parts.append(language.label("report.period", first=first, last=last))
    if entry["systems"]:
        values = value_counts(entry["systems"], language)
        parts.append(language.label("report.here_where", what=language.label("dimension.system"), values=values))
    return language.join(parts)


def told_of_code(entry: dict[str, Any], language: Language) -> list[str]:
    """What this data says about a code: how often, since when, who, where.

    Args:
        entry: From the document's `codes`.
        language: The reader's.

    """
    n = language.count("report.views", sum(part["count"] for part in entry["endpoints"]))
    name = "report.here_untimed" if entry["first"] is None else "report.here"
    first, last = language.time(entry["first"]), language.time(entry["last"])
    lines = [
        language.label(
            name, views=f"{n}: {value_counts(entry['endpoints'], language, 'endpoint')}", first=first, last=last
        ),
        language.label("report.here_closed_by", who=value_counts(entry["initiators"], language, "initiator")),
    ]
    enders = [part for part in entry["enders"] if part["value"] in ENDERS]
    if enders:
        lines.append(language.label("report.here_ended_by", who=value_counts(enders, language, "endpoint")))
    for dimension in ("host", "path", "peer", "subprotocol", "system"):
        if entry[dimension]:
            values = value_counts(entry[dimension], language)
            lines.append(
                language.label("report.here_where", what=language.label(f"dimension.{dimension}"), values=values)
            )
    return lines


def sent_text(row: dict[str, Any], side: str, language: Language) -> str:
    """What a side sent: the code, else what there was instead."""
    if row[f"{side}_sent"] == "status":
        return str(row[f"{side}_sent_code"])
    return language.label(f"sent.{row[f'{side}_sent'] or 'none'}")


def timer_text(entry: dict[str, Any], language: Language) -> str:
    """How many ends gather at a value, and every known timer that has it."""
    candidates = [
        f"{timer['system']} {timer['setting']} ({language.label('timer.' + timer['kind'])})"
        for timer in entry["candidates"]
    ]
    code = language.label("plot.no_code") if entry["code"] is None else entry["code"]
    return language.label(
        "report.timer",
        code=code,
        seconds=language.decimal(entry["seconds"], 0 if entry["seconds"] == int(entry["seconds"]) else 1),
        measure=language.label(f"timer.{entry['measure']}"),
        count=language.number(entry["count"]),
        share=language.percent(entry["share"]),
        candidates="; ".join(candidates),
    )


def trouble_text(row: dict[str, Any], language: Language) -> str:
    """What went wrong with an input."""
    message = visible(row["message"] or language.label("report.nothing_more"))
    parts = [language.label("report.troubled", status=language.label(f"status.{row['status']}"), message=message)]
    if row["damaged_at"] is not None:
        parts[0] += f" {language.label('report.at_byte', n=language.number(row['damaged_at']))}"
    if row["lost_bytes"]:
        parts.append(language.label("report.not_read", n=language.number(row["lost_bytes"])))
    return language.join(parts)


def first_text(first: dict[str, Any], language: Language) -> str:
    """Where one can see such a view first."""
    record = ""
    if first["record"]:
        name = "story.line" if first["place"].startswith("line") else "story.packet"
        record = language.label(name, n=first["record"])
    parts = [visible(first["source"]), record, (first["time"] or "")[:23]]
    parts += [language.label(f"endpoint.{first['endpoint']}"), visible(first["peer"])]
    return language.join(part for part in parts if part)
