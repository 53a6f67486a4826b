// Events: the list, one with what became of it, and the form that triggers one.
import { api, exact, isObject, part, withRaw } from './api.js'
import { confirm, say } from './dialogs.js'
import { button, card, facts, foreign, h, hidden, table } from './dom.js'
import { choice, describe, field, input, localTime, refuse, submitting } from './forms.js'
import { badge, failure, number, shortID, text, when } from './format.js'
import { filters, listing, showExample, typeOptions } from './lists.js'
import { t } from './texts.js'

export async function events({ parameters, signal }) {
  const asked = {
    event_type: parameters.get('event_type'), correlation_id: parameters.get('correlation_id'),
    from: localTime(parameters.get('from')), to: localTime(parameters.get('to')), limit: 50,
  }
  return h('div', {},
    h('div', { class: 'heading' }, h('h1', {}, t('event.list')), h('a', { href: '#/events/parked' }, t('parked.list')),
      h('a', { class: 'button main', href: '#/events/new' }, t('action.trigger'))),
    filters('events', parameters, [
      ['event_type', t('filter.type'), choice([['', t('app.all')], ...await typeOptions()])],
      ['correlation_id', t('filter.correlation'), input({ type: 'search' })],
      ['from', t('filter.from'), input({ type: 'datetime-local' })],
      ['to', t('filter.to'), input({ type: 'datetime-local' })],
    ]),
    await listing({
      path: '/webhooks/events', parameters: asked, signal, caption: t('event.list'), empty: t('event.empty'), columns: [
        { label: t('event.accepted'), cell: (e) => h('a', { href: `#/events/${part(e.event_id)}` }, when(e.accepted_at)) },
        { label: t('event.type'), cell: (e) => h('code', {}, e.event_type) },
        { label: t('event.source'), cell: (e) => text(e.source) },
        { label: t('event.correlation'), cell: (e) => text(e.correlation_id) },
        { label: 'ID', cell: (e) => shortID(e.event_id) },
      ],
    }))
}

export async function event({ id, signal }) {
  const path = `/webhooks/events/${part(id)}`
  const [event, deliveries, explained] = await Promise.all(
    [path, `${path}/deliveries`, `${path}/explain`].map((one) => api.get(one, {}, signal)))
  const names = new Map(explained.items.map((v) => [v.webhook_id, v.webhook_name]))
  return h('div', {},
    h('p', {}, h('a', { href: '#/events' }, t('event.back'))),
    h('div', { class: 'heading' }, h('h1', {}, event.event_type)),
    card(null, facts([
      [t('event.accepted'), when(event.accepted_at)], [t('event.occurred'), when(event.occurred_at)], [t('event.source'), text(event.source)],
      [t('event.correlation'), text(event.correlation_id)], ['ID', h('code', {}, event.event_id)],
    ]), h('h3', {}, t('event.data')), event.redacted ? hidden() : foreign(exact(event, 'event_data'), t('event.data'))),
    card(t('event.deliveries'), table(t('event.deliveries'), deliveryColumns(names), deliveries.items, t('event.noDeliveries'))),
    card(t('event.explain'), table(t('event.explain'), verdictColumns, explained.items, t('event.noWebhooks'))))
}

const linkTo = (id, name) => h('a', { href: `#/webhooks/${part(id)}` }, name || shortID(id))

const deliveryColumns = (names) => [
  { label: t('event.webhook'), cell: (d) => linkTo(d.webhook_id, names.get(d.webhook_id)) },
  { label: t('event.state'), cell: (d) => [badge(d.state), d.waiting_behind && h('div', { class: 'quiet' }, t('event.behind', d.waiting_behind))] },
  { label: t('event.attempts'), cell: (d) => number(d.attempts), number: true },
  { label: t('call.response'), cell: (d) => text(d.response_status), number: true },
  { label: t('call.next'), cell: (d) => when(d.next_attempt_at) },
  { label: t('call.error'), cell: failure },
  { label: t('event.actions'), cell: deliveryActions },
]

export function deliveryActions(delivery) {
  const path = `/webhooks/deliveries/${part(delivery.delivery_id)}`
  const change = (what, done) => async () => {
    try {
      if (what === 'cancel' && !await confirm(t('event.cancelAsk'), t('event.cancelNote'), t('action.cancelDelivery'))) return
      await api.post(`${path}/${what}`)
      say(done)
      window.dispatchEvent(new Event('hashchange'))
    } catch (error) {
      say(describe(error))
    }
  }
  return h('div', { class: 'actions' }, button(t('action.retry'), change('retry', t('event.retried'))),
    ['pending', 'failed'].includes(delivery.state) && button(t('action.cancelDelivery'), change('cancel', t('event.cancelled')), { class: 'danger' }))
}

const verdictColumns = [
  { get label() { return t('event.webhook') }, cell: (v) => linkTo(v.webhook_id, v.webhook_name) },
  { get label() { return t('event.version') }, cell: (v) => number(v.webhook_version), number: true },
  { get label() { return t('event.verdict') }, cell: (v) => badge(v.verdict) },
  { get label() { return t('event.reason') }, cell: why },
  { get label() { return t('event.sentBy') }, cell: (v) => v.sent_by.map((s) => h('div', {}, t(`sent.${s.kind}`), ' ', badge(s.state))) },
]

function why(verdict) {
  if (!verdict.field) return text(verdict.reason)
  if (verdict.redacted) return [h('code', {}, verdict.field), ': ', text(verdict.reason), hidden()]
  const got = verdict.got === null || verdict.got === undefined ? t('event.filterNothing') : JSON.stringify(verdict.got)
  return [t('event.filterWant', verdict.field, JSON.stringify(verdict.want), got), verdict.reason && h('div', { class: 'quiet' }, verdict.reason)]
}

export async function eventForm() {
  const type = choice(await typeOptions((one) => one.triggerable !== false))
  const data = h('textarea', { rows: '8', class: 'code', spellcheck: 'false' })
  await showExample(type, data)
  const source = input({ value: 'manual' })
  const correlation = input({})
  const send = async () => {
    if (!isObject(data.value)) refuse('event_data', t('webhook.filtersBad'))
    const asked = { event_type: type.value }
    if (source.value) asked.source = source.value
    if (correlation.value) asked.correlation_id = correlation.value
    const accepted = await api.post('/webhooks/events/trigger', withRaw(asked, { event_data: data.value }))
    say(t('event.triggered'))
    location.hash = `#/events/${part(accepted.event_id)}`
  }
  return h('div', {}, h('h1', {}, t('event.new')), card(null, submitting(send, t('action.send'),
    field('event_type', t('event.typeField'), type), field('event_data', t('event.dataField'), data, t('event.dataHint')),
    field('source', t('event.source'), source), field('correlation_id', t('event.correlation'), correlation))))
}
