package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// onTerminal returns what a command prints on a terminal of so many columns.
func (c cli) onTerminal(columns uint16, args ...string) string {
	c.Helper()
	return onTerminalOf(c.TB, columns, func(terminal *os.File) {
		if code := run(c.Context(), args, strings.NewReader(""), terminal, io.Discard); code != 0 {
			c.Errorf("%q exits %d", args, code)
		}
	})
}

// shownBy returns what print writes to a terminal.
func shownBy(t *testing.T, print func(*os.File)) string {
	t.Helper()
	return onTerminalOf(t, 80, print)
}

func onTerminalOf(c testing.TB, columns uint16, print func(*os.File)) string {
	c.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		c.Skipf("no terminals here: %v", err)
	}
	defer ours.Close() //nolint:errcheck // of a test
	fd := int(ours.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err != nil {
		c.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		c.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		text, _ := io.ReadAll(ours) // it ends with an error when the terminal is closed
		shown <- string(text)
	}()
	print(terminal)
	if err := terminal.Close(); err != nil {
		c.Fatal(err)
	}
	return strings.ReplaceAll(<-shown, "\r\n", "\n")
}

// On a terminal a table fits in, names webhooks as people do, and colours what ended badly.
func TestTablesOnATerminal(t *testing.T) {
	c := newAPICLI(t, 404)
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	c.run(1, "", "webhooks", "test", "1")
	c.fold()
	out := c.onTerminal(80, "calls")
	c.matches("the calls", out, `TIME +WEBHOOK +NAME +TYPE +TRY +STATUS +ANSWER +MS +ERROR\n\d\d-\d\d \S+ +1 +CRM +patient\S+… +1 +\x1b\[31mfailed\x1b\[0m +404 .*\n`)
	for line := range strings.Lines(strings.NewReplacer("\x1b[31m", "", "\x1b[0m", "").Replace(out)) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	plan := c.onTerminal(80, "webhooks", "apply", "-f", c.file("webhooks: []"), "--prune", "--dry-run")
	c.matches("the plan", plan, `\x1b\[31m-\x1b\[0m CRM \(webhook 1\)\n.*\n`)
	t.Setenv("NO_COLOR", "1")
	wide := c.onTerminal(200, "calls", "--ids")
	c.matches("the ids", wide, `TIME .* EVENT +.*\n\S+Z +\S{36} +CRM +patient\.created +\S{36} +1 +failed +404 .*\n`)
	event := strings.Fields(strings.Split(wide, "\n")[1])[4]
	c.matches("why", c.onTerminal(200, "explain", event), `WEBHOOK +NAME +VERDICT +WHY\n1 +CRM +failed +attempt 1: .*404.*\n`)
}

// Tables on a terminal have headings and states in the language of the environment; a pipe and
// --json never have.
func TestTablesInRussian(t *testing.T) {
	c := newAPICLI(t, 404)
	c.run(1, "", "webhooks", "test", "1")
	c.fold()
	t.Setenv("LC_ALL", "ru_RU.UTF-8")
	t.Setenv("NO_COLOR", "1")
	c.matches("the calls", c.onTerminal(200, "calls"), `ВРЕМЯ +ВЕБХУК +НАЗВАНИЕ +ТИП +ПОПЫТКА +СТАТУС +ОТВЕТ +МС +ОШИБКА\n.* неудача +404 .*\n`)
	piped, _ := c.run(0, "", "calls")
	c.matches("in a pipe", piped, `TIME +WEBHOOK (.*\n)+.* failed +404 .*\n`)
	c.matches("as JSON", c.onTerminal(80, "calls", "--json"), `\[\{"call_id":.*"status":"failed".*\n`)
	token, _ := c.run(0, "", "token", "create", "--name", "x", "--scopes", "admin", "--json")
	id := regexp.MustCompile(`"id":"([^"]+)"`).FindStringSubmatch(token)[1]
	c.matches("a result", c.onTerminal(80, "token", "revoke", id), `Токен \S+ отозван\n`)
	c.run(0, "", "emit", "patient.created", `{}`)
	c.matches("a backtest", c.onTerminal(200, "backtest", "1", "--events", "patient.updated"), `рассмотрено +1\n(.*\n){2}выпадет +1\n\nПРИНЯТО +ТИП +СОБЫТИЕ +ИЗМЕНЕНИЕ\n.* patient\.created +\S{36} +выпадет\n`)
	c.matches("other retries", c.onTerminal(200, "backtest", "1", "--timeout", "5"), `(.*\n){4}доставок +\d+\n(.*\n){2}стало бы доставлено +0\n(.*\n){5}стало бы вызовов +\d+\n(.*\n)*`)
	c.matches("the plan", c.onTerminal(80, "webhooks", "apply", "-f", c.file("webhooks: []"), "--prune", "--dry-run"),
		`- CRM \(вебхук 1\)\nсоздать: 0, изменить: 0, удалить: 1, без изменений: 0 — ничего не изменено \(--dry-run\)\n`)
	_, notes := c.run(1, "", "webhooks", "show", "9")
	c.matches("what is missing", notes, "medilab-webhooks: вебхук не найден; список: `medilab-webhooks webhooks list`\n")
	_, notes = c.run(1, "", "webhooks", "list", "--server", "http://127.0.0.1:1", "--token", "x")
	c.matches("no server", notes, `medilab-webhooks: сервер 127.0.0.1:1 не отвечает \(соединение отклонено\); запустите его .*\n`)
}
