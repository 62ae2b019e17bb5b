"""What the pairs of the lab say to each other: conversations, silences and ends, drawn with a seed."""

import random

CLIENTS = ("websockets", "aiohttp", "tornado", "websocket-client", "ws", "undici", "gorilla")
SERVERS = ("websockets", "aiohttp", "tornado", "uvicorn", "uvicorn-wsproto", "ws", "gorilla", "nginx")
KINDS = ("13", "13", "13", "gcm", "chacha", "cbc", "cbcmte")
NO_PING = {"undici", "chromium", "uvicorn", "uvicorn-wsproto"}
NO_ABORT = {"uvicorn", "uvicorn-wsproto"}  # an ASGI application cannot reach its socket


def conversation(rng: random.Random, client: str, server: str) -> tuple[list[str], list[str]]:
    """Steps of both sides before the end."""
    kind = rng.choice(("none", "echo", "echo", "push", "ping", "ping", "client_ping", "big", "mixed", "same"))
    if kind == "echo":
        mine, n = [], rng.randint(1, 5)
        for _ in range(n):
            mine += [f"m{rng.choice((0, 1, 2, 5, 14, 30, 90, 123, 300))}", "r"]
            if rng.random() < 0.4:
                mine.append(f"s{rng.choice((20, 200))}")
        return mine, ["e"]
    if kind == "same":  # the same short question and answer, over and over
        size = rng.choice((2, 4, 20))
        return [f"m{size}", "r", "s250"] * rng.randint(2, 4), ["e"]
    if kind == "push":
        theirs = []
        for _ in range(rng.randint(1, 6)):
            theirs += [f"m{rng.choice((1, 10, 40, 100, 500))}", f"s{rng.choice((10, 100, 300))}"]
        return ["s300"], theirs
    if kind == "ping" and server not in NO_PING:
        size = rng.choice((0, 4, 4, 4, 8, 12, 125))
        return ["s100"], [f"p{size}", "s400"] * rng.randint(1, 5)
    if kind == "client_ping" and client not in NO_PING:
        size = rng.choice((0, 4, 4, 13))
        return [f"p{size}", "s400"] * rng.randint(1, 4), ["s500"]
    if kind == "big":
        return ["m20000", "r", "m60000", "r"], ["e"]
    if kind == "mixed" and server not in NO_PING:
        return ["m30", "s300", "m50", "s300"], ["p4", "s200", "m40", "p4", "s300", "m700", "p4", "s100"]
    return ["s50"], []


def settled(rng: random.Random) -> str:
    """Silence between the conversation and the end, in ms."""
    return f"s{rng.choice((0, 1, 60, 400, 2600, 6500))}"


def body(rng: random.Random) -> str:
    return rng.choice(("1000.0", "1000.0", "1000.0", "1000.3", "1000.20", "1000.123", "3000.7", "4001.15", "4000.60"))


ENDS = (
    ("client_close", 16), ("server_close", 16), ("client_empty", 7), ("server_empty", 7), ("crossed", 4),
    ("message_close", 5), ("server_message_close", 5), ("client_fin", 5), ("server_fin", 5), ("client_rst", 4),
    ("server_rst", 4), ("client_notify", 5), ("server_notify", 5), ("last_words_fin", 5), ("server_last_words_fin", 4),
    ("server_close_fin", 5), ("deaf", 4), ("return", 4), ("frame_removed", 4), ("client_kill", 3), ("server_kill", 3),
    ("ping_close", 3), ("half", 2), ("idle_fin", 8), ("idle_cut", 4), ("unheard", 5), ("lingering", 3),
)  # fmt: skip


CAN_STOP = {"aiohttp", "ws"}  # reading can be stopped, and with it Pongs and the answer to a Close
CAN_LINGER = {"aiohttp", "gorilla", "websocket-client"}


