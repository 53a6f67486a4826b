// Next to the form: which of the newest events would match what is typed, and why not.
// The same answer says whether the filter is right, as one types.
import { api, exact, part, session, withRaw } from './api.js'
import { Area } from './controls.js'
import { nameOf } from './event-types.js'
import { erasures, useLive } from './live.js'
import { t } from './texts.js'
import { Card, Empty, Foreign, Time, Trouble, words } from './ui.js'
import { html, store, useEffect, useLatest, useRef, useState, useStore } from './view.js'

const looked = 100 // events that are matched
const pause = 400 // milliseconds after the last key

// bench is what the newest events say of the form that is open.
const bench = { ...store(), state: {} }

function settle(state) {
  bench.state = state
  bench.changed()
}

export function Workbench({ draft, types }) {
  useStore(bench)
  const [more, setMore] = useState(0)
  const control = useRef(null)
  const asked = JSON.stringify([draft.events, draft.filters])
  const ask = useLatest(async () => {
    control.current?.abort()
    const { signal } = control.current = new AbortController()
    const events = draft.events.length > 0 ? draft.events : ['*']
    const filters = draft.filters.trim()
    const body = withRaw({ events, newest: looked }, filters === '' ? {} : { filters })
    try {
      settle({ answer: await api.post('/webhooks/backtest', body, { signal }) })
    } catch (error) {
      if (signal.aborted) return
      const fields = (error.fields ?? []).filter((one) => one.field === 'filters')
      settle(fields.length > 0 ? { refused: fields } : error.status === 400 ? { broken: place(error.message, body, draft.filters) } : { error })
    }
  })
  useEffect(() => {
    const timer = setTimeout(() => ask.current(), pause)
    return () => clearTimeout(timer)
  }, [asked])
  useEffect(() => () => { control.current?.abort(); settle({}) }, [])
  const soon = useRef(null)
  useLive({ kinds: ['event', 'erasure'] }, () => { soon.current ??= setTimeout(() => { soon.current = null; ask.current() }, 2000) })
  useEffect(() => () => clearTimeout(soon.current), [])
  const { answer, error, broken, refused } = bench.state
  if (draft.events.length === 0) return html`<${Card} title=${t('bench.title')} flush><${Empty}>${t('bench.choose')}</${Empty}></${Card}>`
  return html`<${Card} title=${t('bench.title')} note=${answer && t('bench.note', answer.considered)} flush>
    ${error?.status === 403 ? html`<${Empty}>${t('bench.hidden')}</${Empty}>` : error && html`<${Trouble} error=${error} retry=${() => ask.current()} />`}
    ${!answer && !error && !broken && !refused && html`<p class="empty" aria-busy="true">${t('app.loading')}</p>`}
    ${answer && (!answer.events?.length ? html`<${Empty}>${t('bench.empty')}</${Empty}>` : html`<ul class="bench">${answer.events.slice(0, 8 + more).map((event, i) => html`<${Event} key=${event.event_id} event=${event} name=${nameOf(event.event_type, types)} answer=${answer} index=${i} />`)}</ul>
      <div class="foot-note" role="status">${t('bench.count', answer.matched, answer.considered)}
        ${answer.events.length > 8 + more && html` <button type="button" class="small" onClick=${() => setMore(more + 20)}>${t('app.more')}</button>`}</div>`)}</${Card}>`
}

function Event({ event, name, answer, index }) {
  const [data, setData] = useState(null)
  useLive(erasures, () => setData(null))
  const open = async () => {
    if (data) return setData(null)
    try {
      const read = await api.get(`/webhooks/events/${part(event.event_id)}`)
      setData(exact(read, 'event_data'))
    } catch (error) {
      setData(words(error))
    }
  }
  const value = (name) => exact(answer, 'events', index, name)
  const why = event.field && event.want !== undefined && event.got !== null && event.got !== undefined ? t('bench.wants', event.field, value('want'), value('got')) : event.reason
  return html`<li class=${event.matched ? 'yes' : 'no'}><span class="mark" role="img" aria-label=${t(event.matched ? 'bench.yes' : 'bench.no')}>${event.matched ? '✓' : '—'}</span>
    <div><span title=${event.event_type}>${name}</span> · <${Time} at=${event.occurred_at} style="short" />${!event.matched && html`<span class="sub">${why}</span>`}
      ${data && html`<${Foreign} label=${t('bench.data')}>${data}</${Foreign}>`}</div>
    ${session.may('payloads:read') && html`<button type="button" class="small" aria-expanded=${Boolean(data)} onClick=${open}>${t('bench.data')}</button>`}</li>`
}

// place says where a text stops being JSON, by the byte of the request that the API names.
function place(message, body, text) {
  const at = Number(/(?:byte|байт) (\d+)/.exec(message)?.[1])
  const before = new TextDecoder().decode(new TextEncoder().encode(body).slice(0, at)).slice(body.length - text.trim().length - 1)
  const lines = before.split('\n')
  return t('form.filterAt', lines.length, lines.at(-1).length + 1)
}

const examples = [['equal', '{"department": "cardiology"}'], ['any', '{"department": ["cardiology", "eyes"]}'], ['path', '{"patient.address.city": "Тула"}'],
  ['bounds', '{"amount_min": 1000, "amount_max": 5000}'], ['operator', '{"phone": {"$prefix": "+7"}}'], ['or', '{"$or": [{"urgent": true}, {"amount_min": 10000}]}']]

// FilterEditor is the filter's control, with what is wrong with it as one types.
export function FilterEditor({ control, draft, set }) {
  useStore(bench)
  const { broken, refused, answer } = bench.state
  const wrong = broken ?? refused?.map((one) => `${one.path ?? one.field}: ${one.message}`).join('; ')
  const none = draft.filters.trim() === ''
  return html`<${Area} ...${control} rows="6" aria-invalid=${wrong ? 'true' : control['aria-invalid']} value=${draft.filters} onInput=${(event) => set({ filters: event.target.value })} />
    <p class=${wrong ? 'error' : 'hint'} role="status" id="filter-state">${wrong ?? (none ? t('form.filterNone') : answer ? t('form.filterGood') : '')}</p>
    <details><summary>${t('form.filterHelp')}</summary><dl class="examples">${examples.map(([name, json]) => html`<div key=${name}><dt><code>${json}</code></dt><dd>${t(`form.filter.${name}`)}</dd></div>`)}</dl></details>`
}
