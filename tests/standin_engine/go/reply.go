package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

type object map[string]any

// reply is one completion in the form of its endpoint.
type reply struct {
	engine *engine
	chat   bool
	asked  *request
	usage  object
	reason string
}

func (p *reply) body(kind string, choices []object) object {
	prefix, name := "cmpl", "text_completion"
	if p.chat {
		prefix, name = "chatcmpl", "chat.completion"+kind
	}
	return object{
		"id": fmt.Sprintf("%s-%x", prefix, time.Now().UnixNano()), "object": name, "created": time.Now().Unix(),
		"model": p.engine.served, "choices": choices, "system_fingerprint": p.engine.fingerprint,
	}
}

func (p *reply) whole(w http.ResponseWriter, r *http.Request, tokens []string) bool {
	if !pause(r, p.engine.ttft+time.Duration(len(tokens)-1)*p.engine.itl) {
		return false
	}
	choice := object{"index": 0, "finish_reason": p.reason, "text": strings.Join(tokens, "")}
	if p.chat {
		delete(choice, "text")
		choice["message"] = object{"role": "assistant", "content": strings.Join(tokens, "")}
	}
	body := p.body("", []object{choice})
	body["usage"] = p.usage
	answer(w, http.StatusOK, body)
	return true
}

// stream sends a role chunk, a chunk for each token, one with the finish_reason, the usage if asked for, and [DONE].
func (p *reply) stream(w http.ResponseWriter, r *http.Request, tokens []string, received time.Time) bool {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	send := func(body object) {
		encoded, _ := json.Marshal(body)
		fmt.Fprintf(w, "data: %s\n\n", encoded)
		w.(http.Flusher).Flush()
	}
	for index, token := range tokens {
		wait := p.engine.itl
		if index == 0 {
			wait = p.engine.ttft
		}
		if !pause(r, wait) {
			return false
		}
		if index == 0 {
			p.engine.count(func(c *counts) { c.firstToken(time.Since(received)) })
			if p.chat {
				send(p.chunk("", nil, true))
			}
		}
		send(p.chunk(token, nil, false))
	}
	send(p.chunk("", &p.reason, false))
	if p.asked.StreamOptions.IncludeUsage {
		last := p.body(".chunk", []object{})
		last["usage"] = p.usage
		send(last)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
	return true
}

func (p *reply) chunk(token string, reason *string, first bool) object {
	choice := object{"index": 0, "finish_reason": reason}
	delta := object{}
	switch {
	case !p.chat:
		choice["text"] = token
	case first:
		delta["role"], delta["content"] = "assistant", ""
	case reason == nil:
		delta["content"] = token
	}
	if p.chat {
		choice["delta"] = delta
	}
	return p.body(".chunk", []object{choice})
}

// pause gives false when the client has gone.
func pause(r *http.Request, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-r.Context().Done():
		return false
	}
}

func answer(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoded, _ := json.Marshal(body)
	w.Write(encoded)
}

func refuse(w http.ResponseWriter, status int, kind, message, parameter string) {
	answer(w, status, object{"error": object{"message": message, "type": kind, "param": parameter, "code": status}})
}
