"use strict";
// One endpoint of a recorded conversation, for Node.
//   node node_endpoint.js client ws|undici URL STEPS [SUBPROTOCOL]
//   node node_endpoint.js server ws HOST PORT STEPS
// STEPS is a JSON list of [verb, argument...]. Every line on stdout is one JSON object: {"ready": true} once, then
// what the endpoint's own API reported. ws and undici share the event interface of browsers, so one reader serves both.
// The log of the endpoint goes to stderr, as its users write it: ws has events of Node, undici those of browsers.

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const verbs = {
  send: (socket, text) => socket.send(text),
  wait: (socket, ms) => wait(ms),
  message: (socket) => new Promise((resolve) => socket.addEventListener("message", resolve, { once: true })),
  close: (socket, ...codeAndReason) => socket.close(...codeAndReason),
  // ws only: end TCP at once, by FIN or by RST
  terminate: (socket) => socket.terminate(),
  reset: (socket) => socket._socket.resetAndDestroy(),
  // the process does nothing at all, so the kernel alone answers the peer
  block: (socket, ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
};

const { log, error: logError } = new console.Console(process.stderr);
const now = () => new Date().toISOString();

function keepLog(library, socket) {
  if (library === "ws") {
    socket.on("error", (error) => logError(now(), "error", error));
    socket.on("close", (code, reason) => log(now(), "close", code, reason));
  } else {
    socket.addEventListener("error", (event) => logError(now(), "error", event.error));
    socket.addEventListener("close", ({ code, reason, wasClean }) =>
      log(now(), `close code=${code} reason=${reason} wasClean=${wasClean}`),
    );
  }
}

const say = (object) => process.stdout.write(JSON.stringify(object) + "\n");

function report(socket, done) {
  const errors = [];
  socket.addEventListener("error", (event) => errors.push(event.message || "no message"));
  socket.addEventListener("close", (event) => {
    const detail = [`close event: code ${event.code}, wasClean ${event.wasClean}`];
    detail.push(...errors.map((message) => `error event: ${message}`));
    say({ code: event.code, reason: event.reason, detail: detail.join("; ") });
    done();
  });
}

async function run(socket, steps) {
  for (const [verb, ...rest] of steps) await verbs[verb](socket, ...rest);
}

const [role, library, ...rest] = process.argv.slice(2);
setTimeout(() => process.exit(1), 20000);
if (role === "client") {
  const [url, steps, subprotocol] = rest;
  const WebSocket = library === "ws" ? require("ws") : require("undici").WebSocket;
  const { SERVER_NAME: servername } = process.env; // TLS, ws only
  const socket = new WebSocket(url, ...(subprotocol ? [subprotocol] : []), ...(servername ? [{ servername }] : []));
  keepLog(library, socket);
  report(socket, () => setTimeout(() => process.exit(0), 100));
  socket.addEventListener("open", () => run(socket, JSON.parse(steps)));
} else {
  const [host, port, steps] = rest;
  const { WebSocketServer } = require("ws");
  const server = new WebSocketServer({ host, port: Number(port) }, () => say({ ready: true }));
  server.on("connection", (socket) => {
    keepLog("ws", socket);
    report(socket, () => setTimeout(() => process.exit(0), 300));
    run(socket, JSON.parse(steps));
  });
}
