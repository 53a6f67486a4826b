// The page /docs: shows the description of the API (openapi.json), and tries its calls. It
// asks with the token that is typed there, which stays in the page's memory, else with the
// session of the panel.
import { newKey, query } from './api.js'
import { Json, readable } from './code.js'
import { Area, Field, Select, Text } from './controls.js'
import { milliseconds } from './format.js'
import { apply } from './settings.js'
import { t } from './texts.js'
import './texts/docs.js'
import { Badge, Card, Foreign } from './ui.js'
import { html, render, useRef, useState } from './view.js'

const longest = 1 << 20 // characters of an answer that are shown

// Words shows text of the description, which is in English, `code` in it as such.
const Words = ({ text = '' }) => html`<span lang="en">${text.split('`').map((part, i) => (i % 2 ? html`<code>${part}</code>` : part))}</span>`

const resolve = (api, schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split('/').pop()] : schema ?? {})
const choicesOf = (schema) => schema.anyOf ?? schema.oneOf ?? []
const typeOf = (schema) => [schema.type ?? []].flat().find((type) => type !== 'null')

// example returns a value that fits the schema: of an object, what is required.
function example(api, reference) {
  const schema = resolve(api, reference)
  if (choicesOf(schema).length > 0) return example(api, choicesOf(schema)[0])
  const given = schema.example ?? schema.examples?.[0] ?? schema.default ?? schema.enum?.[0]
  if (given !== undefined) return given
  switch (typeOf(schema)) {
    case 'object': return Object.fromEntries((schema.required ?? []).map((name) => [name, example(api, schema.properties?.[name])]))
    case 'array': return [example(api, schema.items)]
    case 'integer': case 'number': return schema.minimum ?? 0
    case 'boolean': return false
    case undefined: return null
  }
  return schema.format === 'date-time' ? new Date().toISOString() : ''
}

// bodyExample is the example of that name of a request's body, else one made of its schema.
const bodyExample = (api, { examples, schema }, name) => JSON.stringify(examples?.[name]?.value ?? example(api, schema), null, 2)

// Details renders what it holds only while it is open.
function Details({ summary, children, ...rest }) {
  const [open, setOpen] = useState(location.hash.slice(1) === rest.id)
  return html`<details open=${open} onToggle=${(event) => setOpen(event.currentTarget.open)} ...${rest}><summary>${summary}</summary>${open && children()}</details>`
}

// Shape shows the fields of a schema, and those of their own below each.
function Shape({ api, schema: reference }) {
  const schema = resolve(api, reference)
  const inner = [schema.items, schema.additionalProperties, ...choicesOf(schema)].filter((one) => one && one !== true).map((one) => resolve(api, one))
  const fields = Object.entries(schema.properties ?? {})
  if (fields.length === 0 && inner.length === 0) return html`<code>${kindOf(schema)}</code>`
  if (fields.length === 0) return inner.map((one) => html`<${Shape} api=${api} schema=${one} />`)
  return html`<ul class="shape">${fields.map(([name, reference]) => {
    const field = resolve(api, reference)
    const nested = [field, field.items, field.additionalProperties, ...choicesOf(field)].some((one) => resolve(api, one).properties)
    const line = html`<code>${name}</code> <span class="muted">${kindOf(field)}${schema.required?.includes(name) ? `, ${t('docs.required')}` : ''}</span>`
    const about = field.description && html`<div class="hint"><${Words} text=${field.description} /></div>`
    return html`<li key=${name}>${nested ? html`<${Details} summary=${line}>${() => html`${about}<${Shape} api=${api} schema=${field} />`}</${Details}>` : html`${line}${about}`}</li>`
  })}</ul>`
}

const kindOf = (schema) => [[schema.type ?? 'any'].flat().join(' | '), schema.format, schema.enum?.join(' | ')].filter(Boolean).join(', ')

// ask makes a call, and hands each state of its answer to show.
async function ask({ method, path, token, headers, body }, signal, show) {
  const begun = performance.now()
  const own = token ? { Authorization: `Bearer ${token}` } : { 'X-Requested-With': 'panel' }
  const response = await fetch(path, { method, body, signal, cache: 'no-store', credentials: token ? 'omit' : 'same-origin', headers: { ...own, ...headers } })
  const answer = { status: response.status, took: performance.now() - begun, headers: [...response.headers], text: '' }
  show(answer)
  const [reader, decoder] = [response.body.getReader(), new TextDecoder()]
  for (let read = await reader.read(); !read.done && answer.text.length < longest; read = await reader.read()) {
    answer.text += decoder.decode(read.value, { stream: true })
    show({ ...answer })
  }
  reader.cancel()
}

// callOf is the call that a form asks for: its controls are named by place and name.
function callOf(form, { method, path, parameters = [] }, token) {
  const of = (place) => parameters.filter((one) => one.in === place).map(({ name }) => [name, form.elements[`${place}.${name}`].value])
  const headers = Object.fromEntries(of('header').filter(([, value]) => value !== ''))
  if (parameters.some((one) => one.name === 'Idempotency-Key')) headers['Idempotency-Key'] ??= newKey()
  const body = form.elements.body?.value
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  const filled = of('path').reduce((path, [name, value]) => path.replace(`{${name}}`, encodeURIComponent(value)), path)
  return { method: method.toUpperCase(), path: filled + query(Object.fromEntries(of('query'))), token, headers, body: body || undefined }
}

