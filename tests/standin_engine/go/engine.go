package main

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// words are what every answer is cut from; the first one is what servepath's checks expect of a capital.
var words = []string{" Paris", ",", " which", " lies", " on", " the", " Seine", "."}

type engine struct {
	settings
	fingerprint string
	slots       chan struct{}

	mutex  sync.Mutex
	asked  int
	counts counts
}

func newEngine(s settings, fingerprint string) *engine {
	return &engine{settings: s, fingerprint: fingerprint, slots: make(chan struct{}, s.concurrency)}
}

func (e *engine) routes() http.Handler {
	open := http.NewServeMux()
	open.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	open.HandleFunc("GET /ping", func(http.ResponseWriter, *http.Request) {})
	open.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, object{"version": "0.23.0"})
	})
	open.HandleFunc("GET /metrics", e.metrics)
	open.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, object{"detail": "Not Found"})
	})
	open.HandleFunc("GET /v1/models", e.keyed(e.models))
	open.HandleFunc("POST /v1/chat/completions", e.keyed(e.complete(true)))
	open.HandleFunc("POST /v1/completions", e.keyed(e.complete(false)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Served-By", e.podName)
		open.ServeHTTP(w, r)
	})
}

func (e *engine) keyed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		given := r.Header.Get("Authorization")
		if e.apiKey != "" && subtle.ConstantTimeCompare([]byte(given), []byte("Bearer "+e.apiKey)) != 1 {
			answer(w, http.StatusUnauthorized, object{"error": "Unauthorized"})
			return
		}
		next(w, r)
	}
}

func (e *engine) models(w http.ResponseWriter, _ *http.Request) {
	model := object{"id": e.served, "object": "model", "created": time.Now().Unix(), "owned_by": "vllm", "root": e.served}
	answer(w, http.StatusOK, object{"object": "list", "data": []object{model}})
}

type request struct {
	Model               *string           `json:"model"`
	Messages            []json.RawMessage `json:"messages"`
	Prompt              json.RawMessage   `json:"prompt"`
	MaxTokens           *int              `json:"max_tokens"`
	MaxCompletionTokens *int              `json:"max_completion_tokens"`
	Temperature         float64           `json:"temperature"`
	IgnoreEOS           bool              `json:"ignore_eos"`
	Stream              bool              `json:"stream"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

// complete answers a chat or a plain completion: as many words as were asked for, or one sentence.
func (e *engine) complete(chat bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var asked request
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			refuse(w, http.StatusBadRequest, "BadRequestError", err.Error(), "")
			return
		}
		if asked.Model != nil && *asked.Model != e.served {
			refuse(w, http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", *asked.Model), "model")
			return
		}
		if problem, parameter := asked.problem(chat); problem != "" {
			refuse(w, http.StatusBadRequest, "BadRequestError", problem, parameter)
			return
		}
		if e.fails() {
			refuse(w, http.StatusInternalServerError, "InternalServerError", "failed, as asked", "")
			return
		}
		e.run(w, r, &asked, chat)
	}
}

func (r *request) problem(chat bool) (string, string) {
	switch {
	case chat && len(r.Messages) == 0:
		return "messages is empty", "messages"
	case !chat && len(r.Prompt) == 0:
		return "prompt is missing", "prompt"
	case r.limit() < 1:
		return "max_tokens must be at least 1", "max_tokens"
	case r.Temperature < 0:
		return "temperature must be non-negative", "temperature"
	}
	return "", ""
}

func (r *request) limit() int {
	if r.MaxCompletionTokens != nil {
		return *r.MaxCompletionTokens
	}
	if r.MaxTokens != nil {
		return *r.MaxTokens
	}
	return len(words)
}

// promptTokens counts words: monotone in the prompt's length, as a real tokenizer's count is.
func (r *request) promptTokens() int {
	text := string(r.Prompt)
	for _, message := range r.Messages {
		text += " " + string(message)
	}
	return len(strings.Fields(text))
}

func (r *request) answer() ([]string, string) {
	count, reason := r.limit(), "length"
	if !r.IgnoreEOS && count >= len(words) {
		count, reason = len(words), "stop"
	}
	tokens := make([]string, count)
	for index := range tokens {
		tokens[index] = words[index%len(words)]
	}
	return tokens, reason
}

// fails spreads the failures evenly, so that a test of 5% needs no luck.
func (e *engine) fails() bool {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.asked++
	before, now := float64(e.asked-1)*e.errorPercent/100, float64(e.asked)*e.errorPercent/100
	return int(now) > int(before)
}

func (e *engine) run(w http.ResponseWriter, r *http.Request, asked *request, chat bool) {
	received := time.Now()
	e.count(func(c *counts) { c.waiting++ })
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-r.Context().Done():
		e.count(func(c *counts) { c.waiting-- })
		return
	}
	e.count(func(c *counts) { c.waiting--; c.running++ })
	defer e.count(func(c *counts) { c.running-- })
	tokens, reason := asked.answer()
	usage := object{
		"prompt_tokens": asked.promptTokens(), "completion_tokens": len(tokens),
		"total_tokens": asked.promptTokens() + len(tokens),
	}
	reply := &reply{engine: e, chat: chat, asked: asked, usage: usage, reason: reason}
	var finished bool
	if asked.Stream {
		finished = reply.stream(w, r, tokens, received)
	} else {
		finished = reply.whole(w, r, tokens)
	}
	if finished {
		e.count(func(c *counts) { c.finished(reason, asked.promptTokens(), len(tokens), time.Since(received)) })
	}
}

func (e *engine) count(change func(*counts)) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	change(&e.counts)
}
