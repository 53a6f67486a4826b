// Creating and editing a webhook: every field, each refusal of the API at its own.
import { api, exact, isObject, part, withRaw } from './api.js'
import { say } from './dialogs.js'
import { button, card, facts, fill, h } from './dom.js'
import { check, choice, describe, field, group, input, refuse, submitting } from './forms.js'
import { number } from './format.js'
import { describeType, eventTypes } from './lists.js'
import { t } from './texts.js'

const fresh = {
  name: '', description: '', url: '', events: [], headers: {}, has_secret: false, max_retries: 3, retry_delay: 60, timeout: 30,
  filters: null, batch: null, order_by: null, order_on_failure: 'skip', sequence: false, payload_version: '1',
  max_concurrent: null, rate_limit: null, fields: null, recipient: null, auto_deactivate_after: null, is_active: true,
}

export async function webhookForm({ id, signal }) {
  const webhook = id ? await api.get(`/webhooks/${part(id)}`, {}, signal) : fresh
  const fields = {
    texts: textFields(webhook), events: await eventFields(webhook), headers: headerFields(webhook), secret: secretFields(webhook),
    numbers: numberFields(webhook), filters: filterField(webhook), batch: batchFields(webhook), order: orderFields(webhook),
    minimum: minimumFields(webhook), rest: restFields(webhook),
  }
  if (id) fields.filters.shown = [fields.filters.shown, backtest(webhook, fields)]
  const send = async () => {
    const asked = Object.assign({}, ...Object.values(fields).map((f) => f.read?.()))
    const body = withRaw(asked, fields.filters.raw())
    const path = id ? `/webhooks/${part(id)}` : '/webhooks'
    const saved = id ? await api.patch(path, body, webhook.version) : await api.post(path, body)
    say(t('webhook.saved'))
    location.hash = `#/webhooks/${part(saved.id)}`
  }
  return h('div', {}, h('h1', {}, t(id ? 'webhook.editing' : 'webhook.new')),
    card(null, submitting(send, t('action.save'), Object.values(fields).map((f) => f.shown))))
}

function textFields(webhook) {
  const name = input({ value: webhook.name, maxlength: '200', required: true })
  const url = input({ value: webhook.url, type: 'url', inputmode: 'url', spellcheck: 'false', required: true })
  const description = h('textarea', { rows: '2' }, webhook.description ?? '')
  return {
    shown: [field('name', t('webhook.name'), name), field('url', t('webhook.url'), url, t('webhook.urlHint')),
      field('description', t('webhook.description'), description)],
    read: () => ({ name: name.value, url: url.value.trim(), description: description.value }),
  }
}

async function eventFields(webhook) {
  const chosen = new Set(webhook.events)
  const one = (value, label) => {
    const box = check(label, { value, checked: chosen.has(value), name: 'events' })
    chosen.delete(value)
    return box
  }
  const groups = Map.groupBy(await eventTypes(), (type) => type.type.split('.')[0])
  const everything = one('*', t('webhook.allEvents'))
  const parts = [...groups].map(([name, types]) => h('details', { open: types.some((type) => chosen.has(type.type)) || chosen.has(`${name}.*`) },
    h('summary', {}, `${name}.*`),
    one(`${name}.*`, t('webhook.wholeGroup', `${name}.*`)),
    types.map((type) => one(type.type, [h('code', { title: JSON.stringify(type.example, null, 2) }, type.type), ` ${describeType(type)}`]))))
  // What the catalogue no longer has stays as it is unless somebody takes it out.
  const others = [...chosen].map((value) => one(value, h('code', {}, value)))
  const shown = group('events', t('webhook.events'), t('webhook.eventsHint'), everything, parts, others)
  return { shown, read: () => ({ events: [...shown.querySelectorAll('input:checked')].map((box) => box.value) }) }
}

