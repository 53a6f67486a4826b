// The way of a fresh installation to its first delivered call, done from here. busy(true) is called
// when an event was triggered, busy(false) when there was time to read that it was delivered.
import { api, part } from './api.js'
import { Field, Form, Text } from './controls.js'
import { milliseconds } from './format.js'
import { advice, why } from './health.js'
import { useLive } from './live.js'
import { t } from './texts.js'
import { Act, Card, Copy, useLoad } from './ui.js'
import { html, useEffect, useState } from './view.js'

const type = 'patient.created'

export function Start({ busy }) {
  const hooks = useLoad('/webhooks', { limit: 1 })
  const types = useLoad('/webhooks/events/types')
  const [tested, setTested] = useState(null)
  const [event, setEvent] = useState(null)
  const [seen, setSeen] = useState([]) // calls of late: the event's may come before its own answer
  const hook = hooks.data?.items[0]
  const example = types.data?.items.find((one) => one.type === type)?.example ?? {}
  useLive({ kinds: ['call'] }, (kind, one) => { if (kind !== 'again') setSeen((old) => [...old.slice(-20), one]) })
  const made = event && seen.findLast((one) => one.event_id === event.event_id)
  const call = made ?? tested
  const delivered = made?.status === 'success'
  useEffect(() => { if (event) busy(true) }, [event])
  useEffect(() => {
    if (!delivered) return
    const timer = setTimeout(busy, 4000, false)
    return () => clearTimeout(timer)
  }, [delivered])
  if (!hooks.data) return null
  const add = async (key, form) => {
    await api.post('/webhooks', { name: t('start.name'), url: form.elements.url.value.trim(), events: ['*'] }, { key })
    await hooks.reload()
  }
  const test = async (key) => setTested(await api.post(`/webhooks/${part(hook.id)}/test`, { event_type: type, test_data: example }, { key }))
  const trigger = async (key) => setEvent(await api.post('/webhooks/events/trigger', { event_type: type, event_data: example, source: 'panel' }, { key }))
  const good = call?.status === 'success'
  return html`<${Card} title=${t('start.title')} flush><ol class="steps">
    <li class=${hook && 'done'}><div><b>${t('start.hook')}</b><div class="muted">${hook ? t('start.added', hook.name) : html`${t('start.hookNote')} <${Copy} value="medilab-webhooks receive" whole />`}</div></div>
      ${!hook && html`<${Form} send=${add} label=${t('start.add')}><${Field} name="url" label=${t('start.url')}>${(control) => html`<${Text} ...${control} name="url" type="url" defaultValue="http://127.0.0.1:9000/" />`}</${Field}></${Form}>`}</li>
    <li class=${good && 'done'}><div><b>${t('start.test')}</b><div class="muted" role="status">${!call ? t('start.testNote') : good ? t('start.answered', String(call.response_status), milliseconds(call.duration_ms)) : `${why(call)}. ${advice(call) ?? ''}`}</div></div>
      ${hook && html`<span><${Act} run=${test}>${t('start.call')}</${Act}></span>`}</li>
    <li class=${delivered && 'done'}><div><b>${t('start.event')}</b><div class="muted" role="status">${delivered ? t('start.delivered') : event ? t('start.sending') : t('start.eventNote')}</div></div>
      ${hook && html`<span><${Act} run=${trigger} tone="primary" disabled=${event !== null && !call}>${t('start.trigger')}</${Act}></span>`}</li></ol></${Card}>`
}
