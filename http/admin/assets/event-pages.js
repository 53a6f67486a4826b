// Events: the list, one with why each webhook got it or not, and the form that triggers one.
import { api, exact, isObject, part, session, withRaw } from './api.js'
import { Json } from './code.js'
import { Area, Field, Form, Select, Text, refuse } from './controls.js'
import { DeliveryActions } from './deliveries.js'
import { confirm, say } from './dialogs.js'
import { describeType, nameOf, typeFilter, typeOptions, useTypes } from './event-types.js'
import { localTime } from './format.js'
import { why } from './health.js'
import { Filters, List, most as rows, useFresh } from './list.js'
import { erasures, useLive } from './live.js'
import { to } from './router.js'
import { known, number, t } from './texts.js'
import './texts/events.js'
import { Badge, Card, Copy, Facts, Loaded, Page, Time, useLoad } from './ui.js'
import { html, keep, useEffect, useRef, useState } from './view.js'

const parameter = (parameters, name) => parameters.get(name) || undefined
const most = 20 // deliveries of an event that a row counts, and events that are asked for at once

export function Events({ parameters }) {
  const types = useTypes()
  const stands = useStands()
  const asked = { event_type: parameter(parameters, 'event_type'), correlation_id: parameter(parameters, 'correlation_id'), from: localTime(parameters.get('from')), to: localTime(parameters.get('to')), deliveries: 'count' }
  const wanted = (e) => (!asked.event_type || e.event_type === asked.event_type) && (!asked.correlation_id || e.correlation_id === asked.correlation_id) && !asked.from && !asked.to
  const names = new Map(types.map((one) => [one.type, describeType(one)]))
  return html`<${Page} title=${t('event.list')} actions=${html`<a class="button" href="#/events/parked">${t('event.parkedLink')}</a>${session.may('events:write') && html`<a class="button primary" href="#/events/new">${t('action.trigger')}</a>`}`}>
    <${Card} flush><${Filters} page="events" values=${parameters} fields=${[
      typeFilter(types), { name: 'correlation_id', label: t('event.correlation') },
      { name: 'from', label: t('filter.from'), type: 'datetime-local' }, { name: 'to', label: t('filter.to'), type: 'datetime-local' }]} />
    <${List} path="/webhooks/events" parameters=${asked} id=${(e) => e.event_id} caption=${t('event.list')} empty=${t('event.empty')} live=${{ kinds: ['event'], wanted }} columns=${[
      { label: t('event.accepted'), cell: (e) => html`<a href=${`#/events/${part(e.event_id)}`}><${Time} at=${e.accepted_at} style="near" /></a>` },
      { label: t('event.type'), cut: 'all', cell: (e) => html`<span title=${e.event_type}>${names.get(e.event_type) ?? e.event_type}</span><span class="sub mono">${e.event_type}</span>` },
      { label: t('event.stand'), cell: (e) => html`<${Stand} of=${stands(e)} event=${e} />` },
      { label: t('event.source'), opt: true, cell: (e) => e.source || '—' },
      { label: t('event.correlation'), opt: true, cell: (e) => (e.correlation_id ? html`<a href=${`#/events?correlation_id=${encodeURIComponent(e.correlation_id)}`}>${e.correlation_id}</a>` : '—') },
      { label: 'ID', opt: true, cell: (e) => html`<${Copy} value=${e.event_id} />` },
    ]} /></${Card}></${Page}>`
}

// Stand shows how the deliveries of an event stand, the worst first.
function Stand({ of, event }) {
  if (!of) return '…'
  if (!event.deliver) return html`<${Badge} state="imported" />`
  if (of.total === 0) return html`<span class="muted">${t('event.nobody')}</span>`
  const states = ['failed', 'pending', 'cancelled', 'delivered'].filter((state) => of.states[state])
  const counted = states.reduce((sum, state) => sum + of.states[state], 0)
  return html`<span class="chips">${states.map((state) => html`<${Badge} key=${state} state=${state}>${t(`state.${state}`)}${of.states[state] > 1 ? ` ${number(of.states[state])}` : ''}</${Badge}>`)}
    ${(of.more || of.total > counted) && html`<span class="muted">${of.more ? t('event.others') : t('event.more', of.total - counted)}</span>`}</span>`
}

