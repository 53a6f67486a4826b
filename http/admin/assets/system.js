// The whole system: its figures, its busiest webhooks, and how far its read
// models are behind the log.
import { part } from './api.js'
import { card, facts, h, table } from './dom.js'
import { milliseconds, number, percent } from './format.js'
import { breakdown, callsChart, figures, periodForm, statsOf } from './stats.js'
import { t } from './texts.js'

export async function system({ parameters, signal }) {
  const stats = await statsOf('/webhooks/system/stats', parameters, signal)
  return h('div', {}, h('h1', {}, t('system.title')), periodForm('system', parameters),
    figures(stats, [
      [t('system.webhooks'), number(stats.webhooks_total)],
      [t('system.active'), number(stats.webhooks_active)],
      [t('system.events'), number(stats.events_total)],
    ]),
    callsChart(stats), lag(stats.projections), busiest(stats.by_webhook ?? []), breakdown(stats))
}

function lag(projections) {
  if (!projections) return null
  return card(t('system.lag'), facts([
    [t('system.lagEvents'), number(projections.lag_events)],
    [t('system.lagSeconds'), number(projections.lag_seconds, 2)],
    [t('system.position'), number(projections.position)],
    [t('system.head'), number(projections.head)],
  ]))
}

const busiest = (webhooks) => card(t('system.busiest'), table(t('system.busiest'), [
  { label: t('webhook.number'), cell: (w) => number(w.number), number: true },
  { label: t('webhook.name'), cell: (w) => h('a', { href: `#/webhooks/${part(w.webhook_id)}` }, w.name) },
  { label: t('stats.total'), cell: (w) => number(w.total_calls), number: true },
  { label: t('stats.rate'), cell: (w) => percent(w.success_rate), number: true },
  { label: t('stats.average'), cell: (w) => milliseconds(w.average_response_time_ms), number: true },
  { label: t('stats.pending'), cell: (w) => number(w.pending_deliveries), number: true },
], webhooks, t('webhook.empty')))
