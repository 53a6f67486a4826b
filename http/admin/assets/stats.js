// Figures: of one webhook, and the parts that the system's page shows too.
import { api, part } from './api.js'
import { chart } from './chart.js'
import { card, facts, h, table } from './dom.js'
import { choice } from './forms.js'
import { milliseconds, number, percent, when } from './format.js'
import { filters } from './lists.js'
import { t } from './texts.js'

const hour = 3600 * 1000
const periods = { day: [24 * hour, 'hour'], week: [7 * 24 * hour, 'hour'], month: [30 * 24 * hour, 'day'] }

// statsOf asks for the figures of the period that the address names. The series
// that comes has only the parts with calls in them; here it gets the others too.
export async function statsOf(path, parameters, signal) {
  const [length, bucket] = periods[parameters.get('period')] ?? periods.day
  const width = bucket === 'day' ? 24 * hour : hour
  const to = Date.now()
  const from = Math.floor((to - length) / width) * width + width
  const stats = await api.get(path, { from: new Date(from).toISOString(), to: new Date(to).toISOString(), bucket }, signal)
  const known = new Map((stats.series ?? []).map((part) => [Date.parse(part.at), part]))
  stats.all = []
  for (let at = from; at <= to; at += width) stats.all.push(known.get(at) ?? { at: new Date(at).toISOString(), successful_calls: 0, failed_calls: 0 })
  return stats
}

export function periodForm(page, parameters) {
  const chosen = new URLSearchParams({ period: parameters.get('period') ?? 'day' })
  const control = choice(Object.keys(periods).map((name) => [name, t(`stats.${name}`)]))
  return filters(page, chosen, [['period', t('stats.period'), control]])
}

export async function statistics({ webhook, parameters, signal }) {
  const path = `webhooks/${part(webhook.id)}/stats`
  const stats = await statsOf(`/${path}`, parameters, signal)
  return h('div', {}, periodForm(path, parameters), figures(stats), callsChart(stats), breakdown(stats))
}

export function figures(stats, more = []) {
  return card(null, facts([
    ...more,
    [t('stats.total'), number(stats.total_calls)],
    [t('stats.successful'), number(stats.successful_calls)],
    [t('stats.failed'), number(stats.failed_calls)],
    [t('stats.rate'), percent(stats.success_rate)],
    [t('stats.average'), milliseconds(stats.average_response_time_ms)],
    ['p50 / p95 / p99', [stats.p50_ms, stats.p95_ms, stats.p99_ms].map(milliseconds).join(' / ')],
    [t('stats.timeouts'), number(stats.timeouts)],
    [t('stats.retries'), number(stats.retries)],
    [t('stats.inARow'), number(stats.consecutive_failures)],
    [t('stats.pending'), number(stats.pending_deliveries)],
    [t('stats.delivered'), number(stats.delivered)],
    [t('stats.exhausted'), number(stats.exhausted)],
    [t('stats.lastCall'), when(stats.last_call_at)],
    [t('stats.lastSuccess'), when(stats.last_success_at)],
    [t('stats.lastFailure'), when(stats.last_failure_at)],
  ]))
}

// callsChart draws the calls over time, with the same numbers as a table for who
// cannot see it.
export function callsChart(stats) {
  const series = stats.series ?? []
  if (series.length === 0) return card(t('stats.chart'), h('p', { class: 'empty' }, t('stats.noCalls')))
  return card(t('stats.chart'), chart(stats.all), h('details', {}, h('summary', {}, t('stats.chartTable')),
    table(t('stats.chart'), [
      { label: t('stats.time'), cell: (p) => when(p.at) },
      { label: t('stats.successful'), cell: (p) => number(p.successful_calls), number: true },
      { label: t('stats.failed'), cell: (p) => number(p.failed_calls), number: true },
      { label: t('stats.average'), cell: (p) => milliseconds(p.average_response_time_ms), number: true },
    ], series)))
}

export function breakdown(stats) {
  const counts = (title, label, values) => Object.keys(values ?? {}).length > 0 && card(title, table(title, [
    { label, cell: ([name]) => h('code', {}, name) },
    { label: t('stats.count'), cell: ([, count]) => number(count), number: true },
  ], Object.entries(values).sort(([, a], [, b]) => b - a)))
  return h('div', { class: 'columns' },
    counts(t('stats.byType'), t('event.type'), stats.by_event_type), counts(t('stats.byStatus'), t('call.response'), stats.by_status))
}
