package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/medilab/webhooks/domain"
)

// setting is a value from the environment, which a flag of the same meaning overrides.
type setting struct {
	env   string
	flag  string // empty: environment only
	value any    // *string, *int, *int64, *float64 or *time.Duration
	usual string // the default
	usage string
	unset string       // the default in words, for the help
	rule  string       // what the value must be, see valid
	valid func() bool  // nil accepts every value
	check func() error // likewise, and says what is wrong

	secret bool // keep the environment's value out of the help
}

// declare adds the settings' flags to the command and has it, and where they are persistent all
// below it, refuse values that break a rule.
func declare(c *cobra.Command, flags *pflag.FlagSet, settings []setting) {
	var unreadable error
	for _, s := range settings {
		unreadable = errors.Join(unreadable, s.read(flags))
	}
	check := func(*cobra.Command, []string) error {
		if unreadable != nil {
			return usageError{unreadable}
		}
		for _, s := range settings {
			if s.valid != nil && !s.valid() {
				return usageError{fmt.Errorf("%s must be %s", s.env, s.rule)}
			}
			if s.check == nil {
				continue
			}
			if err := s.check(); err != nil {
				return usageError{fmt.Errorf("%s: %w", s.env, err)}
			}
		}
		return nil
	}
	if flags == c.PersistentFlags() {
		c.PersistentPreRunE = check
	} else {
		c.PreRunE = check
	}
}

// read adds the flag, whose default is what the environment holds.
func (s setting) read(flags *pflag.FlagSet) error {
	if s.flag == "" {
		*s.value.(*string) = strings.TrimSpace(os.Getenv(s.env))
		return nil
	}
	usage := s.usage + " (" + s.env
	if s.unset != "" {
		usage += "; default: " + s.unset
	}
	usage += ")"
	switch value := s.value.(type) {
	case *string:
		flags.Var((*trimmed)(value), s.flag, usage)
	case *int:
		flags.IntVar(value, s.flag, 0, usage)
	case *int64:
		flags.Int64Var(value, s.flag, 0, usage)
	case *float64:
		flags.Float64Var(value, s.flag, 0, usage)
	case *time.Duration:
		flags.Var((*duration)(value), s.flag, usage)
	}
	flag := flags.Lookup(s.flag)
	for _, text := range []string{s.usual, strings.TrimSpace(os.Getenv(s.env))} {
		if text == "" {
			continue
		}
		if err := flag.Value.Set(text); err != nil {
			return fmt.Errorf("%s: %w", s.env, wrongValue(flag, text))
		}
		if !s.secret {
			flag.DefValue = flag.Value.String()
		}
	}
	return nil
}

// wrongValue says what the flag takes instead of the text.
func wrongValue(flag *pflag.Flag, text string) error {
	kind := map[string]string{
		"int": "whole number", "int64": "whole number", "float64": "number", "bool": "true or false", "duration": "duration, as 30s or 30d",
		"time": "time, as 2026-01-31T15:04:05Z or 2026-01-31",
	}[flag.Value.Type()]
	return fmt.Errorf("%q is no %s", text, cmp.Or(kind, "value of it"))
}

// duration is the flag of a duration, in units of time.ParseDuration and days of 24 hours, which
// come first.
type duration time.Duration

func (d *duration) Set(text string) error {
	days, rest, ok := strings.Cut(text, "d")
	if !ok {
		days, rest = "0", text
	}
	whole, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return err
	}
	var part time.Duration
	if rest != "" {
		part, err = time.ParseDuration(rest)
	}
	*d = duration(time.Duration(whole)*24*time.Hour + part)
	return err
}

func (d *duration) String() string {
	if *d == 0 {
		return "0" // which the help does not call a default
	}
	return time.Duration(*d).String()
}

func (d *duration) Type() string { return "duration" }

// timeFlag is the flag of a time, as people write it. Without a zone it is UTC.
type timeFlag time.Time

func (t *timeFlag) Set(text string) error {
	if *t = (timeFlag{}); text == "" {
		return nil
	}
	whole := strings.Replace(text, " ", "T", 1)
	for _, left := range []string{"", "Z", ":00Z", "T00:00:00Z"} {
		if at, ok := domain.ParseTime(whole + left); ok {
			*t = timeFlag(at)
			return nil
		}
	}
	return errors.New("it is no time")
}

func (t *timeFlag) String() string {
	if time.Time(*t).IsZero() {
		return ""
	}
	return time.Time(*t).UTC().Format(time.RFC3339Nano)
}

func (t *timeFlag) Type() string { return "time" }

// trimmed is the flag of a text. White space around it, such as the newline at the end of a
// file that it was read from, is not part of the value.
type trimmed string

func (t *trimmed) Set(text string) error { *t = trimmed(strings.TrimSpace(text)); return nil }
func (t *trimmed) String() string        { return string(*t) }
func (t *trimmed) Type() string          { return "string" }
