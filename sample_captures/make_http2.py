"""Record the sample captures of WebSockets over HTTP/2 (RFC 8441).

    python sample_captures/make_http2.py [NAME...]

Needs what make.py needs; Chromium, chromedriver, selenium and openssl for the capture of a browser. The views in
`endpoints/http2_cases.py` were written by hand; a recording that tshark or the endpoints' own APIs do not bear out is
refused. Keys are those that the browser wrote, of the connections in the capture.
"""

import argparse
import datetime
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from endpoints.http2_cases import CASES, Case, WebSocket
from make import ATTEMPTS, HERE, drop_options, find_node_modules, free_port, program, table

HOST = "127.0.0.1"
ENDPOINT = str(HERE / "endpoints" / "http2_endpoint.js")
TURNS_ENDPOINT = str(HERE / "endpoints" / "h2_endpoint.py")
DATA, HEADERS, RST_STREAM, END_STREAM = 0, 1, 3, 1

PAGE = """
const [text, done] = arguments, told = {}, plan = JSON.parse(text);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const verbs = {
  send: (socket, text) => socket.send(text),
  wait: (socket, ms) => wait(ms),
  message: (socket) => new Promise((resolve) => socket.addEventListener("message", resolve, { once: true })),
  close: (socket, ...codeAndReason) => socket.close(...codeAndReason),
};
function run(path, steps) {
  const socket = new WebSocket("wss://" + location.host + path);
  socket.onopen = async () => { for (const [verb, ...rest] of steps) await verbs[verb](socket, ...rest); };
  return [socket, new Promise((resolve) => {
    socket.onclose = ({ code, reason, wasClean }) => {
      told[path] = { code, reason, detail: `close event: code ${code}, wasClean ${wasClean}` };
      resolve();
    };
  })];
}
(async () => {
  const [[firstPath, firstSteps], ...others] = Object.entries(plan);
  const [first, ended] = run(firstPath, firstSteps);
  for (const [path, steps] of others) await run(path, steps)[1];
  first.send("finish");
  await ended;
  done(told);
})();
"""


class Frame(NamedTuple):
    """A frame of HTTP/2 as tshark reads it: `payload` of DATA, without padding; `code` of RST_STREAM."""

    tcp: int
    packet: int
    sender: str
    kind: int
    flags: int
    stream: int
    payload: bytes
    code: int | None
    headers: dict[str, str]


class Ending(NamedTuple):
    """The first FIN or RST of a side."""

    tcp: int
    packet: int
    sender: str
    kind: str


def read_with_tshark(path: Path, port: int, keys: Path | None) -> tuple[list[Frame], list[Ending], int]:
    """Every HTTP/2 frame, who ended TCP, and the number of packets."""
    command = ["tshark", "-r", str(path), "-T", "pdml", "-d", f"tcp.port=={port},{'tls' if keys else 'http2'}"]
    if keys:
        command += ["-o", f"tls.keylog_file:{keys}"]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    frames, endings, n = [], [], 0
    for packet in ElementTree.fromstring(output).iter("packet"):
        n += 1

        def value(node: Any, name: str) -> str | None:
            found = node.find(f".//field[@name='{name}']")
            return None if found is None else found.get("show")

        tcp = int(value(packet, "tcp.stream") or -1)
        sender = "server" if value(packet, "tcp.srcport") == str(port) else "client"
        for kind in ("fin", "rst"):
            if value(packet, f"tcp.flags.{'reset' if kind == 'rst' else kind}") in ("1", "True"):
                endings.append(Ending(tcp, n, sender, kind))
        for stream in packet.iterfind(".//proto[@name='http2']/field[@name='http2.stream']"):
            kind_text = value(stream, "http2.type")
            if kind_text is None:  # the magic
                continue
            data = stream.find(".//field[@name='http2.data.data']")
            payload = bytes.fromhex(data.get("value") or "") if data is not None else b""
            code = value(stream, "http2.rst_stream.error")
            names = [field.get("show") for field in stream.iterfind(".//field[@name='http2.header.name']")]
            values = [field.get("show") for field in stream.iterfind(".//field[@name='http2.header.value']")]
            flags = int(value(stream, "http2.flags") or "0", 0)
            number = int(value(stream, "http2.streamid") or 0)
            headers = {str(a): str(b) for a, b in zip(names, values, strict=True)}
            reset = None if code is None else int(code)
            frames.append(Frame(tcp, n, sender, int(kind_text), flags, number, payload, reset, headers))
    return frames, endings, n


