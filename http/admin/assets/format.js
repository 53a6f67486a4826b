// How values look, in the language and the time zone of the reader.
import { settings } from './settings.js'
import { locale, number, t } from './texts.js'

const nothing = '—'

export const timeZone = () => (settings.get('zone') === 'utc' ? 'UTC' : undefined)

// moment writes a time; style is 'medium' (date and time), 'time', 'short' (day and
// minutes, with the year unless it is this one) or 'day'.
export function moment(at, style = 'medium') {
  if (!at) return nothing
  const write = (at, parts) => new Intl.DateTimeFormat(locale(), { ...parts, timeZone: timeZone() }).format(new Date(at))
  const year = { year: 'numeric' }
  return write(at, style === 'short' && write(at, year) !== write(Date.now(), year) ? { ...styles.short, ...year } : styles[style])
}

// near writes a time without its day if that is today.
export const near = (at) => moment(at, moment(at, 'day') === moment(Date.now(), 'day') && Math.abs(Date.now() - new Date(at)) < 86400000 ? 'time' : 'short')

const styles = {
  medium: { dateStyle: 'medium', timeStyle: 'medium' },
  time: { timeStyle: 'medium' },
  clock: { timeStyle: 'short' },
  short: { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' },
  day: { day: 'numeric', month: 'short' },
  month: { month: 'short', year: 'numeric' },
}

// zoneName names the zone in which times are shown, such as UTC or GMT+3.
export function zoneName() {
  const parts = new Intl.DateTimeFormat(locale(), { timeZone: timeZone(), timeZoneName: 'short' }).formatToParts(new Date())
  return parts.find((part) => part.type === 'timeZoneName')?.value ?? 'UTC'
}

// ago writes how long ago a time is, or how long until it comes.
export function ago(at) {
  const seconds = (new Date(at) - Date.now()) / 1000
  const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1]
  return new Intl.RelativeTimeFormat(locale(), { numeric: 'auto', style: 'short' }).format(Math.round(seconds / size), unit)
}

const units = [['day', 86400], ['hour', 3600], ['minute', 60]]

export const percent = (value) => (value === null || value === undefined ? nothing : `${number(value, 1)} %`)

// milliseconds writes a duration in the unit that suits it.
export function milliseconds(value) {
  if (value === null || value === undefined) return nothing
  if (value >= 10000) return `${number(value / 1000, 1)} ${t('unit.s')}`
  return `${number(value, value < 10 ? 1 : 0)} ${t('unit.ms')}`
}

// duration shows seconds in the unit that suits them.
export function duration(seconds) {
  const [unit, size] = units.find(([, size]) => seconds >= 2 * size) ?? ['second', 1]
  return new Intl.NumberFormat(locale(), { style: 'unit', unit, maximumFractionDigits: 0 }).format(seconds / size)
}

// tones are those of the names of states; the others have none.
export const tones = {
  active: 'good', success: 'good', delivered: 'good', resolved: 'good', completed: 'good', failed: 'bad', open: 'bad',
  counting: 'warn', running: 'warn', paused: 'warn', pending: 'warn',
}

// localTime returns the value of a control of a date and a time as the API takes it; undefined
// when there is none. What is no time stays as it is, for the API to refuse.
export function localTime(value) {
  const at = new Date(value || NaN)
  return isNaN(at) ? value || undefined : at.toISOString()
}

// inputTime returns a time as such a control has it.
export const inputTime = (at) => new Date(at - new Date(at).getTimezoneOffset() * 60000).toISOString().slice(0, 16)
