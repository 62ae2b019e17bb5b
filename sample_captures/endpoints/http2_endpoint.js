"use strict";
// WebSockets over HTTP/2 (RFC 8441) for Node: its own http2, and ws on top of each stream.
//   node http2_endpoint.js server HOST PORT PLAN [KEY CERTIFICATE]    with TLS, or without where no certificate is given
//   node http2_endpoint.js client HOST PORT PLAN                      without TLS
// PLAN is a JSON object: for each path the steps of this endpoint, a list of [verb, argument...]. Every line on stdout
// is one JSON object: {"ready": true} once, then for each path what the endpoint's own API reported.

const fs = require("node:fs");
const http2 = require("node:http2");
const WebSocket = require("ws");

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const say = (object) => process.stdout.write(JSON.stringify(object) + "\n");
const { NGHTTP2_CANCEL } = http2.constants;

const verbs = {
  send: (socket, stream, text, times = 1) => socket.send(text.repeat(times)),
  wait: (socket, stream, ms) => wait(ms),
  message: (socket) => new Promise((resolve) => socket.addEventListener("message", resolve, { once: true })),
  close: (socket, stream, ...codeAndReason) => socket.close(...codeAndReason),
  // without a Close: END_STREAM; RST_STREAM, with INTERNAL_ERROR, or CANCEL by way of the request's signal
  end: (socket, stream) => stream.end(),
  fail: (socket, stream) => stream.destroy(new Error("failed")),
  cancel: (socket, stream, ...rest) => stream.abort.abort(),
  goaway: (socket, stream) => stream.session.goaway(),
  // GOAWAY and the end of TCP, whatever is still open
  destroy: (socket, stream) => stream.session.destroy(),
};

function open(stream, path, isServer, steps, done) {
  const socket = new WebSocket(null, undefined, { closeTimeout: 30000 });
  socket._isServer = isServer;
  const errors = [];
  socket.on("error", (error) => errors.push(error.message));
  socket.on("close", (code, reason) => {
    const detail = [`close event: code ${code}`, ...errors.map((message) => `error event: ${message}`)];
    say({ path, code, reason: reason.toString(), detail: detail.join("; ") });
    done();
  });
  socket.setSocket(stream, Buffer.alloc(0), {
    allowSynchronousEvents: true,
    maxBufferedChunks: 1024,
    maxFragments: 1024,
    maxPayload: 1 << 20,
    skipUTF8Validation: false,
  });
  (async () => {
    for (const [verb, ...rest] of steps) await verbs[verb](socket, stream, ...rest);
  })();
}

const [role, host, port, planText, key, certificate] = process.argv.slice(2);
const plan = JSON.parse(planText);
setTimeout(() => process.exit(1), 40000);

if (role === "server") {
  const settings = { enableConnectProtocol: true };
  const server = key
    ? http2.createSecureServer({ settings, key: fs.readFileSync(key), cert: fs.readFileSync(certificate) })
    : http2.createServer({ settings });
  server.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    const path = headers[":path"];
    if (headers[":method"] !== "CONNECT" || headers[":protocol"] !== "websocket") {
      stream.respond({ ":status": path === "/" ? 200 : 404, "content-type": "text/html" });
      stream.end(path === "/" ? "<!doctype html><title>WebSockets</title>" : "");
    } else if (!(path in plan)) {
      stream.respond({ ":status": 403 });
      stream.end("no\n");
    } else {
      stream.respond({ ":status": 200, server: "node" });
      open(stream, path, true, plan[path], () => {});
    }
  });
  server.listen(Number(port), host, () => say({ ready: true }));
} else {
  const session = http2.connect(`http://${host}:${port}`);
  session.on("error", () => {});
  session.once("remoteSettings", async () => {
    say({ ready: true });
    const all = Object.entries(plan).map(
      ([path, steps], i) =>
        new Promise(async (resolve) => {
          await wait(60 * i);
          const abort = new AbortController();
          const stream = session.request(
            {
              ":method": "CONNECT",
              ":protocol": "websocket",
              ":path": path,
              "sec-websocket-version": "13",
              "user-agent": "node",
            },
            { endStream: false, signal: abort.signal },
          );
          stream.abort = abort;
          stream.on("error", () => {});
          stream.on("response", (headers) => {
            if (headers[":status"] === 200) return open(stream, path, false, steps, resolve);
            say({ path, detail: `response: status ${headers[":status"]}` });
            stream.resume();
            stream.close(NGHTTP2_CANCEL);
            resolve();
          });
        }),
    );
    await Promise.all(all);
    session.close();
    setTimeout(() => process.exit(0), 300);
  });
}
