// A test call, and what came of it.
import { api, isObject, part, withRaw } from './api.js'
import { callDetails } from './calls.js'
import { card, fill, h } from './dom.js'
import { choice, field, refuse, submitting } from './forms.js'
import { showExample, typeOptions } from './lists.js'
import { t } from './texts.js'

export async function test({ webhook }) {
  const options = await typeOptions()
  const fitting = options.find(([type]) => webhook.events.some((one) => one === type || one === '*' || one.endsWith('.*') && type.startsWith(one.slice(0, -1))))
  const type = choice(options, fitting?.[0])
  const data = h('textarea', { rows: '6', class: 'code', spellcheck: 'false' })
  await showExample(type, data)
  const result = h('div', { role: 'status' })
  const send = async () => {
    fill(result)
    if (!isObject(data.value)) refuse('test_data', t('webhook.filtersBad'))
    const call = await api.post(`/webhooks/${part(webhook.id)}/test`, withRaw({ event_type: type.value }, { test_data: data.value }))
    fill(result, h('p', { class: 'note' }, verdict(call)), callDetails(call))
  }
  return h('div', {},
    card(t('test.title'), h('p', { class: 'hint' }, t('test.note')),
      submitting(send, t('action.test'), field('event_type', t('filter.type'), type), field('test_data', t('test.data'), data, t('event.dataHint')))),
    result)
}

// verdict says whether a real event would have been sent, and if not, why.
function verdict(call) {
  if (call.would_match) return t('test.would')
  const why = []
  if (call.type_subscribed === false) why.push(t('test.notSubscribed'))
  if (call.active === false) why.push(t('test.inactive'))
  if (call.filter && !call.filter.matched && call.filter.reason) why.push(t('test.filter', call.filter.field ?? '', call.filter.reason))
  return t('test.wouldNot', why.join(', '))
}
