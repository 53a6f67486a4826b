// Calling the API with the user's token. The token lives in this tab's session
// storage: it is gone with the tab, no other site can make the browser send it
// (as a cookie would be), and it is never in an address.

import { prompt } from './dialogs.js'

const root = '/api/v1'
const tokenKey = 'medilab.token'
const reasonKey = 'medilab.reason'
const reasonHeader = 'X-Access-Reason'

export const token = {
  get: () => sessionStorage.getItem(tokenKey),
  set: (value) => sessionStorage.setItem(tokenKey, value),
  clear: () => [tokenKey, reasonKey].forEach((key) => sessionStorage.removeItem(key)),
}

// Problem is an answer that says no, or none at all (status 0).
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || '')
    this.status = status
    this.title = body.title || ''
    this.fields = Array.isArray(body.errors) ? body.errors : []
    this.requestID = body.request_id || ''
  }
}

// What an answer was parsed from: numbers of any length are still in there.
const sources = new WeakMap()

async function ask(method, path, request = {}) {
  const { body, headers = {}, signal, plain } = request
  let response
  try {
    response = await fetch(root + path, {
      method, body, signal, cache: 'no-store', credentials: 'omit', redirect: 'error',
      headers: { Accept: 'application/json', Authorization: `Bearer ${token.get() ?? ''}`,
        ...(reason() ? { [reasonHeader]: encodeURIComponent(reason()) } : {}), ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
    })
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new Problem(0, {})
  }
  const text = await response.text()
  if (plain && response.ok) return text
  const value = parse(text)
  if (!response.ok) {
    if (response.status === 401) window.dispatchEvent(new Event('medilab:unauthorized'))
    const problem = new Problem(response.status, value ?? {})
    if (problem.fields.some((one) => one.field === reasonHeader) && await giveReason()) return ask(method, path, request)
    throw problem
  }
  if (value !== null && typeof value === 'object') sources.set(value, text)
  return value
}

const reason = () => sessionStorage.getItem(reasonKey)
let asking = null

// giveReason asks once a session why patients' data are read; requests that wait
// for it share the question. It gives whether there is an answer.
async function giveReason() {
  asking ??= prompt('access.title', 'access.note', 'access.reason').finally(() => { asking = null })
  const given = await asking
  if (given) sessionStorage.setItem(reasonKey, given)
  return Boolean(given)
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

const encoded = (value) => (value === undefined ? undefined : typeof value === 'string' ? value : JSON.stringify(value))

export const api = {
  get: (path, parameters, signal) => ask('GET', path + query(parameters), { signal }),
  text: (path) => ask('GET', path, { plain: true }),
  post: (path, body) => ask('POST', path, { body: encoded(body) }),
  patch: (path, body, version) => ask('PATCH', path, { body: encoded(body), headers: { 'If-Match': `"${version}"` } }),
  delete: (path) => ask('DELETE', path),
}

// query writes parameters, without those that have no value.
export function query(parameters = {}) {
  const known = Object.entries(parameters).filter(([, value]) => value !== '' && value !== null && value !== undefined)
  return known.length === 0 ? '' : '?' + new URLSearchParams(known)
}

// part makes an id a part of a path.
export const part = (id) => encodeURIComponent(id)

// exact gives the JSON of a field of an answer, its numbers as they came where
// the browser can tell.
export function exact(answer, field) {
  const text = sources.get(answer)
  const value = text && typeof JSON.rawJSON === 'function' ? JSON.parse(text, keepNumber)[field] : answer[field]
  return JSON.stringify(value, null, 2)
}

function keepNumber(key, value, context) {
  if (typeof value !== 'number' || !context || String(value) === context.source) return value
  return JSON.rawJSON(context.source)
}

// withRaw writes an object of JSON together with fields whose JSON is written
// already, so that their numbers stay as they are.
export function withRaw(object, raw) {
  const fields = Object.entries(object).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`)
  for (const [name, json] of Object.entries(raw)) fields.push(`${JSON.stringify(name)}:${json}`)
  return `{${fields.join(',')}}`
}

// isObject tells whether a text is the JSON of an object.
export function isObject(text) {
  const value = parse(text)
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}
