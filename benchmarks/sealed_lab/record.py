"""Record TLS WebSockets of real programs on loopback, open them with their keys, and put down what they tell.

    python benchmarks/sealed_lab/record.py DIRECTORY [connections a pair] [seed] [delay in ms] [client|server]

With a delay, clients and servers live in two network namespaces joined by a slow link, and the capture is taken at the
client's or the server's end of it. LAB_SERVERS names some servers only (`nginx,ws`). Needs root (dumpcap), tshark, openssl,
Node with `ws` and `undici` (`npm install ws undici@6` in DIRECTORY) and the Python libraries; does without Go with
gorilla/websocket, nginx and Chromium. Takes some minutes, stops by itself, uses ports 23000 to 25999 of 127.0.0.1, or of the
namespaces. Writes DIRECTORY/lab.pcap, keys.log and pairs.jsonl.gz.
"""

import contextlib
import gzip
import http.server
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import oracle
import scenarios

HERE = Path(__file__).resolve().parent
FIRST, LAST, CONTROL = 23000, 25899, 25990
HTTP, HTTP2, LINES = 24000, 24001, 24002
BACKEND = 25950
"""What nginx passes on in the clear; not captured."""
TLS = ("13", "gcm", "chacha", "cbc", "cbcmte")
LIMIT_S = 900
HOST = os.environ.get("LAB_HOST", "127.0.0.1")
NAME = "localhost" if HOST == "127.0.0.1" else HOST
AWAY = ["ip", "netns", "exec", "wsclose-c"] if HOST != "127.0.0.1" else []
"""What clients are started with, to be at the other end of the link."""


def port_of(server: str, kind: str) -> int:
    return FIRST + 10 * scenarios.SERVERS.index(server) + TLS.index(kind)


