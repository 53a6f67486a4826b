// The client of the API, for the session of the signed-in user.
//
//   const page = await api.get('/webhooks', { status: 'active' }, signal)
//   await api.post(`/webhooks/${part(id)}/test`, body, { key })
//
// Refusals and missing answers are thrown as a Problem. Each action (post, patch,
// delete) carries an Idempotency-Key: its own, or the one given, by which a caller
// repeats the same action after a failure without doing it twice (the component
// Act does so by itself). Answers 503 to reads are asked for again, for a while.
// When the session has ended, a request waits until the user has signed in again and
// then goes on: nothing that was typed is lost.
//
// The session is a cookie that no script can read, shared by all tabs. The header
// X-Requested-With shows that a page of ours asks.
import { member, pretty } from './json.js'
import { settings } from './settings.js'
import { store } from './view.js'

const root = '/api/v1'
const reasonKey = 'medilab.reason'
const reasonHeader = 'X-Access-Reason'

// session.who is the signed-in user: { id, actor, scopes, expires_at }, or null; session.look
// asks the server. Subscribers are notified of changes. The frame sets renew, which asks the
// user to sign in again and resolves when that is done, and askReason.
export const session = { ...store(), who: null, provider: false, renew: null, askReason: null, may, look, take }

// may reports whether the signed-in user has one of the rights, or all of those in one text ('webhooks:read webhooks:write').
function may(...scopes) {
  const has = session.who?.scopes ?? []
  return has.includes('admin') || scopes.some((one) => one.split(' ').every((right) => has.includes(right)))
}

// mayFind reports whether the user may search.
export const mayFind = () => may('webhooks:read', 'audit:read')

async function look() {
  take(await ask('GET', '/session', { silent: true }))
}

// take sets the session from an answer of the server. Without one, the reason for reading
// data goes, too.
function take(answer) {
  session.provider = answer?.provider ?? session.provider
  session.who = answer?.actor ? answer : null
  if (!session.who) localStorage.removeItem(reasonKey)
}

// headers are those that every request has, the stream's too: it is refused if another than the
// actor has signed in.
export const headers = (actor) => ({
  'Accept-Language': settings.get('language'),
  'X-Requested-With': 'panel',
  ...(actor ? { 'X-Session-Actor': encodeURIComponent(actor) } : {}),
  ...(reason() ? { [reasonHeader]: encodeURIComponent(reason()) } : {}),
})

// Problem is an answer of failure, or a missing one (status 0).
class Problem extends Error {
  constructor(status, body, after) {
    super(body.detail || body.title || '')
    this.status = status
    this.title = body.title || ''
    this.fields = Array.isArray(body.errors) ? body.errors : []
    this.requestID = body.request_id || ''
    this.archivedTo = body.archived_to // positions of the log up to there are archived
    this.after = after // seconds until it is worth trying again; undefined: unknown
  }

  // again reports whether the same request may well succeed a little later.
  get again() { return this.status === 0 || this.status === 503 || this.status === 429 || this.status === 502 || this.status === 504 }
}

// sources has the text that each answer was parsed from, with its numbers of any length.
const sources = new WeakMap()

// ask sends a request for the user who is signed in when it is called: it is refused, and its answer
// dropped, if another has signed in meanwhile.
async function ask(method, path, request = {}, actor = request.silent ? undefined : session.who?.actor) {
  const { body, more = {}, signal, plain, each } = request
  let response
  try {
    response = await fetch(root + path, {
      method, body, signal, cache: 'no-store', credentials: 'same-origin', redirect: 'error',
      headers: { Accept: 'application/json', ...headers(actor), ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...more },
    })
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new Problem(0, {})
  }
  const text = await (each && response.ok ? lines(response.body.getReader(), each) : response.text())
  if (actor && session.who?.actor !== actor) throw new Problem(401, {})
  if ((each || plain) && response.ok) return text
  const value = read(text)
  if (response.ok) return value
  const problem = new Problem(response.status, value ?? {}, Number(response.headers.get('Retry-After')) || undefined)
  if (problem.status === 401 && actor && await session.renew?.()) return ask(method, path, request, actor)
  if (problem.fields.some((one) => one.field === reasonHeader) && await giveReason()) return ask(method, path, request, actor)
  throw problem
}

