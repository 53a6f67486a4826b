package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// keysFile returns the keyset's path, by default in the data folder.
func (o databaseOptions) keysFile() string {
	return cmp.Or(o.keys, filepath.Join(o.dataDir, "keys.json"))
}

func (o databaseOptions) openKeys() (*vault.Vault, error) {
	keys, err := vault.Open(o.keysFile(), true)
	if errors.Is(err, vault.ErrMissing) {
		err = fmt.Errorf("there is no keyset %s; name it with MEDILAB_KEYS, or start serve, which makes one for a new database", o.keysFile())
	}
	return keys, err
}

type shownKey struct {
	ID    string `json:"id"`
	State string `json:"state"` // seals, opens, staged
}

func showKey(k vault.Key) shownKey {
	shown := shownKey{ID: strconv.FormatUint(uint64(k.ID), 10), State: "opens"}
	switch {
	case k.Primary:
		shown.State = "seals"
	case k.Staged:
		shown.State = "staged"
	}
	return shown
}

func newKeysListCommand(db *databaseOptions) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "list",
		Short:   "List the keys' ids, oldest first; never the keys",
		Example: "  medilab-webhooks keys list --json",
		RunE: func(c *cobra.Command, _ []string) error {
			keys, err := db.openKeys()
			if err != nil {
				return err
			}
			var shown []shownKey
			for _, k := range keys.Keys() {
				shown = append(shown, showKey(k))
			}
			return printList(c, shown, []string{"ID", "STATE"}, func(k shownKey) []string { return []string{k.ID, k.State} })
		},
	})
}

// runWithKeys returns the RunE of a command that works on the database, and the keyset if that
// opens what the database holds.
func (o *databaseOptions) runWithKeys(do func(*cobra.Command, *session, *vault.Vault) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, _ []string) error {
		keys, err := o.openKeys()
		if err != nil {
			return err
		}
		return o.use(c, func(s *session) error {
			if err := keys.CheckProbe(c.Context(), s.pool); err != nil {
				return err
			}
			return do(c, s, keys)
		})
	}
}

func newKeysRotateCommand(db *databaseOptions) *cobra.Command {
	var stage bool
	c := &cobra.Command{
		Use:     "rotate",
		Short:   "Add a key that encrypts from now on, and re-encrypt stored secrets with it",
		Example: "  medilab-webhooks keys rotate",
		Long: `Add a key that encrypts from now on, and re-encrypt stored secrets with it.

Running servers notice the replaced file by themselves. The old keys stay in the file: the log,
which never changes, holds what they encrypted.

Where several machines serve, each with a copy of the file: rotate --stage on one, copy the file
to the others, and then rotate on the first and copy again. No machine meets a key that it lacks.`,
		RunE: db.runWithKeys(func(c *cobra.Command, s *session, keys *vault.Vault) error {
			change, action := keys.Rotate, domain.AdminKeyRotated
			said := "Key %s seals from now on\n"
			if stage {
				change, action = keys.Stage, domain.AdminKeyStaged
				said = "Key %s is in the file and seals nothing yet; copy the file to the other machines, then run keys rotate\n"
			}
			key, err := change()
			if err != nil {
				return err
			}
			id := showKey(key).ID
			if err := s.commands.Record(c.Context(), caller(), action, "key "+id); err != nil {
				return err
			}
			if err := printText(c.OutOrStdout(), fmt.Sprintf(said, id)); err != nil || stage {
				return err
			}
			return rewrap(c, s, keys)
		}),
	}
	c.Flags().BoolVar(&stage, "stage", false, "only add the key; the next rotate lets it encrypt")
	return c
}

func newKeysRewrapCommand(db *databaseOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "rewrap",
		Short:   "Re-encrypt stored secrets with the newest key, as rotate does; resumes where it was cut off",
		Example: "  medilab-webhooks keys rewrap",
		RunE:    db.runWithKeys(rewrap),
	}
}

func newKeysEncryptCommand(db *databaseOptions) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "encrypt",
		Short: "Encrypt payloads that older versions wrote in clear, so that an erasure reaches them",
		Long: `Encrypt payloads that older versions wrote in clear, so that an erasure reaches them.

It replaces entries of the log, each step on record, and audit verify goes on to prove them. It works
while servers run, and can be interrupted: the same command goes on. What tells of patients who
were erased before is erased then. The tables' owner runs it.`,
		Example: "  medilab-webhooks keys encrypt",
		RunE: db.runWithKeys(func(c *cobra.Command, s *session, keys *vault.Vault) error {
			bar := newProgress(c, -1, "encrypting")
			result, err := s.commands.EncryptLog(c.Context(), caller(), bar.set)
			bar.end()
			if err == nil && result.Until > 0 { // also when a run before was cut off
				_, err = s.pool.Exec(c.Context(), `VACUUM medilab.events`)
			}
			if err != nil {
				return fmt.Errorf("%w; run keys encrypt to go on", err)
			}
			text := fmt.Sprintf("Encrypted %d %s; none is in clear up to position %d\n", result.Entries, domain.Plural(result.Entries, "entry", "entries"), result.Until)
			if result.Undecoded > 0 {
				text += fmt.Sprintf("%d %s: see audit verify\n", result.Undecoded, domain.Plural(result.Undecoded, "entry does not decode and stays as it is", "entries do not decode and stay as they are"))
			}
			return printResult(c, result, text, text)
		}),
	})
}

func rewrap(c *cobra.Command, s *session, keys *vault.Vault) error {
	s.commands.Vault = keys
	bar := newProgress(c, -1, "Re-encrypting")
	done, err := s.commands.ResealSecrets(c.Context(), caller(), func(done, total int) {
		bar.set(eventstore.Position(done), eventstore.Position(total))
	})
	bar.end()
	wrapped := 0
	if err == nil {
		wrapped, err = keys.RewrapKeys(c.Context(), s.pool)
	}
	if err == nil {
		err = keys.StoreProbe(c.Context(), s.pool)
	}
	if err != nil {
		return fmt.Errorf("%w; run keys rewrap to go on", err)
	}
	if done.Webhooks > 0 {
		if err := s.commands.Record(c.Context(), caller(), domain.AdminSecretsResealed, fmt.Sprintf("%d %s", done.Webhooks, domain.Plural(done.Webhooks, "webhook", "webhooks"))); err != nil {
			return err
		}
	}
	if err := printText(c.OutOrStdout(), fmt.Sprintf("%d %s sealed anew, %d had nothing to do\n", done.Webhooks, domain.Plural(done.Webhooks, "webhook is", "webhooks are"), done.Current)); err != nil {
		return err
	}
	if err := printText(c.OutOrStdout(), fmt.Sprintf("%d %s sealed anew\n", wrapped, domain.Plural(wrapped, "key of patients' data is", "keys of patients' data are"))); err != nil {
		return err
	}
	if len(done.Unreadable) > 0 {
		return fmt.Errorf("no key opens the secrets of %d %s, the first is %s: bring the key back, or give them new secrets", len(done.Unreadable), domain.Plural(len(done.Unreadable), "webhook", "webhooks"), done.Unreadable[0])
	}
	return nil
}
