// A backtest: what the proposed events, filter and retries would have done to all of
// history, or a part of it. Sends nothing.
import { api, part, withRaw } from './api.js'
import { Field, Form, Text, refuse } from './controls.js'
import { localTime } from './format.js'
import { Table } from './list.js'
import { number, t } from './texts.js'
import './texts/form.js'
import { Badge, Card, Facts, Loaded, Page, Time, useLoad } from './ui.js'
import { html, useEffect, useRef, useState } from './view.js'
import { draftOf, figureOf, filterOf } from './webhook-draft.js'
import { Retries } from './webhook-fields.js'

// BacktestPage tries other retries, for a webhook as it is otherwise.
export function BacktestPage({ id }) {
  const found = useLoad(`/webhooks/${part(id)}`)
  return html`<${Loaded} of=${found} title=${t('backtest.title')}>${(webhook) => html`<${Trying} webhook=${webhook} />`}</${Loaded}>`
}

function Trying({ webhook }) {
  const [draft, setDraft] = useState(() => draftOf(webhook))
  return html`<${Page} title=${t('backtest.title')} sub=${html`<a href=${`#/webhooks/${part(webhook.id)}`}>${webhook.name}</a>`}>
    <div class="two"><${Backtest} webhook=${webhook} draft=${draft} /><${Retries} draft=${draft} names=${tried} set=${(more) => setDraft((old) => ({ ...old, ...more }))} /></div></${Page}>`
}

const tried = ['max_retries', 'retry_delay', 'timeout']
const tones = { gained: 'good', lost: 'warn', unchanged: 'none' }

export function Backtest({ webhook, draft }) {
  const [range, setRange] = useState({ from: '', to: '' })
  const [progress, setProgress] = useState(null)
  const [result, setResult] = useState(null)
  const control = useRef(null)
  useEffect(() => () => control.current?.abort(), [])
  const run = async () => {
    const filters = filterOf(draft.filters)
    if (filters === null) refuse('filters', t('form.filterBad'))
    const retries = webhook ? Object.fromEntries(tried.filter((name) => draft[name] !== String(webhook[name])).map((name) => [name, figureOf(draft[name])])) : {}
    const body = withRaw({ events: draft.events, ...retries, from: localTime(range.from), to: localTime(range.to) }, { filters })
    const { signal } = control.current = new AbortController()
    setResult(null)
    setProgress({ progress: 0, considered: 0 })
    try {
      const last = await api.lines('POST', webhook ? `/webhooks/${part(webhook.id)}/backtest` : '/webhooks/backtest', { body, each: setProgress, signal })
      if (last?.matched === undefined) throw Object.assign(new Error(t('backtest.cut')), { status: 0, title: '' })
      setResult(last)
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      setProgress(null)
    }
  }
  const time = (name) => html`<${Field} name=${name} label=${t(`backtest.${name}`)} compact>${(of) => html`<${Text} ...${of} type="datetime-local" value=${range[name]} onInput=${(event) => setRange({ ...range, [name]: event.target.value })} />`}</${Field}>`
  return html`<${Card} title=${t('backtest.title')}><p class="hint">${t('backtest.note')}</p>
    <${Form} send=${run} label=${t('backtest.run')} tone="" actions=${progress && html`<button type="button" onClick=${() => control.current.abort()}>${t('backtest.stop')}</button>`}><div class="row times">${time('from')}${time('to')}</div></${Form}>
    <div role="status">${progress && html`<div class="progress"><progress max="1" value=${progress.progress ?? 1} aria-label=${t('backtest.title')}></progress></div><p class="hint">${t('backtest.progress', progress.considered ?? 0)}</p>`}
      ${result && html`<${Result} result=${result} />`}</div></${Card}>`
}

const counts = (of, names) => names.map((name) => [t(`backtest.${name}`), number(of[name])])

function Result({ result }) {
  const { retries } = result
  return html`<${Facts} pairs=${counts(result, ['considered', 'matched', 'gained', 'lost'])} />
    ${result.samples.length > 0 && html`<${Table} caption=${t('backtest.title')} rows=${result.samples} id=${(one) => one.event_id} columns=${[
      { label: t('call.event'), cell: (one) => html`<a href=${`#/events/${part(one.event_id)}`}>${one.event_type}</a>` },
      { label: t('call.time'), cell: (one) => html`<${Time} at=${one.accepted_at} style="short" />`, opt: true },
      { label: t('backtest.change'), cell: (one) => html`<${Badge} tone=${tones[one.change]}>${t(`backtest.${one.change}`)}</${Badge}>` }]} />`}
    ${retries && html`<h3>${t('backtest.retries')}</h3><${Facts} pairs=${counts(retries, ['delivered', 'failed', 'delivered_instead', 'failed_instead', 'pending_instead', 'calls', 'calls_instead'])} />`}`
}