// lines reads lines of JSON as they come, until each(value) returns false, and returns the last.
async function lines(reader, each) {
  const decoder = new TextDecoder()
  let [rest, last] = ['', null]
  try {
    for (;;) {
      const { done, value } = await reader.read()
      const complete = (rest + decoder.decode(value, { stream: !done })).split('\n')
      rest = done ? '' : complete.pop()
      for (const line of complete) if (line !== '' && each(last = read(line)) === false) return last
      if (done) return last
    }
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new Problem(0, {})
  } finally {
    reader.cancel().catch(() => {})
  }
}

// read parses JSON and remembers its source for exact; it returns null for anything else.
export function read(text) {
  const value = parse(text)
  if (value !== null && typeof value === 'object') sources.set(value, text)
  return value
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

// The reason is the session's: all tabs have it.
function reason() {
  const [id, ...given] = (localStorage.getItem(reasonKey) ?? '').split(' ')
  return session.who && id === session.who.id ? given.join(' ') : ''
}
let asking = null

// giveReason asks once a session why patients' data are read; requests that wait
// for it share the question. It returns whether there is an answer.
async function giveReason() {
  asking ??= session.askReason().finally(() => { asking = null })
  const given = await asking
  if (given) localStorage.setItem(reasonKey, `${session.who?.id} ${given}`)
  return Boolean(given)
}

const pauses = [500, 1500, 4000] // milliseconds

// patiently repeats a read that is answered 503.
async function patiently(path, request) {
  for (let i = 0; ; i++) {
    try {
      return await ask('GET', path, request)
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 503 || i === pauses.length) throw error
    }
    await pause(pauses[i], request.signal)
  }
}

// pause waits; it rejects with the reason of the signal when that is aborted. It leaves no
// listener behind: the signal may live for days.
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(signal.reason) }
    const timer = setTimeout(() => { signal?.removeEventListener('abort', stop); resolve() }, milliseconds)
    signal?.addEventListener('abort', stop)
  })
}

const encoded = (value) => (value === undefined ? undefined : typeof value === 'string' ? value : JSON.stringify(value))

function act(method, path, body, { key = newKey(), version, signal } = {}) {
  const more = { 'Idempotency-Key': key, ...(version === undefined ? {} : { 'If-Match': `"${version}"` }) }
  return ask(method, path, { body: encoded(body), more, signal })
}

export const api = {
  get: (path, parameters, signal) => patiently(path + query(parameters), { signal }),
  text: (path) => patiently(path, { plain: true }),
  post: (path, body, options) => act('POST', path, body, options),
  patch: (path, body, version, options) => act('PATCH', path, body, { ...options, version }),
  delete: (path, options) => act('DELETE', path, undefined, options),
  // lines reads an answer of lines of JSON: each(value) for each, until it returns false.
  lines: (method, path, { parameters, body, each, signal }) =>
    ask(method, path + query(parameters), { body: body && encoded(body), more: { Accept: 'application/x-ndjson' }, each, signal }),
  // enter and leave begin and end the session.
  enter: (token) => ask('POST', '/session', { body: JSON.stringify({ token }), silent: true }).then(take),
  leave: () => ask('DELETE', '/session').then(() => take(null)),
}

// newKey returns the key of a new action. (crypto.randomUUID needs https.)
export const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')

// query returns the query of a URL, without the parameters that have no value.
export function query(parameters = {}) {
  const known = Object.entries(parameters).filter(([, value]) => value !== '' && value !== null && value !== undefined)
  return known.length === 0 ? '' : '?' + new URLSearchParams(known)
}

// part returns an id escaped as a part of a path.
export const part = (id) => encodeURIComponent(id)

// exact returns the JSON of a part of an answer, indented, numbers and the order
// of keys as they came: exact(event, 'event_data'), exact(page, 'items', 0).
export function exact(answer, ...path) {
  const source = sources.get(answer)
  const found = source && member(source, ...path)
  return pretty(found ?? JSON.stringify(path.reduce((value, step) => value?.[step], answer)) ?? 'null')
}

// withRaw returns the JSON of an object and of fields whose JSON is written
// already, so that their numbers stay as they are; without those that are undefined.
export function withRaw(object, raw) {
  const fields = Object.entries(object).filter(([, value]) => value !== undefined).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`)
  for (const [name, json] of Object.entries(raw)) fields.push(`${JSON.stringify(name)}:${json}`)
  return `{${fields.join(',')}}`
}

// isObject reports whether a text is the JSON of an object.
export function isObject(text) {
  const value = parse(text)
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}