class Lab:
    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.servers: dict[str, subprocess.Popen] = {}
        self.env = {**os.environ, "LAB_MODULES": str(Path(directory) / "node_modules"), "PYTHONPATH": str(HERE)}
        self.env["SSLKEYLOGFILE"] = f"{directory}/keys-client.log"
        self.is_over = False

    def command(self, server: str) -> list[str]:
        ports = [f"{kind}={port_of(server, kind)}" for kind in TLS]
        if server == "nginx":  # passes what it hears to ws in the clear
            return ["node", str(HERE / "node_peer.mjs"), "server", self.directory, f"plain={BACKEND}"]
        if server == "ws":
            return ["node", str(HERE / "node_peer.mjs"), "server", self.directory, *ports]
        if server == "gorilla":
            return [f"{self.directory}/go_peer", "server", self.directory, *ports]
        return [sys.executable, str(HERE / "python_server.py"), server, self.directory, *ports]

    def start(self, server: str) -> None:
        with (Path(self.directory) / f"{server}.err").open("ab") as log:
            self.servers[server] = subprocess.Popen(self.command(server), env=self.env, stdout=log, stderr=log)
        wait_for(BACKEND if server == "nginx" else port_of(server, "13"))

    def watch(self) -> None:
        """Start again what a scenario has killed."""
        while not self.is_over:
            for server, process in list(self.servers.items()):
                if server in scenarios.SERVERS and process.poll() is not None and not self.is_over:
                    with contextlib.suppress(TimeoutError):
                        self.start(server)
            time.sleep(0.05)

    def start_others(self) -> None:
        """Servers of what is no WebSocket."""
        python = [sys.executable, str(HERE / "other_server.py"), self.directory, str(HTTP), str(LINES)]
        node = ["node", str(HERE / "other_node.mjs"), "server", self.directory, str(HTTP2)]
        for name, command, port in (("other", python, HTTP), ("http2", node, HTTP2)):
            self.servers[name] = subprocess.Popen(command, env=self.env)
            wait_for(port)

    def others(self) -> None:
        python = [sys.executable, str(HERE / "other_client.py"), str(HTTP), str(HTTP2), str(LINES)]
        node = ["node", str(HERE / "other_node.mjs"), "client", str(HTTP), str(HTTP2)]
        for command in (python, node):
            subprocess.run([*AWAY, *command], env=self.env, check=False, timeout=LIMIT_S)
        kinds = (
            ("get", HTTP, "small"),
            ("post", HTTP, "small"),
            ("get", HTTP, "late"),
            ("sse", HTTP, "events"),
            ("get", HTTP2, "a"),
        )
        jobs = [
            {"id": 10**6 + i, "what": what, "url": f"https://{NAME}:{port}/{path}"}
            for i, (what, port, path) in enumerate(kinds)
        ]
        browse(self, jobs, 60)

    def stop(self) -> None:
        self.is_over = True
        for process in self.servers.values():
            process.kill()

    def clients(self, client: str, jobs: list[dict], concurrent: int) -> list[dict]:
        if client == "gorilla":
            command = [f"{self.directory}/go_peer", "client", str(concurrent)]
        elif client in ("ws", "undici"):
            keys = f"--tls-keylog={self.directory}/keys-node.log"
            command = ["node", keys, str(HERE / "node_peer.mjs"), client, str(concurrent)]
        else:
            command = [sys.executable, str(HERE / "python_client.py"), client, str(concurrent)]
        lines = "".join(json.dumps(job) + "\n" for job in jobs)
        with (Path(self.directory) / f"client-{client}.err").open("ab") as log:
            done = subprocess.Popen(
                [*AWAY, *command], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            out, _ = done.communicate(lines, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            done.kill()
            out, _ = done.communicate()
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 0.2):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")


def browse(lab: Lab, jobs: list[dict], limit_s: float = 240) -> list[dict]:
    """Have Chromium do these jobs; a job that ends in `k` kills it."""
    if not shutil.which("chromium"):
        return []
    results: list[dict] = []
    over = threading.Event()
    process: list[subprocess.Popen] = []

    class Control(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/jobs":
                self.answer(json.dumps(jobs).encode(), "application/json")
            else:
                self.answer((HERE / "page.html").read_bytes(), "text/html")

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/result":
                results.append(json.loads(body))
            if self.path == "/kill":
                os.killpg(process[0].pid, signal.SIGKILL)
                over.set()
            self.answer(b"", "text/plain")
            if self.path == "/done":
                over.set()

    server = http.server.ThreadingHTTPServer((HOST, CONTROL), Control)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    profile = Path(lab.directory) / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    command = [
        *AWAY, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--ignore-certificate-errors", f"--user-data-dir={profile}", "--disable-background-networking",
        "--disable-component-update", f"http://{HOST}:{CONTROL}/",
    ]  # fmt: skip
    with (Path(lab.directory) / "chromium.err").open("ab") as log:
        process.append(subprocess.Popen(command, env=lab.env, stdout=log, stderr=log, start_new_session=True))
    over.wait(limit_s)
    time.sleep(0.5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process[0].pid, signal.SIGKILL)
    server.shutdown()
    server.server_close()
    return results


def certificate(directory: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


def build_go(directory: str) -> bool:
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": f"{directory}/gocache"}
    if not shutil.which("go"):
        return False
    command = ["go", "build", "-o", f"{directory}/go_peer", str(HERE / "go_peer.go")]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def start_nginx(directory: str) -> subprocess.Popen | None:
    """nginx with a port for each kind of TLS, in front of a server in the clear."""
    if not shutil.which("nginx"):
        return None
    blocks = []
    for kind in TLS:
        lines = [f"listen {HOST}:{port_of('nginx', kind)} ssl", "location / { proxy_pass http://" + f"{HOST}:{BACKEND}"]
        suite = {"13": "", "gcm": "ECDHE-RSA-AES128-GCM-SHA256", "chacha": "ECDHE-RSA-CHACHA20-POLY1305"}.get(
            kind, "ECDHE-RSA-AES128-SHA"
        )
        lines.insert(1, "ssl_protocols " + ("TLSv1.3" if kind == "13" else f"TLSv1.2; ssl_ciphers {suite}"))
        if kind == "cbcmte":
            lines.insert(2, "ssl_conf_command Options -EncryptThenMac")
        headers = (
            'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }'
        )
        blocks.append("server { " + "; ".join(lines) + "; " + headers + " }")
    text = f"""daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; worker_processes 1; user root;
events {{ worker_connections 1024; }}
http {{ access_log off; ssl_certificate {directory}/cert.pem; ssl_certificate_key {directory}/key.pem;
client_body_temp_path {directory}/nginx; proxy_temp_path {directory}/nginx; fastcgi_temp_path {directory}/nginx;
uwsgi_temp_path {directory}/nginx; scgi_temp_path {directory}/nginx;
{chr(10).join(blocks)} }}"""
    path = Path(directory) / "nginx.conf"
    path.write_text(text)
    return subprocess.Popen(["nginx", "-c", str(path)])


def plan(rng: random.Random, clients: list[str], servers: list[str], n: int) -> list[dict]:
    jobs = []
    for client in clients:
        for server in servers:
            made = 0
            while made < n:
                drawn = scenarios.draw(rng, client, server)
                if drawn is None:
                    continue
                made += 1
                end, mine, theirs = drawn
                kind = rng.choice(scenarios.KINDS)
                jobs.append(
                    {
                        "id": len(jobs),
                        "client": client,
                        "server": server,
                        "kind": kind,
                        "end": end,
                        "script": mine,
                        "server_script": theirs,
                    }
                )
    for job in jobs:
        query = urllib.parse.urlencode({"id": job["id"], "s": job["server_script"]})
        job["url"] = f"wss://{NAME}:{port_of(job['server'], job['kind'])}/?{query}"
    return jobs


def join(delay_ms: int) -> subprocess.Popen:
    """Two namespaces and a slow link between them."""
    part()
    for name in ("wsclose-s", "wsclose-c"):
        subprocess.run(["ip", "netns", "add", name], check=True)
    command = [sys.executable, str(HERE / "link.py"), "wsclose-s", "wsclose-c", str(delay_ms / 2000)]
    link = subprocess.Popen(command, stdout=subprocess.PIPE)
    link.stdout.readline()
    return link


def part() -> None:
    for name in ("wsclose-s", "wsclose-c"):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def main(directory: str, n: int = 12, seed: int = 1, delay_ms: int = 0, vantage: str = "server") -> None:
    if delay_ms and HOST == "127.0.0.1":
        link = join(delay_ms)
        arguments = [directory, str(n), str(seed), str(delay_ms), vantage]
        environment = {**os.environ, "LAB_HOST": "10.77.0.1"}
        command = ["ip", "netns", "exec", "wsclose-s", sys.executable, __file__, *arguments]
        try:
            subprocess.run(command, env=environment, check=False)
        finally:
            link.kill()
            part()
        return
    Path(directory).mkdir(parents=True, exist_ok=True)
    for old in Path(directory).glob("keys*.log"):
        old.unlink()
    certificate(directory)
    nginx = start_nginx(directory)
    lacking = {*(["gorilla"] if not build_go(directory) else []), *(["nginx"] if nginx is None else [])}
    servers = [s for s in scenarios.SERVERS if s not in lacking]
    if wanted := os.environ.get("LAB_SERVERS"):
        servers = wanted.split(",")
    clients = [c for c in scenarios.CLIENTS if c not in lacking]
    rng = random.Random(seed)
    jobs = plan(rng, [*clients, *(["chromium"] if shutil.which("chromium") else [])], servers, n)
    lab = Lab(directory)
    capture = f"{directory}/lab.pcap"
    with (Path(directory) / "dumpcap.err").open("wb") as log:
        where = [] if HOST == "127.0.0.1" or vantage == "server" else AWAY
        interface = "lo" if HOST == "127.0.0.1" else "tun0"
        command = [
            "dumpcap",
            "-q",
            "-P",
            "-i",
            interface,
            "-B",
            "64",
            "-f",
            f"tcp portrange {FIRST}-{LAST}",
            "-w",
            capture,
        ]
        dump = subprocess.Popen([*where, *command], stderr=log)
    results = []
    try:
        time.sleep(1)
        for server in servers:
            lab.start(server)
        threading.Thread(target=lab.watch, daemon=True).start()
        calm = [j for j in jobs if not j["end"].endswith("kill")]
        deadly = [j for j in jobs if j["end"].endswith("kill")]
        began = time.monotonic()
        threads = []
        for client in clients:
            mine = [j for j in calm if j["client"] == client]
            threads.append(threading.Thread(target=lambda c=client, m=mine: results.extend(lab.clients(c, m, 5))))
        browsing = [j for j in calm if j["client"] == "chromium"]
        if browsing:
            threads.append(threading.Thread(target=lambda: results.extend(browse(lab, browsing))))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lab.start_others()
        lab.others()
        print(f"{len(calm)} jobs after {time.monotonic() - began:.0f} s")
        # a kill ends the whole process: clients one by one, each server by one job at a time
        by_server: dict[str, list[dict]] = {}
        for job in deadly:
            by_server.setdefault(job["server"] if job["client"] != "chromium" else "chromium", []).append(job)

        def kill_in_turn(mine: list[dict]) -> None:
            for job in mine:
                with contextlib.suppress(TimeoutError):
                    wait_for(BACKEND if job["server"] == "nginx" else port_of(job["server"], "13"))
                if job["client"] == "chromium":
                    results.extend(browse(lab, [job], 30))
                else:
                    results.extend(lab.clients(job["client"], [job], 1))

        threads = [threading.Thread(target=kill_in_turn, args=(mine,)) for mine in by_server.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{len(jobs)} jobs after {time.monotonic() - began:.0f} s")
        time.sleep(4)
    finally:
        lab.stop()
        if nginx is not None:
            nginx.terminate()
        time.sleep(0.5)
        dump.terminate()
        dump.wait()
    write(directory, capture, jobs, results)


def write(directory: str, capture: str, jobs: list[dict], results: list[dict]) -> None:
    keys = f"{directory}/keys.log"
    Path(keys).write_bytes(b"".join(p.read_bytes() for p in sorted(Path(directory).glob("keys-*.log"))))
    told = oracle.frames(capture, keys, FIRST, LAST)
    by_id = {job["id"]: job for job in jobs}
    api = {r["id"]: r for r in results}
    rows = []
    names = {HTTP: "https", HTTP + 10: "https", HTTP2: "http2", LINES: "lines", LINES + 10: "lines"}
    found = oracle.connections(capture, FIRST, LAST)
    until: dict[tuple[int, int], int] = {}
    for c in reversed(found):  # the same ports come again: a packet belongs to the last connection that began before it
        key = (c["client_port"], c["port"])
        last = until.get(key, 1 << 60)
        until[key] = c["first_packet"]
        seen = [e for e in told.get(key, []) if c["first_packet"] <= e["packet"] < last]
        if not c["records"]:
            continue
        if c["port"] in names:
            rows.append(c | {"client": "other", "server": names[c["port"]], "kind": "", "end": "other", "frames": []})
            continue
        uri = next((e["uri"] for e in seen if e["uri"]), "")
        job = by_id.get(int(urllib.parse.parse_qs(urllib.parse.urlsplit(uri).query).get("id", ["-1"])[0]))
        if job is None:
            continue
        frames = [f for e in seen for f in e["frames"]]
        status = [e["status"] for e in seen if e["status"]]
        names_of = {name: job[name] for name in ("client", "server", "kind", "end", "script", "server_script")}
        rows.append(c | names_of | {"status": status, "frames": frames, "api": api.get(job["id"], {}).get("code")})
    rows.reverse()
    with gzip.open(f"{directory}/pairs.jsonl.gz", "wt") as file:
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
    for r in results:
        if "error" in r:
            job = by_id[r["id"]]
            print(job["client"], job["server"], job["kind"], job["end"], r["error"])
    n_found = sum(row["client"] != "other" for row in rows)
    print(f"{len(rows) - n_found} connections that are no WebSocket")
    print(f"{n_found} of {len(jobs)} connections found with keys, {sum('error' in r for r in results)} failed to open")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:])
