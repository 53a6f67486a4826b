// A test call: a dialog in which an event is typed, sent once, and answered.
//
//   openTest(webhook)
import { api, exact, isObject, part, withRaw } from './api.js'
import { Area, Field, Form, Select, refuse } from './controls.js'
import { open } from './dialogs.js'
import { why as reason } from './health.js'
import { typeOptions } from './event-types.js'
import { number, t } from './texts.js'
import './texts/form.js'
import { Foreign, useLoad } from './ui.js'
import { html, useState } from './view.js'

export const openTest = (webhook) => open(({ close }) => html`<h2 id="dialog-title">${t('testcall.title')}</h2><p class="hint">${t('testcall.note')}</p><${TestCall} webhook=${webhook} close=${close} />`)

const fits = (events) => (type) => events.some((one) => one === type || one === '*' || one.endsWith('.*') && type.startsWith(one.slice(0, -1)))

// TestCall is the dialog's content, for a page that shows it by itself, too.
export function TestCall({ webhook, close }) {
  const types = useLoad('/webhooks/events/types')
  const [chosen, setChosen] = useState(null)
  const [written, setWritten] = useState(null)
  const [call, setCall] = useState(null)
  const all = types.data?.items ?? []
  const type = all.find((one) => one.type === chosen) ?? all.find((one) => fits(webhook.events)(one.type)) ?? all[0]
  if (!type) return html`<p class="empty" aria-busy="true">${t('app.loading')}</p>`
  const data = written ?? exact(types.data, 'items', all.indexOf(type), 'example')
  const send = async (key) => {
    setCall(null)
    if (!isObject(data)) refuse('test_data', t('form.filterBad'))
    setCall(await api.post(`/webhooks/${part(webhook.id)}/test`, withRaw({ event_type: type.type }, { test_data: data }), { key }))
  }
  return html`<${Form} send=${send} label=${t('action.send')} actions=${close && html`<button type="button" onClick=${() => close('')}>${t('action.close')}</button>`}>
    <${Field} name="event_type" label=${t('filter.type')}>${(control) => html`<${Select} ...${control} data-first value=${type.type} options=${typeOptions(all)}
      onChange=${(event) => { setChosen(event.target.value); setWritten(null) }} />`}</${Field}>
    <${Field} name="test_data" label=${t('testcall.data')}>${(control) => html`<${Area} ...${control} rows="12" value=${data} onInput=${(event) => setWritten(event.target.value)} />`}</${Field}></${Form}>
    <div role="status">${call && html`<${Outcome} call=${call} />`}</div>`
}

function Outcome({ call }) {
  const why = [!call.type_subscribed && t('testcall.notSubscribed'), !call.active && t('testcall.inactive'), !call.filter.matched && call.filter.reason].filter(Boolean)
  return html`<p class=${`why ${call.status === 'success' ? '' : 'bad'}`}><b title=${call.error}>${call.error ? `${reason(call)}.` : t('testcall.answered', String(call.response_status), number(call.duration_ms))}</b><br />
      ${call.would_match ? t('testcall.would') : t('testcall.wouldNot', why.join(', '))}</p>
    <h3>${t('testcall.sent')}</h3><${Foreign} label=${t('testcall.sent')}>${headers(call.request_headers)}${call.payload}</${Foreign}>
    ${call.response_body !== null && html`<h3>${t('call.answer')}</h3><${Foreign} label=${t('call.answer')}>${headers(call.response_headers)}${call.response_body}</${Foreign}>`}`
}

const headers = (all) => `${Object.entries(all ?? {}).map(([name, value]) => `${name}: ${value}\n`).join('')}\n`