class Told(NamedTuple):
    """What one side of a stream sent, and in which packets."""

    close: tuple[int, int | None, str] | None  # packet, status, reason
    stream_end: int | None
    stream_reset: int | None


def side_of(frames: Sequence[Frame], sender: str) -> Told:
    """Frames of RFC 6455 in the payloads of one side of a stream, its first END_STREAM and RST_STREAM."""
    mine = [frame for frame in frames if frame.sender == sender]
    payload, ends = b"", []
    for frame in mine:
        payload += frame.payload
        ends.append((len(payload), frame.packet))
    at, close = 0, None
    while at + 2 <= len(payload) and close is None:
        opcode, n = payload[at] & 15, payload[at + 1] & 127
        is_masked = payload[at + 1] & 128
        at += 2
        if n == 126:
            (n,) = struct.unpack_from("!H", payload, at)
            at += 2
        mask = payload[at : at + 4] if is_masked else bytes(4)
        at += 4 if is_masked else 0
        body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload[at : at + n]))
        at += n
        if opcode == 8:
            packet = next(packet for end, packet in ends if end >= at)
            close = packet, int.from_bytes(body[:2], "big") if body else None, body[2:].decode()
    end = next((frame.packet for frame in mine if frame.kind in (DATA, HEADERS) and frame.flags & END_STREAM), None)
    reset = next((frame.packet for frame in mine if frame.kind == RST_STREAM), None)
    return Told(close, end, reset)


def find_record(
    record: str, frames: Sequence[Frame], endings: Sequence[Ending], sides: Mapping[str, Told]
) -> int | None:
    sender, what = record.split()
    if what == "answer":
        return next((frame.packet for frame in frames if frame.sender == sender and frame.kind == HEADERS), None)
    if what in ("fin", "rst"):
        return next((end.packet for end in endings if (end.sender, end.kind) == (sender, what)), None)
    if what == "close":
        close = sides[sender].close
        return close and close[0]
    return getattr(sides[sender], what)


def find_end(endings: Sequence[Ending], sides: Mapping[str, Told]) -> str:
    """How the stream ended first and by whom."""
    found = [(end.packet, end.kind, end.sender) for end in endings]
    for sender, told in sides.items():
        found += [(n, "stream_end", sender) for n in (told.stream_end,) if n]
        found += [(n, "stream_reset", sender) for n in (told.stream_reset,) if n]
    return " ".join(min(found)[1:])