function headerFields(webhook) {
  const rows = h('div', {})
  const add = (name = '', value = '') => {
    const row = h('div', { class: 'pair' },
      input({ value: name, 'aria-label': t('webhook.headerName'), placeholder: 'X-API-Key', spellcheck: 'false' }),
      input({ value, 'aria-label': t('webhook.headerValue'), spellcheck: 'false' }),
      button(t('action.remove'), () => row.remove()))
    rows.append(row)
    return row
  }
  for (const [name, value] of Object.entries(webhook.headers ?? {})) add(name, value)
  const shown = group('headers', t('webhook.headers'), t('webhook.headersHint'), rows,
    button(t('action.addHeader'), () => add().querySelector('input').focus()))
  const read = () => {
    const headers = new Map()
    for (const row of rows.children) {
      const [name, value] = [...row.querySelectorAll('input')].map((control) => control.value)
      if (name === '' && value === '') continue
      if (headers.has(name)) refuse('headers', t('webhook.headerTwice', name))
      headers.set(name, value)
    }
    return { headers: Object.fromEntries(headers) }
  }
  return { shown, read }
}

// secretFields never shows a secret: nothing typed keeps it, a tick clears it.
function secretFields(webhook) {
  const secret = input({ type: 'password', autocomplete: 'new-password', spellcheck: 'false' })
  const drop = webhook.has_secret && check(t('webhook.secretDrop'), {})
  const hint = webhook.has_secret ? `${t('webhook.secretKeep')} ${t('webhook.secretHint')}` : t('webhook.secretHint')
  return {
    shown: [field('secret', t('webhook.secret'), secret, hint), drop],
    read: () => {
      if (secret.value !== '') return { secret: secret.value }
      return drop && drop.querySelector('input').checked ? { secret: null } : {}
    },
  }
}

function numberFields(webhook) {
  const number = (value, min, max, step = '1') => input({ type: 'number', value: value ?? '', min, max, step, inputmode: step === '1' ? 'numeric' : 'decimal' })
  const controls = {
    max_retries: [t('webhook.maxRetries'), number(webhook.max_retries, 0, 10), '0–10'],
    retry_delay: [t('webhook.retryDelay'), number(webhook.retry_delay, 1, 86400), '1–86400'],
    timeout: [t('webhook.timeout'), number(webhook.timeout, 1, 300), '1–300'],
    max_concurrent: [t('webhook.maxConcurrent'), number(webhook.max_concurrent, 1, 512), t('webhook.maxConcurrentHint')],
    rate_limit: [t('webhook.rateLimit'), number(webhook.rate_limit, 0.01, 10000, 'any'), t('webhook.rateLimitHint')],
    auto_deactivate_after: [t('webhook.autoDeactivate'), number(webhook.auto_deactivate_after ?? '', 3600, 2592000), '3600–2592000'],
  }
  return {
    shown: h('div', { class: 'columns' }, Object.entries(controls).map(([name, [label, control, hint]]) => field(name, label, control, hint))),
    read: () => Object.fromEntries(Object.entries(controls).map(([name, [, control]]) => [name, whole(control)])),
  }
}

// whole gives a control's number; null, the default, when it is empty.
const whole = (control) => (control.value === '' ? null : Number(control.value))

function filterField(webhook) {
  const known = webhook.filters && Object.keys(webhook.filters).length > 0
  const control = h('textarea', { rows: '6', class: 'code', spellcheck: 'false' }, known ? exact(webhook, 'filters') : '')
  const raw = () => {
    const json = control.value.trim()
    if (json === '') return { filters: 'null' }
    if (!isObject(json)) refuse('filters', t('webhook.filtersBad'))
    return { filters: json }
  }
  return { shown: field('filters', t('webhook.filters'), control, t('webhook.filtersHint')), raw }
}

