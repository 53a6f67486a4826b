// The search box in the header: one question to the API, by keys. Arrows choose, Enter
// opens, Esc closes. A patient is looked for only when that is chosen: it needs a right and a reason.
// What the user may not open is not offered.
import { api, part } from './api.js'
import { describeType, nameOf, useTypes } from './event-types.js'
import { router, to } from './router.js'
import { t } from './texts.js'
import './texts/events.js'
import { Time, words } from './ui.js'
import { html, useEffect, useRef, useState } from './view.js'

const pages = {
  event: (f) => `#/events/${part(f.id)}`,
  delivery: (f) => f.at && to(`#/webhooks/${part(f.webhook_id)}/calls?delivery_id=${part(f.id)}`) || pages.event({ id: f.event_id }), // no attempt yet
  webhook: (f) => `#/webhooks/${part(f.id)}`,
  correlation: (f) => `#/events?correlation_id=${encodeURIComponent(f.id)}`,
  event_type: (f) => `#/events?event_type=${encodeURIComponent(f.id)}`,
  response_status: (f) => `#/calls?response_status=${encodeURIComponent(f.id)}`,
}

export function Search() {
  const [q, setQ] = useState('')
  const [found, setFound] = useState(null) // null: closed
  const [at, setAt] = useState(0)
  const [error, setError] = useState(null)
  const types = useTypes()
  const box = useRef(null)
  const control = useRef(new AbortController())
  const answered = useRef('') // the text that what was found is for
  const close = () => { control.current.abort(); setFound(null); setError(null) }
  const ask = async (parameters, more) => {
    control.current.abort()
    const { signal } = control.current = new AbortController()
    try {
      const { items } = await api.get('/search', parameters, signal)
      const all = [...items, ...more].filter((one) => one.kind === 'subject' || to(pages[one.kind](one)))
      setFound(all)
      answered.current = q.trim()
      setAt(0)
      setError(null)
      return all
    } catch (problem) {
      if (!signal.aborted) { setFound([]); setError(problem) }
    }
  }
  // What the API does not look for: types by their names in the reader's language, and a patient.
  const others = (text) => [
    ...types.filter((one) => text.length > 2 && describeType(one).toLowerCase().includes(text.toLowerCase())).slice(0, 5).map((one) => ({ kind: 'event_type', id: one.type, title: describeType(one) })),
    { kind: 'subject', id: text, title: t('search.subject', text) }]
  useEffect(() => {
    const text = q.trim()
    if (text === '') return close()
    const timer = setTimeout(() => ask({ q: text }, others(text)), 200)
    return () => clearTimeout(timer)
  }, [q])
  const open = (one) => {
    if (!one) return
    if (one.kind === 'subject') return ask({ subject: one.id }, [])
    close()
    setQ('')
    box.current.blur()
    router.go(pages[one.kind](one))
  }
  const submit = async (event) => {
    event.preventDefault()
    const text = q.trim()
    if (found?.length && answered.current === text) return open(found[at])
    if (text === '') return
    const [first] = await ask({ q: text }, others(text)) ?? []
    if (first?.kind !== 'subject') open(first)
  }
  const key = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    if (step && found?.length) {
      event.preventDefault()
      setAt((at + step + found.length) % found.length)
    }
    if (event.key === 'Escape' && found) { event.stopPropagation(); close() }
  }
  const leave = (event) => { if (!event.currentTarget.contains(event.relatedTarget) && !document.querySelector('dialog[open]')) close() }
  return html`<form class="search" role="search" aria-label=${t('search.label')} onSubmit=${submit} onKeyDown=${key} onFocusOut=${leave}>
    <input id="search" ref=${box} name="q" type="search" autocomplete="off" role="combobox" aria-expanded=${found !== null} aria-controls="found" aria-autocomplete="list"
      aria-activedescendant=${found?.length ? `found-${at}` : undefined} aria-label=${t('search.label')} placeholder=${t('search.placeholder')} value=${q} onInput=${(event) => setQ(event.target.value)} /><kbd aria-hidden="true">/</kbd>
    <ul id="found" role="listbox" aria-label=${t('search.results')} hidden=${!found?.length}>${found?.map((one, i) => html`
      <li key=${one.kind + one.id} id=${`found-${i}`} role="option" aria-selected=${i === at} onMouseDown=${(event) => { event.preventDefault(); open(one) }} onMouseMove=${() => setAt(i)}>
        ${one.kind !== 'subject' && html`<span class="muted">${t(`search.${one.kind}`)}</span> `}<b title=${one.id}>${nameOf(one.title || one.id, types)}</b> ${one.at && html`<span class="muted"><${Time} at=${one.at} /></span>`}</li>`)}</ul>
    <p class=${found?.length === 0 ? 'none' : 'unseen'} role="status">${error ? words(error) : found && (found.length === 0 ? t('search.none') : t('search.found', found.length))}</p></form>`
}
