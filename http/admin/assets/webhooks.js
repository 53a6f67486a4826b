// The list of webhooks: how each does, the ones that need a hand first.
import { part, session } from './api.js'
import { typeFilter, useTypes } from './event-types.js'
import { milliseconds, percent } from './format.js'
import { Health, healthOf } from './health.js'
import { Filters, List } from './list.js'
import { number, t } from './texts.js'
import './texts/webhooks.js'
import { Badge, Card, Figure, Page, Sparkline, Time } from './ui.js'
import { html, useState } from './view.js'

const spark = (w) => w.calls_by_hour.map((all, i) => ({ good: all - w.failures_by_hour[i], bad: w.failures_by_hour[i] }))

// healthColumns are those of webhooks of /webhooks/health. sort makes heads that sort:
// { by, link(name) }.
export function healthColumns(sort) {
  const head = (name, label, direction) => (sort ? { head: html`<a href=${sort.link(name)}>${label}</a>`, sorted: sort.by === name ? direction : undefined } : {})
  const columns = [
    { label: t('webhook.name'), sort: 'name', direction: 'ascending', cut: true, cell: (w) => html`<a href=${`#/webhooks/${part(w.id)}`} title=${w.name}>${w.name}</a><span class="sub mono" title=${w.url}>${w.url.replace(/^https?:\/\//, '')}</span>` },
    { label: t('webhook.health'), sort: 'urgency', whole: true, cell: (w) => html`<${Health} webhook=${w} />${w.open_alerts > 0 && html` <${Badge} tone="bad" title=${t('app.alerts', w.open_alerts)}>! ${w.open_alerts}</${Badge}>`}` },
    { label: t('webhook.day'), opt: true, cell: (w) => html`<${Sparkline} parts=${spark(w)} title=${t('webhook.dayTitle', w.total_calls, number(w.failed_calls))} />` },
    { label: t('webhook.rate'), number: true, cell: (w) => percent(w.success_rate) },
    { label: t('webhook.failures'), sort: 'failures', number: true, opt: true, cell: (w) => number(w.failed_calls) },
    { label: 'p95', number: true, opt: true, cell: (w) => milliseconds(w.p95_ms) },
    { label: t('webhook.pending'), sort: 'pending', number: true, opt: true, cell: (w) => number(w.pending_deliveries) },
    { label: t('webhook.lastCall'), sort: 'last_call', number: true, opt: true, cell: (w) => html`<${Time} at=${w.last_call_at} style="ago" />` },
  ]
  return columns.map((c) => ({ ...c, ...(c.sort ? head(c.sort, c.label, c.direction ?? 'descending') : {}) }))
}

export function Webhooks({ parameters }) {
  const [totals, setTotals] = useState(null)
  const types = useTypes()
  const chosen = Object.fromEntries(parameters)
  const by = parameters.get('sort') ?? 'urgency'
  const link = (name) => `#/webhooks?${new URLSearchParams({ ...chosen, sort: name })}`
  const filtered = ['q', 'status', 'event_type'].some((name) => parameters.get(name))
  const fields = [
    { name: 'q', label: t('search.label'), placeholder: t('webhook.searchHint') },
    { name: 'status', label: t('event.state'), options: [['', t('app.all')], ['active', t('state.active')], ['inactive', t('state.inactive')]] },
    typeFilter(types),
    { name: 'sort', label: t('webhook.sort'), options: ['urgency', 'name', 'number', 'failures', 'pending', 'last_call'].map((name) => [name, t(`sort.${name}`)]) },
  ]
  const values = new URLSearchParams({ ...chosen, sort: by })
  return html`<${Page} title=${t('webhook.list')} actions=${session.may('webhooks:write') && html`<a class="button primary" href="#/webhooks/new">${t('action.create')}</a>`}>
    ${totals && html`<section class="figures few" aria-label=${t('overview.figures')}>
      <${Figure} label=${t('webhook.list')} value=${number(totals.webhooks)} href=${link(by)} note=${t('webhook.totalActive', totals.active)} />
      <${Figure} label=${t('webhook.totalFailing')} value=${number(totals.failing)} href=${link('failures')} tone="bad" />
      <${Figure} label=${t('webhook.pending')} value=${number(totals.pending_deliveries)} href="#/deliveries?state=pending" /></section>`}
    <${Card} flush><${Filters} page="webhooks" values=${values} fields=${fields} />
      <${List} path="/webhooks/health" parameters=${{ ...chosen, sort: by }} id=${(w) => w.id} caption=${t('webhook.list')} empty=${t(filtered ? 'app.none' : 'webhook.empty')}
        columns=${healthColumns({ by, link })} fresh=${{ kinds: ['call', 'webhook', 'alert'], least: 4000 }} onPage=${(page) => setTotals(page.totals)} rowClass=${(w) => healthOf(w)[0]} /></${Card}></${Page}>`
}