// useStands returns a function to how an event of the list stands, also when its deliveries have
// moved since the list was read: on every page of it, a few at a time.
function useStands() {
  const [stands, setStands] = useState(new Map())
  const shown = useRef(new Map())
  const moved = useRef(new Set())
  const timer = useRef(null)
  const control = useRef(new AbortController())
  useEffect(() => () => { clearTimeout(timer.current); control.current.abort() }, [])
  const plan = (id) => {
    moved.current.add(id)
    timer.current ??= setTimeout(ask, 1000)
  }
  const ask = async () => {
    const { signal } = control.current
    const ids = [...moved.current].slice(0, most)
    ids.forEach((id) => moved.current.delete(id))
    const pages = await Promise.all(ids.map((id) => api.get(`/webhooks/events/${part(id)}/deliveries`, { limit: most }, signal).catch(() => null)))
    if (signal.aborted) return
    timer.current = moved.current.size > 0 ? setTimeout(ask, 1000) : null
    const made = pages.map((page, i) => page && [ids[i], counts(page)]).filter(Boolean)
    setStands((old) => new Map([...old, ...made].slice(-rows)))
  }
  useLive({ kinds: ['event', 'delivery'] }, (kind, item) => {
    if (kind === 'again') shown.current.forEach((_, id) => plan(id))
    else if (shown.current.has(item.event_id)) plan(item.event_id)
  })
  return ({ event_id: id, deliveries }) => {
    keep(shown.current, id, true, rows)
    if (!stands.has(id) && !deliveries) plan(id)
    return stands.get(id) ?? deliveries
  }
}

function counts({ items, next_cursor: more }) {
  const states = {}
  for (const one of items) states[one.state] = (states[one.state] ?? 0) + 1
  return { total: items.length, more, states }
}

