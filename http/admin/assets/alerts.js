// What needs somebody's attention: the page of alerts, and an alert in a few words.
import { counts } from './counts.js'
import { api, part, session } from './api.js'
import { actorName } from './audit-words.js'
import { say } from './dialogs.js'
import { alertWords } from './health.js'
import { lastName } from './history.js'
import { List } from './list.js'
import { known, t } from './texts.js'
import './texts/webhooks.js'
import { Act, Badge, Card, Page, Tabs, Time } from './ui.js'
import { html, store, useStore } from './view.js'

const names = new Map() // of webhooks, by id; null: not known
const named = store()

// forgetNames drops what useNames has read.
export const forgetNames = () => names.clear()

// read returns a webhook's name, for who may only audit by its history.
const read = async (id) => (session.may('webhooks:read') ? (await api.get(`/webhooks/${part(id)}`)).name : lastName(await api.get(`/webhooks/${part(id)}/history`, { limit: 1000 })))

// useNames returns { of(id), link(id) } of webhooks' names, which are read once.
export function useNames() {
  useStore(named)
  const of = (id) => {
    if (!names.has(id)) {
      names.set(id, null)
      read(id).then((name) => { names.set(id, name); named.changed() }, () => {})
    }
    return names.get(id)
  }
  const link = (id) => (id ? html`<a href=${`#/webhooks/${part(id)}`} title=${of(id) ?? id}>${of(id) ?? `…${id.slice(-8)}`}</a>` : '—')
  return { of, link }
}

const severe = new Set(['consecutive_failures', 'given_up', 'gone', 'auto_deactivated', 'node', 'log_lost'])
const tone = (alert) => (alert.state !== 'open' || alert.acknowledged_at ? 'none' : severe.has(alert.kind) ? 'bad' : 'warn')

// AlertRow is an alert in words: which webhook, what is wrong, since when; by how the webhook stands
// now, if that is given.
export const AlertRow = ({ alert, names, standing }) => html`<div class="alert"><span class=${`dot ${tone(alert)}`}></span>
  <div>${alert.webhook_id && html`${names.link(alert.webhook_id)} — `}<b>${known(`alert.${alert.kind}`) ?? alert.kind}</b><span class="sub">${alertWords(alert, standing)}</span></div>
  <span class="when"><${Time} at=${alert.raised_at} style="ago" /></span></div>`

// Acknowledge shows who acknowledged the alert, or a button that does.
function Acknowledge({ alert }) {
  if (alert.acknowledged_at) return html`<${Time} at=${alert.acknowledged_at} style="short" /><span class="sub" title=${alert.acknowledged_by}>${actorName(alert.acknowledged_by)}</span>`
  if (alert.state !== 'open' || !session.may('webhooks:write')) return '—'
  const run = async (key) => {
    await api.post(`/webhooks/alerts/${part(alert.alert_id)}/acknowledge`, undefined, { key })
    say(t('alert.known'))
    counts.read()
  }
  return html`<${Act} run=${run} tone="small">${t('alert.acknowledge')}</${Act}>`
}

const Kind = ({ alert }) => html`<${Badge} tone=${tone(alert)}>${known(`alert.${alert.kind}`) ?? alert.kind}</${Badge}>`

export function Alerts({ parameters }) {
  const state = parameters.get('state') ?? 'open'
  const names = useNames()
  const tabs = [['open', 'state.open'], ['resolved', 'state.resolved'], ['all', 'app.all']]
  return html`<${Page} title=${t('alert.list')}>
    <${Tabs} label=${t('event.state')} current=${state} items=${tabs.map(([name, label]) => ({ name, href: `#/alerts?state=${name}`, label: t(label) }))} />
    <${Card} flush><${List} path="/webhooks/alerts" parameters=${{ state }} id=${(a) => a.alert_id} caption=${t('alert.list')} empty=${t('alert.empty')} live=${{ kinds: ['alert'], wanted: (a) => state === 'all' || a.state === state }} columns=${[
      { label: t('event.webhook'), cut: true, cell: (a) => html`${a.webhook_id ? names.link(a.webhook_id) : t('alert.service')}<span class="sub said" title=${alertWords(a)}>${alertWords(a)}</span><span class="sub narrow"><${Kind} alert=${a} /></span>` },
      { label: t('alert.kind'), opt: true, cell: (a) => html`<${Kind} alert=${a} />` },
      { label: t('alert.raised'), opt: true, cell: (a) => html`<${Time} at=${a.raised_at} style="short" />` },
      ...(state === 'open' ? [] : [{ label: t('alert.resolved'), opt: true, cell: (a) => html`<${Time} at=${a.resolved_at} style="short" />` }]),
      { label: t('alert.calls'), opt: true, cell: (a) => a.webhook_id && html`<a href=${`#/webhooks/${part(a.webhook_id)}/calls?status=failed`}>${t('alert.show')}</a>` },
      { label: t('alert.acknowledged'), cell: (a) => html`<${Acknowledge} alert=${a} />` },
    ]} /></${Card}></${Page}>`
}
