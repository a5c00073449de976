// Tells wa-agent how the session of a Go bot is: put this file beside the bot.
// Without wa-agent (WA_PROGRAM_FD is not set) it does nothing.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"sync"
)

// Fields are the fields of one line.
type Fields = map[string]any

// Agent speaks with wa-agent. Look is asked whether the session is connected, and must really find
// out; Stop ends it in order. Each is called in a goroutine of its own.
type Agent struct {
	Look func() bool
	Stop func()

	file    *os.File
	writing sync.Mutex
}

// Start opens the socket to wa-agent, if there is one.
func (a *Agent) Start() {
	fd, err := strconv.Atoi(os.Getenv("WA_PROGRAM_FD"))
	if err != nil {
		return
	}
	a.file = os.NewFile(uintptr(fd), "wa-agent")
	go a.listen()
	a.Tell("ready", nil)
}

// Tell says one event: qr, open, close, message … `more` are its other fields.
func (a *Agent) Tell(event string, more Fields) {
	line := Fields{"event": event}
	for name, value := range more {
		line[name] = value
	}
	a.write(line)
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
