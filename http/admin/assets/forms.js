// Forms: labels, hints, and the API's refusals at the fields they name.
import { Problem } from './api.js'
import { fill, h } from './dom.js'
import { known, language, t } from './texts.js'

let last = 0

// field puts a label, a hint and a place for an error around a control. `name`
// is what the API calls the field.
export function field(name, label, control, hint) {
  const id = `field-${++last}`
  control.id ||= id
  control.dataset.field = name
  const error = h('p', { id: `${id}-error`, class: 'error', hidden: true })
  const help = hint && h('p', { id: `${id}-hint`, class: 'hint' }, hint)
  control.setAttribute('aria-describedby', [help && help.id, error.id].filter(Boolean).join(' '))
  control.errorPlace = error
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control, help, error)
}

// group is a field of several controls.
export function group(name, label, hint, ...children) {
  const id = `field-${++last}`
  const error = h('p', { id, class: 'error', hidden: true })
  const set = h('fieldset', { 'data-field': name, 'aria-describedby': id, tabindex: '-1' },
    h('legend', {}, label), hint && h('p', { class: 'hint' }, hint), children, error)
  set.errorPlace = error
  return set
}

export const input = (properties) => h('input', { type: 'text', autocomplete: 'off', ...properties })

export function choice(options, chosen, properties = {}) {
  return h('select', properties, options.map(([value, label]) => h('option', { value, selected: value === chosen }, label)))
}

export function check(label, properties) {
  return h('label', { class: 'check' }, h('input', { type: 'checkbox', ...properties }), h('span', {}, label))
}

// submitting makes a form of children; `send` runs when it is submitted, and what
// it throws is shown at the fields, or above them all.
export function submitting(send, label, ...children) {
  const failure = h('p', { class: 'error', role: 'alert', tabindex: '-1', hidden: true })
  const submit = h('button', { type: 'submit', class: 'main' }, label)
  const form = h('form', { novalidate: true }, failure, children, h('div', { class: 'actions' }, submit))
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    clearErrors(form, failure)
    submit.disabled = true
    try {
      await send(form)
    } catch (error) {
      showErrors(form, failure, error)
    } finally {
      submit.disabled = false
    }
  })
  return form
}

function clearErrors(form, failure) {
  fill(failure).hidden = true
  for (const control of form.querySelectorAll('[data-field]')) {
    fill(control.errorPlace).hidden = true
    control.removeAttribute('aria-invalid')
  }
}

// What the API refuses it says in English; the rule of the field stands before
// that in the user's language.
function showErrors(form, failure, error) {
  const elsewhere = []
  let first = null
  for (const { field, path, message } of error.fields ?? []) {
    const name = path ?? field
    const control = controlOf(form, name)
    if (!control) {
      elsewhere.push(`${name}: ${message}`)
      continue
    }
    const words = control.dataset.field === name ? message : `${name}: ${message}`
    const rule = error instanceof Problem && language() !== 'en' && known(`rule.${field}`)
    if (rule && !control.errorPlace.textContent.includes(rule)) control.errorPlace.append(rule, ' ')
    control.errorPlace.append(rule ? h('span', { class: 'quiet', lang: 'en' }, words) : words, ' ')
    control.errorPlace.hidden = false
    control.setAttribute('aria-invalid', 'true')
    first ??= control
  }
  if (elsewhere.length > 0 || !first) {
    fill(failure, elsewhere.length > 0 ? elsewhere.join('; ') : describe(error)).hidden = false
  }
  (first ?? failure).focus()
}

// controlOf finds the control of a field, or of what holds it: headers for
// headers.X-Key, events for events[0].
function controlOf(form, name) {
  const controls = [...form.querySelectorAll('[data-field]')]
  return controls.find((c) => c.dataset.field === name) ??
    controls.find((c) => name.startsWith(`${c.dataset.field}.`) || name.startsWith(`${c.dataset.field}[`))
}

// describe says in words what went wrong.
export function describe(error) {
  const words = { 0: 'error.network', 401: 'error.unauthorized', 403: 'error.forbidden', 404: 'error.notFound', 412: 'error.stale' }
  if (error.status === undefined) return t('error.own')
  const fields = (error.fields ?? []).map((f) => `${f.path ?? f.field}: ${f.message}`).join('; ')
  return [words[error.status] ? t(words[error.status]) : error.title, fields || error.message].filter(Boolean).join(' — ')
}

// refuse throws what the API would say of a field, for what we know ourselves.
export function refuse(name, message) {
  throw Object.assign(new Error(message), { status: 422, title: '', fields: [{ field: name, message }] })
}

// localTime reads a datetime-local control; '' when it is empty.
export const localTime = (value) => (value ? new Date(value).toISOString() : '')
