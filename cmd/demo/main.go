// Command demo starts a clinic, the product, and outside systems that receive its events, to
// look at: patients come, wait, are seen and pay, in tables of the clinic's own, and each change is
// emitted in the transaction that makes it. Everything ends by Ctrl-C.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/migrations/postgres"
)

type options struct {
	binary, addr, database, data string
	seed                         int64
	rate                         float64
	steps                        int
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/medilab-webhooks", "the built product")
	flag.StringVar(&o.addr, "addr", "127.0.0.1:8000", "address of the API and the panel")
	flag.StringVar(&o.database, "database", "", "URL of a Postgres to use; none: an embedded one in the data folder")
	flag.StringVar(&o.data, "data", "", "data folder, to go on with later; none: a temporary one")
	flag.Int64Var(&o.seed, "seed", 1, "of what is made up")
	flag.Float64Var(&o.rate, "rate", 4, "transactions of the clinic a second")
	flag.IntVar(&o.steps, "steps", 0, "close the clinic after so many transactions; 0: never")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run starts the database, the product, the receivers and the clinic, and ends them in the other order
// when ctx ends.
func run(ctx context.Context, o options) (err error) {
	if o.data == "" {
		if o.data, err = os.MkdirTemp("", "clinic-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.data)) }()
	}
	if o.database == "" {
		fmt.Println("Starting a Postgres ...")
		server, err := postgres.Start(ctx, postgres.Options{DataDir: o.data, BinDir: os.Getenv("MEDILAB_POSTGRES_BIN")})
		if err != nil {
			return err
		}
		defer server.Stop(context.Background()) //nolint:errcheck // it ends with this process at the latest
		o.database = server.URL()
	}
	token := os.Getenv("MEDILAB_TOKEN")
	if token == "" {
		token = "demo-" + rand.Text() + rand.Text()
	}
	fmt.Println("Starting MediLab Webhooks ...")
	product, err := serve(ctx, o, token)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, product.Stop(time.Minute)) }()

	api := "http://" + o.addr + "/api/v1"
	all := receivers(api, token)
	outside, err := testbed.Listen()
	if err != nil {
		return err
	}
	defer outside.Close() //nolint:errcheck // nothing is left to do
	if err := register(ctx, api, token, outside, all); err != nil {
		return err
	}
	fmt.Printf("\nPanel     http://%s/admin\nToken     %s\nTables    schema clinic; the log: schema medilab\n", o.addr, token)
	for _, r := range all {
		fmt.Printf("Receiver  %-13s %s\n", r.name, r.what)
	}
	fmt.Println("\nThe clinic is open. Ctrl-C ends everything.")
	err = open(ctx, o, product)
	fmt.Println()
	for _, r := range all {
		fmt.Printf("%-13s %6d calls\n", r.name, r.calls.Load())
	}
	return err
}

// serve starts the product and waits until it is ready.
func serve(ctx context.Context, o options, token string) (*testbed.Process, error) {
	cmd := exec.Command(o.binary, "serve")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+o.database, "MEDILAB_DATA_DIR="+filepath.Join(o.data, "webhooks"), "MEDILAB_ADDR="+o.addr,
		"MEDILAB_TOKEN="+token, "MEDILAB_ALLOW_TARGETS=loopback", "MEDILAB_LOG=text,warn")
	cmd.Stderr = os.Stderr
	product, err := testbed.Start(cmd)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := product.Ready(waiting, "http://"+o.addr+"/readyz"); err != nil {
		return nil, errors.Join(err, product.Stop(time.Minute))
	}
	return product, nil
}

// open opens the clinic until ctx ends.
func open(ctx context.Context, o options, product *testbed.Process) error {
	db, err := pgxpool.New(ctx, o.database)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := (&clinic{db, o.seed}).run(ctx, o.rate, o.steps); err != nil {
		return err
	}
	fmt.Println("The clinic is closed; the panel stays.")
	select {
	case <-ctx.Done():
		return nil
	case <-product.Done():
		return fmt.Errorf("the product has ended: %w", product.Err())
	}
}
