// Form controls. A Field puts a label, a hint and the API's refusal around a control:
//
//   html`<${Form} send=${async (key) => { await api.post('/webhooks', made, { key }) }} label=${t('action.save')}>
//     <${Field} name="url" label=${t('field.url')} hint=${t('hint.url')}>
//       ${(control) => html`<${Text} ...${control} value=${url} onInput=${…} />`}</${Field}></${Form}>`
//
// Form runs send(key, form) when it is submitted: the button is off meanwhile, the action keeps its
// Idempotency-Key until it has succeeded, and what is refused is shown at its fields, the
// first of which gets the focus; the rest stands above them all.
import { newKey } from './api.js'
import { t } from './texts.js'
import { Trouble } from './ui.js'
import { createContext, html, useContext, useEffect, useRef, useState } from './view.js'

const Refusals = createContext([])
let made = 0

// useID returns an id for as long as the component lives.
export const useID = (prefix) => useState(() => `${prefix}-${++made}`)[0]

export const Text = ({ type = 'text', ...rest }) => html`<input type=${type} autocomplete="off" ...${rest} />`
export const Area = (properties) => html`<textarea rows="4" spellcheck="false" ...${properties}></textarea>`
export const Select = ({ options, value, ...rest }) => html`<select value=${value} ...${rest}>${options.map(([one, label]) => html`
  <option key=${one} value=${one} selected=${one === value}>${label}</option>`)}</select>`
export const Check = ({ label, ...rest }) => html`<label class="tick"><input type="checkbox" ...${rest} /><span>${label}</span></label>`

// Field: name is what the API calls the field; children is a function of the control's
// properties (id and those of accessibility).
export function Field({ name, label, hint, compact, children }) {
  const id = useID('control')
  const refused = useContext(Refusals).filter((one) => belongs(one, name))
  const described = [hint && `${id}-hint`, refused.length > 0 && `${id}-error`].filter(Boolean).join(' ') || undefined
  return html`<div class=${compact ? 'field compact' : 'field'}><label for=${id}>${label}</label>
    ${children({ id, 'data-field': name, 'aria-describedby': described, 'aria-invalid': refused.length > 0 ? 'true' : undefined })}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${refused.length > 0 && html`<p class="error" id=${`${id}-error`}>${refused.map(sentence).join(' ')}</p>`}</div>`
}

const sentence = ({ message }) => `${message.charAt(0).toUpperCase()}${message.slice(1)}${/[.?!]$/.test(message) ? '' : '.'}`

// belongs reports whether a refusal is about the field or a part of it: headers for
// headers.X-Key, events for events[0].
const belongs = (refusal, name) => {
  const path = refusal.path ?? refusal.field
  return Boolean(name) && (path === name || path.startsWith(`${name}.`) || path.startsWith(`${name}[`))
}

// refuse throws what the API would say of a field, for what we know ourselves.
export function refuse(name, message) {
  throw Object.assign(new Error(message), { status: 422, title: '', fields: [{ field: name, message }] })
}

// unread returns the controls whose text the browser cannot read, such as a date without its year:
// they show it, but have no value, as if they were empty.
export const unread = (form) => [...form.elements].filter((control) => control.validity.badInput)

function refuseUnread(form) {
  const fields = unread(form).map(({ type, dataset }) => ({ field: dataset.field, message: t(type === 'number' ? 'error.noNumber' : 'error.noTime') }))
  if (fields.length > 0) throw Object.assign(new Error(fields[0].message), { status: 422, title: '', fields })
}

export function Form({ send, label, children, actions, tone = 'primary' }) {
  const [error, setError] = useState(null)
  const [busy, setBusy] = useState(false)
  const form = useRef(null)
  const key = useRef(null)
  const running = useRef(false) // busy is only known when it was shown
  const submit = async (event) => {
    event.preventDefault()
    if (running.current) return
    running.current = true
    key.current ??= newKey()
    setBusy(true)
    setError(null)
    try {
      refuseUnread(form.current)
      await send(key.current, form.current)
      key.current = null
    } catch (problem) {
      if (!problem.again) key.current = null
      setError(problem)
    } finally {
      running.current = false
      setBusy(false)
    }
  }
  useEffect(() => {
    if (error) (form.current?.querySelector('[aria-invalid=true]') ?? form.current?.querySelector('[tabindex="-1"]'))?.focus()
  }, [error])
  const fields = error?.fields ?? []
  return html`<form ref=${form} novalidate onSubmit=${submit}><${Refusals.Provider} value=${fields}>
    ${error && !placed(form.current, fields) && html`<div tabindex="-1"><${Trouble} error=${error} /></div>`}
    ${children}<div class="actions"><button type="submit" class=${tone} aria-disabled=${busy}>${label ?? t('action.save')}</button>${actions}</div>
  </${Refusals.Provider}></form>`
}

// placed reports whether each refusal has a field that shows it.
const placed = (form, fields) => fields.length > 0 && fields.every((one) => [...form.querySelectorAll('[data-field]')].some((control) => belongs(one, control.dataset.field)))
