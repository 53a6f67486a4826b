// What an entry of the log says, in words.
import { moment } from './format.js'
import { known, number, t } from './texts.js'
import './texts/access.js'

// actorName shortens an actor: the name of a token, a subject of the provider, ours in words.
export function actorName(actor) {
  if (!actor) return '—'
  const token = actor.match(/^token:\S+ \((.*)\)$/)
  if (token) return token[1]
  const outside = actor.match(/^(command line|database role) \(?(.*?)\)?$/)
  if (outside) return t(`actor.${outside[1].replace(' ', '_')}`, outside[2])
  return known(`actor.${actor.replace(':', '_')}`) ?? actor.replace(/^jwt:/, '')
}

// readWords says what was read of patients' data, if it knows.
export const readWords = (what) => known(`read.${what.replace(' ', '_')}`)

const kinds = { call: 'call.list', delivery: 'nav.deliveries', alert: 'alert.list', webhook: 'webhook.list', event: 'event.list' }
const lower = (name) => t(name).toLowerCase()
const shown = {
  kinds: (value) => value.split(',').map((kind) => lower(kinds[kind] ?? kind)).join(', '), after: (value) => number(Number(value)),
  type: (value) => known(`entry.${value}`) ?? known(`entries.${value.replace('.*', '')}`) ?? value, from: (value) => moment(value, 'short'), to: (value) => moment(value, 'short'),
  actor: actorName,
}

// askedWords says which of them were asked for: [[name of the API, words, value in words]].
export const askedWords = (asked) => Object.entries(asked ?? {}).filter(([name, value]) => name !== 'after' || value !== '0')
  .map(([name, value]) => [name, known(`asked.${name}`), shown[name]?.(value) ?? value])

// entryWords says what happened.
export const entryWords = (entry) => known(`entry.${entry.type}`) ?? entry.type

// entryNote says about what, as far as a line has room; webhookOf and typeOf name webhooks and types.
export function entryNote(entry, webhookOf, typeOf) {
  const { type, stream, data = {} } = entry
  const webhook = data.webhook_id ?? (stream.startsWith('webhook-') && !data.name ? stream.slice('webhook-'.length) : undefined)
  return [webhook && (webhookOf(webhook) ?? data.url), detail(type, data, typeOf)].filter(Boolean).join(' · ')
}

function detail(type, data, typeOf) {
  switch (type) {
    case 'webhook.registered': case 'webhook.created': return data.name
    case 'webhook.changed': return Object.keys(data).map((field) => known(`changed.${field}`) ?? field).join(', ')
    case 'webhook.deactivated': case 'delivery.cancelled': case 'subject.erased': return known(`alert.${data.reason}`) ?? known(`cancelled.${data.reason}`) ?? data.reason
    case 'event.triggered': return typeOf(data.event_type)
    case 'alert.raised': case 'alert.resolved': return known(`alert.${data.kind}`) ?? data.kind
    case 'admin.acted': return [known(`acted.${data.action}`) ?? data.action, data.detail].filter(Boolean).join(': ')
    case 'data.read': return [readWords(data.what) ?? data.what, data.reason && `«${data.reason}»`].filter(Boolean).join(' ')
    default: return ''
  }
}

// entryLink leads to what the entry is about.
export function entryLink({ stream, data }) {
  const [kind, id] = [stream.slice(0, stream.indexOf('-')), stream.slice(stream.indexOf('-') + 1)]
  const delivery = data?.event_id && data.event_type !== 'batch' ? `#/events/${data.event_id}` : data?.webhook_id && `#/webhooks/${data.webhook_id}/calls?delivery_id=${id}`
  return { webhook: `#/webhooks/${id}`, event: `#/events/${id}`, delivery, replay: `#/jobs/${id}`, token: '#/tokens' }[kind]
}

export const entryTypes = ['webhook.*', 'token.*', 'session.*', 'event.*', 'delivery.*', 'replay.*', 'alert.*', 'data.*', 'subject.*', 'admin.*', 'log.*'].map((type) => [type, () => t(`entries.${type.replace('.*', '')}`)])
