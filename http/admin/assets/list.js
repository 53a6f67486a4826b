// Lists of the API: pages, filters in the address, live rows, the keyboard.
//
//   html`<${List} path="/webhooks/calls" parameters=${{ status }} id=${(c) => c.call_id} caption=${t('call.list')}
//     columns=${[{ label, cell: (row) => html`…`, number, opt, cut }]} empty=${html`…`}
//     live=${{ kinds: ['call'], webhook, wanted: (item) => true, by: 'created_at' }} />`
//
// A column that is opt is left out on a phone; one that is cut takes the remaining width and
// cuts its text ('half': one of two such); one that is whole never breaks. The arrow keys move
// between the first links of rows. New rows wait behind a button while the user has scrolled
// or is in the list; changed rows change in place. The last rows read are shown at once when the
// user comes back. fresh={ kinds, webhook, least } reads the first page again after an event of
// the kinds, at most every least milliseconds, for lists whose items are not those of the
// stream; every reads it by the clock, in milliseconds; keep limits the rows to a number, without
// a button for more.
import { api, query } from './api.js'
import { Field, Select, Text, unread } from './controls.js'
import { useLive } from './live.js'
import { t } from './texts.js'
import { Empty, Trouble, recall, remember } from './ui.js'
import { html, useEffect, useLatest, useLayoutEffect, useRef, useState } from './view.js'
import { WebhookChoice } from './webhook-choice.js'

// isAsked reports whether a call or a delivery is one that the filters of its list ask for.
export const isAsked = (asked, row) => ['status', 'state', 'event_type', 'delivery_id'].every((name) => !asked[name] || asked[name] === row[name]) &&
  (!asked.response_status || asked.response_status.replace(/xx$/, '') === String(row.response_status ?? '').slice(0, asked.response_status.endsWith('xx') ? 1 : undefined)) &&
  (!asked.webhook || asked.webhook === row.webhook_id) && (!asked.attempts_min || row.attempts >= asked.attempts_min) && (!asked.from || row.created_at >= asked.from) && (!asked.to || row.created_at < asked.to)

// Table shows rows that are there already, with the columns of List.
export function Table({ caption, columns, rows, id, body, rowClass }) {
  return html`<div class="scroll"><table><caption>${caption}</caption>
    <thead><tr>${columns.map((c) => html`<th key=${c.label} scope="col" class=${classes(c)} aria-sort=${c.sorted}>${c.head ?? c.label}</th>`)}</tr></thead>
    <tbody ref=${body} onKeyDown=${walk}>${rows.map((row, i) => html`<tr key=${id?.(row) ?? i} class=${rowClass?.(row)}>${columns.map((c) => html`<td key=${c.label} class=${classes(c)}>${c.cell(row)}</td>`)}</tr>`)}</tbody>
  </table></div>`
}

const classes = (c) => [c.number && 'num', c.opt && 'opt', c.cut && `cut ${c.cut}`, c.whole && 'nowrap'].filter(Boolean).join(' ') || undefined

// walk moves the focus from row to row.
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
  const row = event.target.closest('tr')
  if (!step || !row || event.target.matches('input, select, textarea')) return
  const next = step > 0 ? row.nextElementSibling : row.previousElementSibling
  const link = next?.querySelector('a, button')
  if (!link) return
  event.preventDefault()
  link.focus()
}

const limit = 50
const patience = 5 // pages without a row, of a list that is looked through, that are read past
export const most = 1000 // rows that a list keeps while it grows by itself

