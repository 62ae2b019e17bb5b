"""What a capture of the lab holds, told by others: records by dpkt and a few lines, frames by tshark with the keys."""

import collections
import csv
import io
import json
import struct
import subprocess
from pathlib import Path

import dpkt


def connections(path: str, first_port: int, last_port: int) -> list[dict]:
    """Each TCP connection of a loopback capture: its TLS records and how it ended, in capture order.

    Loopback neither loses nor reorders, so bytes are put together as they come; what is sent twice is passed over.
    """
    found: dict[tuple, dict] = {}
    done = []
    with Path(path).open("rb") as file:
        reader = dpkt.pcap.UniversalReader(file)
        for number, (ts, packet) in enumerate(reader, 1):
            ip = dpkt.ethernet.Ethernet(packet).data if reader.datalink() == 1 else dpkt.ip.IP(packet)
            if not isinstance(ip, dpkt.ip.IP) or not isinstance(ip.data, dpkt.tcp.TCP):
                continue
            tcp = ip.data
            to_server = first_port <= tcp.dport <= last_port
            key = (tcp.sport, tcp.dport) if to_server else (tcp.dport, tcp.sport)
            ns = round(ts * 1e6) * 1000
            if to_server and tcp.flags & 2 and not tcp.flags & 16:
                if key in found:
                    done.append(found.pop(key))
                found[key] = {
                    "client_port": key[0], "port": key[1], "start": ns, "first_packet": number, "records": [], "ends": [],
                    "base": [tcp.seq, None], "next": [tcp.seq + 1, None], "buffer": [b"", b""], "packets": [],
                }  # fmt: skip
            if key not in found:
                continue
            c = found[key]
            side = 0 if to_server else 1
            if side == 1 and tcp.flags & 2:
                c["base"][1], c["next"][1] = tcp.seq, tcp.seq + 1
            if c["base"][1] is None:
                continue
            base, other = c["base"][side], c["base"][1 - side]
            ack = (tcp.ack - other) & 0xFFFFFFFF if tcp.flags & 16 else 0
            pos = (tcp.seq - base) & 0xFFFFFFFF
            if tcp.data:
                expected = (c["next"][side] - base) & 0xFFFFFFFF
                if pos + len(tcp.data) > expected:
                    if pos > expected:
                        c["hole"] = True
                    c["buffer"][side] += tcp.data[max(0, expected - pos) :]
                    c["next"][side] = (base + pos + len(tcp.data)) & 0xFFFFFFFF
                    end = pos + len(tcp.data)
                    data = c["buffer"][side]
                    while len(data) >= 5:
                        kind, version, n = struct.unpack_from("!BHH", data)
                        if len(data) < 5 + n:
                            break
                        first = data[5] if n else 0
                        end_pos = end - (len(data) - 5 - n)
                        c["records"].append([side, kind, version, n, ns - c["start"], end_pos, ack, number, first])
                        if kind == 22 and first in (1, 2) and side == (0 if first == 1 else 1):
                            name = "client_hello" if first == 1 else "server_hello"
                            c.setdefault(name, data[5 : 5 + n])
                        data = data[5 + n :]
                    c["buffer"][side] = data
            if tcp.flags & 5:
                c["ends"].append(
                    [side, "rst" if tcp.flags & 4 else "fin", ns - c["start"], pos + len(tcp.data), ack, number]
                )
    done += found.values()
    for c in done:
        c["left"] = [len(b) for b in c.pop("buffer")]
        c["hello"] = parse_hellos(c.pop("client_hello", b""), c.pop("server_hello", b""))
        for name in ("base", "next", "packets"):
            del c[name]
    return sorted(done, key=lambda c: c["first_packet"])


def parse_hellos(client: bytes, server: bytes) -> dict:
    """SNI, ALPN offers, and what the server chose; through dpkt's neighbour by hand, as it knows no TLS 1.3."""
    told = {"sni": None, "alpn": [], "version": None, "cipher": None, "selected": None}

    def extensions(data: bytes, at: int):
        end = at + 2 + struct.unpack_from("!H", data, at)[0]
        at += 2
        while at + 4 <= end:
            kind, n = struct.unpack_from("!HH", data, at)
            yield kind, data[at + 4 : at + 4 + n]
            at += 4 + n

    if client:
        at = 38 + 1 + client[38]
        at += 2 + struct.unpack_from("!H", client, at)[0]
        at += 1 + client[at]
        for kind, value in extensions(client, at):
            if kind == 0 and len(value) > 5:
                told["sni"] = value[5:].decode("ascii", "replace")
            if kind == 16:
                names, i = [], 2
                while i < len(value):
                    names.append(value[i + 1 : i + 1 + value[i]].decode("ascii", "replace"))
                    i += 1 + value[i]
                told["alpn"] = names
    if server:
        at = 38 + 1 + server[38]
        told["cipher"] = struct.unpack_from("!H", server, at)[0]
        told["version"] = struct.unpack_from("!H", server, 4)[0]
        if at + 5 <= len(server):
            for kind, value in extensions(server, at + 3):
                if kind == 43:
                    told["version"] = struct.unpack("!H", value)[0]
                if kind == 16:
                    told["selected"] = value[3:].decode("ascii", "replace")
    return told


FIELDS = (
    "tcp.srcport", "tcp.dstport", "frame.number", "websocket.opcode", "websocket.payload_length", "http.request.uri",
    "http.response.code", "websocket.payload.close.status_code",
)  # fmt: skip


def frames(path: str, keys: str, first_port: int, last_port: int) -> dict[tuple[int, int], list[dict]]:
    """By the ports of client and server: what tshark sees with the keys, one entry a packet. Ports come again."""
    command = ["tshark", "-r", path, "-o", f"tls.keylog_file:{keys}", "-Y", "websocket or http"]
    command += [
        "-T",
        "fields",
        "-E",
        "separator=\t",
        "-E",
        "aggregator=,",
        "-d",
        f"tcp.port=={first_port}-{last_port},tls",
    ]
    for field in FIELDS:
        command += ["-e", field]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    told: dict[tuple[int, int], list[dict]] = collections.defaultdict(list)
    for row in csv.reader(io.StringIO(out), delimiter="\t"):
        source, target, number, opcodes, lengths, uri, status, codes = row
        to_server = first_port <= int(target) <= last_port
        entry = {
            "packet": int(number),
            "uri": uri or None,
            "status": int(status.split(",")[0]) if status else None,
            "frames": [],
        }
        status_codes = [c for c in codes.split(",") if c]
        # the length field stands once a frame: 126 and 127 where the length follows
        for opcode, length in zip(opcodes.split(","), lengths.split(","), strict=False):
            if opcode:
                code = int(status_codes.pop(0)) if opcode == "8" and status_codes and int(length) >= 2 else None
                entry["frames"].append([0 if to_server else 1, int(opcode), int(length), int(number), code])
        told[(int(source), int(target)) if to_server else (int(target), int(source))].append(entry)
    return told


if __name__ == "__main__":
    import sys

    for c in connections(sys.argv[1], 23000, 25999)[:3]:
        print(json.dumps(c))
