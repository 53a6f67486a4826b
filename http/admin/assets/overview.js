// The first page: what needs a hand, and the figures of the last day. A fresh
// installation shows the way to the first delivered call instead.
import { AlertRow, useNames } from './alerts.js'
import { session } from './api.js'
import { Failures } from './call-list.js'
import { Chart, asked, parts, widths } from './charts.js'
import { most } from './counts.js'
import { duration, milliseconds, percent } from './format.js'
import { Table, useFresh } from './list.js'
import { Ranges, useRange } from './ranges.js'
import { Start } from './start.js'
import { number, t } from './texts.js'
import './texts/overview.js'
import { Badge, Card, Empty, Figure, Line, Loaded, Page, useLoad } from './ui.js'
import { html, useMemo, useRef, useState } from './view.js'
import { healthColumns } from './webhooks.js'

// previous returns the parameters of the API for the time as long as the range right before it.
const previous = ({ from, to, end }) => ({ from: new Date(2 * from - (to ?? end)).toISOString(), to: new Date(from).toISOString() })

export function Overview({ parameters }) {
  const range = useRange(parameters)
  const now = useLoad('/webhooks/system/stats', asked(range), { every: 60000 })
  const before = useLoad('/webhooks/system/stats', previous(range))
  const urgent = useLoad('/webhooks/health', { sort: 'urgency', limit: 8 }, { every: 60000 })
  const open = useLoad('/webhooks/alerts', { state: 'open', limit: most }, { every: 60000 })
  useFresh({ kinds: ['call', 'webhook'] }, now.reload)
  useFresh({ kinds: ['call', 'alert', 'webhook'] }, urgent.reload, 5000)
  useFresh({ kinds: ['alert'] }, open.reload, 500)
  const rate = useRate(now, range)
  const [starting, setStarting] = useState(false)
  return html`<${Page} title=${t('nav.overview')} sub=${t('overview.sub')} actions=${session.may('webhooks:write') && html`<a class="button primary" href="#/webhooks/new">${t('action.create')}</a>`}>
    <${Loaded} of=${now}>${(stats) => html`
      ${session.may('webhooks:write') && (starting || !range.to && !stats.last_success_at) && html`<${Start} busy=${setStarting} />`}
      ${(range.to || stats.last_call_at || !session.may('webhooks:write') || open.data?.items.length > 0) && html`<${Ranges} page="overview" range=${range} />
      <${Figures} stats=${stats} range=${range} before=${before.loading ? undefined : before.data} totals=${urgent.data?.totals} alerts=${open.data} rate=${rate} />
      <div class="two"><${Loaded} of=${open}>${(page) => html`<${Attention} page=${page} standings=${urgent.data?.items ?? []} />`}</${Loaded}>
        <${Calls} stats=${stats} range=${range} /></div>
      <${Loaded} of=${urgent}>${(page) => html`<${Urgent} page=${page} />`}</${Loaded}>
      <${Card} title=${t('overview.failures')} flush more=${html`<a href="#/calls?status=failed">${t('overview.allCalls')}</a>`}><${Failures} limit=${5} /></${Card}>`}`}</${Loaded}>
  </${Page}>`
}

// useRate returns the deliveries a minute: of the last minute or so that this page has seen of the
// range, else of the last part of its series, or of all of a range that is over.
function useRate({ data: stats, loading }, range) {
  const seen = useRef({})
  if (!stats) return null
  if (range.to) return stats.delivered / Math.max(1, (range.to - range.from) / widths.minute)
  if (!loading && seen.current.range !== range) seen.current = { range, points: [] }
  const { points } = seen.current
  const now = Date.now()
  const sum = stats.delivered
  if (!loading && (points.at(-1)?.sum !== sum || now - points.at(-1).at > 5000)) points.push({ at: now, sum })
  while (points?.length > 2 && now - points[1].at > widths.minute) points.shift()
  const minutes = points?.length > 0 ? (now - points[0].at) / widths.minute : 0
  if (seen.current.range === range && minutes > 0.1 && sum >= points[0].sum) return (sum - points[0].sum) / minutes
  const width = widths[stats.series_bucket]
  const begun = Math.floor(now / width) * width - (stats.series_bucket === 'minute' ? width : 0)
  const part = stats.series.find((one) => Date.parse(one.at) === begun)
  return (part?.delivered ?? 0) / Math.max(1, Math.min(width, now - begun) / widths.minute)
}

// held keeps the value before where there is none, at first the first.
function held(values) {
  let last = values.find((value) => value !== null) ?? 0
  return values.map((value) => (last = value ?? last))
}

