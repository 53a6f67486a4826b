// Building what is seen. Every text goes in as a text node or an attribute's
// value, never as HTML: nothing that a receiver or a caller sent becomes markup.
import { t } from './texts.js'

// h makes an element. Properties: `class`, `on` ({click: f}), booleans, and
// attributes; null and false leave one out. Children: nodes, texts, lists.
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue
    if (key === 'on') {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener)
    } else if (value === true) {
      element.setAttribute(key, '')
    } else {
      element.setAttribute(key, String(value))
    }
  }
  element.append(...nodes(children))
  return element
}

function nodes(children) {
  return children.flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))))
}

// fill replaces what is in an element.
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children))
  return element
}

// table shows rows; a column is {label, cell(row), number}. On a phone each row
// is a card: the roles keep it a table for a screen reader.
export function table(caption, columns, rows, empty) {
  if (rows.length === 0) return h('p', { class: 'empty' }, empty)
  const body = h('tbody', { role: 'rowgroup' })
  addRows(body, columns, rows)
  return h('table', { role: 'table' },
    h('caption', { class: 'quiet' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' },
      columns.map((c) => h('th', { scope: 'col', role: 'columnheader', class: c.number && 'number' }, c.label)))),
    body)
}

// addRows adds rows to a table's body.
export function addRows(body, columns, rows) {
  body.append(...rows.map((row) => h('tr', { role: 'row' }, columns.map((c) => h('td', {
    role: 'cell', class: c.number && 'number', 'data-label': c.label,
  }, h('div', {}, c.cell(row)))))))
}

// facts shows names and values.
export function facts(pairs) {
  return h('dl', {}, pairs.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))))
}

// foreign shows what somebody else wrote, as it is, apart from our own text:
// its own direction of writing stays inside.
export function foreign(text, label) {
  return h('pre', { class: 'foreign', dir: 'auto', tabindex: '0', 'aria-label': label }, text)
}

// hidden says that the token has no right to see what would stand here.
export const hidden = () => h('p', { class: 'quiet' }, t('access.hidden'))

// button makes a button that does something; it is off while that runs.
export function button(label, run, properties = {}) {
  return h('button', {
    type: 'button', ...properties, on: {
      click: async (event) => {
        const pressed = event.currentTarget
        pressed.disabled = true
        try {
          await run(event)
        } finally {
          pressed.disabled = false
        }
      },
    },
  }, label)
}

// card is a part of a page under a heading.
export function card(title, ...children) {
  return h('section', { class: 'card' }, title && h('h2', {}, title), children)
}
