"""Record the sample captures: real programs talk, one of them ends it, and both say what they saw.

    python sample_captures/make.py [NAME...]            record all, or these
    python sample_captures/make.py --logs [NAME...]     hold the conversations again, keep only what the endpoints log
    python sample_captures/make.py --list

Needs root, tcpdump, dumpcap, tshark, editcap, Node and the Python packages of `endpoints/libraries.py`. ws and undici
come from `NODE_PATH`, or from npm into a temporary directory. Traffic stays on the loopback interface, or in a network
namespace.

The views in `endpoints/cases.py` were written by hand. A recording that tshark or the endpoints' own APIs do not bear
out is refused; packet numbers are taken from tshark. Likewise the rows in `endpoints/told.py` for the endpoints' logs:
logs are kept only of a conversation that tshark bears out, and whose endpoints report what the committed file says.
"""

import argparse
import asyncio
import datetime
import hashlib
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from endpoints import conversations, delayed_link, logs
from endpoints.cases import CASES, DELAYED, Capture, Case
from endpoints.sealing import Sealing
from endpoints.stage import Stage
from endpoints.told import TOLD

HERE = Path(__file__).parent
PACKAGES = ("ws@8.23.0", "undici@7.30.2")
ATTEMPTS = 4  # who ends TCP first is a race in some conversations
IN_NAMESPACE = "SAMPLE_CAPTURES_IN_NAMESPACE"


class Packet(NamedTuple):
    """One line of tshark's reading; `status` and `reason` are of the first Close in the packet."""

    number: int
    sender: str
    flags: int
    acked: int
    next_seq: int
    opcodes: list[str]
    status: str
    reason: str
    http_status: str
    upgrade: str
    host: str
    path: str
    subprotocol: str
    alert: str


FIELDS = (
    "frame.number",
    "tcp.srcport",
    "tcp.flags",
    "tcp.ack_raw",
    "tcp.seq_raw",
    "tcp.len",
    "websocket.opcode",
    "websocket.payload.close.status_code",
    "websocket.payload.close.reason",
    "http.response.code",
    "http.upgrade",
    "http.host",
    "http.request.uri",
    "http.sec_websocket_protocol",
    "tls.alert_message.desc",
)
FIN, RST, ACK = 0x01, 0x04, 0x10


def run_tshark(path: Path, port: int, protocol: str, keys: Path | None, *options: str) -> list[list[str]]:
    """Fields of the packets that fit, line by line."""
    command = ["tshark", "-r", str(path), "-d", f"tcp.port=={port},{protocol}", "-T", "fields", "-E", "aggregator=;"]
    command += ["-o", f"tls.keylog_file:{keys}"] if keys else []
    lines = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split("\t") for line in lines]