// Try is the form that makes a call of the operation, and its answer.
function Try({ api, operation, token }) {
  const [answer, setAnswer] = useState(null)
  const [busy, setBusy] = useState(null)
  const content = operation.requestBody?.content['application/json']
  const examples = Object.keys(content?.examples ?? {})
  const [chosen, setChosen] = useState(examples[0])
  const send = async (event) => {
    event.preventDefault()
    if (busy) return
    const control = new AbortController()
    setBusy(control)
    try {
      await ask(callOf(event.target, operation, token.current), control.signal, setAnswer)
    } catch (error) {
      if (error.name !== 'AbortError') setAnswer({ trouble: t('error.network') })
    }
    setBusy(null)
  }
  return html`<form onSubmit=${send}>
    <div class="columns">${operation.parameters?.map((one) => html`<${Field} key=${one.name} label=${one.name} hint=${html`<${Words} text=${one.description} />`}>${(control) => {
      const named = { ...control, name: `${one.in}.${one.name}`, required: one.required }
      return one.schema.enum ? html`<${Select} ...${named} options=${['', ...one.schema.enum].map((value) => [value, value])} />` : html`<${Text} ...${named} />`
    }}</${Field}>`)}</div>
    ${examples.length > 0 && html`<${Field} label=${t('docs.example')}>${(control) => html`
      <${Select} ...${control} options=${examples.map((name) => [name, name])} value=${chosen} onChange=${(event) => setChosen(event.target.value)} />`}</${Field}>`}
    ${content && html`<${Field} label=${t('docs.body')}>${(control) => html`
      <${Area} key=${chosen} ...${control} name="body" rows="10" defaultValue=${bodyExample(api, content, chosen)} />`}</${Field}>`}
    <div class="actions"><button type="submit" class="primary" disabled=${Boolean(busy)}>${t('docs.send')}</button>
      ${busy && html`<button type="button" onClick=${() => busy.abort()}>${t('docs.stop')}</button>`}</div></form>
    <div role="status">${answer?.trouble ?? (answer && html`<${Badge} tone=${answer.status < 400 ? 'good' : 'bad'}>${answer.status}</${Badge}> <span class="muted">${milliseconds(Math.round(answer.took))}</span>`)}</div>
    ${answer?.headers && html`<${Foreign} label=${t('call.responseHeaders')}>${answer.headers.map(([name, value]) => `${name}: ${value}`).join('\n')}</${Foreign}>
      <${Json} source=${busy ? answer.text : readable(answer.text)} label=${t('call.responseBody')} />`}`
}

// Operation is one of the API, or (without a path) a call that receivers get.
function Operation({ api, operation, token }) {
  const { method, path, operationId: id, summary, description, requestBody, responses } = operation
  const contents = Object.values(requestBody?.content ?? {})
  const line = html`<${Badge}>${method.toUpperCase()}</${Badge}>${path && html`<code>${path}</code>`}<span class="what"><${Words} text=${summary} /></span>`
  return html`<li><${Details} id=${id} summary=${line}>${() => html`<div class="body stack"><p><${Words} text=${description} /></p>
    ${path ? html`<${Try} api=${api} operation=${operation} token=${token} />`
      : html`<dl class="facts">${operation.parameters.map((one) => html`<div key=${one.name}><dt><code>${one.name}</code></dt><dd><${Words} text=${one.description} /></dd></div>`)}</dl>`}
    ${contents.map(({ schema }) => html`<h3>${t('docs.body')}</h3><${Shape} api=${api} schema=${schema} />`)}
    <h3>${t('docs.answers')}</h3><ul class="shape">${Object.entries(responses).map(([status, one]) => {
      const [schema] = Object.values(one.content ?? {}).map((media) => media.schema)
      const said = html`<code>${status}</code> <${Words} text=${one.description} />`
      return html`<li key=${status}>${schema ? html`<${Details} summary=${said}>${() => html`<${Shape} api=${api} schema=${schema} />`}</${Details}>` : said}</li>`
    })}</ul></div>`}</${Details}></li>`
}

function Docs({ api }) {
  const token = useRef('')
  const [sought, setSought] = useState('')
  const all = [api.paths, api.webhooks].flatMap((group) => Object.entries(group).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ ...operation, method, path: group === api.paths ? path : '' }))))
  const shown = all.filter((one) => `${one.method} ${one.path} ${one.summary} ${one.operationId}`.toLowerCase().includes(sought.toLowerCase()))
  return html`<h1>${api.info.title}</h1><p><${Words} text=${api.info.description} /> <a href="/api/v1/openapi.json">openapi.json</a>, <a href="/api/v1/asyncapi.json">asyncapi.json</a> · <a href="/admin">${t('docs.panel')}</a></p>
    <div class="columns"><${Field} label=${t('docs.token')} hint=${t('docs.tokenHint')}>${(control) => html`<${Text} ...${control} type="password" onInput=${(event) => { token.current = event.target.value.trim() }} />`}</${Field}>
      <${Field} label=${t('docs.find')}>${(control) => html`<${Text} ...${control} type="search" onInput=${(event) => setSought(event.target.value)} />`}</${Field}></div>
    ${api.tags.map(({ name, description }) => [name, description, shown.filter((one) => one.tags[0] === name)]).filter(([, , list]) => list.length > 0).map(([name, description, list]) => html`
      <${Card} key=${name} title=${html`<span lang="en">${name}</span>`} note=${html`<${Words} text=${description} />`} flush><ul class="entries">
        ${list.map((one) => html`<${Operation} key=${one.operationId} api=${api} operation=${one} token=${token} />`)}</ul></${Card}>`)}`
}

apply()
const root = document.getElementById('docs')
try {
  const api = await (await fetch('/api/v1/openapi.json')).json()
  render(html`<${Docs} api=${api} />`, root)
  document.getElementById(location.hash.slice(1))?.scrollIntoView()
} catch {
  render(html`<h1>MediLab Webhooks</h1><p role="alert">${t('error.network')}</p>`, root)
}
