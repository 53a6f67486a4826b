package eventstore_test

import (
	"strings"
	"testing"

	"github.com/medilab/webhooks/migrations/testdb"
)

func TestArraysReachPostgres(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	var long [][]byte
	var longText []string
	for i := range 1000 {
		long = append(long, []byte(strings.Repeat("x", i*i%97)))
		longText = append(longText, "\""+strings.Repeat("x", i*i%97)+"\"")
	}
	for _, c := range []struct {
		as   string
		arg  any
		want string
	}{
		{"text", []string{"a,b", "", `"`}, `{"a,b","","\""}`},
		{"text", [][]byte{[]byte("a"), nil}, `{a,NULL}`},
		{"text", [][]byte{nil}, `{NULL}`},
		{"text", long, strings.ReplaceAll(strings.ReplaceAll("{"+strings.Join(longText, ",")+"}", `"x`, "x"), `x"`, "x")},
		{"bytea", [][]byte{{0, 1}, nil, {}}, `{"\\x0001",NULL,"\\x"}`},
		{"uuid", [][16]byte{{15: 1}}, `{00000000-0000-0000-0000-000000000001}`},
		{"int", []int32{-1, 2}, `{-1,2}`},
		{"bigint", []int64{-1, 1 << 40}, `{-1,1099511627776}`},
		{"bigint", []int64{}, `{}`},
		{"text", []string(nil), `null`},
		// The plan of what is no such slice is pgx's own.
		{"int", []int64{7}, `{7}`},
		{"bigint", []any{7, nil}, `{7,NULL}`},
		{"float8", []float64{0.5}, `{0.5}`},
	} {
		var got string
		if err := pool.QueryRow(t.Context(), `SELECT coalesce($1::`+c.as+`[]::text, 'null')`, c.arg).Scan(&got); err != nil {
			t.Errorf("%s %.90v: %v", c.as, c.arg, err)
		} else if got != c.want {
			t.Errorf("%s %.90v is %.200s, want %.200s", c.as, c.arg, got, c.want)
		}
	}
}
