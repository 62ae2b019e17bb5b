// go_peer server DIRECTORY KIND=PORT...   gorilla/websocket as server
// go_peer client CONCURRENT < jobs        gorilla/websocket as client
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

type peer struct {
	ws     *websocket.Conn
	lock   sync.Mutex
	inbox  chan []byte
	closed chan bool
	echo   bool
	code   int
}

func text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz "[rand.Intn(27)]
	}
	return b
}

func (p *peer) send(b []byte) {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.ws.WriteMessage(websocket.TextMessage, b)
}

func (p *peer) read() {
	defer close(p.closed)
	for {
		_, b, err := p.ws.ReadMessage()
		if err != nil {
			p.code = 1006
			if e, ok := err.(*websocket.CloseError); ok {
				p.code = e.Code
			}
			return
		}
		if p.echo {
			p.send(b)
		} else {
			select {
			case p.inbox <- b:
			default:
			}
		}
	}
}

func (p *peer) run(script string) {
	for _, step := range strings.Split(script, ",") {
		verb, value := step[:1], step[1:]
		n, _ := strconv.Atoi(value)
		switch verb {
		case "m":
			p.send(text(n))
		case "p":
			p.ws.WriteControl(websocket.PingMessage, text(n), time.Now().Add(time.Second))
		case "s":
			time.Sleep(time.Duration(n) * time.Millisecond)
		case "r":
			select {
			case <-p.inbox:
			case <-p.closed:
			case <-time.After(3 * time.Second):
			}
		case "e":
			if value == "" {
				n = 20000
			}
			p.echo = true
			for len(p.inbox) > 0 {
				p.send(<-p.inbox)
			}
			select {
			case <-p.closed:
			case <-time.After(time.Duration(n) * time.Millisecond):
			}
			p.echo = false
		case "w":
			select {
			case <-p.closed:
			case <-time.After(14 * time.Second):
			}
		case "c", "l":
			code, rest, _ := strings.Cut(value, ".")
			c, _ := strconv.Atoi(code)
			r, _ := strconv.Atoi(rest)
			var body []byte
			if c != 0 {
				body = websocket.FormatCloseMessage(c, string(text(r)))
			}
			p.ws.WriteControl(websocket.CloseMessage, body, time.Now().Add(time.Second))
			if verb == "l" {
				continue
			}
			select {
			case <-p.closed:
			case <-time.After(3 * time.Second):
			}
			p.ws.Close()
		case "k":
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "x", "f", "h":
			raw := p.ws.UnderlyingConn().(*tls.Conn).NetConn().(*net.TCPConn)
			if verb == "x" {
				raw.SetLinger(0)
			}
			if verb == "h" {
				raw.CloseWrite()
			} else {
				raw.Close()
			}
		case "n":
			p.ws.Close()
		}
	}
}

func host() string {
	if name := os.Getenv("LAB_HOST"); name != "" {
		return name
	}
	return "127.0.0.1"
}

func newPeer(ws *websocket.Conn) *peer {
	return &peer{ws: ws, inbox: make(chan []byte, 64), closed: make(chan bool)}
}

func serve(directory string, ports []string) {
	pair, err := tls.LoadX509KeyPair(directory+"/cert.pem", directory+"/key.pem")
	if err != nil {
		panic(err)
	}
	keys, _ := os.OpenFile(fmt.Sprintf("%s/keys-%d.log", directory, os.Getpid()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	handler := func(w http.ResponseWriter, r *http.Request) {
		script := r.URL.Query().Get("s")
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		p := newPeer(ws)
		if strings.HasPrefix(script, "d,") {
			script = script[2:]
		} else {
			go p.read()
		}
		p.run(script)
		ws.Close()
	}
	suites := map[string]uint16{
		"gcm": tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "chacha": tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,
		"cbc": tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "cbcmte": tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	}
	for _, p := range ports {
		kind, port, _ := strings.Cut(p, "=")
		config := &tls.Config{Certificates: []tls.Certificate{pair}, KeyLogWriter: keys, NextProtos: []string{"http/1.1"}}
		if kind != "13" {
			config.MaxVersion = tls.VersionTLS12
			config.CipherSuites = []uint16{suites[kind]}
		}
		listener, err := tls.Listen("tcp", host()+":"+port, config)
		if err != nil {
			panic(err)
		}
		go http.Serve(listener, http.HandlerFunc(handler))
	}
	select {}
}

func client(concurrent int) {
	var jobs []map[string]any
	scanner := bufio.NewScanner(os.Stdin)
	for scanner.Scan() {
		var job map[string]any
		if json.Unmarshal(scanner.Bytes(), &job) == nil {
			jobs = append(jobs, job)
		}
	}
	var keys io.Writer
	if path := os.Getenv("SSLKEYLOGFILE"); path != "" {
		keys, _ = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	}
	gate := make(chan bool, concurrent)
	var group sync.WaitGroup
	for _, job := range jobs {
		group.Add(1)
		gate <- true
		go func(job map[string]any) {
			defer func() { <-gate; group.Done() }()
			dialer := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, KeyLogWriter: keys}}
			ws, _, err := dialer.Dial(job["url"].(string), nil)
			if err != nil {
				fmt.Printf("{\"id\": %v, \"error\": %q}\n", job["id"], err.Error())
				return
			}
			p := newPeer(ws)
			go p.read()
			p.run(job["script"].(string))
			select {
			case <-p.closed:
			case <-time.After(500 * time.Millisecond):
			}
			ws.Close()
			fmt.Printf("{\"id\": %v, \"code\": %d}\n", job["id"], p.code)
		}(job)
	}
	group.Wait()
}

func main() {
	rand.Seed(time.Now().UnixNano())
	n, _ := strconv.Atoi(os.Args[2])
	if os.Args[1] == "server" {
		serve(os.Args[2], os.Args[3:])
	} else {
		client(n)
	}
}
