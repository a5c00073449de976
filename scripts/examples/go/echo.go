// A bot in Go that answers each message with its own text, and tells wa-agent of all of it: the
// program of a [[program]] with messages = true. In the place of a library for WhatsApp it has lines
// on a TCP port, "NUMBER TEXT" in both directions, so that it can be tried without an account:
//
//	go build -o echo_program echo.go wa_program.go   # command = ["/srv/echo_program", "4444"]
//	nc 127.0.0.1 4444                                # then type: 4915112345678 hello
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const account = "5511900000001"

var (
	phones  = map[net.Conn]bool{}
	calling sync.Mutex
)

func out(to, text any) {
	calling.Lock()
	defer calling.Unlock()
	for phone := range phones {
		if _, err := fmt.Fprintf(phone, "%v %v\n", to, text); err != nil {
			delete(phones, phone)
		}
	}
}

func newID() string {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	return hex.EncodeToString(raw)
}

func hear(agent *Agent, phone net.Conn) {
	for lines := bufio.NewScanner(phone); lines.Scan(); {
		number, text, _ := strings.Cut(lines.Text(), " ")
		id, jid := newID(), number+"@s.whatsapp.net"
		record := Fields{"kind": "message", "id": "m:" + id, "message_id": id, "at": time.Now().Unix(),
			"chat": jid, "sender": jid, "from_me": false, "type": "text", "text": text}
		// First the disk: a kill from here on loses nothing.
		if err := agent.Keep(record); err != nil {
			fmt.Println("not kept:", err)
		}
		agent.Tell("message", Fields{"direction": "in", "type": "text", "id": id})
		out(number, text)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var stopped atomic.Bool
	agent := &Agent{
		Look: func() bool { return !stopped.Load() },
		Stop: func() { stopped.Store(true); listener.Close() },
		Send: func(message Fields) (string, error) { out(message["to"], message["text"]); return newID(), nil },
	}
	agent.Start()
	agent.Tell("open", Fields{"account": account})
	fmt.Println("listens on", listener.Addr())
	for {
		phone, err := listener.Accept()
		if err != nil {
			return // it was closed: the agent stops it
		}
		calling.Lock()
		phones[phone] = true
		calling.Unlock()
		go hear(agent, phone)
	}
}
