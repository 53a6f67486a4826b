package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// floor is what a figure must reach: a part of the ceiling, or by itself.
type floor struct {
	ratio  float64 // at least this part of the ceiling, or at most when atMost
	at     float64 // at least this, or at most when atMost
	atMost bool
}

// floors by scenario and measure; what is not here is only shown.
var floors = map[string]floor{
	"deliver-64 deliveries/s":      {ratio: 0.22},
	"deliver-64 CPU s/1000":        {at: 0.35, atMost: true},
	"deliver-64 DB bytes/delivery": {at: 1536, atMost: true},
	"deliver-512 deliveries/s":     {ratio: 0.33},
	"fanout-10 deliveries/s":       {ratio: 0.25},
	"ingest-512 events/s":          {ratio: 0.6},
	"ingest-batch events/s":        {at: 40000},
	"slow-100ms deliveries/s":      {at: 4096}, // 0.8 of what 512 workers can
	"steady-50 p50 ms":             {at: 5, atMost: true},
	"steady-50 p99 ms":             {at: 25, atMost: true},
	"append-512 events/s":          {at: 20000},
	"whole rebuild entries/s":      {at: 100_000},
	"whole start ms":               {at: 1000, atMost: true},
	"memory RSS MB at 100000":      {at: 300, atMost: true},
	"memory RSS MB at 1000000":     {at: 300, atMost: true},
	"memory RSS growth":            {at: 1.1, atMost: true},

	"log-append events/s":            {ratio: 0.8},
	"log-deliver deliveries/s":       {ratio: 0.8},
	"log-read calls p50 ms":          {ratio: 1.2, atMost: true},
	"log-read stats p50 ms":          {ratio: 1.2, atMost: true},
	"log-read history p50 ms":        {ratio: 1.2, atMost: true},
	"webhooks-idle deliveries/s":     {ratio: 1},
	"webhooks-dispatch deliveries/s": {ratio: 1},
	"webhooks-dispatch RSS MB":       {at: 250, atMost: true},
	"filters-dispatch deliveries/s":  {ratio: 0.8},
	"webhooks-list list p50 ms":      {at: 10, atMost: true},

	"nodes-3 deliveries/s":        {ratio: 2.4},
	"nodes-4 deliveries/s":        {ratio: 3.2},
	"nodes-4 busiest/least":       {at: 1.7, atMost: true},
	"nodes-4 entries/delivery":    {at: 2.1, atMost: true},
	"nodes-4 Postgres CPU s/1000": {ratio: 1.2, atMost: true},

	"nodes-1-workers-3 calls of node 2": {at: 1},
	"nodes-1-workers-3 calls of node 3": {at: 1},
	"nodes-1-workers-3 calls of node 4": {at: 1},
}

// report is what is printed and kept.
type report struct {
	Version  string    `json:"version"`
	At       time.Time `json:"at"`
	Machine  machine   `json:"machine"`
	Rounds   int       `json:"rounds"`
	Seconds  float64   `json:"seconds_per_run"`
	Workers  int       `json:"workers"`
	Figures  []figure  `json:"figures"`
	Failures []string  `json:"failures"`
}

type machine struct {
	CPU      string  `json:"cpu"`
	Cores    int     `json:"cores"`
	MemoryGB float64 `json:"memory_gb"`
	Kernel   string  `json:"kernel"`
	Go       string  `json:"go"`
}

// figure is one measure of one scenario over all rounds.
type figure struct {
	Scenario      string    `json:"scenario"`
	Measure       string    `json:"measure"`
	Ours          []float64 `json:"ours"`
	Ceiling       []float64 `json:"ceiling,omitempty"`
	OursMedian    float64   `json:"ours_median"`
	CeilingMedian float64   `json:"ceiling_median,omitempty"`
	Ratio         float64   `json:"ratio,omitempty"`
	Floor         string    `json:"floor,omitempty"`
	Met           *bool     `json:"met,omitempty"`
}

