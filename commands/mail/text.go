package mail

import (
	"fmt"
	"strings"

	"github.com/medilab/webhooks/domain"
)

// titles are what an alert is about, in English and Russian.
var titles = map[domain.AlertKind][2]string{
	domain.AlertInactive:            {"A webhook is inactive", "Вебхук неактивен"},
	domain.AlertLowSuccessRate:      {"Many calls fail", "Низкий процент успешных вызовов"},
	domain.AlertConsecutiveFailures: {"Calls fail one after another", "Вызовы не проходят один за другим"},
	domain.AlertTimeout:             {"A call ran out its timeout", "Вызов не уложился в таймаут"},
	domain.AlertGivenUp:             {"A delivery was given up", "Доставка не удалась, повторов больше не будет"},
	domain.AlertGone:                {"A receiver is gone, its webhook was deactivated", "Получатель ответил 410, вебхук выключен"},
	domain.AlertAutoDeactivated:     {"Nothing but failures, the webhook was deactivated", "Одни неудачи, вебхук выключен"},
	domain.AlertNode:                {"A server lacks something, deliveries wait", "Серверу чего-то не хватает, доставки ждут"},
	domain.AlertLogLost:             {"The database lost the end of the log", "База данных потеряла конец журнала"},
}

const timeFormat = "2006-01-02 15:04:05 UTC"

// compose writes the e-mail, in both languages, as who reads it is not known. It says nothing of any event's data.
func (o *Outbox) compose(notices []notice) (subject, text string) {
	var b strings.Builder
	for _, n := range notices {
		var id domain.WebhookID
		var kind domain.AlertKind
		var message string
		state := [2]string{}
		switch c := n.change.(type) {
		case domain.WebhookAlertRaised:
			id, kind, message = c.WebhookID, c.Kind, c.Message
		case domain.WebhookAlertResolved:
			id, kind, message = c.WebhookID, c.Kind, c.Message
			state = [2]string{"Resolved: ", "Снято: "}
		}
		title, ok := titles[kind]
		if !ok {
			title = [2]string{string(kind), string(kind)}
		}
		name, link := "", "/alerts"
		if w, ok := o.Directory.Webhook(id); ok {
			name, link = fmt.Sprintf("%s (webhook %d)", w.Name, w.Number), "/webhooks/"+id.String()+"/calls?status=failed"
		}
		subject = state[0] + title[0] + " / " + state[1] + title[1]
		if name != "" {
			subject += " — " + name
			fmt.Fprintf(&b, "%s\n", name)
		}
		fmt.Fprintf(&b, "%s%s\n%s%s\n%s (%s, %s)\n", state[0], title[0], state[1], title[1], message, kind, n.at.UTC().Format(timeFormat))
		if len(n.ids) > 1 {
			fmt.Fprintf(&b, "since %s raised: %d, resolved: %d / с этого времени возникло: %[2]d, снято: %d\n", n.since.UTC().Format(timeFormat), n.raised, n.resolved)
		}
		fmt.Fprintf(&b, "%s#%s\n\n", o.PanelURL, link)
	}
	if len(notices) > 1 {
		subject = fmt.Sprintf("%d alerts / Оповещений: %[1]d", len(notices))
	}
	fmt.Fprintf(&b, "-- \nMediLab Webhooks %s#/alerts\n", o.PanelURL)
	return "[MediLab] " + subject, b.String()
}
