package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/medilab/webhooks/domain"
)

// reasonRule says whether those who read payloads must say why.
type reasonRule = string

const (
	reasonOptional reasonRule = "optional"
	reasonRequired reasonRule = "required"
)

// accessReasonSetting is the setting of every command that shows payloads.
func accessReasonSetting(rule *reasonRule) setting {
	return setting{
		env: "MEDILAB_ACCESS_REASON", flag: "access-reason", value: rule, usual: reasonOptional,
		usage: "whether those who read what events hold must say why: optional or required", rule: "optional or required",
		valid: func() bool { return *rule == reasonOptional || *rule == reasonRequired },
	}
}

// reasonSetting says why a command shows payloads.
func reasonSetting(reason *string) setting {
	return setting{env: "MEDILAB_REASON", flag: "reason", value: reason, usage: "why you read what events hold; it goes on record"}
}

// checkReason returns why payloads may not be read for the reason.
func checkReason(reason string, rule reasonRule) error {
	if reason == "" && rule == reasonRequired {
		return usageError{errors.New("say by --reason why you read patients' data")}
	}
	if err := domain.CheckReason("reason", reason); err != nil {
		return wrongFlags(err)
	}
	return nil
}

// askedByFlags returns what the command was asked for, for the record.
func askedByFlags(c *cobra.Command) map[string]string {
	asked := map[string]string{}
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "reason" {
			asked[f.Name] = f.Value.String()
		}
	})
	return asked
}
