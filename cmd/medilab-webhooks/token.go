package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
)

// shownToken is a token as it is printed, with the token itself only when it was just created.
type shownToken struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Token     string         `json:"token,omitempty"`
	Prefix    string         `json:"prefix"`
	Scopes    []domain.Scope `json:"scopes"`
	State     string         `json:"state"` // valid, expired, revoked
	CreatedAt time.Time      `json:"created_at"`
	ExpiresAt *time.Time     `json:"expires_at"`
}

func showToken(t domain.Token, now time.Time) shownToken {
	shown := shownToken{ID: t.ID.String(), Name: t.Name, Prefix: t.Prefix, Scopes: t.Scopes, State: api.TokenState(t, now), CreatedAt: t.CreatedAt.UTC()}
	if !t.ExpiresAt.IsZero() {
		shown.ExpiresAt = &t.ExpiresAt
	}
	return shown
}

func newTokenCreateCommand(db *databaseOptions) *cobra.Command {
	var name string
	var scopes []string
	var expires time.Duration
	c := &cobra.Command{
		Use:     "create --name NAME --scopes SCOPE[,SCOPE...]",
		Short:   "Make a token and print it, this once",
		Example: "  medilab-webhooks token create --name crm --scopes webhooks:read,events:write --expires 720h",
		RunE: func(c *cobra.Command, _ []string) error {
			rights := make([]domain.Scope, len(scopes))
			for i, s := range scopes {
				rights[i] = domain.Scope(strings.TrimSpace(s))
			}
			if _, err := domain.DecideCreateToken(domain.TokenCreated{Name: name, Scopes: rights}); err != nil {
				return wrongFlags(err)
			}
			if expires < 0 || c.Flags().Changed("expires") && expires == 0 {
				return usageError{errors.New("--expires must be a time ahead, as in 720h")}
			}
			return db.use(c, func(s *session) error {
				var until time.Time
				if expires > 0 {
					until = time.Now().Add(expires)
				}
				token, clear, err := s.commands.CreateToken(c.Context(), caller(), name, rights, until)
				if err != nil {
					return err
				}
				shown := showToken(token, time.Now())
				shown.Token = clear.Reveal()
				return printResult(c, shown,
					fmt.Sprintf("Token %s (%s) is made. Keep it now, it is not shown again:\n\n  %s\n\n", shown.ID, sanitizeLine(name), shown.Token),
					shown.Token+"\n")
			})
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "", "who uses it; stands in the log as the actor")
	f.StringSliceVar(&scopes, "scopes", nil, "its rights: "+domain.ScopeNames())
	f.Var((*duration)(&expires), "expires", "how long it is valid, as 720h or 30d (default: for ever)")
	completeFlag(c, "scopes", listOf(domain.Scopes))
	withJSON(c)
	for _, name := range []string{"name", "scopes"} {
		cobra.CheckErr(c.MarkFlagRequired(name)) // fails only for a missing flag
	}
	return c
}

// wrongFlags names flags by the fields that were refused.
func wrongFlags(err error) error {
	var texts []string
	for _, f := range domain.FieldsOf(err) {
		if before, ok := strings.CutSuffix(f.Message, " from"); ok { // of a field to
			f.Message = before + " --from"
		}
		texts = append(texts, "--"+flagOf(f)+" "+f.Message)
	}
	return usageError{errors.New(strings.Join(texts, "; "))}
}

func flagOf(f domain.FieldError) string { return strings.ReplaceAll(f.Field, "_", "-") }

// wrongGiven is wrongFlags for an error whose fields are all flags that were given to the command; another
// stays as it is.
func wrongGiven(c *cobra.Command, err error) error {
	fields := domain.FieldsOf(err)
	for _, f := range fields {
		if !c.Flags().Changed(flagOf(f)) {
			return err
		}
	}
	if len(fields) == 0 {
		return err
	}
	return wrongFlags(err)
}

func newTokenListCommand(db *databaseOptions) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "list",
		Short:   "List the tokens, without the tokens themselves",
		Example: "  medilab-webhooks token list --json",
		RunE: db.run(func(c *cobra.Command, s *session, _ []string) error {
			now := s.log.Clock().Now()
			var shown []shownToken
			for _, t := range s.commands.Directory.Tokens() {
				if !t.Session {
					shown = append(shown, showToken(t, now))
				}
			}
			return printList(c, shown, []string{"ID", "NAME", "TOKEN", "SCOPES", "STATE", "CREATED", "EXPIRES"}, shownToken.row)
		}),
	})
}

func (t shownToken) row() []string {
	scopes := make([]string, len(t.Scopes))
	for i, scope := range t.Scopes {
		scopes[i] = string(scope)
	}
	return []string{t.ID, t.Name, t.Prefix + "...", strings.Join(scopes, ","), t.State, formatTime(t.CreatedAt), formatTime(orZero(t.ExpiresAt))}
}

func newTokenRevokeCommand(db *databaseOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "End a token for good",
		Example: "  medilab-webhooks token revoke 0198f0a0-0000-7000-8000-000000000001",
		Args:    argsThat(oneArg("ID"), isUUID, "the ID must be a UUID, as `medilab-webhooks token list` shows it"),
		RunE: func(c *cobra.Command, args []string) error {
			id := uuid.MustParse(args[0])
			return db.use(c, func(s *session) error {
				err := s.commands.RevokeToken(c.Context(), caller(), domain.TokenID(id))
				if errors.Is(err, domain.KindNotFound) {
					return fmt.Errorf("there is no token %s; `medilab-webhooks token list` shows them", id)
				}
				if err != nil {
					return err
				}
				said := fmt.Sprintf("Token %s is revoked\n", id)
				return printResult(c, nil, said, said)
			})
		},
	}
}
