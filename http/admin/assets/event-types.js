// The catalogue of event types, in the reader's language.
import { api } from './api.js'
import { language, t } from './texts.js'
import { useEffect, useState } from './view.js'

let catalogue = null

// useTypes returns the types; none until they are there. They are asked for once.
export function useTypes() {
  const [types, set] = useState(catalogue ?? [])
  useEffect(() => {
    if (!catalogue) api.get('/webhooks/events/types').then((page) => set(catalogue = page.items), () => {})
  }, [])
  return types
}

export const describeType = (type) => (typeof type.description === 'object' ? type.description[language()] : type.description)

// typeOptions are the choices of a control.
export const typeOptions = (types) => types.map((one) => [one.type, `${one.type} — ${describeType(one)}`])

// typeFilter is the field of Filters by event type.
export const typeFilter = (types) => ({ name: 'event_type', label: t('filter.type'), options: [['', t('app.all')], ...typeOptions(types)] })
