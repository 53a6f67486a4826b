package testdb

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// Snapshot copies the database at the URL as it is now. Its restore puts the copy in the place
// of the database, as often as it is called: connections break, and who connects again finds
// the older one.
func Snapshot(t testing.TB, database string) (restore func()) {
	t.Helper()
	u, err := url.Parse(database)
	must(t, err)
	name := strings.TrimPrefix(u.Path, "/")
	kept := name + "_kept"
	t.Cleanup(func() { drop(t, kept) })
	replace(t, kept, name)
	return func() {
		t.Helper()
		replace(t, name, kept)
	}
}

// replace makes the database a copy of another. Neither has connections meanwhile.
func replace(t testing.TB, name, from string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const building = "_building"
	for _, statement := range []string{
		fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS false`, from),
		fmt.Sprintf(`SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE datname = '%s'`, from),
		fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s`, name+building, from),
		fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS true`, from),
		fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, name),
		fmt.Sprintf(`ALTER DATABASE %s RENAME TO %s`, name+building, name),
	} {
		must(t, administer(ctx, statement))
	}
}