def draw_idle(rng: random.Random, client: str, server: str, end: str) -> tuple[str, str, str] | None:
    """Keepalive for a while, then an end: death when idle, a Close that nobody hears, a Close after which TCP stays."""
    size = rng.choice((0, 2, 4, 4, 8))
    by_server = server not in NO_PING and (client in NO_PING or rng.random() < 0.6)
    if not by_server and client in NO_PING:
        return None
    period = rng.choice((300, 700))
    pings = [f"p{size}", f"s{period}"] * rng.randint(3, 6)
    mine, theirs = ([f"s{period * len(pings) // 2}"], pings) if by_server else (pings, [f"s{period * len(pings) // 2}"])
    quiet = f"s{rng.choice((0, 1100, 2300, 3300, 4500, 8000))}"
    status = rng.choice(("1000.0", "1000.0", "0", "1001.2", "4000.6"))
    ending_client = rng.random() < 0.5
    if end in ("idle_fin", "idle_cut"):
        how = rng.choice("fn") if end == "idle_fin" else rng.choice("xk")
        if ending_client:
            if client in ("chromium", "undici"):
                how = "k"
            return end + "_kill" * (how == "k"), ",".join([*mine, quiet, how, "w"]), ",".join([*theirs, "w"])
        if server in NO_ABORT:
            how = "k"
        return end + "_kill" * (how == "k"), ",".join([*mine, "w"]), ",".join([*theirs, quiet, how, "w"])
    if end == "unheard":  # one side hears nothing any more, the other closes and waits in vain
        if ending_client and server in CAN_STOP:
            return end, ",".join([*mine, "s200", f"c{status}", "w"]), ",".join([*theirs, "z", "s9000", "f"])
        if not ending_client and client in CAN_STOP:
            return end, ",".join([*mine, "z", "s9000", "f"]), ",".join([*theirs, "s200", f"c{status}", "w"])
        return None
    if ending_client and client in CAN_LINGER:
        return end, ",".join([*mine, f"l{status}", "s5000", "f"]), ",".join([*theirs, "w"])
    if not ending_client and server in CAN_LINGER:
        return end, ",".join([*mine, "w"]), ",".join([*theirs, f"l{status}", "s5000", "f"])
    return None


def draw(rng: random.Random, client: str, server: str, end: str | None = None) -> tuple[str, str, str] | None:
    """(name of the end, client's script, server's script), None where these two cannot do it."""
    end = end or rng.choices([e for e, _ in ENDS], [w for _, w in ENDS])[0]
    if end in ("idle_fin", "idle_cut", "unheard", "lingering"):
        return draw_idle(rng, client, server, end)
    mine, theirs = conversation(rng, client, server)
    echoes = theirs[-1:] == ["e"]
    if (end.startswith("server") or end in ("crossed", "return", "half")) and echoes:
        theirs = [f"e{rng.choice((900, 1500))}"]
    pause = settled(rng)
    status = body(rng)
    if client == "chromium" and end in ("client_fin", "client_rst", "client_notify", "last_words_fin", "ping_close"):
        return None
    if client in NO_PING and end == "ping_close":
        return None
    if client == "undici" and end in ("client_fin", "client_rst", "client_notify", "last_words_fin"):
        return None
    if client != "chromium" and end == "frame_removed":
        return None
    if server in NO_ABORT and end in (
        "server_fin", "server_rst", "server_notify", "server_last_words_fin", "server_close_fin", "half",
    ):  # fmt: skip
        return None
    if end == "deaf" and server not in ("aiohttp", "gorilla", "websockets"):
        return None
    last = {
        "client_close": ([pause, f"c{status}", "w"], ["w"]),
        "server_close": (["w"], [pause, f"c{status}", "w"]),
        "client_empty": ([pause, "c0", "w"], ["w"]),
        "server_empty": (["w"], [pause, "c0", "w"]),
        "crossed": (["s1200", f"c{status}", "w"], ["s1200", f"c{body(rng)}", "w"]),
        "message_close": ([pause, f"m{rng.choice((2, 20, 80, 3000))}", f"c{status}", "w"], ["w"]),
        "server_message_close": (["w"], [pause, f"m{rng.choice((2, 20, 80, 3000))}", f"c{status}", "w"]),
        "client_fin": ([pause, "f"], ["w"]),
        "server_fin": (["w"], [pause, "f"]),
        "client_rst": ([pause, "x"], ["w"]),
        "server_rst": (["w"], [pause, "x"]),
        "client_notify": ([pause, "n", "w"], ["w"]),
        "server_notify": (["w"], [pause, "n", "w"]),
        "last_words_fin": ([pause, f"m{rng.choice((0, 2, 2, 20, 60))}", rng.choice(("r", "s30")), rng.choice("fxn")], ["e"]),
        "server_last_words_fin": (["w"], [pause, f"m{rng.choice((0, 2, 2, 20, 60))}", rng.choice(("s0", "s30")), rng.choice("fxn")]),
        "server_close_fin": (["w"], [pause, f"c{status}", "f"]),
        "deaf": ([f"c{status}", "w"], ["w"]),
        "return": (["w"], [pause, "q"]),
        "frame_removed": ([pause, "i"], ["w"]),
        "client_kill": ([pause, "k"], ["w"]),
        "server_kill": (["w"], [pause, "k"]),
        "ping_close": ([pause, "p4", f"c{status}", "w"], ["w"]),
        "half": (["w"], [pause, "h", "w"]),
    }[end]  # fmt: skip
    if end == "deaf":
        mine, theirs = ["m20", "s200"], ["d", "m30", "s600", "m30", "s700", "m40", "s900", "m50", "s500", "m20"]
    elif end == "last_words_fin":
        theirs = []
    elif last[1] == ["w"] and echoes:
        last = (last[0], [])
    return end, ",".join(mine + last[0]), ",".join(theirs + last[1])
