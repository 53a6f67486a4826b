package http

import (
	"context"
	"net/http"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var bucket = choiceParam("bucket", "adds a series in parts of this width; minutes become hours where too much happened, see series_bucket", "", projections.BucketMinute, projections.BucketHour, projections.BucketDay)

func (s *Server) statsOperations() []operation {
	query := []queryParam{from, to, bucket}
	return []operation{{
		method: "GET", path: "/webhooks/system/stats", id: "systemStats", summary: "Statistics of all webhooks and the system", scope: domain.ScopeWebhooksRead,
		query: query, answer: answerOf[projections.SystemStats],
		serve: func(x *request, r *http.Request) error {
			return s.answer(x, r, func(ctx context.Context, q *projections.Projections) (any, error) {
				return q.SystemStats(ctx, statsFilter(x))
			})
		},
	}, {
		method: "GET", path: "/webhooks/{webhook}/stats", id: "webhookStats", summary: "Statistics of a webhook", scope: domain.ScopeWebhooksRead,
		query: query, answer: answerOf[projections.Stats],
		serve: s.ofWebhook(func(x *request, r *http.Request, w domain.Webhook) error {
			return s.answer(x, r, func(ctx context.Context, q *projections.Projections) (any, error) {
				return q.Stats(ctx, w.ID, statsFilter(x))
			})
		}),
	}}
}

func statsFilter(x *request) projections.StatsFilter {
	return projections.StatsFilter{From: from.of(x), To: to.of(x), Bucket: bucket.of(x)}
}
