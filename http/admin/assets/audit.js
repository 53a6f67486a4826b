// The audit log, newest first: who did what to what; and a check that nothing of it was changed.
import { useNames } from './alerts.js'
import { api, exact } from './api.js'
import { actorName, entryLink, entryNote, entryTypes, entryWords } from './audit-words.js'
import { nameOf, useTypes } from './event-types.js'
import { localTime } from './format.js'
import { Filters, useFresh } from './list.js'
import { erasures } from './live.js'
import { to } from './router.js'
import { known, number, t } from './texts.js'
import './texts/access.js'
import { Badge, Card, Copy, Empty, Foreign, Page, Progress, Time, Trouble, Word, useLoad } from './ui.js'
import { html, store, useEffect, useRef, useState, useStore } from './view.js'

const page = 50

// older reads the entries before a position that fit, newest first: in ever wider parts of
// the log, as its reading goes forward. It returns them, and where to go on; 0: nowhere.
async function older(filters, before, signal) {
  let [found, end, archived] = [[], before, 0]
  for (let width = 4 * page; end > archived + 1 && found.length < page; width *= 4) {
    const after = Math.max(archived, end - 1 - width)
    const part = []
    try {
      await api.lines('GET', '/audit/events', {
        parameters: { ...filters, after }, each: (entry) => entry.position < end && part.push(entry) > 0, signal,
      })
    } catch (error) {
      if (!error.archivedTo || archived) throw error
      archived = error.archivedTo
      continue
    }
    found = [...found, ...part.reverse()]
    end = after + 1
  }
  const entries = found.slice(0, page)
  return { entries, archived, next: found.length > page ? entries[page - 1].position : end > archived + 1 ? end : 0 }
}

export function Audit({ parameters }) {
  const system = useLoad('/system')
  const filters = { type: parameters.get('type'), webhook: parameters.get('webhook'), event: parameters.get('event'), actor: parameters.get('actor'), from: localTime(parameters.get('from')), to: localTime(parameters.get('to')) }
  return html`<${Page} title=${t('nav.audit')} sub=${t('audit.sub')}>
    <${Verify} />
    <${Card} flush title=${t('audit.entries')} note=${system.data && t('audit.head', system.data.log.position)}>
      <${Filters} page="audit" values=${parameters} fields=${[
        { name: 'type', label: t('audit.type'), options: [['', t('app.all')], ...entryTypes.map(([type, words]) => [type, words()])] },
        { name: 'actor', label: t('audit.actor') }, { name: 'webhook', label: t('event.webhook'), webhook: true }, { name: 'event', label: t('audit.event') },
        { name: 'from', label: t('filter.from'), type: 'datetime-local' }, { name: 'to', label: t('filter.to'), type: 'datetime-local' }]} />
      ${system.error && html`<${Trouble} error=${system.error} retry=${system.reload} />`}
      ${system.loading && !system.data && html`<p class="empty" aria-busy="true">${t('app.loading')}</p>`}
      ${system.data && html`<${Entries} key=${JSON.stringify(filters)} filters=${filters} head=${system.data.log.position} />`}</${Card}></${Page}>`
}

function Entries({ filters, head }) {
  const none = { entries: [], next: head + 1 }
  const [list, setList] = useState(none)
  const [error, setError] = useState(null)
  const [busy, setBusy] = useState(true)
  const names = useNames()
  const types = useTypes()
  const control = useRef(null)
  const more = async (from = list) => {
    setBusy(true)
    setError(null)
    const { signal } = control.current
    try {
      const read = await older(filters, from.next, signal)
      if (!signal.aborted) setList({ ...read, entries: [...from.entries, ...read.entries] })
    } catch (problem) {
      if (!signal.aborted) setError(problem)
    }
    if (!signal.aborted) setBusy(false)
  }
  useEffect(() => {
    control.current = new AbortController()
    more()
    return () => control.current.abort()
  }, [])
  useFresh(erasures, () => {
    control.current.abort()
    control.current = new AbortController()
    more(none)
  })
  return html`${error && html`<${Trouble} error=${error} retry=${() => more()} />`}
    <ul class="entries">${list.entries.map((entry) => html`<${Entry} key=${entry.position} entry=${entry} note=${entryNote(entry, names.of, (type) => nameOf(type, types))} />`)}</ul>
    ${busy ? html`<p class="empty" aria-busy="true">${t('app.loading')}</p>` : list.entries.length === 0 && !error && html`<${Empty} />`}
    ${list.archived > 0 && html`<p class="foot-note">${t('audit.archived')}</p>`}
    ${list.next > 0 && !busy && html`<div class="foot-note"><button type="button" onClick=${() => more()}>${t('app.more')}</button></div>`}`
}

function Entry({ entry, note }) {
  const [shown, setShown] = useState(false)
  const link = to(entryLink(entry) ?? '')
  return html`<li><details onToggle=${(event) => setShown(event.target.open)}><summary>
      <span class="what one"><b>${entryWords(entry)}</b>${note && html` <span title=${entry.data?.event_type ?? note}>${note}</span>`}</span>
      <span class="muted">${actorName(entry.metadata?.actor)}</span><${Time} at=${entry.recorded_at} /></summary>
    ${shown && html`<div class="body"><p class="muted">${t('audit.position', entry.position)} · <code>${entry.type}</code> · <${Copy} value=${entry.stream} whole /> ${link && html`<a href=${link}>${t('audit.open')}</a>`}</p>
      <p class="muted">${entry.metadata?.actor}</p>
      <${Foreign} label=${t('audit.data')}>${exact(entry, 'data')}</${Foreign}></div>`}</details></li>`
}

// The check goes on while the reader looks at other pages.
const check = { ...store(), state: null, control: null }

// endCheck ends the check, and drops what it found.
export function endCheck() {
  check.control?.abort()
  check.state = null
  check.changed()
}

async function verify() {
  const { signal } = check.control = new AbortController()
  const tell = (state) => { if (!signal.aborted) { check.state = state; check.changed() } }
  tell({ done: 0, total: 0 })
  try {
    await api.lines('POST', '/audit/verify', { each: (line) => tell(line.error ? { failed: line.error } : line), signal })
    if (check.state.found === undefined && !check.state.failed) tell({ failed: t('error.network') })
  } catch (error) {
    tell({ error })
  }
}

function Verify() {
  useStore(check)
  const { state } = check
  const busy = state && state.done !== undefined
  const tone = state?.found === 0 ? 'good' : state?.found > 0 || state?.failed ? 'bad' : undefined
  return html`<${Card} title=${t('verify.title')} note=${t('verify.note')} more=${html`<button type="button" class="small" disabled=${busy} aria-busy=${busy || undefined} onClick=${verify}>${t('verify.run')}</button>`}>
    <div role="status">${busy && html`<${Progress} value=${state.done} max=${state.total} label=${t('verify.title')} />`}
      ${tone && html`<p><${Badge} tone=${tone}>${t(tone === 'good' ? 'verify.good' : 'verify.bad')}</${Badge}> ${state.failed ?? t(state.found === 0 ? 'verify.clean' : 'verify.found', state.found || state.events)}</p>`}
      ${!state && html`<p class="muted">${t('verify.never')}</p>`}</div>
    ${state?.error && html`<${Trouble} error=${state.error} />`}
    ${state?.problems?.length > 0 && html`<ul>${state.problems.map((one) => html`<li><b><${Word} name=${one.kind} words=${known(`flaw.${one.kind}`)} /></b> ${one.position > 0 && number(one.position)} ${one.stream && html`<code>${one.stream}</code>`} ${one.text}</li>`)}</ul>`}</${Card}>`
}
