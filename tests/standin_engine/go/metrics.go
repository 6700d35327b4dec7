package main

import (
	"fmt"
	"net/http"
	"time"
)

// counts is what vLLM's V1 metrics of the same names tell.
type counts struct {
	running, waiting             int
	successes                    map[string]int
	promptTokens, answeredTokens int
	firstTokens, ends            histogram
}

var bounds = []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

type histogram struct {
	atMost [14]int
	count  int
	sum    float64
}

func (h *histogram) add(seconds float64) {
	h.count++
	h.sum += seconds
	for index, bound := range bounds {
		if seconds <= bound {
			h.atMost[index]++
		}
	}
}

func (c *counts) firstToken(after time.Duration) { c.firstTokens.add(after.Seconds()) }

func (c *counts) finished(reason string, prompt, answered int, after time.Duration) {
	if c.successes == nil {
		c.successes = map[string]int{}
	}
	c.successes[reason]++
	c.promptTokens += prompt
	c.answeredTokens += answered
	c.ends.add(after.Seconds())
}

func (e *engine) metrics(w http.ResponseWriter, _ *http.Request) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	labels := fmt.Sprintf(`engine="0",model_name=%q`, e.served)
	line := func(kind, name string, value any, more string) {
		if kind != "" {
			fmt.Fprintf(w, "# TYPE vllm:%s %s\n", name, kind)
		}
		fmt.Fprintf(w, "vllm:%s{%s%s} %v\n", name, labels, more, value)
	}
	line("gauge", "num_requests_running", float64(e.counts.running), "")
	line("gauge", "num_requests_waiting", float64(e.counts.waiting), "")
	line("gauge", "kv_cache_usage_perc", float64(e.counts.running)/float64(e.concurrency), "")
	line("counter", "prompt_tokens_total", e.counts.promptTokens, "")
	line("counter", "generation_tokens_total", e.counts.answeredTokens, "")
	kind := "counter"
	for reason, count := range e.counts.successes {
		line(kind, "request_success_total", count, fmt.Sprintf(`,finished_reason=%q`, reason))
		kind = ""
	}
	for name, h := range map[string]*histogram{
		"time_to_first_token_seconds": &e.counts.firstTokens, "e2e_request_latency_seconds": &e.counts.ends,
	} {
		fmt.Fprintf(w, "# TYPE vllm:%s histogram\n", name)
		for index, bound := range bounds {
			line("", name+"_bucket", h.atMost[index], fmt.Sprintf(`,le="%v"`, bound))
		}
		line("", name+"_bucket", h.count, `,le="+Inf"`)
		line("", name+"_sum", h.sum, "")
		line("", name+"_count", h.count, "")
	}
}
