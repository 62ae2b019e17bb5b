// other_node.mjs server DIRECTORY PORT   HTTP/2 and HTTP/1.1
// other_node.mjs client HTTP_PORT HTTP2_PORT
import { appendFileSync, readFileSync } from 'node:fs'
import http2 from 'node:http2'
import https from 'node:https'
const sleep = ms => new Promise(done => setTimeout(done, ms))
const HOST = process.env.LAB_HOST || '127.0.0.1'
const NAME = process.env.LAB_HOST ? HOST : 'localhost'
if (process.argv[2] === 'server') {
  const directory = process.argv[3]
  const server = http2.createSecureServer({ cert: readFileSync(directory + '/cert.pem'), key: readFileSync(directory + '/key.pem'), allowHTTP1: true })
  server.on('keylog', line => appendFileSync(`${directory}/keys-${process.pid}.log`, line))
  server.on('request', (request, response) => {
    response.setHeader('access-control-allow-origin', '*')
    request.resume()
    setTimeout(() => response.end(JSON.stringify({ ok: 1, at: request.url })), Math.random() * 100)
  })
  server.listen(+process.argv[4], HOST)
} else {
  const [http1, h2] = process.argv.slice(3).map(Number)
  for (const method of ['GET', 'POST']) {
    const agent = new https.Agent({ keepAlive: true, rejectUnauthorized: false, maxSockets: 1 })
    for (let i = 0; i < 6; i++) {
      await new Promise(done => {
        const request = https.request({ host: NAME, port: http1 + (i % 2) * 0, path: '/small', method, agent }, response => { response.resume(); response.on('end', done) })
        if (method === 'POST') request.write('{"a":1}')
        request.end()
      })
      await sleep(60)
    }
    agent.destroy()
    const session = http2.connect(`https://${NAME}:${h2}`, { rejectUnauthorized: false })
    for (let i = 0; i < 5; i++) {
      await new Promise(done => {
        const stream = session.request({ ':path': '/x', ':method': method })
        stream.resume()
        stream.on('end', done)
        stream.end(method === 'POST' ? 'a=1' : undefined)
      })
      await sleep(80)
    }
    session.ping(() => {})
    await sleep(50)
    session.close()
  }
}
