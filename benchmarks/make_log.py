"""Write a mixed server log: access lines, application lines in JSON and text, and a share of WebSocket closes.

    python benchmarks/make_log.py OUT MEGABYTES SHARE [--plain]

SHARE is the part of the lines that are closes (0.01, 1). With --plain every close is one line of gorilla/websocket, as
a Go server prints it. The same arguments give the same bytes.
"""

import argparse
import json
import random
from pathlib import Path

START = 1_795_255_200


def stamp(seconds: float) -> str:
    whole = int(seconds)
    hour, minute, second = whole // 3600 % 24, whole // 60 % 60, whole % 60
    return f"2026-11-21T{hour:02d}:{minute:02d}:{second:02d}.{int(seconds * 1000) % 1000:03d}Z"


def plain(_r: random.Random, seconds: float) -> str:
    return f"{stamp(seconds)} ERROR hub: read loop: websocket: close 1006 (abnormal closure): unexpected EOF"


def as_json(r: random.Random, seconds: float) -> str:
    code = r.choice((1000, 1001, 1005, 1006, 1012, 4001))
    row = {"ts": START + seconds, "level": "info", "msg": "ws closed", "code": code, "reason": "", "wasClean": False}
    return json.dumps({**row, "conn": r.getrandbits(32)})


def websockets(_r: random.Random, seconds: float) -> str:
    return f"{stamp(seconds)} INFO connection ended: received 1001 (going away); then sent 1001 (going away)"


def nginx(r: random.Random, seconds: float) -> str:
    whole = stamp(seconds)
    return (
        f"{whole[:10].replace('-', '/')} {whole[11:19]} [info] 31#31: *{r.getrandbits(24)} upstream timed out "
        "(110: Connection timed out) while proxying upgraded connection, "
        f"client: 10.0.{r.getrandbits(8)}.{r.getrandbits(8)}, "
        'server: , request: "GET /ws HTTP/1.1", upstream: "http://10.1.0.3:8080/ws", host: "chat.example.com"'
    )


def node(r: random.Random, seconds: float) -> str:
    return f"{stamp(seconds)} info: client disconnected {r.choice((1000, 1001, 1006))} <Buffer >"


def access(r: random.Random, seconds: float) -> str:
    whole = stamp(seconds)
    return (
        f"10.{r.getrandbits(8)}.{r.getrandbits(8)}.{r.getrandbits(8)} - - [21/Nov/2026:{whole[11:19]} +0000] "
        f'"GET /api/v1/items/{r.randint(1000, 4999)}?page={r.randint(1, 99)} HTTP/1.1" 200 {r.randint(100, 99999)} '
        '"https://example.com/" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"'
    )


def order(r: random.Random, seconds: float) -> str:
    row = {"ts": START + seconds, "level": "info", "logger": "app.orders", "msg": "order accepted"}
    return json.dumps(
        {**row, "order_id": r.getrandbits(40), "user": f"u{r.randint(1, 99999)}", "ms": r.randint(1, 900)}
    )


def debug(r: random.Random, seconds: float) -> str:
    return f"{stamp(seconds)} DEBUG pool: connection {r.randint(1, 999)} released, idle=3 open=17 closed by keepalive"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("megabytes", type=float)
    parser.add_argument("share", type=float)
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args()
    r = random.Random(7)
    closes = (plain,) if given.plain else (plain, as_json, websockets, nginx, node)
    written = n_lines = n_closes = 0
    with Path(given.out).open("w", buffering=1 << 20, encoding="utf-8") as out:
        while written < given.megabytes * 1e6:
            seconds = n_lines * 0.001
            if r.random() < given.share:
                line = r.choice(closes)(r, seconds)
                n_closes += 1
            else:
                line = r.choice((access, access, order, order, debug))(r, seconds)
            written += out.write(line + "\n")
            n_lines += 1
    print(f"{n_lines:,} lines, {n_closes:,} closes, {written:,} bytes")


if __name__ == "__main__":
    main()
