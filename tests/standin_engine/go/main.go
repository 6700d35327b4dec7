// standin-engine speaks enough of vLLM 0.23.0's HTTP API to be served in its place where a test is about what stands
// around an engine: routes, weights, canaries, replicas. It takes vLLM's arguments and ignores what it does not know.
// What it answers means nothing, and its speed is what it is told: nothing about a real engine may be concluded from it.
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type settings struct {
	models, served  string
	port            int
	shutdown        time.Duration
	ttft, itl       time.Duration
	errorPercent    float64
	crashAfter      time.Duration
	concurrency     int
	apiKey, podName string
}

const modelBudget = 30 * time.Second

func main() {
	log.SetFlags(0)
	asked, err := parse(os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}
	config, err := awaitModel(asked.models)
	if err != nil {
		log.Fatal(err)
	}
	if asked.crashAfter > 0 {
		time.AfterFunc(asked.crashAfter, func() { log.Fatal("crashed, as asked") })
	}
	engine := newEngine(asked, fmt.Sprintf("vllm-0.23.0-%.4x", sha256.Sum256(config)))
	server := &http.Server{Addr: fmt.Sprintf(":%d", asked.port), Handler: engine.routes()}
	ended, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	log.Printf("serving %s on %s", asked.served, server.Addr)
	<-ended.Done()
	// As vLLM with --shutdown-timeout: no new connections, and what is under way is finished.
	budget, done := context.WithTimeout(context.Background(), asked.shutdown)
	defer done()
	if err := server.Shutdown(budget); err != nil {
		log.Fatalf("streams were cut after %s", asked.shutdown)
	}
}

func parse(arguments []string) (settings, error) {
	s := settings{apiKey: os.Getenv("VLLM_API_KEY")}
	s.podName, _ = os.Hostname()
	flags := flag.NewFlagSet("standin-engine", flag.ContinueOnError)
	flags.StringVar(&s.served, "served-model-name", "model", "the model of the API")
	flags.IntVar(&s.port, "port", 8000, "where it listens")
	shutdown := flags.Int("shutdown-timeout", 0, "seconds for streams under way after SIGTERM")
	ttft := flags.Int("standin-ttft-ms", 5, "from a request to its first token")
	itl := flags.Int("standin-itl-ms", 1, "from a token to the next")
	flags.Float64Var(&s.errorPercent, "standin-error-percent", 0, "of the completions answer 500, evenly spread")
	crash := flags.Int("standin-crash-after-ms", 0, "exit with status 1 then; 0 never")
	flags.IntVar(&s.concurrency, "max-num-seqs", 256, "completions that run at once; others wait")
	var known []string
	for _, argument := range arguments {
		name, _, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		if !strings.HasPrefix(argument, "-") {
			s.models = argument
		} else if flags.Lookup(name) != nil {
			known = append(known, argument)
		}
	}
	if err := flags.Parse(known); err != nil {
		return s, err
	}
	if s.concurrency < 1 {
		return s, fmt.Errorf("--max-num-seqs is %d, expected 1 or more", s.concurrency)
	}
	s.shutdown = time.Duration(*shutdown) * time.Second
	s.ttft, s.itl = time.Duration(*ttft)*time.Millisecond, time.Duration(*itl)*time.Millisecond
	s.crashAfter = time.Duration(*crash) * time.Millisecond
	return s, nil
}

// awaitModel gives the model's config.json: in KServe's async mode its link appears after the engine has started.
func awaitModel(models string) ([]byte, error) {
	if models == "" {
		return nil, nil
	}
	place := filepath.Join(models, "config.json")
	for deadline := time.Now().Add(modelBudget); ; time.Sleep(50 * time.Millisecond) {
		config, err := os.ReadFile(place)
		if err == nil {
			return config, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no model after %s: %w", modelBudget, err)
		}
	}
}