export function List({ path, parameters = {}, id, columns, caption, empty, live, fresh: news, every, keep: few, rowClass, onPage }) {
  const asked = { limit, ...parameters }
  const name = `list ${path}${query(asked)}`
  const [list, setList] = useState(() => ({ name, ...(recall(name) ?? fresh) }))
  const [error, setError] = useState(null)
  const [busy, setBusy] = useState(false)
  const body = useRef(null)
  const control = useRef(new AbortController())
  const shown = list.name === name ? list : { name, ...(recall(name) ?? fresh) }
  const keep = (next) => {
    setList((old) => {
      const made = { ...(typeof next === 'function' ? next(old.name === name ? old : { name, ...fresh }) : next), name }
      remember(name, { ...made, waiting: [] })
      return made
    })
  }
  const read = async (cursor, looked = 0) => {
    const { signal } = control.current
    setBusy(true)
    try {
      const page = await api.get(path, { ...asked, cursor }, signal)
      onPage?.(page)
      keep((old) => (cursor ? more(old, page, id) : first(old, page, id, isHeld(body))))
      setError(null)
      if (page.items.length === 0 && page.next_cursor && looked < patience) return await read(page.next_cursor, looked + 1)
    } catch (problem) {
      if (!signal.aborted) setError(problem)
    } finally {
      if (!signal.aborted) setBusy(false)
    }
  }
  const latest = useLatest(read)
  useEffect(() => {
    control.current = new AbortController()
    latest.current()
    return () => control.current.abort()
  }, [name])
  useEffect(() => {
    const timer = every && setInterval(() => document.hidden || latest.current(), every)
    return () => clearInterval(timer)
  }, [every])
  useArriving({ live, id, keep, body, few: few ?? most, reload: () => latest.current() })
  useFresh(news, () => latest.current(), news?.least)
  return html`${error && html`<${Trouble} error=${error} retry=${() => read()} />`}
    ${shown.waiting.length > 0 && html`<button type="button" class="waiting" onClick=${() => show(keep, body, live?.by)}>${t('list.new', shown.waiting.length)}</button>`}
    ${shown.items === null || busy && shown.items.length === 0 && shown.next ? !error && html`<p class="empty" aria-busy="true">${t('app.loading')}</p>`
      : shown.items.length === 0 ? html`<${Empty}>${shown.next ? t('list.nothingYet') : empty}</${Empty}>`
        : html`<${Table} caption=${caption} columns=${columns} rows=${shown.items} id=${id} body=${body} rowClass=${rowClass} />`}
    ${shown.next && !few && html`<div class="foot-note"><button type="button" aria-disabled=${busy} onClick=${() => busy || read(shown.next)}>${t('app.more')}</button></div>`}`
}

const fresh = { items: null, next: null, waiting: [] }

// more takes a further page. Where the order changes meanwhile, a row may come twice.
function more(old, page, id) {
  const known = new Set(old.items.map(id))
  return { ...old, items: [...old.items, ...page.items.filter((row) => !known.has(id(row)))], next: page.next_cursor }
}

// first takes the first page; rows of further pages stay if they follow on it. While
// the list is held, rows that are there change in place.
function first(old, page, id, held) {
  if (held && old.items?.length > 0 && page.items.every((row) => old.items.some((one) => id(one) === id(row)))) {
    const now = new Map(page.items.map((row) => [id(row), row]))
    return { ...old, items: old.items.map((row) => now.get(id(row)) ?? row) }
  }
  const known = new Map((old.items ?? []).map((row) => [id(row), row]))
  const follows = page.items.some((row) => known.has(id(row)))
  if (!follows || !old.next && old.items.length <= page.items.length) return { ...fresh, items: page.items, next: page.next_cursor }
  const now = new Set(page.items.map(id))
  const rest = old.items.slice(page.items.length).filter((row) => !now.has(id(row)))
  return { ...old, waiting: [], items: [...page.items, ...rest], next: rest.length > 0 ? old.next : page.next_cursor }
}

// isHeld reports whether the user is in the list, or has scrolled.
const isHeld = (body) => window.scrollY > 80 || Boolean(body.current?.contains(document.activeElement))

// useFresh calls reload when something of the kinds has happened, but not too often.
export function useFresh(asked, reload, least = 2000) {
  const timer = useRef(null)
  const latest = useLatest(reload)
  useEffect(() => () => clearTimeout(timer.current), [])
  useLive(asked, () => {
    timer.current ??= setTimeout(() => {
      timer.current = null
      latest.current()
    }, least)
  })
}