def read_tls(path: Path, port: int, keys: Path | None) -> dict[str, Any]:
    """What tshark, and OpenSSL's list of names, say of the TLS connection."""

    def find(kind: int, *names: str) -> list[str]:
        found = run_tshark(path, port, "tls", keys, "-Y", f"tls.handshake.type == {kind}", *fields_of(names))
        return found[0] if found else [""] * len(names)

    sni, offers = find(1, "tls.handshake.extensions_server_name", "tls.handshake.extensions_alpn_str")
    suite, version, chosen = find(
        2,
        "tls.handshake.ciphersuite",
        "tls.handshake.extensions.supported_version",
        "tls.handshake.extensions_alpn_str",
    )
    (encrypted,) = find(8, "tls.handshake.extensions_alpn_str")
    number = int(suite.split(";")[0], 16)
    listed = ["openssl", "ciphers", "-V", "-stdname", "ALL"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\n")
    (cipher,) = (n.split()[2] for n in names if n.lstrip().startswith(f"0x{number >> 8:02X},0x{number & 255:02X} "))
    alerts = run_tshark(
        path,
        port,
        "tls",
        keys,
        "-Y",
        "tls.alert_message.desc",
        *fields_of(("frame.number", "tcp.srcport", "tls.alert_message.level", "tls.alert_message.desc")),
    )
    return {
        "version": "TLSv1.3" if version else "TLSv1.2",
        "cipher": cipher,
        "sni": sni,
        "alpn_offers": [name for name in offers.split(";") if name],
        "alpn": (chosen or encrypted).split(";")[0] or None,
        "alerts": [
            f"{'server' if int(source) == port else 'client'} {level} {number} in packet {packet}"
            for packet, source, level, number in alerts
        ],
    }


def fields_of(names: Sequence[str]) -> list[str]:
    return [word for name in names for word in ("-e", name)]


def read_with_tshark(path: Path, port: int, protocol: str, keys: Path | None) -> list[Packet]:
    packets = []
    for line in run_tshark(path, port, protocol, keys, *fields_of(FIELDS)):
        number, source, flags, ack, seq, size, opcodes, statuses, reasons, *http = line
        packet = Packet(
            int(number),
            "server" if int(source) == port else "client",
            int(flags, 16),
            int(ack),
            int(seq) + int(size),
            opcodes.split(";"),
            statuses.split(";")[0],
            reasons.split(";")[0],
            *http,
        )
        packets.append(packet)
    return packets


def find_close(packets: Sequence[Packet], sender: str) -> Packet | None:
    return next((packet for packet in packets if packet.sender == sender and "8" in packet.opcodes), None)


def find_record(packets: Sequence[Packet], record: str) -> Packet | None:
    """The packet that `View.record` names."""
    sender, what = record.split()
    if what == "close":
        return find_close(packets, sender)
    theirs = [packet for packet in packets if packet.sender == sender]
    if what == "answer":
        return next((packet for packet in reversed(theirs) if packet.http_status), None)
    if what == "alert":
        return next((packet for packet in theirs if packet.alert), None)
    return next((packet for packet in theirs if packet.flags & {"fin": FIN, "rst": RST}[what]), None)


def acknowledges(later: Packet, earlier: Packet) -> bool:
    """Whether a packet acknowledges all bytes of an earlier one of the other side."""
    return bool(later.flags & ACK) and (later.acked - earlier.next_seq) % 2**32 < 2**31


def find_initiator(packets: Sequence[Packet]) -> str:
    """Who sent the first Close; `both` where the later one's segment does not acknowledge the earlier one."""
    closes = [packet for sender in ("client", "server") if (packet := find_close(packets, sender))]
    if len(closes) == 2:
        earlier, later = sorted(closes)
        return earlier.sender if acknowledges(later, earlier) else "both"
    return closes[0].sender if closes else "none"


def find_end(packets: Sequence[Packet]) -> str:
    for packet in packets:
        if packet.flags & (FIN | RST):
            return f"{'rst' if packet.flags & RST else 'fin'} {packet.sender}"
    return "open"


def problems(case: Case, packets: Sequence[Packet], api: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Where a recording is not what the case says, by tshark and by the endpoints."""
    if (initiator := find_initiator(packets)) != case.initiator:
        yield f"the initiator is {initiator}, not {case.initiator}"
    if (end := find_end(packets)) != case.end:
        yield f"the end is {end}, not {case.end}"
    for view in case.views:
        other = "server" if view.endpoint == "client" else "client"
        for sender, stated in ((other, view.received), (view.endpoint, view.sent)):
            close = find_close(packets, sender)
            found = "none" if close is None else close.status or "no status"
            wanted = "no status" if stated in ("empty", "short") else str(stated)
            if found != wanted and stated != "cut":
                yield f"the Close of the {sender} has {found}, not {stated}"
        if view.record and find_record(packets, view.record) is None:
            yield f"no {view.record}"
        close = find_close(packets, other)
        if close and close.reason != view.reason:
            yield f"the reason of the {other} is {close.reason!r}, not {view.reason!r}"
        if close and view.evidence in ("status", "close_unacked"):
            theirs = [packet for packet in packets[close.number :] if packet.sender == view.endpoint]
            if any(acknowledges(packet, close) for packet in theirs) != (view.evidence == "status"):
                yield f"acknowledged or not, the Close is not {view.evidence}"
        if view.evidence == "late_close" and find_record(packets, f"{view.endpoint} rst") is None:
            yield "the late Close was not answered by RST"
        reported = api.get(view.endpoint)
        differs = reported is not None and (
            reported.get("code") != view.code or reported.get("reason", view.reason) != view.reason
        )
        if differs != (view.endpoint in case.differences):
            yield f"the {view.endpoint} reports {reported}, view {view.code} {view.reason!r}"


def drop_options(data: bytes) -> bytes:
    """A pcapng file without what names machine and program: only interface names and resolutions stay."""
    blocks, off = [], 0
    while off < len(data):
        kind, size = struct.unpack_from("<II", data, off)
        block, off = data[off : off + size], off + size
        if kind in (0x0A0D0D0A, 1):  # section header, interface description
            fixed = 24 if kind == 0x0A0D0D0A else 16
            options, at = b"", fixed
            while at < size - 4:
                option, length = struct.unpack_from("<HH", block, at)
                step = 4 + (length + 3) // 4 * 4
                if kind == 1 and option in (2, 9):  # if_name, if_tsresol
                    options += block[at : at + step]
                at += step
            options += bytes(4) if options else b""
            total = fixed + len(options) + 4
            block = block[:4] + struct.pack("<I", total) + block[8:fixed] + options + struct.pack("<I", total)
        if kind in (0x0A0D0D0A, 1, 6, 10):  # packets and secrets stay as they are; statistics and comments go
            blocks.append(block)
    return b"".join(blocks)


class Recorder:
    """tcpdump or dumpcap, started and stopped around a conversation."""

    def __init__(self, capture: Capture, path: Path, packet_filter: str) -> None:
        self.path = path
        if capture.container == "pcapng":
            self.command = ["dumpcap", "-q", *capture.options, "-f", packet_filter, "-w", str(path)]
        else:
            self.command = ["tcpdump", "-n", "-U", "--immediate-mode", "-Z", "root", *capture.options]
            self.command += ["-w", str(path), packet_filter]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(*self.command, stderr=asyncio.subprocess.PIPE)
        stderr = self.process.stderr
        while stderr and (line := await stderr.readline()):
            if b"listening on" in line or b"File:" in line:
                break
        await asyncio.sleep(0.3)

    async def stop(self) -> None:
        if self.process is None:
            return
        await asyncio.sleep(0.5)
        self.process.send_signal(signal.SIGINT)
        await self.process.wait()
        self.process = None


def free_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        return int(listening.getsockname()[1])


async def record(name: str, case: Case, node_path: str, *, only_logs: bool) -> list[str]:
    """Record one case and write its files, or only its logs; return what was wrong instead, if anything."""
    host = case.capture.host
    dial = delayed_link.FAR if case.capture is DELAYED else host
    port = free_port(host)
    packet_filter = f"tcp port {port}"
    if dial != host:  # one of the two sights of each packet
        packet_filter = f"(dst host {host} and tcp dst port {port}) or (src host {host} and tcp src port {port})"
    link = delayed_link.open_link() if dial != host else nullcontext()
    programs = {"client": case.client, "server": case.server}
    with tempfile.TemporaryDirectory() as directory, link, logs.collect() as lines:
        path = Path(directory, name)
        recorder = Recorder(case.capture, path, packet_filter)
        sealing = Sealing(directory, case.tls, host, trusted=case.handshake != "failed") if case.tls else None
        stage = Stage(host, dial, port, node_path, recorder.start, recorder.stop, lines, sealing)
        if case.handshake != "missing":
            await recorder.start()
        try:
            async with asyncio.timeout(30):
                await getattr(conversations, name.replace("-", "_"))(stage)
                await stage.reported(*(view.endpoint for view in case.views if programs[view.endpoint] != "raw"))
        finally:
            await recorder.stop()
        keys = sealing.key_lines if sealing and case.keys else b""
        key_file = None
        if keys:
            key_file = Path(directory, f"{name}.keys")
            key_file.write_bytes(keys)
        if case.keys == "inside":
            with_secrets = Path(directory, "with-secrets")
            subprocess.run(["editcap", "--inject-secrets", f"tls,{key_file}", path, with_secrets], check=True)
            path, key_file = with_secrets, None
        data = path.read_bytes()
        if case.capture.container == "pcapng":
            data = drop_options(data)
            path.write_bytes(data)
        protocol = "tls" if case.tls else "websocket" if case.handshake == "missing" else "http"
        packets = read_with_tshark(path, port, protocol, key_file)
        tls = read_tls(path, port, key_file) if case.tls else None
    wrong = list(problems(case, packets, stage.api))
    metadata = HERE / f"{name}.toml"
    if only_logs and (committed := tomllib.loads(metadata.read_text(encoding="utf-8"))["api"]) != stage.api:
        wrong.append(f"the endpoints report {stage.api}, not {committed}")
    sides = [side for side in programs if programs[side] != "raw"]
    wrong += [
        f"endpoints/told.py does not say what the {side}'s log must give" for side in sides if (name, side) not in TOLD
    ]
    if not wrong:
        if not only_logs:
            (HERE / f"{name}.{case.capture.container}").write_bytes(data)
            if case.keys == "file":
                (HERE / f"{name}.keys").write_bytes(keys)
            metadata.write_text(to_toml(name, case, packets, stage.api, data, port, tls), encoding="utf-8")
        for side in sides:
            (HERE / f"{name}.{side}.log").write_text("\n".join([*lines[side], ""]), encoding="utf-8")
        about, _, _ = metadata.read_text(encoding="utf-8").partition("\n[log.")
        tables = [line for side in sides for line in log_tables(name, side, programs[side])]
        metadata.write_text("\n".join([about.rstrip(), *tables, ""]), encoding="utf-8")
    return wrong


def program(name: str) -> str:
    """A library with its version and that of its language."""
    if name == "raw":
        return "raw socket"
    for package in PACKAGES:
        if package.split("@")[0] == name:
            node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
            return f"{package.replace('@', ' ')} (Node {node[1:].split('.')[0]})"
    library, *more = name.split()
    extra = "".join(f", {word}" for word in more)
    return f"{library} {version(library)} (Python {'.'.join(platform.python_version_tuple()[:2])}{extra})"


def table(header: str, values: Mapping[str, Any]) -> list[str]:
    """Lines of a TOML table, after an empty one; null is left out."""
    given = {key: value for key, value in values.items() if value is not None}
    return ["", header, *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in given.items())]


def log_tables(name: str, side: str, program_name: str) -> list[str]:
    """What is known of one side's log: who wrote it, and the row it must give, if any."""
    told = TOLD[name, side]
    about = {"date": str(datetime.datetime.now(datetime.UTC).date()), "program": program(program_name)}
    lines = table(f"[log.{side}]", {**about, "differs": told.differs})
    return lines if told.row is None else lines + table(f"[log.{side}.row]", told.row._asdict())


def to_toml(
    name: str,
    case: Case,
    packets: Sequence[Packet],
    api: dict[str, dict[str, Any]],
    data: bytes,
    port: int,
    tls: dict[str, Any] | None,
) -> str:
    lines = [f"title = {json.dumps(case.title, ensure_ascii=False)}", f'decision = "{case.decision}"']
    if case.handshake == "missing":
        lines.append(f"ports = [{port}]")
    if case.tls and case.handshake == "failed":
        lines.append(f"ws_ports = [{port}]")
    if case.keys:
        lines.append(f'keys = "{name}.{"keys" if case.keys == "file" else case.capture.container}"')

    recorded = {
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "client": program(case.client),
        "server": program(case.server),
        "packets": len(packets),
        "container": case.capture.container,
        "link_type": case.capture.link_type,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    lines += table("[recorded]", recorded)
    for side, reported in sorted(api.items()):
        lines += table(f"[api.{side}]", reported)
    for view in case.views:
        expect: dict[str, Any] = {"endpoint": view.endpoint, "code": view.code}
        expect |= {"provenance": view.provenance, "evidence": view.evidence}
        for word, code_name, value in (("received", "wire_code", view.received), ("sent", "sent_code", view.sent)):
            status = isinstance(value, int)
            expect |= {word: "status" if status else value, code_name: value if status else None}
        packet = find_record(packets, view.record) if view.record else None
        lines += table("[[expect]]", {**expect, "reason": view.reason, "record": packet and packet.number})
        lines.extend(f"# {line}" for line in view.note.splitlines())
    end, _, ended_by = case.end.partition(" ")
    request = next((packet for packet in packets if packet.upgrade and packet.path), None)
    answer = find_record(packets, "server answer")
    connection = {
        "handshake": case.handshake,
        "http_status": int(answer.http_status) if answer else None,
        "initiator": case.initiator,
        "end": end,
        "ended_by": ended_by or None,
        "host": request and request.host,
        "path": request and request.path,
        "subprotocol": (answer and answer.subprotocol) or None,
    }
    lines += table("[connection]", connection)
    lines += table("[tls]", tls) if tls else []
    for side, why in case.differences.items():
        lines += table(f"[difference.{side}]", {"why": why})
    return "\n".join(lines) + "\n"


def find_node_modules(directory: str) -> str:
    """`NODE_PATH`, or ws and undici installed into a temporary directory."""
    if "NODE_PATH" in os.environ:
        return os.environ["NODE_PATH"]
    subprocess.run(["npm", "install", "--no-save", "--silent", "--prefix", directory, *PACKAGES], check=True)
    return str(Path(directory, "node_modules"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Record the sample captures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="record only these")
    parser.add_argument("--logs", action="store_true", help="hold the conversations again, keep only the logs")
    parser.add_argument("--list", action="store_true", help="name the captures and stop")
    options = parser.parse_args()
    if unknown := set(options.names) - CASES.keys():
        parser.error(f"no such capture: {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(f"{name:30}{case.title}" for name, case in CASES.items()))
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        node_path = find_node_modules(directory)
        for name in options.names or CASES:
            case = CASES[name]
            if case.capture is DELAYED and IN_NAMESPACE not in os.environ:
                environment = {**os.environ, IN_NAMESPACE: "yes", "NODE_PATH": node_path}
                command = ["unshare", "--net", sys.executable, __file__, *(["--logs"] if options.logs else []), name]
                failed += subprocess.run(command, env=environment, check=False).returncode != 0
                continue
            for _ in range(ATTEMPTS):
                wrong = asyncio.run(record(name, case, node_path, only_logs=options.logs))
                print(f"{name}: {'; '.join(wrong) or 'recorded'}")
                if not wrong:
                    break
            failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
