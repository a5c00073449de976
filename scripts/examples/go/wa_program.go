// Tells wa-agent how the session of a Go bot is: put this file beside the bot.
// Without wa-agent (WA_PROGRAM_FD is not set) it does nothing.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fields are the fields of one line, or of a message or a record in it.
type Fields = map[string]any

// Agent speaks with wa-agent. Look is asked whether the session is connected, and must really find
// out; Stop ends it in order; Send sends a message (to, text, key …) and returns WhatsApp's id of it.
// Each is called in a goroutine of its own.
type Agent struct {
	Look func() bool
	Stop func()
	Send func(message Fields) (string, error)

	file    *os.File
	keeps   bool
	writing sync.Mutex
	keeping sync.Mutex
	number  int
	kept    chan Fields
}

// Start opens the socket to wa-agent, if there is one, and says which messages the bot can send.
func (a *Agent) Start() {
	fd, err := strconv.Atoi(os.Getenv("WA_PROGRAM_FD"))
	if err != nil {
		return
	}
	a.file = os.NewFile(uintptr(fd), "wa-agent")
	a.kept = make(chan Fields, 1)
	for _, want := range strings.Fields(os.Getenv("WA_PROGRAM_MESSAGES")) {
		a.keeps = a.keeps || want == "keep"
	}
	sends := []string{}
	if a.Send != nil {
		sends = append(sends, "text")
	}
	go a.listen()
	a.Tell("ready", Fields{"sends": sends})
}

// Tell says one event: qr, open, close, message … `more` are its other fields.
func (a *Agent) Tell(event string, more Fields) {
	line := Fields{"event": event}
	for name, value := range more {
		line[name] = value
	}
	a.write(line)
}

// Keep returns nil when these records are on the agent's disk.
func (a *Agent) Keep(records ...Fields) error {
	if a.file == nil || !a.keeps {
		return nil
	}
	a.keeping.Lock()
	defer a.keeping.Unlock()
	a.number++
	own := strconv.Itoa(a.number)
	a.Tell("keep", Fields{"n": own, "records": records})
	late := time.After(20 * time.Second)
	for {
		select {
		case call := <-a.kept:
			if call["n"] != own {
				continue
			}
			if cause, failed := call["error"]; failed {
				text, _ := cause.(string)
				return errors.New(text)
			}
			return nil
		case <-late:
			return errors.New("the agent did not keep a message within 20 s")
		}
	}
}

func (a *Agent) listen() {
	lines := bufio.NewScanner(a.file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		call := Fields{}
		if json.Unmarshal(lines.Bytes(), &call) == nil {
			go a.answer(call)
		}
	}
}

func (a *Agent) answer(call Fields) {
	line := Fields{"answer": call["id"]}
	if done, err := a.do(call); err != nil {
		line["error"] = Fields{"code": err.Error()}
	} else {
		line["ok"] = done
	}
	a.write(line)
}

func (a *Agent) do(call Fields) (Fields, error) {
	switch call["do"] {
	case "look":
		if a.Look() {
			return Fields{"open": true, "frame_age": 0}, nil
		}
		return Fields{"open": false}, nil
	case "stop":
		a.Stop()
		return Fields{}, nil
	case "kept":
		a.kept <- call
		return Fields{}, nil
	case "send":
		if message, ok := call["message"].(Fields); ok && a.Send != nil {
			id, err := a.Send(message)
			return Fields{"id": id, "outcome": "sent"}, err
		}
	}
	return nil, errors.New("not_supported")
}

func (a *Agent) write(line Fields) {
	if a.file == nil {
		return
	}
	text, err := json.Marshal(line)
	if err != nil {
		return
	}
	a.writing.Lock()
	defer a.writing.Unlock()
	_, _ = a.file.Write(append(text, '\n'))
}
