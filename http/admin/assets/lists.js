// Lists of the API: filters that live in the address, and pages of items.
import { api } from './api.js'
import { addRows, button, h, table } from './dom.js'
import { field } from './forms.js'
import { language, t } from './texts.js'

// listing shows the items of a path, and asks for more when asked to.
export async function listing({ path, parameters, signal, caption, columns, empty }) {
  let page = await api.get(path, parameters, signal)
  const shown = h('div', { class: 'list' }, table(caption, columns, page.items, empty))
  const more = button(t('app.more'), async () => {
    page = await api.get(path, { ...parameters, cursor: page.next_cursor }, signal)
    addRows(shown.querySelector('tbody'), columns, page.items)
    more.hidden = !page.next_cursor
  })
  more.hidden = !page.next_cursor
  shown.append(more)
  return shown
}

// filters is a form whose values become the address of the page.
export function filters(page, values, controls) {
  const form = h('form', { class: 'filters', role: 'search' },
    controls.map(([name, label, control]) => {
      control.name = name
      control.value = values.get(name) ?? ''
      return field(name, label, control)
    }),
    h('div', { class: 'actions' }, h('button', { type: 'submit' }, t('action.filter'))))
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const chosen = [...new FormData(form)].filter(([, value]) => value !== '')
    const query = new URLSearchParams(chosen).toString()
    const next = `#/${page}${query && '?' + query}`
    if (next === location.hash) window.dispatchEvent(new Event('hashchange'))
    else location.hash = next
  })
  return form
}

let catalogue = null

// eventTypes is the catalogue, asked for once.
export async function eventTypes() {
  catalogue ??= (await api.get('/webhooks/events/types')).items
  return catalogue
}

export const describeType = (type) => (typeof type.description === 'object' ? type.description[language()] : type.description)

// showExample keeps the example of the chosen event type in the field, until somebody writes there.
export async function showExample(type, field) {
  const types = await eventTypes()
  let shown = field.value
  const show = () => {
    if (field.value !== shown) return
    field.value = shown = JSON.stringify(types.find((one) => one.type === type.value)?.example ?? {}, null, 2)
  }
  type.addEventListener('change', show)
  show()
}

// typeOptions are the choices of a filter or a form by event type.
export async function typeOptions(only = () => true) {
  return (await eventTypes()).filter(only).map((type) => [type.type, `${type.type} — ${describeType(type)}`])
}
