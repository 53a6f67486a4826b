package http

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/medilab/webhooks/projections"
)

// Items are encoded to the byte as encoding/json does, whatever their fields hold.
func TestItemsAreEncodedAsByEncodingJSON(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		checkItem(t, random, appendCall)
		checkItem(t, random, appendDelivery)
	}
}

func checkItem[T any](t *testing.T, random *rand.Rand, appendItem func([]byte, T) []byte) {
	t.Helper()
	var item T
	fill(reflect.ValueOf(&item).Elem(), random)
	if call, ok := any(&item).(*projections.Call); ok && call.Erased {
		call.Expired = false // it is one or the other
	}
	if got, want := appendItem(nil, item), bytes.TrimSpace(encode(item)); !bytes.Equal(got, want) {
		t.Fatalf("%s\nis encoded as\n%s", want, got)
	}
}

// fill sets each field of an item that is encoded to a value by chance, now and then to none.
func fill(v reflect.Value, random *rand.Rand) {
	texts := []string{"", "patient.created", `a "quoted" \ text`, "слово", "<a&b>", "line\u2028end\x00\b\f\t\x7f", "\xff"}
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(random.Int64N(1<<33), random.Int64N(2)*random.Int64N(1e6)*1e3).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" {
				fill(v.Field(i), random)
			}
		}
	case reflect.Pointer:
		if random.IntN(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), random)
		}
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(random.Uint64N(256))
		}
	case reflect.String:
		v.SetString(texts[random.IntN(len(texts))])
	case reflect.Int, reflect.Int64:
		v.SetInt(random.Int64N(1<<random.IntN(40)) - 1)
	case reflect.Float64: // whole microseconds
		v.SetFloat(float64(random.Int64N(1<<random.IntN(40))) / 1000)
	case reflect.Bool:
		v.SetBool(random.IntN(2) == 0)
	default:
		panic("a field of the type " + v.Type().String())
	}
}