// useArriving puts what happens into the list, a few times a second at most.
function useArriving({ live, id, keep, body, few, reload }) {
  const queue = useRef([])
  const timer = useRef(null)
  const put = useLatest(() => {
    timer.current = null
    const items = queue.current.splice(0)
    keep((old) => (old.items === null ? old : merge(old, items, id, live, isHeld(body), few)))
  })
  useEffect(() => () => clearTimeout(timer.current), [])
  useLive(live, (kind, item) => {
    if (kind === 'again') return reload()
    queue.current.push(item)
    timer.current ??= setTimeout(() => put.current(), 250)
  })
}

// merge changes known rows in place, takes away what is wanted no more, and adds what
// is new: to those that wait while the list is held. What a list by a time of its rows (by) has
// further down, or on its further pages, is not new to it.
export function merge(list, items, id, { wanted = () => true, by, change: made = (_, item) => item }, held = false, few = most) {
  const byID = new Map(items.map((item) => [id(item), item]))
  const change = (rows) => rows.map((row) => (byID.has(id(row)) ? made(row, byID.get(id(row))) : row))
  const known = new Set([...list.items, ...list.waiting].map(id))
  const last = by && list.next && list.items.at(-1)?.[by]
  const added = [...byID.values()].filter((item) => !known.has(id(item)) && wanted(item) && !(last && item[by] < last)).reverse()
  const waiting = [...(held ? added : []), ...change(list.waiting).filter(wanted)]
  const rows = change(list.items)
  const kept = held ? rows : rows.filter((row) => !byID.has(id(row)) || wanted(row))
  const all = held ? kept : order([...added, ...kept], by)
  return { ...list, waiting: order(waiting, by).slice(0, most), items: all.slice(0, few), next: all.length > few ? null : list.next }
}

const order = (rows, by) => (by ? rows.toSorted((a, b) => (a[by] < b[by] ? 1 : a[by] > b[by] ? -1 : 0)) : rows)

function show(keep, body, by) {
  keep((old) => ({ ...old, items: order([...old.waiting, ...old.items], by).slice(0, most), waiting: [] }))
  window.scrollTo(0, 0)
  requestAnimationFrame(() => body.current?.querySelector('a, button')?.focus({ preventScroll: true }))
}

// Filters is a row of controls whose values become the address of the page. fields are
// [{ name, label, options: [[value, text]] | type, placeholder }]; values come from the address. What
// is typed stays until it is applied, or the address has another value. One that is fixed is not
// shown, and stays as the address has it; one that is a webhook is a choice of one.
export function Filters({ page, values, fields }) {
  const form = useRef(null)
  useLayoutEffect(() => {
    for (const { name, options } of fields) if (!options) form.current.elements[name].value = values.get(name) ?? ''
  }, [values.toString()])
  const apply = (form) => {
    const [first] = unread(form)
    if (first) return first.reportValidity()
    const chosen = [...new FormData(form)].filter(([, value]) => value !== '')
    const query = new URLSearchParams(chosen).toString()
    location.hash = `#/${page}${query && '?' + query}`
  }
  const submit = (event) => {
    event.preventDefault()
    apply(event.currentTarget)
  }
  const choose = (name) => (value, done) => {
    form.current.elements[name].value = value
    if (done) apply(form.current)
  }
  return html`<form class="toolbar" role="search" ref=${form} aria-label=${t('app.filters')} onSubmit=${submit}>${fields.map((one) => (one.fixed ? html`<input key=${one.name} type="hidden" name=${one.name} />` : html`
    <${Field} key=${one.name} label=${one.label} compact>${(control) => one.webhook
      ? html`<${WebhookChoice} ...${control} placeholder=${t('webhook.name')} value=${values.get(one.name) ?? ''} choose=${choose(one.name)} /><input type="hidden" name=${one.name} />` : one.options
      ? html`<${Select} ...${control} name=${one.name} options=${one.options} value=${values.get(one.name) ?? ''} onChange=${(event) => apply(event.target.form)} />`
      : html`<${Text} ...${control} name=${one.name} type=${one.type ?? 'search'} placeholder=${one.placeholder} />`}</${Field}>`))}
    <button type="submit">${t('action.filter')}</button></form>`
}
