// Package faults breaks the product on purpose and accounts for every event: the
// built binary on a real Postgres, over HTTP, against real receivers.
//
// Each run keeps a ledger: what was answered 2xx, the deliveries that follow from
// it, and what receivers saw. It must balance at the end, whatever broke between.
//
// The campaign runs with -campaign=ci (within five minutes) or -campaign=long; a
// plain go test skips it. Timing is random by -seed, which is printed.
package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

var (
	campaign = flag.String("campaign", "", "how much to break: ci, or long")
	seed     = flag.Uint64("seed", 0, "repeats the timing of an earlier campaign")
)

// binary is the product as users get it.
var binary string

// faulty returns the product that knows the failpoints and reads a wall clock that is off
// by the seconds in clockVariable. It is built for the first run that wants it.
func faulty(t testing.TB) string {
	t.Helper()
	program, err := buildFaulty()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

var buildFaulty = sync.OnceValues(func() (string, error) {
	dir, err := harness.BuildDir()
	if err != nil {
		return "", err
	}
	overlay, err := shiftedClock(dir)
	if err != nil {
		return "", err
	}
	return harness.Build("faulty", "-tags", "failpoints", "-overlay", overlay)
})

const clockVariable = "MEDILAB_FAULT_CLOCK"

func TestMain(m *testing.M) {
	flag.Parse()
	if *campaign == "" {
		os.Exit(m.Run()) // every run skips itself
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	fmt.Printf("campaign %s, -seed=%d\n", *campaign, *seed)
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	if binary, err = harness.Build("medilab-webhooks"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stopPostgres()) }()
	// Runs mostly wait for a lease to end: they may do so beside each other.
	if err := flag.Set("test.parallel", "8"); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// shiftedClock makes an overlay of Go's own package time whose Now is off, as on
// a machine with a wrong clock, while its monotonic reading stays right.
func shiftedClock(dir string) (overlay string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find Go's sources: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const reading = "sec, nsec, mono := runtimeNow()\n"
	if bytes.Count(text, []byte(reading)) != 1 {
		return "", errors.New("package time reads the clock in another way than this campaign knows")
	}
	text = bytes.Replace(text, []byte(reading), []byte(reading+"\tsec += wallShift\n"), 1)
	text = bytes.Replace(text, []byte("import (\n"), []byte("import (\n\t\"syscall\"\n"), 1)
	text = append(text, `
var wallShift = func() (shift int64) {
	text, _ := syscall.Getenv("`+clockVariable+`")
	text, negative := strings_CutMinus(text)
	for _, c := range text {
		shift = 10*shift + int64(c-'0')
	}
	if negative {
		return -shift
	}
	return shift
}()

func strings_CutMinus(text string) (string, bool) {
	if len(text) > 0 && text[0] == '-' {
		return text[1:], true
	}
	return text, false
}
`...)
	shifted := filepath.Join(dir, "time.go.shifted") // not a package to ./...
	if err := os.WriteFile(shifted, text, 0o600); err != nil {
		return "", err
	}
	config, err := json.Marshal(map[string]map[string]string{"Replace": {original: shifted}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, config, 0o600)
}

// inCampaign skips the run outside a campaign, and gives its own random source.
func inCampaign(t *testing.T) *rand.Rand {
	t.Helper()
	if *campaign == "" {
		t.Skip("part of the fault campaign: make faults")
	}
	var name uint64
	for _, c := range []byte(t.Name()) {
		name = name*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(*seed, name))
}

// scaled is how much of something a run does: the first number within the five
// minutes of ci, the second in a long campaign.
func scaled[T any](ci, long T) T {
	if *campaign == "long" {
		return long
	}
	return ci
}

// patience bounds every wait for something that must happen.
const patience = harness.Patience

// until asks again and again until the condition holds.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	harness.Until(t, what, holds)
}

// pass lets time pass under load: the one thing a fault campaign is made of.
func pass(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.FailNow()
	}
}

// between is a random duration.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}
