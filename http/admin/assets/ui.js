// The common components. Each takes what its first line says; tone is one of good,
// warn, bad, none. Texts are given already in the reader's language.
import { api, newKey, query } from './api.js'
import { copyText } from './dialogs.js'
import { settings } from './settings.js'
import { ago, moment, near, tones } from './format.js'
import { known, number, t } from './texts.js'
import { html, keep, useEffect, useLatest, useRef, useState } from './view.js'

// Page is a page's frame: its heading with a badge, and its actions.
export const Page = ({ title, badge, sub, actions, children }) => html`
  <div class="head"><div class="title"><div class="name"><h1 title=${title}>${title}</h1>${badge}</div>${sub && html`<div class="muted sub">${sub}</div>`}</div>
    ${actions && html`<div class="actions">${actions}</div>`}</div>
  ${children}`

// Card is a part of a page under a heading; more stands at the heading's end.
export const Card = ({ title, note, more, flush, children, ...rest }) => html`<section class="card" ...${rest}>
  ${title && html`<header><h2>${title}</h2>${note && html`<span class="muted">${note}</span>`}${more && html`<span class="more">${more}</span>`}</header>`}
  ${flush ? children : html`<div class="body">${children}</div>`}</section>`

// Badge shows a state by colour and by word: a state's name, or a tone and children.
export const Badge = ({ state, tone, title, children }) => html`<span class=${`badge ${tone ?? tones[state] ?? 'none'}`} title=${title}>
  ${children ?? known(`state.${state}`) ?? state}</span>`

// Word is what people call a name of the API, which stands in its title; the name where that is unknown.
export const Word = ({ name, words }) => (words ? html`<span title=${name}>${words}</span>` : html`<code>${name}</code>`)

// Figure is one number of a dashboard that leads to its list. spark is what is drawn below.
export const Figure = ({ label, value, note, tone = '', href, spark }) => html`<a class="figure" href=${href}>
  <span class="muted">${label}</span><b>${value}</b>${note !== undefined && html`<span class=${`delta ${tone}`}>${note}</span>`}${spark}</a>`

// Sparkline draws calls over time, [{ good, bad }]; its title says the sums in words.
export function Sparkline({ parts, title }) {
  const most = Math.max(1, ...parts.map((p) => p.good + p.bad))
  const [width, height] = [96, 22]
  const step = width / Math.max(1, parts.length)
  const bar = (share) => (share === 0 ? 0 : Math.max(2, share / most * height))
  return html`<svg class="draw spark bars" viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${title} preserveAspectRatio="none"><title>${title}</title>
    ${parts.map((p, i) => {
      const [bad, all] = [bar(p.bad), Math.max(bar(p.good + p.bad), bar(p.bad))]
      if (p.good + p.bad === 0) return html`<rect class="z" x=${i * step} width=${step * 0.75} y=${height - 1.5} height="1.5" />`
      return html`<rect x=${i * step} width=${step * 0.75} y=${height - all} height=${all - bad} /><rect class="f" x=${i * step} width=${step * 0.75} y=${height - bad} height=${bad} />`
    })}</svg>`
}

// Line draws one value over time, [number]; colours come from the class.
export function Line({ values, tone = 'accent' }) {
  const [low, high] = [Math.min(...values), Math.max(...values)]
  const y = (value) => (high === low ? 14 : 26 - (value - low) / (high - low) * 24)
  const path = values.map((value, i) => `${i === 0 ? 'M' : 'L'}${(i / Math.max(1, values.length - 1) * 120).toFixed(1)} ${y(value).toFixed(1)}`).join('')
  return html`<svg class=${`draw line ${tone}`} viewBox="0 0 120 28" preserveAspectRatio="none" aria-hidden="true"><path d=${path} /></svg>`
}

// Empty says that there is nothing, and what to do about it.
export const Empty = ({ children }) => html`<div class="empty">${children ?? t('app.none')}</div>`

// Time shows a time: in a style of moment, or (style 'ago') how far off, kept true as
// time goes, or (style 'near') without its day if that is today.
export function Time({ at, style = 'medium' }) {
  const [, again] = useState(0)
  useEffect(() => {
    if (style !== 'ago' || !at) return
    const timer = setInterval(() => again((n) => n + 1), Math.abs(Date.now() - new Date(at)) < 120000 ? 1000 : 30000)
    return () => clearInterval(timer)
  }, [at, style])
  if (!at) return '—'
  return html`<time datetime=${at} title=${`${moment(at)} · ${at}`}>${style === 'ago' ? ago(at) : style === 'near' ? near(at) : moment(at, style)}</time>`
}