// backtest tells what the events, filters and changed retries of the form would change.
function backtest(webhook, { events, filters, numbers }) {
  const result = h('div', { role: 'status' })
  const run = async () => {
    try {
      const retries = Object.entries(numbers.read()).filter(([name, value]) => String(value) !== String(webhook[name]))
      const asked = { ...events.read(), ...Object.fromEntries(retries) }
      const told = await api.post(`/webhooks/${part(webhook.id)}/backtest`, withRaw(asked, filters.raw()))
      const shown = (of, names) => names.map((name) => [t(`webhook.${name}`), number(of[name])])
      fill(result, facts(shown(told, ['considered', 'matched', 'gained', 'lost'])),
        told.retries && facts(shown(told.retries, ['delivered_instead', 'failed_instead', 'pending_instead'])))
    } catch (error) {
      fill(result, h('p', { class: 'error' }, describe(error)))
    }
  }
  return h('div', { class: 'field' }, button(t('webhook.backtest'), run), h('p', { class: 'hint' }, t('webhook.backtestNote')), result)
}

function batchFields(webhook) {
  const on = check(t('webhook.batchOn'), { checked: Boolean(webhook.batch) })
  const events = input({ type: 'number', min: '1', max: '1000', value: webhook.batch?.max_events ?? 100 })
  const wait = input({ type: 'number', min: '1', max: '300', value: webhook.batch?.max_wait ?? 5 })
  const details = h('div', { class: 'columns' }, field('batch.max_events', t('webhook.maxEvents'), events), field('batch.max_wait', t('webhook.maxWait'), wait))
  const box = on.querySelector('input')
  const follow = () => { details.hidden = !box.checked }
  box.addEventListener('change', follow)
  follow()
  return {
    shown: group('batch', t('webhook.batch'), null, on, details),
    read: () => ({ batch: box.checked ? { max_events: whole(events), max_wait: whole(wait) } : null }),
  }
}

function orderFields(webhook) {
  const by = input({ value: webhook.order_by ?? '', maxlength: '256', spellcheck: 'false', placeholder: 'patient_id' })
  const failure = choice([['skip', t('webhook.orderSkip')], ['block', t('webhook.orderBlock')]], webhook.order_on_failure)
  const numbered = check(t('webhook.sequenceOn'), { checked: webhook.sequence })
  return {
    shown: [h('div', { class: 'columns' }, field('order_by', t('webhook.orderBy'), by, t('webhook.orderByHint')),
      field('order_on_failure', t('webhook.orderOnFailure'), failure)), numbered],
    read: () => ({ order_by: by.value.trim() || null, order_on_failure: failure.value, sequence: numbered.querySelector('input').checked }),
  }
}

// minimumFields are what of an event is sent, and who gets it.
function minimumFields(webhook) {
  const paths = h('textarea', { rows: '3', class: 'code', spellcheck: 'false' }, (webhook.fields ?? []).join('\n'))
  const parts = ['name', 'country', 'purpose'].map((name) => [name, input({ value: webhook.recipient?.[name] ?? '' })])
  const read = () => {
    const fields = paths.value.split('\n').map((path) => path.trim()).filter(Boolean)
    const given = parts.map(([name, control]) => [name, control.value.trim()]).filter(([, value]) => value !== '')
    return { fields: fields.length > 0 ? fields : null, recipient: given.length > 0 ? Object.fromEntries(given) : null }
  }
  return {
    shown: [field('fields', t('webhook.fields'), paths, t('webhook.fieldsHint')),
      group('recipient', t('webhook.recipient'), t('webhook.recipientHint'), h('div', { class: 'columns' },
        parts.map(([name, control]) => field(`recipient.${name}`, t(`webhook.recipient.${name}`), control))))],
    read,
  }
}

function restFields(webhook) {
  const version = choice([['1', '1'], ['2', '2'], ['cloudevents', 'CloudEvents 1.0']], webhook.payload_version)
  const active = check(t('webhook.isActive'), { checked: webhook.is_active })
  return {
    shown: [field('payload_version', t('webhook.payloadVersion'), version), active],
    read: () => ({ payload_version: version.value, is_active: active.querySelector('input').checked }),
  }
}
