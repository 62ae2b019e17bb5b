"""Both ends of one HTTP/2 connection over loopback, by the h2 and wsproto packages: what they do turn by turn.

    python h2_endpoint.py PORT TURNS

TURNS is a JSON list of [verb, argument...]; each turn ends when neither side has anything more to read. Printed is one
JSON object for each path and side: what that side's own API reported.
"""

import json
import select
import socket
import struct
import sys
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import wsproto.connection
import wsproto.events

HOST = "127.0.0.1"
CLIENT, SERVER = 0, 1
NAMES = ("client", "server")
QUIET_S = 0.03


class End:
    """One side: its socket, its HTTP/2, a WebSocket for each stream, and what it was told."""

    def __init__(self, side: int, connection: socket.socket) -> None:
        self.side, self.socket, self.is_open = side, connection, True
        config = h2.config.H2Configuration(client_side=side == CLIENT, header_encoding="utf-8")
        self.http2 = h2.connection.H2Connection(config)
        if side == SERVER:
            codes = h2.settings.SettingCodes
            self.http2.local_settings = h2.settings.Settings(False, {codes.ENABLE_CONNECT_PROTOCOL: 1})
        self.http2.initiate_connection()
        self.websockets: dict[int, wsproto.connection.Connection] = {}
        self.refusing: dict[str, int] = {}
        self.ignoring: set[str] = set()
        self.reported: dict[int, dict[str, Any]] = {}
        self.told: dict[int, list[str]] = {}

    def flush(self) -> None:
        if self.is_open and (data := self.http2.data_to_send()):
            self.socket.sendall(data)

    def begin(self, stream: int) -> None:
        kind = wsproto.connection.ConnectionType
        self.websockets[stream] = wsproto.connection.Connection(kind.CLIENT if self.side == CLIENT else kind.SERVER)

    def read(self) -> None:
        """Read what has come, or that nothing comes any more."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            self.lose("ConnectionResetError")
            return
        if not data:
            self.lose("end of file")
            return
        for event in self.http2.receive_data(data):
            self.take(event)
        self.flush()

    def lose(self, why: str) -> None:
        """TCP is over: so are all WebSockets."""
        self.is_open = False
        self.socket.close()
        for stream in self.told:
            self.report(stream, 1006, "", why)

    def report(self, stream: int, code: int, reason: str, why: str) -> None:
        self.told[stream].append(why)
        if stream in self.websockets:
            self.reported.setdefault(stream, {"code": code, "reason": reason})

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            path = dict(event.headers)[":path"]
            self.told[event.stream_id] = []
            if path in self.refusing:
                self.http2.reset_stream(event.stream_id, self.refusing[path])
            elif path not in self.ignoring:
                self.http2.send_headers(event.stream_id, [(":status", "200"), ("server", "h2")])
                self.begin(event.stream_id)
        elif isinstance(event, h2.events.ResponseReceived):
            self.begin(event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            websocket = self.websockets[event.stream_id]
            if not event.data:
                return
            websocket.receive_data(event.data)
            for message in websocket.events():
                if isinstance(message, wsproto.events.CloseConnection):
                    if event.stream_id not in self.reported and websocket.state.name == "REMOTE_CLOSING":
                        self.http2.send_data(event.stream_id, websocket.send(message.response()))
                    self.report(event.stream_id, message.code, message.reason or "", f"CloseConnection {message.code}")
        elif isinstance(event, h2.events.StreamEnded):
            self.report(event.stream_id, 1006, "", "StreamEnded")
        elif isinstance(event, h2.events.StreamReset):
            self.report(event.stream_id, 1006, "", f"StreamReset {int(event.error_code)}")
        elif isinstance(event, h2.events.ConnectionTerminated):
            text = (event.additional_data or b"").decode()
            for stream in self.told:
                if stream not in self.reported:
                    what = f"ConnectionTerminated {int(event.error_code)} {event.last_stream_id} {text}"
                    self.told[stream].append(what.strip())


class Talk:
    """The two ends, and the verbs of the plan."""

    def __init__(self, port: int) -> None:
        listener = socket.create_server((HOST, port))
        client = socket.create_connection((HOST, port))
        server, _ = listener.accept()
        self.ends = End(CLIENT, client), End(SERVER, server)
        self.host = f"{HOST}:{port}"
        self.streams: dict[str, int] = {}
        self.settle()

    def settle(self) -> None:
        for end in self.ends:
            end.flush()
        while True:
            live = {end.socket: end for end in self.ends if end.is_open}
            ready, _, _ = select.select(list(live), [], [], QUIET_S)
            if not ready:
                return
            for one in ready:
                live[one].read()

    def open(self, path: str) -> None:
        client = self.ends[CLIENT]
        stream = self.streams[path] = client.http2.get_next_available_stream_id()
        client.told[stream] = []
        asked = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path)]
        client.http2.send_headers(stream, [*asked, (":authority", self.host), ("sec-websocket-version", "13")])

    def refuse(self, path: str, code: int) -> None:
        self.ends[SERVER].refusing[path] = code
        self.open(path)

    def ignore(self, path: str) -> None:
        self.ends[SERVER].ignoring.add(path)
        self.open(path)

    def text(self, side: int, path: str, text: str) -> None:
        stream = self.streams[path]
        data = self.ends[side].websockets[stream].send(wsproto.events.TextMessage(text))
        self.ends[side].http2.send_data(stream, data)

    def close(self, side: int, path: str, code: int, reason: str) -> None:
        stream = self.streams[path]
        data = self.ends[side].websockets[stream].send(wsproto.events.CloseConnection(code, reason))
        self.ends[side].http2.send_data(stream, data)

    def end(self, side: int, path: str) -> None:
        self.ends[side].http2.end_stream(self.streams[path])

    def reset(self, side: int, path: str, code: int) -> None:
        stream = self.streams[path]
        self.ends[side].http2.reset_stream(stream, code)
        self.ends[side].report(stream, 1006, "", f"reset_stream {code}")

    def goaway(self, side: int, code: int, path: str, text: str) -> None:
        """By hand: the package names the highest stream it has seen."""
        last = self.streams[path]
        body = struct.pack(">II", last, code) + text.encode()
        self.ends[side].socket.sendall(len(body).to_bytes(3, "big") + struct.pack(">BBI", 7, 0, 0) + body)

    def drop(self, side: int) -> None:
        """Reset TCP."""
        end = self.ends[side]
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.lose("closed with SO_LINGER 0")

    def finish(self, side: int) -> None:
        """End TCP in order."""
        self.ends[side].lose("closed")


def main() -> None:
    talk = Talk(int(sys.argv[1]))
    for verb, *rest in json.loads(sys.argv[2]):
        getattr(talk, verb)(*rest)
        talk.settle()
    for end in talk.ends:
        for path, stream in talk.streams.items():
            detail = "; ".join(end.told.get(stream, []))
            print(json.dumps({"side": NAMES[end.side], "path": path, **end.reported.get(stream, {}), "detail": detail}))


if __name__ == "__main__":
    main()
