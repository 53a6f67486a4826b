// The catalogue of event types, in the reader's language.
import { language, t } from './texts.js'
import { useLoad } from './ui.js'

// useTypes returns the types; none until they are there.
export const useTypes = () => useLoad('/webhooks/events/types').data?.items ?? []

export const describeType = (type) => type.description[language()]

// typeOptions are the choices of a control.
export const typeOptions = (types) => types.map((one) => [one.type, `${one.type} — ${describeType(one)}`])

// typeFilter is the field of Filters by event type.
export const typeFilter = (types) => ({ name: 'event_type', label: t('filter.type'), options: [['', t('app.all')], ...typeOptions(types)] })