func (r *report) add(scenario string, ours bool, m measures) {
	for name, value := range m {
		i := slices.IndexFunc(r.Figures, func(f figure) bool { return f.Scenario == scenario && f.Measure == name })
		if i < 0 {
			i = len(r.Figures)
			r.Figures = append(r.Figures, figure{Scenario: scenario, Measure: name})
		}
		f := &r.Figures[i]
		if ours {
			f.Ours = append(f.Ours, value)
		} else {
			f.Ceiling = append(f.Ceiling, value)
		}
	}
}

func (r *report) finish() {
	order := func(name string) int {
		return slices.IndexFunc(allScenarios(), func(s scenario) bool { return s.name == name })
	}
	slices.SortFunc(r.Figures, func(a, b figure) int {
		if d := order(a.Scenario) - order(b.Scenario); d != 0 {
			return d
		}
		if a, b := isRate(a.Measure), isRate(b.Measure); a != b {
			return map[bool]int{true: -1, false: 1}[a] // before its costs
		}
		return strings.Compare(a.Measure, b.Measure)
	})
	for i := range r.Figures {
		f := &r.Figures[i]
		if strings.HasPrefix(f.Scenario, "nodes-") && f.Scenario != lineups[0].name {
			f.Ceiling = r.oneNode(f.Measure)
		}
		f.OursMedian, f.CeilingMedian = median(f.Ours), median(f.Ceiling)
		if f.CeilingMedian > 0 && len(f.Ours) > 0 {
			f.Ratio = f.OursMedian / f.CeilingMedian
		}
		limit, ok := floors[f.Scenario+" "+f.Measure]
		if !ok || len(f.Ours) == 0 {
			continue
		}
		value, bound, text := f.OursMedian, limit.at, short(limit.at)
		if limit.ratio > 0 {
			value, bound, text = f.Ratio, limit.ratio, fmt.Sprintf("%.2f of it", limit.ratio)
		}
		met := value >= bound
		f.Floor = "≥ " + text
		if limit.atMost {
			met, f.Floor = value <= bound, "≤ "+text
		}
		f.Met = &met
	}
}

// oneNode returns what one node came to in each round, of the figures that others are compared in.
func (r *report) oneNode(measure string) []float64 {
	for _, f := range r.Figures {
		if f.Scenario == lineups[0].name && f.Measure == measure && (isRate(measure) || measure == postgresCPU) {
			return f.Ours
		}
	}
	return nil
}

func isRate(measure string) bool { return strings.HasSuffix(measure, "/s") }

func (r *report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\tmeasure\tceiling\tours\tratio\tfloor\t\t")
	for _, f := range r.Figures {
		ceiling, ours, ratio, verdict := "", "", "", ""
		if len(f.Ours) > 0 {
			ours = short(f.OursMedian)
		}
		if len(f.Ceiling) > 0 {
			ceiling = short(f.CeilingMedian)
		}
		if f.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", f.Ratio)
		}
		if f.Met != nil {
			verdict = map[bool]string{true: "met", false: "BELOW"}[*f.Met]
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", f.Scenario, f.Measure, ceiling, ours, ratio, f.Floor, verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, failure := range r.Failures {
		fmt.Fprintln(w, "FAILED:", failure)
	}
	_, err := fmt.Fprintf(w, "%s; %d rounds of %gs; %s, %d cores\n", r.Version, r.Rounds, r.Seconds, r.Machine.CPU, r.Machine.Cores)
	return err
}

// keep writes the report to a folder as <date>-<version>.json.
func (r *report) keep(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, r.At.Format("2006-01-02")+"-"+strings.ReplaceAll(r.Version, "/", "-")+".json")
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, append(b, '\n'), 0o644)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func short(v float64) string {
	switch {
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case math.Abs(v) >= 1:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// thisMachine says where the figures come from; what Linux does not tell stays
// empty.
func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: procValue("/proc/cpuinfo", "model name")}
	if fields := strings.Fields(procValue("/proc/meminfo", "MemTotal")); len(fields) > 0 {
		if kb, err := strconv.ParseFloat(fields[0], 64); err == nil {
			m.MemoryGB = math.Round(kb / (1 << 20))
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	return m
}

func procValue(path, key string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