export function EventPage({ id, parameters }) {
  const path = `/webhooks/events/${part(id)}`
  const audits = !session.may('webhooks:read') // who audits may see why, but not what
  const of = useLoad(path, {}, { skip: audits })
  const types = useTypes()
  const moved = useLoad(`${path}/deliveries`, { limit: most })
  const only = (item) => item.event_id === id
  useFresh({ kinds: ['delivery'], only }, moved.reload, 1000)
  useFresh(audits ? undefined : erasures, of.reload)
  const explained = html`<${Card} class="card explain" title=${t('event.explain')} flush><${Explained} path=${path} id=${id} only=${only} gone=${of.data?.erased || of.data?.expired} verdict=${parameters.get('verdict') ?? ''} /></${Card}>`
  if (audits) return html`<${Page} title=${t('call.event')} sub=${html`<${Copy} value=${id} whole />`}>${explained}</${Page}>`
  return html`<${Loaded} of=${of} title=${t('event.list')}>${(event) => html`<${Page} title=${nameOf(event.event_type, types)} badge=${html`<code class="muted">${event.event_type}</code>${moved.data && html`<${Stand} of=${counts(moved.data)} event=${event} />`}`}
      sub=${html`<a href="#/events">${t('event.list')}</a> · <${Time} at=${event.accepted_at} />`}>
    ${!event.deliver && html`<p class="trouble">${t('event.imported')}</p>`}
    <div class="two">${explained}
    <div class="stack"><${Card} title=${t('event.data')}>${event.redacted || event.erased || event.expired
      ? html`<p class="empty">${t(event.erased ? 'event.erased' : event.expired ? 'event.expired' : 'event.hidden')}</p>` : html`<${Json} source=${exact(event, 'event_data')} label=${t('event.data')} />`}</${Card}>
    <${Card} title=${t('call.details')}><${Facts} pairs=${[
      ['ID', html`<${Copy} value=${event.event_id} whole />`], [t('event.occurred'), html`<${Time} at=${event.occurred_at} />`], [t('event.source'), event.source || '—'],
      [t('event.correlation'), event.correlation_id ? html`<a href=${`#/events?correlation_id=${encodeURIComponent(event.correlation_id)}`}>${event.correlation_id}</a>` : '—']]} /></${Card}></div></div></${Page}>`}</${Loaded}>`
}

// Explained lists the verdicts on the event, those of one kind if one is chosen, each as it is by now. If
// nobody on the first page got the event, it begins with those who did.
function Explained({ path, id, only, gone, verdict: chosen }) {
  const [verdicts, setVerdicts] = useState(null)
  const [first, setFirst] = useState('all')
  const read = (answer) => {
    answer.items.forEach((v, i) => ['want', 'got'].forEach((side) => { if (v[side] !== undefined && v[side] !== null) v[side] = exact(answer, 'items', i, side) })) // numbers of any length
    if (!verdicts && !answer.items.some((v) => v.delivery_id)) setFirst(['failed', 'pending', 'delivered'].find((one) => answer.verdicts[one]) ?? 'all')
    setVerdicts(answer.verdicts)
  }
  const all = Object.values(verdicts ?? {}).reduce((sum, n) => sum + n, 0)
  const verdict = chosen || first
  const chip = (value, label) => html`<a key=${value} class="button chip" href=${`#/events/${part(id)}?verdict=${value}`} aria-current=${value === verdict ? 'true' : undefined}>${label}</a>`
  return html`<div class="toolbar chips">${chip('all', t('event.all', all))}${Object.entries(verdicts ?? {}).map(([name, count]) => chip(name, `${t(`state.${name}`)}: ${number(count)}`))}</div>
    <${List} path=${`${path}/explain`} parameters=${{ verdict: verdict === 'all' ? undefined : verdict }} id=${(v) => v.webhook_id} caption=${t('event.explain')} empty=${t('event.noWebhooks')} onPage=${read} fresh=${{ kinds: ['delivery', 'erasure'], only, least: 3000 }}
      live=${{ kinds: ['delivery'], only, wanted: (v) => v.verdict, change: (v, d) => (v.delivery_id ? { ...v, verdict: d.state, outcome: d.outcome, response_status: d.response_status, error: d.error, reason: d.reason, waiting_behind: d.waiting_behind } : v) }} columns=${[
      { label: t('event.webhook'), cut: true, cell: (v) => html`<a href=${`#/webhooks/${part(v.webhook_id)}`} title=${v.webhook_name}>${v.webhook_name || v.webhook_number}</a><span class="sub lines"><${Reason} of=${v} /></span>` },
      { label: t('event.verdict'), whole: true, cell: (v) => html`<${Badge} state=${v.verdict} />${v.sent_by.filter((s) => s.kind !== 'dispatch').map((s) => html`<span key=${s.id} class="sub">${t(`sent.${s.kind}`)} <${Badge} state=${s.state} /></span>`)}` },
      session.may('webhooks:read') && { label: t('event.actions'), cell: (v) => v.delivery_id && html`<span class="actions"><a href=${`#/webhooks/${part(v.webhook_id)}/calls?delivery_id=${part(v.delivery_id)}`}>${t('call.list')}</a><${DeliveryActions} delivery=${{ delivery_id: v.delivery_id, state: v.verdict, gone }} /></span>` },
    ].filter(Boolean)} />`
}

function Reason({ of }) {
  if (of.waiting_behind) return t('why.behind')
  if (of.verdict === 'cancelled') return html`<span title=${of.error}>${known(`why.${of.reason}`) ?? of.reason}</span>`
  if (of.verdict !== 'delivered' && (of.response_status || of.error)) return html`<span title=${of.error}>${why(of)}</span>`
  if (!of.field) return of.reason ?? ''
  if (of.redacted) return html`<span class="mono">${of.field}</span> ${t('event.hidden')}`
  const words = t('event.filterWant', of.field, of.want, of.got ?? t('event.filterNothing'))
  return html`<span title=${`${words}. ${of.reason ?? ''}`}>${words}</span>`
}

export function EventForm() {
  const catalogue = useLoad('/webhooks/events/types').data
  const types = catalogue?.items.filter((one) => one.triggerable !== false) ?? []
  const [type, setType] = useState('')
  const [data, setData] = useState('{}')
  const shown = useRef('{}') // the example that is in the field; what is typed over it stays
  const fill = (name) => {
    const example = exact(catalogue, 'items', catalogue.items.findIndex((one) => one.type === name), 'example')
    shown.current = example === 'null' ? '{}' : example
    setData(shown.current)
  }
  const choose = (name) => {
    setType(name)
    if (data === shown.current) fill(name)
  }
  useEffect(() => { if (types.length > 0 && !type) choose(types[0].type) }, [types.length])
  const insert = async () => { if (data === shown.current || await confirm(t('event.example'), t('event.replaceAsk'), t('action.continue'))) fill(type) }
  const send = async (key, form) => {
    if (!isObject(data)) refuse('event_data', t('event.notObject'))
    const asked = { event_type: type }
    for (const name of ['source', 'correlation_id']) if (form.elements[name].value) asked[name] = form.elements[name].value
    const accepted = await api.post('/webhooks/events/trigger', withRaw(asked, { event_data: data }), { key })
    say(t('event.triggered'))
    const page = to(`#/events/${part(accepted.event_id)}`)
    if (page) location.hash = page
  }
  return html`<${Page} title=${t('event.new')} sub=${html`<a href=${to('#/events')}>${t('event.list')}</a> · ${t('event.newNote')}`}><${Card}><${Form} send=${send} label=${t('action.send')} actions=${html`<button type="button" onClick=${insert}>${t('event.example')}</button>`}>
    <${Field} name="event_type" label=${t('filter.type')}>${(control) => html`<${Select} ...${control} options=${typeOptions(types)} value=${type} onChange=${(event) => choose(event.target.value)} />`}</${Field}>
    <${Field} name="event_data" label=${t('event.dataField')}>${(control) => html`<${Area} ...${control} rows="12" value=${data} onInput=${(event) => setData(event.target.value)} />`}</${Field}>
    <div class="columns"><${Field} name="source" label=${t('event.source')}>${(control) => html`<${Text} ...${control} name="source" defaultValue="manual" />`}</${Field}>
    <${Field} name="correlation_id" label=${t('event.correlation')}>${(control) => html`<${Text} ...${control} name="correlation_id" />`}</${Field}></div>
  </${Form}></${Card}></${Page}>`
}