def problems(
    websocket: WebSocket, frames: Sequence[Frame], endings: Sequence[Ending], api: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Where a stream is not what the case says."""
    sides = {sender: side_of(frames, sender) for sender in ("client", "server")}
    closes = sorted((told.close[0], sender) for sender, told in sides.items() if told.close)
    if (initiator := closes[0][1] if closes else "none") != websocket.initiator:
        yield f"the initiator is {initiator}"
    if len(closes) == 2 and closes[0][0] == closes[1][0]:
        yield "both Closes in one packet"
    # a request that GOAWAY refuses has no end of its own
    if not (end := find_end(endings, sides)).startswith(websocket.end) and not websocket.end.startswith("goaway"):
        yield f"the end is {end}, not {websocket.end}"
    for view in websocket.views:
        other = "server" if view.endpoint == "client" else "client"
        for sender, stated in ((other, view.received), (view.endpoint, view.sent)):
            close = sides[sender].close
            found: int | str = "none" if close is None else close[1] or "empty"
            if found != stated:
                yield f"the Close of the {sender} has {found}, not {stated}"
        if find_record(view.record, frames, endings, sides) is None:
            yield f"no {view.record}"
        close = sides[other].close
        if (close[2] if close else "") != view.reason:
            yield f"the reason of the {other} is {close}"
        reported = api.get(view.endpoint)
        differs = (
            reported is not None
            and "code" in reported
            and (reported.get("code") != view.code or reported.get("reason", view.reason) != view.reason)
        )
        if reported is None:
            yield f"the {view.endpoint} reports nothing"
        elif differs != (view.endpoint in websocket.differences):
            yield f"the {view.endpoint} reports {reported}, view {view.code} {view.reason!r}"


def stop(process: subprocess.Popen[str]) -> None:
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    process.wait()


def run_page(url: str, plan: Mapping[str, Any], keys: Path) -> dict[str, Any]:
    """Open the page in Chromium, and let it run the plan."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("headless=new", "no-sandbox", "ignore-certificate-errors", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    environment = {**os.environ, "SSLKEYLOGFILE": str(keys)}
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver", env=environment))
    try:
        browser.get(url)
        told = browser.execute_async_script(PAGE, json.dumps(plan))
        time.sleep(0.5)
    finally:
        browser.quit()
    return dict(told)


def hold(case: Case, port: int, path: Path, keys: Path, node_path: str) -> dict[str, dict[str, Any]]:
    """Hold and capture one conversation; what either side's API reported, by path."""
    environment = {**os.environ, "NODE_PATH": node_path}
    server_plan = {name: one.server_steps for name, one in case.websockets.items() if one.server_steps is not None}
    client_plan = {name: one.client_steps for name, one in case.websockets.items()}
    more = []
    if case.transport == "h2":
        more = [str(keys.with_name("key.pem")), str(keys.with_name("certificate.pem"))]
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-keyout", more[0], "-out", more[1], "-days", "30", "-subj", "/CN=localhost"]
        subprocess.run(command, check=True, capture_output=True)
    pipe = subprocess.PIPE
    if case.turns:
        return hold_turns(case, port, path)
    command = ["node", ENDPOINT, "server", HOST, str(port), json.dumps(server_plan), *more]
    server = subprocess.Popen(command, stdout=pipe, text=True, env=environment)
    assert server.stdout
    server.stdout.readline()
    recorder = start_recorder(port, path)
    api: dict[str, dict[str, Any]] = {"client": {}, "server": {}}
    try:
        if case.client == "Chromium":
            api["client"] = run_page(f"https://{HOST}:{port}/", client_plan, keys)
        else:
            command = ["node", ENDPOINT, "client", HOST, str(port), json.dumps(client_plan)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            api["client"] = by_path(done.stdout)
    finally:
        stop(recorder)
        server.kill()
        api["server"] = by_path(server.stdout.read())
        server.wait()
    return api


def hold_turns(case: Case, port: int, path: Path) -> dict[str, dict[str, Any]]:
    """Hold and capture a conversation whose two ends are one program."""
    recorder = start_recorder(port, path)
    try:
        command = [sys.executable, TURNS_ENDPOINT, str(port), json.dumps(case.turns)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        stop(recorder)
    api: dict[str, dict[str, Any]] = {"client": {}, "server": {}}
    for line in map(json.loads, done.stdout.splitlines()):
        api[line.pop("side")][line.pop("path")] = line
    return api


def start_recorder(port: int, path: Path) -> subprocess.Popen[str]:
    command = ["dumpcap", "-q", "-i", "lo", "-f", f"tcp port {port}", "-w", str(path)]
    recorder = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while recorder.stderr and "File:" not in recorder.stderr.readline():
        pass
    time.sleep(0.3)
    return recorder


def by_path(output: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in output.splitlines()]
    return {line.pop("path"): line for line in lines if "path" in line}


def own_keys(keys: Path, path: Path, port: int) -> str:
    """The lines of a key log that are for the connections of a capture."""
    command = ["tshark", "-r", str(path), "-d", f"tcp.port=={port},tls", "-Y", "tls.handshake.type==1"]
    output = subprocess.run([*command, "-T", "fields", "-e", "tls.handshake.random"], check=True, capture_output=True)
    randoms = set(output.stdout.decode().split())
    lines = [line for line in keys.read_text().splitlines() if line.split()[1:2] and line.split()[1] in randoms]
    return "".join(line + "\n" for line in lines)


def record(name: str, case: Case, node_path: str) -> list[str]:
    """Record one capture and write its files; return what was wrong instead, if anything."""
    port = free_port(HOST)
    with tempfile.TemporaryDirectory() as directory:
        path, keys = Path(directory, "capture.pcapng"), Path(directory, "keys")
        api = hold(case, port, path, keys, node_path)
        data = drop_options(path.read_bytes())
        path.write_bytes(data)
        is_tls = case.transport == "h2"
        secrets = own_keys(keys, path, port) if is_tls else ""
        frames, endings, n_packets = read_with_tshark(path, port, keys if is_tls else None)
    lines = [f"title = {json.dumps(case.title)}", f'transport = "{case.transport}"']
    if is_tls:
        lines.append(f'keys = "{name}.keys"')
    recorded = {
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "client": name_client(case),
        "server": program("h2 wsproto") if case.turns else f"http2, {program('ws')}",
        "packets": n_packets,
        "container": "pcapng",
        "link_type": "Ethernet",
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    lines += table("[recorded]", recorded)
    wrong = []
    asked = {frame.headers.get(":path"): frame for frame in frames if frame.headers.get(":method") == "CONNECT"}
    for where, websocket in case.websockets.items():
        if where not in asked:
            wrong.append(f"{where}: never asked for")
            continue
        tcp, stream = asked[where].tcp, asked[where].stream
        mine = [frame for frame in frames if (frame.tcp, frame.stream) == (tcp, stream)]
        ends = [end for end in endings if end.tcp == tcp]  # browsers open a second TCP connection in advance
        told = {side: api[side][where] for side in api if where in api[side]}
        wrong += [f"{where}: {problem}" for problem in problems(websocket, mine, ends, told)]
        lines += to_toml(where, stream, websocket, mine, ends, told, asked[where].headers.get(":authority"))
    if not wrong:
        (HERE / f"{name}.pcapng").write_bytes(data)
        (HERE / f"{name}.toml").write_text("\n".join([*lines, ""]), encoding="utf-8")
        if is_tls:
            (HERE / f"{name}.keys").write_text(secrets)
    return wrong


def name_client(case: Case) -> str:
    if case.client == "Chromium":
        return f"{browser_version()} (headless)"
    return program("h2 wsproto") if case.turns else f"http2, {program('ws')}"


def browser_version() -> str:
    output = subprocess.run(["chromium", "--version"], check=True, capture_output=True, text=True).stdout
    return " ".join(output.split()[:2])


def to_toml(
    path: str,
    stream: int,
    websocket: WebSocket,
    frames: Sequence[Frame],
    endings: Sequence[Ending],
    api: Mapping[str, Mapping[str, Any]],
    host: str | None,
) -> list[str]:
    """One table of `connections`."""
    sides = {sender: side_of(frames, sender) for sender in ("client", "server")}
    found = find_end(endings, sides)
    end, _, ended_by = (websocket.end if websocket.end.startswith("goaway") else found).partition(" ")
    lines = table("[[connections]]", {"stream": stream, "decision": websocket.decision})
    for side, reported in sorted(api.items()):
        lines += table(f"[connections.api.{side}]", reported)
    for view in websocket.views:
        expect: dict[str, Any] = {"endpoint": view.endpoint, "code": view.code}
        expect |= {"provenance": view.provenance, "evidence": view.evidence}
        for word, code_name, value in (("received", "wire_code", view.received), ("sent", "sent_code", view.sent)):
            status = isinstance(value, int)
            expect |= {word: "status" if status else value, code_name: value if status else None}
        packet = find_record(view.record, frames, endings, sides)
        lines += table("[[connections.expect]]", {**expect, "reason": view.reason, "record": packet})
    connection = {
        **websocket.columns,
        "handshake": websocket.handshake,
        "http_status": websocket.http_status,
        "initiator": websocket.initiator,
        "end": end,
        "ended_by": ended_by,
        "host": host,
        "path": path,
    }
    lines += table("[connections.connection]", connection)
    for side, why in websocket.differences.items():
        lines += table(f"[connections.difference.{side}]", {"why": why})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Record the sample captures of WebSockets over HTTP/2.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="record only these")
    options = parser.parse_args()
    if unknown := set(options.names) - CASES.keys():
        parser.error(f"no such capture: {', '.join(sorted(unknown))}")
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        node_path = find_node_modules(directory)
        for name in options.names or CASES:
            for _ in range(ATTEMPTS):
                wrong = record(name, CASES[name], node_path)
                print(f"{name}: {'; '.join(wrong) or 'recorded'}")
                if not wrong:
                    break
            failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