function Figures({ stats, range, before, totals, alerts, rate }) {
  const all = useMemo(() => parts(stats, { ...range, end: Date.now() }), [stats])
  const change = (now, then) => (now === null || now === undefined || !then ? undefined : now - then)
  const success = change(stats.success_rate, before?.success_rate)
  const slower = change(stats.p95_ms, before?.p95_ms)
  const more = before?.delivered ? (stats.delivered - before.delivered) / before.delivered * 100 : undefined
  const open = alerts?.items.filter((one) => !one.acknowledged_at).length ?? 0
  const signed = (value, unit) => `${value > 0 ? '+' : ''}${number(value, 1)} ${unit}`
  const span = t(`span.${range.name}`)
  return html`<section class="figures" aria-label=${t('overview.figures')}>
    <${Figure} label=${t('overview.rate')} value=${number(rate, rate < 10 ? 1 : 0)} href="#/deliveries?state=delivered" note=${`${number(stats.delivered)} ${span}${more === undefined ? '' : ` (${signed(more, '%')})`}`}
      spark=${html`<${Line} values=${all.map((p) => p.ok)} />`} />
    <${Figure} label=${t('overview.success')} value=${percent(stats.success_rate)} href="#/calls?status=failed" tone=${success < -0.05 ? 'bad' : success > 0.05 ? 'good' : ''} note=${success === undefined ? t('overview.calls', stats.total_calls) : t('overview.points', signed(success, ''))}
      spark=${html`<${Line} values=${held(all.map((p) => (p.ok + p.bad > 0 ? p.ok / (p.ok + p.bad) : null)))} tone=${success < -0.05 ? 'bad' : 'muted'} />`} />
    <${Figure} label=${t('overview.latency')} value=${milliseconds(stats.p95_ms)} href="#/calls" note=${slower === undefined ? `p50 ${milliseconds(stats.p50_ms)}` : t('overview.before', milliseconds(before.p95_ms))}
      spark=${html`<${Line} values=${held(all.map((p) => p.p95))} tone="muted" />`} />
    <${Figure} label=${t('overview.waiting')} value=${number(stats.pending_deliveries)} href="#/deliveries?state=pending" note=${stats.pending_deliveries === 0 ? t('overview.nothingWaits') : totals && t('overview.oldest', duration(totals.oldest_waiting_seconds))} tone=${totals?.oldest_waiting_seconds > 300 ? 'warn' : ''} />
    <${Figure} label=${t('overview.failed')} value=${number(stats.exhausted)} href="#/deliveries?state=failed" tone=${stats.exhausted > 0 ? 'bad' : ''} note=${span} />
    <${Figure} label=${t('overview.alerts')} value=${open < most ? number(open) : `${most}+`} href="#/alerts" tone=${open > 0 ? 'bad' : ''} note=${totals ? t('overview.failing', totals.failing) : undefined} />
  </section>`
}

function Calls({ stats, range }) {
  const all = useMemo(() => parts(stats, { ...range, end: Date.now() }), [stats])
  return html`<${Card} title=${t('call.list')} note=${t(`bucket.${stats.series_bucket}`)} more=${html`<a href="#/calls">${t('overview.allCalls')}</a>`}>
    ${stats.total_calls === 0 ? html`<${Empty}>${t('stats.noCalls')}</${Empty}>` : html`<${Chart} kind="calls" parts=${all} />`}</${Card}>`
}

function Attention({ page, standings }) {
  const names = useNames()
  const count = page.items.filter((one) => !one.acknowledged_at).length
  return html`<${Card} class="card aside" title=${t('overview.attention')} flush note=${count > 0 && html`<${Badge} tone="bad">${count < most ? count : `${most}+`}</${Badge}>`} more=${html`<a href="#/alerts">${t('overview.allAlerts')}</a>`}>
    ${page.items.length === 0 ? html`<${Empty}>${t('overview.calm')}</${Empty}>` : page.items.slice(0, 4).map((alert) => html`<${AlertRow} key=${alert.alert_id} alert=${alert} names=${names} standing=${standings.find((w) => w.id === alert.webhook_id)} />`)}</${Card}>`
}

const Urgent = ({ page }) => html`<${Card} title=${t('overview.urgent')} flush more=${html`<a href="#/webhooks">${t('overview.allWebhooks', page.totals.webhooks)}</a>`}>
  ${page.items.length === 0 ? html`<${Empty}>${t('webhook.empty')}</${Empty}>` : html`<${Table} caption=${t('overview.urgent')} columns=${healthColumns()} rows=${page.items} id=${(w) => w.id} />`}</${Card}>`
