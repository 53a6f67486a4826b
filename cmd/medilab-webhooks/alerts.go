package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/medilab/webhooks/domain"
)

// alertOptions are when to alert (contract section 5).
type alertOptions struct {
	rules    domain.AlertRules
	calls    int
	failures int
	interval time.Duration
}

func (o *alertOptions) register(f *pflag.FlagSet, env *serveOptions) {
	usual := domain.DefaultAlertRules
	const scan = 15 * time.Second
	f.DurationVar(&o.rules.InactiveAfter, "alert-inactive", env.durationFromEnvironment("MEDILAB_ALERT_INACTIVE", usual.InactiveAfter), "alert when an active webhook had no call, or one was deactivated, for so long (MEDILAB_ALERT_INACTIVE)")
	f.Float64Var(&o.rules.SuccessRate, "alert-success-rate", env.floatFromEnvironment("MEDILAB_ALERT_SUCCESS_RATE", usual.SuccessRate), "alert when fewer percent of calls succeed (MEDILAB_ALERT_SUCCESS_RATE)")
	f.DurationVar(&o.rules.RateWindow, "alert-success-rate-window", env.durationFromEnvironment("MEDILAB_ALERT_SUCCESS_RATE_WINDOW", usual.RateWindow), "of the calls of so long, 1m to 1h (MEDILAB_ALERT_SUCCESS_RATE_WINDOW)")
	f.IntVar(&o.calls, "alert-success-rate-calls", env.intFromEnvironment("MEDILAB_ALERT_SUCCESS_RATE_CALLS", int(usual.RateCalls)), "when they are so many at least (MEDILAB_ALERT_SUCCESS_RATE_CALLS)")
	f.IntVar(&o.failures, "alert-consecutive-failures", env.intFromEnvironment("MEDILAB_ALERT_CONSECUTIVE_FAILURES", int(usual.Failures)), "alert when more calls fail in a row (MEDILAB_ALERT_CONSECUTIVE_FAILURES)")
	f.DurationVar(&o.interval, "alert-scan-interval", env.durationFromEnvironment("MEDILAB_ALERT_SCAN_INTERVAL", scan), "how often to look for what follows from time (MEDILAB_ALERT_SCAN_INTERVAL)")
}

// check gives the rules, or what is wrong with them.
func (o *alertOptions) check() (domain.AlertRules, time.Duration, error) {
	rules := o.rules
	rules.RateCalls, rules.Failures = int64(o.calls), int64(o.failures)
	refuse := func(name, rule string) (domain.AlertRules, time.Duration, error) {
		return domain.AlertRules{}, 0, fmt.Errorf("MEDILAB_ALERT_%s must be %s", name, rule)
	}
	switch {
	case rules.InactiveAfter <= 0:
		return refuse("INACTIVE", "more than 0")
	case !(0 <= rules.SuccessRate && rules.SuccessRate <= 100):
		return refuse("SUCCESS_RATE", "between 0 and 100")
	case rules.RateWindow < time.Minute || rules.RateWindow > domain.AlertWindowMost:
		return refuse("SUCCESS_RATE_WINDOW", "between 1m and 1h")
	case rules.RateCalls < 1:
		return refuse("SUCCESS_RATE_CALLS", "1 or more")
	case rules.Failures < 0:
		return refuse("CONSECUTIVE_FAILURES", "0 or more")
	case o.interval < 10*time.Millisecond:
		return refuse("SCAN_INTERVAL", "10ms or more")
	}
	return rules, o.interval, nil
}
