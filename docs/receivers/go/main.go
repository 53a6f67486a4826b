// A receiver of MediLab's webhooks. Copy it, and write what handle does.
//
//	WEBHOOK_SECRET=... go run .
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const maxBody = 11 << 20 // events have at most 10 MB

var (
	key       = signingKey(os.Getenv("WEBHOOK_SECRET"))
	inbox     = envOr("INBOX", "inbox")
	tolerance = secondsOr("TOLERANCE", 300)
	gapWait   = secondsOr("GAP_WAIT", 900) // how long a missing number is waited for
	wakeUp    = make(chan struct{}, 1)
	uuid      = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

func main() {
	if len(key) == 0 {
		log.Fatal("WEBHOOK_SECRET is not set")
	}
	for _, folder := range []string{"done", "sequence"} {
		if err := os.MkdirAll(filepath.Join(inbox, folder), 0o700); err != nil {
			log.Fatal(err)
		}
	}
	go work()
	log.Fatal(http.ListenAndServe("127.0.0.1:"+envOr("PORT", "9000"), http.HandlerFunc(receive)))
}

// receive stores a delivery and answers at once; the work is done afterwards.
func receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)) // the exact bytes: what is signed
	if err != nil {
		http.Error(w, "unreadable body", http.StatusBadRequest)
		return
	}
	id := r.Header.Get("webhook-id")
	if !verify(id, r.Header.Get("webhook-timestamp"), body, r.Header.Get("webhook-signature")) {
		http.Error(w, "wrong signature", http.StatusUnauthorized)
		return
	}
	sequence, err := strconv.Atoi(r.Header.Get("X-Webhook-Sequence"))
	if err != nil {
		sequence = 0 // none
	}
	if err := store(id, sequence, body); err != nil {
		log.Print(err)
		http.Error(w, "not stored", http.StatusInternalServerError) // it is tried again
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// verify reports whether one of the signatures is ours and the call is recent. During a
// rotation there are several: the old secret's and the new one's.
func verify(id, timestamp string, body []byte, signatures string) bool {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || math.Abs(float64(time.Now().Unix()-seconds)) > tolerance.Seconds() || !uuid.MatchString(id) {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	want := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	for _, signature := range strings.Fields(signatures) {
		if hmac.Equal(want, []byte(signature)) { // in constant time
			return true
		}
	}
	return false
}

// store keeps a delivery under its id, which is the same for every attempt: a repeated one
// is already there.
func store(id string, sequence int, body []byte) error {
	for _, path := range []string{filepath.Join(inbox, id), filepath.Join(inbox, "done", id)} {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	file, err := os.CreateTemp(inbox, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(body)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if sequence > 0 {
		if err := os.WriteFile(filepath.Join(inbox, "sequence", id), []byte(strconv.Itoa(sequence)), 0o600); err != nil {
			return err
		}
	}
	if err := os.Link(file.Name(), filepath.Join(inbox, id)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	select {
	case wakeUp <- struct{}{}:
	default:
	}
	return nil
}

// work handles what is in the inbox, also what was left when the process ended.
func work() {
	for {
		if err := workThrough(); err != nil {
			log.Print(err)
		}
		select {
		case <-wakeUp:
		case <-time.After(10 * time.Second): // what failed is tried again
		}
	}
}

// workThrough handles deliveries in the order of their numbers, if they have one (the webhook's field
// sequence). What comes after a number that is missing waits for it, for a time.
func workThrough() (failed error) {
	entries, err := os.ReadDir(inbox)
	if err != nil {
		return err
	}
	numbers := map[string]int{}
	var waiting []string
	for _, entry := range entries {
		if id := entry.Name(); uuid.MatchString(id) {
			numbers[id], waiting = readNumber(filepath.Join(inbox, "sequence", id)), append(waiting, id)
		}
	}
	slices.SortStableFunc(waiting, func(a, b string) int { return numbers[a] - numbers[b] })
	next := max(1, readNumber(filepath.Join(inbox, "next")))
	for _, id := range waiting {
		path, number := filepath.Join(inbox, id), numbers[id]
		if info, err := os.Stat(path); err == nil && number > next && time.Since(info.ModTime()) < gapWait {
			return failed
		}
		if number > next {
			log.Printf("%d to %d did not arrive: GET /api/v1/webhooks/{id}/feed?after=%d has them", next, number-1, next-1)
		}
		body, err := os.ReadFile(path)
		if err == nil {
			err = handle(id, body)
		}
		if err == nil && number >= next {
			next = number + 1
			err = os.WriteFile(filepath.Join(inbox, "next"), []byte(strconv.Itoa(next)), 0o600)
		}
		if err == nil {
			err = os.Rename(path, filepath.Join(inbox, "done", id))
		}
		if failed = errors.Join(failed, err); err != nil && number > 0 {
			return failed // those after it wait
		}
	}
	return failed
}

// readNumber returns the number in the file, or 0.
func readNumber(path string) int {
	text, _ := os.ReadFile(path)
	number, _ := strconv.Atoi(string(text))
	return number
}

// handle is where your work goes. A crash between it and the rename repeats it: keep the
// delivery's id beside what you write, in one transaction, where that must not happen.
func handle(id string, body []byte) error {
	var event struct {
		Type string `json:"event_type"`
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return err
	}
	fmt.Println(id, event.Type)
	return nil
}

func signingKey(secret string) []byte {
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			log.Fatal("WEBHOOK_SECRET is not base64 after whsec_")
		}
		return key
	}
	return []byte(secret)
}

func envOr(name, other string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return other
}

func secondsOr(name string, other int) time.Duration {
	if seconds, err := strconv.Atoi(os.Getenv(name)); err == nil {
		other = seconds
	}
	return time.Duration(other) * time.Second
}
