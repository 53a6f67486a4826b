package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands/receipts"
)

// receiptKeyFile returns where the public key that verifies receipts is.
func (o databaseOptions) receiptKeyFile() string { return filepath.Join(o.dataDir, "receipts.json") }

// publicKey reads the public key of receipts from the file; "": that of the data folder.
func (o databaseOptions) publicKey(file string) ([]byte, error) {
	key, err := os.ReadFile(cmp.Or(file, o.receiptKeyFile()))
	if err != nil {
		return nil, fmt.Errorf("%w; get the key from /.well-known/medilab-receipts.json of the server, and name it by --key", err)
	}
	return key, nil
}

// keepReceiptKey writes the public key into the data folder, for those who verify receipts
// there; it can be had from the API too.
func (o databaseOptions) keepReceiptKey(public []byte, logger *slog.Logger) {
	err := os.MkdirAll(o.dataDir, 0o700)
	if err == nil {
		err = os.WriteFile(o.receiptKeyFile(), public, 0o644) //nolint:gosec // it is public
	}
	if err != nil {
		logger.Warn("the public key of receipts is not in the data folder", "error", err)
	}
}

func newReceiptVerifyCommand(db *databaseOptions) *cobra.Command {
	var keyFile, bodyFile, call string
	c := &cobra.Command{
		Use:     "verify FILE",
		Short:   "Check a receipt offline, and print what it says",
		Example: "  medilab-webhooks receipt verify receipt.jws --key medilab-receipts.json --body body.json",
		Args:    oneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			key, err := db.publicKey(keyFile)
			if err != nil {
				return err
			}
			receipt, err := receipts.Verify(strings.TrimSpace(string(text)), key)
			if err != nil {
				return err
			}
			if err := checkReceipt(receipt, call, bodyFile); err != nil {
				return err
			}
			said := fmt.Sprintf("The receipt is valid: call %s of event %s, sent to %s at %s, body SHA-256 %s, %s (position %d, seal %s)\n",
				receipt.CallID, receipt.EventID, sanitizeLine(receipt.URL), formatTime(receipt.SentAt), receipt.BodySHA256, receipt.Status, receipt.Position, receipt.Seal)
			return printResult(c, receipt, said, said)
		},
	}
	f := c.Flags()
	f.StringVar(&keyFile, "key", "", "the public key: a JWK set (default: receipts.json in the data folder)")
	f.StringVar(&call, "call", "", "the id of the call that the receipt must be of")
	f.StringVar(&bodyFile, "body", "", "the body that the receiver got, which must be the one that was sent")
	return withJSON(c)
}

// checkReceipt compares a valid receipt with what it is presented for.
func checkReceipt(r receipts.Receipt, call, bodyFile string) error {
	if call != "" && !strings.EqualFold(call, r.CallID.String()) {
		return fmt.Errorf("the receipt is of another call, %s", r.CallID)
	}
	if bodyFile == "" {
		return nil
	}
	body, err := os.ReadFile(bodyFile)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != r.BodySHA256 {
		return errors.New("the body is not the one that was sent")
	}
	return nil
}
