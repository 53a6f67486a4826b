package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
)

// newKeysCommand groups what there is to do with the keys that seal secrets at rest.
func newKeysCommand(db *databaseOptions) *cobra.Command {
	c := &cobra.Command{Use: "keys", Short: "List and rotate the keys that encrypt secrets at rest"}
	path := c.PersistentFlags().String("keys", fromEnvironment("MEDILAB_KEYS", ""), "keyset file (MEDILAB_KEYS; default: keys.json in the data folder)")
	open := func() (*vault.Vault, error) {
		if *path == "" {
			return vault.Open(filepath.Join(db.dataDir, keysFile), true)
		}
		return vault.Open(*path, true)
	}
	c.AddCommand(newKeysListCommand(open), newKeysRotateCommand(db, open), newKeysRewrapCommand(db, open))
	return c
}

// keysFile keeps the keyset, in the data folder.
const keysFile = "keys.json"

type shownKey struct {
	ID    string `json:"id"`
	State string `json:"state"` // seals, opens, staged
}

func showKey(k vault.Key) shownKey {
	shown := shownKey{ID: strconv.FormatUint(uint64(k.ID), 10), State: "opens"}
	switch {
	case k.Seals:
		shown.State = "seals"
	case k.Staged:
		shown.State = "staged"
	}
	return shown
}

func newKeysListCommand(open func() (*vault.Vault, error)) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the keys' ids, oldest first; never the keys",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			keys, err := open()
			if err != nil {
				return err
			}
			shown := []shownKey{}
			rows := [][]string{{"ID", "STATE"}}
			for _, k := range keys.Keys() {
				one := showKey(k)
				shown = append(shown, one)
				rows = append(rows, []string{one.ID, one.State})
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), shown)
			}
			return printTable(c.OutOrStdout(), rows)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newKeysRotateCommand(db *databaseOptions, open func() (*vault.Vault, error)) *cobra.Command {
	var stage bool
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Add a key that seals from now on, and seal stored secrets anew with it",
		Long: `Add a key that seals from now on, and seal stored secrets anew with it.

Running servers notice the replaced file by themselves. The old keys stay in the file: the log,
which never changes, holds what they sealed.

Where several machines serve, each with a copy of the file: rotate --stage on one, copy the file
to the others, and then rotate on the first and copy again. No machine meets a key that it lacks.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			keys, err := open()
			if err != nil {
				return err
			}
			return db.use(c, func(s *session) error {
				change, action := keys.Rotate, domain.AdminKeyRotated
				if stage {
					change, action = keys.Stage, domain.AdminKeyStaged
				}
				key, err := change()
				if err != nil {
					return err
				}
				shown := showKey(key)
				if err := s.commands.Record(c.Context(), caller(), action, "key "+shown.ID); err != nil {
					return err
				}
				if stage {
					_, err = fmt.Fprintf(c.OutOrStdout(), "Key %s is in the file and seals nothing yet; copy the file to the other machines, then run keys rotate\n", shown.ID)
					return err
				}
				if _, err := fmt.Fprintf(c.OutOrStdout(), "Key %s seals from now on\n", shown.ID); err != nil {
					return err
				}
				return rewrap(c, s, keys)
			})
		},
	}
	c.Flags().BoolVar(&stage, "stage", false, "only add the key; the next rotate lets it seal")
	return c
}

func newKeysRewrapCommand(db *databaseOptions, open func() (*vault.Vault, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "rewrap",
		Short: "Seal stored secrets anew with the newest key, as rotate does; goes on where it was cut off",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			keys, err := open()
			if err != nil {
				return err
			}
			return db.use(c, func(s *session) error { return rewrap(c, s, keys) })
		},
	}
}

func rewrap(c *cobra.Command, s *session, keys *vault.Vault) error {
	s.commands.Vault = keys
	bar := newProgress(c.ErrOrStderr(), -1, "Sealing anew")
	var shown error
	done, err := s.commands.ResealSecrets(c.Context(), caller(), func(done, total int) {
		bar.ChangeMax(total)
		if err := bar.Set(done); err != nil {
			shown = err
		}
	})
	if err := errors.Join(err, shown); err != nil {
		return fmt.Errorf("%w; run keys rewrap to go on", err)
	}
	if done.Webhooks > 0 {
		if err := s.commands.Record(c.Context(), caller(), domain.AdminSecretsResealed, fmt.Sprintf("%d webhooks", done.Webhooks)); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(c.OutOrStdout(), "%d webhooks are sealed anew, %d had nothing to do\n", done.Webhooks, done.Current); err != nil {
		return err
	}
	if len(done.Unreadable) > 0 {
		return fmt.Errorf("no key opens the secrets of %d webhooks, the first is %s: bring the key back, or give them new secrets", len(done.Unreadable), done.Unreadable[0])
	}
	return nil
}
