// How values look, in the language of the user.
import { h } from './dom.js'
import { language, known, t } from './texts.js'

const nothing = '—'
const locale = () => (language() === 'ru' ? 'ru-RU' : 'en-GB')

// when shows a time in the user's zone; the exact one, in UTC, is its title.
export function when(text) {
  if (!text) return nothing
  const at = new Date(text)
  const shown = new Intl.DateTimeFormat(locale(), { dateStyle: 'medium', timeStyle: 'medium' }).format(at)
  return h('time', { datetime: text, title: text }, shown)
}

export function number(value, digits = 0) {
  if (value === null || value === undefined) return nothing
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value)
}

export const percent = (value) => (value === null || value === undefined ? nothing : `${number(value, 1)} %`)

export const milliseconds = (value) => (value === null || value === undefined ? nothing : `${number(value, value < 10 ? 1 : 0)} ${t('unit.ms')}`)

// duration shows seconds in the unit that suits them.
export function duration(seconds) {
  const [unit, size] = [['day', 86400], ['hour', 3600], ['minute', 60]].find(([, size]) => seconds >= 2 * size) ?? ['second', 1]
  return new Intl.NumberFormat(locale(), { style: 'unit', unit, maximumFractionDigits: 0 }).format(seconds / size)
}

export const text = (value) => (value === null || value === undefined || value === '' ? nothing : String(value))

const tones = {
  active: 'good', success: 'good', delivered: 'good', resolved: 'good', inactive: 'quiet', cancelled: 'quiet',
  deleted: 'quiet', counting: 'wait', running: 'wait', paused: 'wait', completed: 'good', type_not_subscribed: 'quiet', not_registered_yet: 'quiet', imported: 'quiet', filtered: 'quiet', failed: 'bad', open: 'bad', pending: 'wait',
}

// failure says why a call failed, in the user's language; what the server says of
// it, which has the names and numbers, is in English.
export function failure({ outcome, error }) {
  const told = language() === 'en' || !outcome || outcome === 'success' ? undefined : known(`outcome.${outcome}`)
  if (!told) return error ? h('span', { lang: 'en' }, error) : nothing
  return [told, h('div', { class: 'quiet', lang: 'en' }, error)]
}

// badge shows one of a closed set of words, by colour and by name.
export function badge(word) {
  return h('span', { class: `badge ${tones[word] ?? 'quiet'}` }, known(`state.${word}`) ?? text(word))
}

// id shows the short end of a long name; the whole is its title.
export const shortID = (value) => (value ? h('code', { title: value }, `…${String(value).slice(-8)}`) : nothing)
