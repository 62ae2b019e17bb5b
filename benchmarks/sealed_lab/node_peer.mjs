// node_peer.mjs server DIRECTORY KIND=PORT...      ws as server
// node_peer.mjs ws|undici CONCURRENT < jobs        ws, or undici's WebSocket (the one built into Node), as client
import { appendFileSync, readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createRequire } from 'node:module'
const require = createRequire(process.env.LAB_MODULES + '/')
const WebSocket = require('ws')
const alphabet = 'abcdefghijklmnopqrstuvwxyz '
const text = n => Array.from({ length: n }, () => alphabet[Math.floor(Math.random() * 27)]).join('')
const sleep = ms => new Promise(done => setTimeout(done, ms))
const ciphers = { gcm: 'ECDHE-RSA-AES128-GCM-SHA256', chacha: 'ECDHE-RSA-CHACHA20-POLY1305', cbc: 'ECDHE-RSA-AES128-SHA', cbcmte: 'ECDHE-RSA-AES128-SHA' }

async function run (peer, script) {
  for (const step of script.split(',')) {
    const verb = step[0]
    const value = step.slice(1)
    if (verb === 'm') peer.ws.send(text(+value))
    else if (verb === 'p') peer.ws.ping(text(+value))
    else if (verb === 's') await sleep(+value)
    else if (verb === 'r') { const until = Date.now() + 3000; while (!peer.inbox.length && Date.now() < until) await sleep(4); peer.inbox.shift() }
    else if (verb === 'e') {
      peer.echo = true
      for (const message of peer.inbox.splice(0)) peer.ws.send(message)
      const until = Date.now() + (value ? +value : 20000)
      while (!peer.closed && Date.now() < until) await sleep(10)
      peer.echo = false
    } else if (verb === 'w') { const until = Date.now() + 14000; while (!peer.closed && Date.now() < until) await sleep(10) }
    else if (verb === 'c') { const [code, n] = value.split('.'); if (+code) peer.ws.close(+code, text(+(n || 0))); else peer.ws.close() }
    else if (verb === 'z') peer.ws._socket.pause()
    else if (verb === 'k') process.kill(process.pid, 'SIGKILL')
    else if (verb === 'x') peer.ws._socket._parent ? peer.ws._socket._parent.resetAndDestroy() : peer.ws._socket.resetAndDestroy()
    else if (verb === 'f') peer.ws.terminate()
    else if (verb === 'n') peer.ws._socket.end()
  }
}

function watch (ws) {
  const peer = { ws, inbox: [], echo: false, closed: false, code: null }
  ws.on('message', data => { if (peer.echo) ws.send(data.toString()); else peer.inbox.push(data.toString()) })
  ws.on('close', code => { peer.closed = true; peer.code = code })
  ws.on('error', () => {})
  return peer
}

function serve (directory, ports) {
  for (const [kind, port] of ports.map(p => p.split('='))) {
    const options = { cert: readFileSync(directory + '/cert.pem'), key: readFileSync(directory + '/key.pem'), ALPNProtocols: ['http/1.1'] }
    if (kind !== '13') Object.assign(options, { maxVersion: 'TLSv1.2', ciphers: ciphers[kind] })
    if (kind === 'cbcmte') options.secureOptions = 1 << 19
    const server = kind === 'plain' ? http.createServer() : https.createServer(options)
    server.on('keylog', line => appendFileSync(`${directory}/keys-${process.pid}.log`, line))
    new WebSocket.WebSocketServer({ server }).on('connection', (ws, request) => {
      const script = new URL(request.url, 'http://x').searchParams.get('s') || 'e'
      run(watch(ws), script.replace(/^d,/, '')).catch(() => {})
    })
    server.listen(+port, process.env.LAB_HOST || '127.0.0.1')
  }
}

async function client (library, concurrent) {
  const jobs = readFileSync(0, 'utf8').split('\n').filter(Boolean).map(line => JSON.parse(line))
  const say = fields => process.stdout.write(JSON.stringify(fields) + '\n')
  const wsJob = job => new Promise(resolve => {
    const ws = new WebSocket(job.url, { rejectUnauthorized: false })
    const peer = watch(ws)
    ws.on('open', async () => {
      try { await run(peer, job.script) } catch {}
      for (let i = 0; i < 50 && !peer.closed; i++) await sleep(10)
      resolve(peer.code)
      setTimeout(() => ws.terminate(), 4000)
    })
    ws.on('close', () => setTimeout(() => resolve(peer.code), 20))
  })
  const undici = library === 'undici' ? require('undici') : null
  const dispatcher = undici && new undici.Agent({ connect: { rejectUnauthorized: false } })
  const undiciJob = job => new Promise(resolve => {
    const ws = new undici.WebSocket(job.url, { dispatcher })
    const peer = { ws, inbox: [], closed: false, code: null }
    ws.onmessage = event => peer.inbox.push(event.data)
    ws.onerror = () => {}
    ws.onclose = event => { peer.closed = true; peer.code = event.code; setTimeout(() => resolve(peer.code), 20) }
    ws.onopen = async () => {
      try { await run(peer, job.script) } catch {}
      for (let i = 0; i < 100 && !peer.closed; i++) await sleep(10)
      resolve(peer.code)
    }
  })
  let next = 0
  await Promise.all(Array.from({ length: +concurrent }, async () => {
    while (next < jobs.length) {
      const job = jobs[next++]
      const code = await Promise.race([(undici ? undiciJob : wsJob)(job), sleep(40000)])
      say({ id: job.id, code })
    }
  }))
  process.exit(0)
}

process.on('uncaughtException', () => {})
if (process.argv[2] === 'server') serve(process.argv[3], process.argv.slice(4))
else client(process.argv[2], process.argv[3])