// Copy shows a value, shortened unless whole, that a press copies.
export function Copy({ value, whole, label }) {
  const [copied, setCopied] = useState(false)
  useEffect(() => {
    if (!copied) return
    const timer = setTimeout(() => setCopied(false), 1500)
    return () => clearTimeout(timer)
  }, [copied])
  if (!value) return '—'
  const copy = async () => {
    if (await copyText(value)) setCopied(true)
  }
  const shown = whole || value.length < 14 ? value : `${value.slice(0, 4)}…${value.slice(-6)}`
  return html`<button type="button" class="copy mono" title=${value} aria-label=${copied ? undefined : t('app.copy', label ?? shown)} onClick=${copy}>
    ${copied ? t('app.copied') : label ?? shown}</button>`
}

// words returns what went wrong, for users; an unknown error is ours, and goes to the console.
export function words(error) {
  if (error.status === undefined) {
    console.error(error)
    return t('error.own')
  }
  const titles = { 0: 'error.network', 401: 'error.unauthorized', 404: 'error.notFound', 412: 'error.stale', 503: 'error.busy' }
  const fields = (error.fields ?? []).map((f) => `${f.path ?? f.field}: ${f.message}`).join('; ')
  return [titles[error.status] ? t(titles[error.status]) : error.title, fields || error.message].filter(Boolean).join(' — ')
}

// Trouble is a banner that says what failed; with retry, a button that tries again where that
// may help, by itself too where waiting does.
export function Trouble({ error, retry }) {
  const latest = useLatest(retry)
  useEffect(() => {
    if (!error?.again || !retry) return
    const timer = setTimeout(() => latest.current(), (error.after ?? 5) * 1000)
    return () => clearTimeout(timer)
  }, [error])
  if (!error) return null
  return html`<div class="trouble" role="alert"><div><b>${t('error.title')}.</b> ${words(error)}
    ${error.requestID && html` <span class="muted">${t('error.request')} <${Copy} value=${error.requestID} /></span>`}</div>
    ${retry && error.status !== 403 && html`<button type="button" onClick=${() => retry()}>${t('app.again')}</button>`}</div>`
}

// Act is a button that does something. run(key) gets the Idempotency-Key of the
// action: the same until it has succeeded, so that pressing again after a failure
// does nothing twice. The button is off while it runs, and keeps the focus; what run
// throws goes to failed, else is shown after the button.
export function Act({ run, failed, children, tone = '', disabled, ...rest }) {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState(null)
  const key = useRef(null)
  const alive = useRef(true)
  useEffect(() => () => { alive.current = false }, [])
  const running = useRef(false) // busy is only known when it was shown
  const press = async () => {
    if (running.current) return
    running.current = true
    key.current ??= newKey()
    setBusy(true)
    setError(null)
    try {
      await run(key.current)
      key.current = null
    } catch (problem) {
      if (!problem.again) key.current = null
      if (failed) failed(problem)
      else if (alive.current) setError(problem)
    } finally {
      running.current = false
      if (alive.current) setBusy(false)
    }
  }
  return html`<button type="button" class=${tone} disabled=${disabled} aria-disabled=${busy} aria-busy=${busy || undefined} onClick=${press} ...${rest}>${children}</button>
    ${error && html`<span class="error" role="alert">${words(error)}</span>`}`
}

// Menu holds what is done seldom behind one button. Esc, a choice, and leaving it close it.
export function Menu({ label, children }) {
  const menu = useRef(null)
  const close = () => { menu.current.open = false }
  const key = (event) => {
    if (event.key !== 'Escape' || !menu.current.open) return
    event.stopPropagation()
    close()
    menu.current.firstChild.focus()
  }
  return html`<details class="menu" ref=${menu} onKeyDown=${key} onFocusOut=${(event) => { if (event.relatedTarget && !menu.current.contains(event.relatedTarget)) close() }}><summary class="button">${label}</summary>
    <div onClick=${close}>${children}</div></details>`
}

