// The catalogue of event types, in the reader's language.
import { known, language, t } from './texts.js'
import './texts/form.js'
import { useLoad } from './ui.js'
import { html } from './view.js'

// useTypes returns the types; none until they are there.
export const useTypes = () => useLoad('/webhooks/events/types').data?.items ?? []

export const describeType = (type) => type.description[language()] || type.type

// typeOptions are the choices of a control: words first.
export const typeOptions = (types) => types.map((one) => [one.type, `${describeType(one)} · ${one.type}`])

// typeFilter is the field of Filters by event type.
export const typeFilter = (types) => ({ name: 'event_type', label: t('filter.type'), options: [['', t('app.all')], ...typeOptions(types)] })

export const groupName = (group) => known(`group.${group}`) ?? group

// nameOf returns a type's, a group's or *'s name in the reader's language.
export function nameOf(pattern, types) {
  if (pattern === '*' || pattern === 'batch') return t(pattern === '*' ? 'group.all' : 'group.batch')
  if (pattern.endsWith('.*')) return `${groupName(pattern.split('.')[0])}: ${t('group.whole').toLowerCase()}`
  const type = types.find((one) => one.type === pattern)
  return type ? describeType(type) : pattern
}

// Names shows what a webhook subscribes to in words; the API's names are their titles.
export function Names({ of }) {
  const types = useTypes()
  return of.map((one, i) => html`${i > 0 && ', '}<span key=${one} title=${one}>${nameOf(one, types)}</span>`)
}
