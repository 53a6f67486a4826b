// The draft of a webhook: what the form's controls hold, as it was typed, under the
// names of the API. It says what to send, and merges what others changed meanwhile.
import { exact, isObject, withRaw } from './api.js'
import { refuse } from './controls.js'
import { t } from './texts.js'

const numbers = ['max_retries', 'retry_delay', 'timeout', 'max_concurrent', 'rate_limit', 'auto_deactivate_after']
const texts = ['name', 'url', 'description']
const auths = { oauth2: ['token_url', 'client_id', 'client_secret', 'scope'], certificate: ['certificate', 'private_key'] }
export const authFields = (type) => auths[type] ?? []
const parties = ['name', 'country', 'purpose']
const hidden = '***'

const fresh = { events: [], headers: {}, max_retries: 3, retry_delay: 60, timeout: 30, order_on_failure: 'skip', sequence: false, payload_version: '1', is_active: true }
const typed = (value) => (value === null || value === undefined ? '' : String(value))
const typedAll = (names, from) => Object.fromEntries(names.map((name) => [name, typed(from?.[name])]))

// draftOf returns the draft of a webhook as it is; of a new one without it.
export function draftOf(webhook = fresh) {
  const filters = webhook.filters && Object.keys(webhook.filters).length > 0 ? exact(webhook, 'filters') : ''
  const secrets = webhook.auth && { client_secret: hidden, certificate: hidden, private_key: hidden }
  return {
    ...typedAll([...texts, ...numbers], webhook), filters, secret: '', dropSecret: false,
    events: [...webhook.events], headers: Object.entries(webhook.headers),
    batch: { on: Boolean(webhook.batch), max_events: typed(webhook.batch?.max_events ?? 100), max_wait: typed(webhook.batch?.max_wait ?? 5) },
    order_by: typed(webhook.order_by), order_on_failure: webhook.order_on_failure, sequence: webhook.sequence,
    payload_version: webhook.payload_version, fields: (webhook.fields ?? []).join('\n'), recipient: typedAll(parties, webhook.recipient),
    auth: { type: '', ...typedAll(Object.values(auths).flat(), secrets), ...webhook.auth }, is_active: webhook.is_active,
  }
}

const given = (values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value.trim()]).filter(([, value]) => value !== ''))
const orNull = (object) => (Object.keys(object).length > 0 ? object : null)

// figureOf returns the number that was typed, null for none. What is no number stays as it is, for the
// API to refuse.
export function figureOf(text) {
  const value = Number(text)
  return text.trim() === '' ? null : Number.isFinite(value) ? value : text
}

// filterOf returns the JSON of a filter as it was typed, or null if it is not an object.
export const filterOf = (text) => (text.trim() === '' ? 'null' : isObject(text) ? text.trim() : null)

// values returns the fields as the API takes them, filters apart.
export function values(draft) {
  const headers = new Map()
  for (const [name, value] of draft.headers) {
    if (name === '' && value === '') continue
    if (headers.has(name)) refuse('headers', t('form.headerTwice', name))
    headers.set(name, value)
  }
  const { batch, auth } = draft
  return {
    ...Object.fromEntries(texts.map((name) => [name, name === 'url' ? draft.url.trim() : draft[name]])),
    ...Object.fromEntries(numbers.map((name) => [name, figureOf(draft[name])])),
    events: draft.events, headers: Object.fromEntries(headers),
    batch: batch.on ? { max_events: figureOf(batch.max_events), max_wait: figureOf(batch.max_wait) } : null,
    order_by: draft.order_by.trim() || null, order_on_failure: draft.order_on_failure, sequence: draft.sequence, payload_version: draft.payload_version,
    fields: orNull(draft.fields.split('\n').map((path) => path.trim()).filter(Boolean)), recipient: orNull(given(draft.recipient)),
    auth: auth.type ? { type: auth.type, ...given(Object.fromEntries(authFields(auth.type).map((name) => [name, auth[name]]))) } : null, is_active: draft.is_active,
    ...(draft.secret !== '' ? { secret: draft.secret } : draft.dropSecret ? { secret: null } : {}),
  }
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)

// body returns the JSON to send: all of a new webhook, else what differs from before.
export function body(draft, before) {
  const filters = filterOf(draft.filters)
  if (filters === null) refuse('filters', t('form.filterBad'))
  const now = values(draft)
  if (!before) return withRaw(now, { filters })
  const was = values(before)
  const changed = Object.fromEntries(Object.entries(now).filter(([name, value]) => !same(value, was[name])))
  return withRaw(changed, draft.filters === before.filters ? {} : { filters })
}

export const isChanged = (draft, before) => !same(draft, before)

// merge takes over what others changed; conflicts are the fields that both changed.
export function merge(draft, before, theirs) {
  const merged = { ...draft }
  const conflicts = []
  for (const name of Object.keys(draft)) {
    if (same(theirs[name], before[name]) || same(theirs[name], draft[name])) continue
    if (same(draft[name], before[name])) merged[name] = theirs[name]
    else conflicts.push({ name, theirs: theirs[name], yours: draft[name] })
  }
  return { merged, conflicts }
}

// drafts keeps what was typed in forms that were left, until the tab is closed or
// the reader signs out; signin.js clears it. It may hold secrets, so it is nowhere
// but in memory.
export const drafts = new Map()