// useLoad reads a path of the API until its component is unmounted. It returns
// { data, error, loading, reload }. The data stay while they are read again, and are shown at
// once when the user comes back. every is the interval in milliseconds at which they are read
// while the tab is visible.
export function useLoad(path, parameters, { every, skip } = {}) {
  const name = path + query(parameters)
  const [state, setState] = useState({ data: remembered.get(name), error: null, loading: !skip, name, path })
  const control = useRef(null)
  // Of the same path with other parameters it shows what it has until the answer comes.
  const kept = (old) => remembered.get(name) ?? (old.path === path ? old.data : undefined)
  const busy = useRef(false)
  const reload = () => {
    control.current?.abort()
    const { signal } = control.current = new AbortController()
    setState((old) => ({ ...old, loading: true }))
    busy.current = true
    return api.get(path, parameters, signal).then((data) => {
      remember(name, data)
      setState({ data, error: null, loading: false, name, path })
    }, (error) => {
      if (!signal.aborted) setState((old) => ({ ...old, error, loading: false }))
    }).finally(() => { if (!signal.aborted) busy.current = false })
  }
  const latest = useLatest(reload)
  useEffect(() => {
    if (skip) return
    if (state.name !== name) setState((old) => ({ data: kept(old), error: null, loading: true, name, path }))
    latest.current()
    const timer = every && setInterval(() => document.hidden || busy.current || latest.current(), every)
    return () => {
      clearInterval(timer)
      control.current?.abort()
    }
  }, [name, skip, every, settings.get('language')])
  const current = state.name === name ? state : { data: kept(state), error: null, loading: true }
  return { ...current, reload: () => latest.current() }
}

// remembered holds what was read last; sign-out clears it.
const remembered = new Map()
const most = 50

export const remember = (name, data) => keep(remembered, name, data, most)
export const recall = (name) => remembered.get(name)
export const forget = () => remembered.clear()

// Loaded renders children(data). While there is no data it renders the title, if given, and why
// there is none; with children that have the heading of a page the title must be given.
export function Loaded({ of, title, children }) {
  return html`${title && of.data === undefined && html`<h1>${title}</h1>`}${of.error && html`<${Trouble} error=${of.error} retry=${of.reload} />`}
    ${of.data !== undefined ? children(of.data) : of.loading && !of.error && html`<p class="empty" aria-busy="true">${t('app.loading')}</p>`}`
}

// useInSight returns the ref of a row of links that scrolls to the current one.
export function useInSight(when) {
  const row = useRef(null)
  useEffect(() => {
    const link = row.current.querySelector('[aria-current]')
    if (link) row.current.scrollLeft = link.offsetLeft - row.current.clientWidth / 2
  }, when)
  return row
}

// Tabs are links between the parts of a thing: items are [{ name, href, label, badge }].
export function Tabs({ label, items, current }) {
  const tabs = useInSight([current, items.some((one) => one.badge)]) // which widen them
  return html`<nav class="tabs" ref=${tabs} aria-label=${label}>${items.map((one) => html`
  <a key=${one.name} href=${one.href} aria-current=${one.name === current ? 'page' : undefined}>${one.label}${one.badge && html` ${one.badge}`}</a>`)}</nav>`
}

// Progress shows how far something has come.
export const Progress = ({ value, max, label }) => html`<div class="progress"><progress max=${Math.max(1, max)} value=${value} aria-label=${label}></progress>
  <span class="muted">${number(value)} / ${number(max)}</span></div>`

// Facts shows names and values, [[name, value]].
export const Facts = ({ pairs }) => html`<dl class="facts">${pairs.filter(Boolean).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value ?? '—'}</dd></div>`)}</dl>`

// Foreign shows what somebody else wrote, as it is, apart from our own text.
export const Foreign = ({ label, children }) => html`<pre class="foreign" dir="auto" tabindex="0" aria-label=${label}>${children}</pre>`

const icons = {
  overview: 'M3 12h4l2.5-6 4 12 2.5-6H21', webhooks: 'M9 12a3 3 0 1 1-4.6-2.5L8 4M8 14h8a3 3 0 1 1-2.6 4.5M15 8a3 3 0 1 0-2 2.8l3.6 6',
  events: 'M13 3 5 14h6l-1 7 8-11h-6z', deliveries: 'M4 7h10v9H4zM14 10h3.5L20 13v3h-6M7.5 19a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3M16.5 19a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3',
  calls: 'M4 17 17 4M9 4h8v8M4 10v7h7', alerts: 'M12 4a5 5 0 0 0-5 5c0 5-2 6-2 7h14c0-1-2-2-2-7a5 5 0 0 0-5-5M10 19a2 2 0 0 0 4 0', jobs: 'M4 6h16M4 12h10M4 18h6M17 14v6M14 17h6',
  patients: 'M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8M4 21c0-4 3.6-6 8-6s8 2 8 6', audit: 'M6 3h9l4 4v14H6zM9 11h7M9 15h7', tokens: 'M14 10a4 4 0 1 0-3.5 4l1.5-1.5h2V15h2v2h2l2-2v-3l-5-2M8.5 10h.01',
  system: 'M4 5h16v6H4zM4 13h16v6H4zM8 8h.01M8 16h.01', more: 'M5 12h.01M12 12h.01M19 12h.01',
}

// Icon is a drawing for the eye only: a word stands next to it.
export const Icon = ({ name }) => html`<svg class="draw icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${icons[name] ?? icons.more} /></svg>`
