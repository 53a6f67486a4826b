// Charts over time, drawn by uPlot (a script of its own: the global uPlot).
//
//   html`<${Chart} kind="calls" parts=${parts(stats, range)} range=${range} />`
//
// kind 'calls' draws successful and failed calls, 'latency' p50, p95 and p99. A range is
// { from, to, bucket } in milliseconds and a bucket of the API; parts fills the gaps. The
// chart follows width, scheme, language and zone, and is let go with its component.
import { milliseconds, moment, timeZone } from './format.js'
import { settings } from './settings.js'
import { locale, number, t } from './texts.js'
import './texts/stats.js'
import { Table } from './list.js'
import { Time } from './ui.js'
import { html, useEffect, useRef } from './view.js'

const minute = 60000
const hour = 60 * minute
const day = 24 * hour
export const widths = { minute, hour, day }

// The ranges to choose from: how long, and in parts of which width.
export const ranges = { '15m': [15 * minute, 'minute'], '1h': [hour, 'minute'], '6h': [6 * hour, 'minute'], '24h': [day, 'hour'], '7d': [7 * day, 'hour'], '30d': [30 * day, 'day'], '1y': [365 * day, 'day'] }

// rangeOf returns the range that the address names: range=24h, or from= and to=.
export function rangeOf(parameters, now = Date.now()) {
  const [from, to] = ['from', 'to'].map((name) => Date.parse(parameters.get(name) ?? ''))
  if (from < to) return { name: 'own', from, to, bucket: to - from <= 6 * hour ? 'minute' : to - from <= 8 * day ? 'hour' : 'day' }
  const name = Object.hasOwn(ranges, parameters.get('range') ?? '') ? parameters.get('range') : '24h'
  const [length, bucket] = ranges[name]
  const width = widths[bucket]
  const begin = Math.floor((now - length) / width) * width + width
  return { name, from: begin, to: null, end: now, bucket }
}

// asked returns the parameters of the API for a range.
export const asked = (range) => ({ from: new Date(range.from).toISOString(), to: range.to ? new Date(range.to).toISOString() : undefined, bucket: range.bucket })

const most = 180 // bars

// parts are those of the series and, between them, empty ones; so many neighbours
// together that they can be told apart. Of percentiles together it shows the highest.
export function parts(stats, range) {
  const width = widths[stats.series_bucket ?? range.bucket]
  const known = new Map((stats.series ?? []).map((one) => [Date.parse(one.at), one]))
  const begin = Math.floor(range.from / width) * width
  const end = range.to ?? Math.max(range.end, ...known.keys())
  const count = Math.ceil((end - begin + 1) / width)
  const together = Math.ceil(count / most)
  const all = []
  for (let i = 0; i < count; i++) {
    const one = known.get(begin + i * width)
    if (i % together === 0) all.push({ at: begin + i * width, width: together * width, ok: 0, bad: 0, p50: null, p95: null, p99: null })
    const sum = all.at(-1)
    if (!one) continue
    sum.ok += one.successful_calls
    sum.bad += one.failed_calls
    for (const name of ['p50', 'p95', 'p99']) if (one[`${name}_ms`] !== null) sum[name] = Math.max(sum[name] ?? 0, one[`${name}_ms`])
  }
  return all
}

export function Chart({ kind, parts: all, height = 200 }) {
  const place = useRef(null)
  const { scheme, language, zone } = { scheme: settings.get('scheme'), language: settings.get('language'), zone: settings.get('zone') }
  useEffect(() => {
    let plot = null
    const draw = () => {
      plot?.destroy()
      if (!place.current) return
      const width = Math.floor(place.current.clientWidth)
      plot = width > 0 ? new window.uPlot(options(kind, all, place.current, width, height), data(kind, all), place.current) : null
    }
    const watcher = new ResizeObserver(() => place.current && (plot ? plot.setSize({ width: Math.floor(place.current.clientWidth), height }) : draw()))
    watcher.observe(place.current)
    const dark = matchMedia('(prefers-color-scheme: dark)')
    dark.addEventListener('change', draw)
    return () => {
      watcher.disconnect()
      dark.removeEventListener('change', draw)
      plot?.destroy()
    }
  }, [all, kind, scheme, language, zone])
  return html`<div class="chart" ref=${place} role="img" aria-label=${t(`chart.${kind}`)}></div>`
}

// Numbers shows the parts with any calls as a table, for who cannot see a chart.
export const Numbers = ({ parts: all }) => html`<details><summary>${t('stats.chartTable')}</summary>
  <${Table} caption=${t('stats.chart')} id=${(p) => p.at} rows=${all.filter((p) => p.ok + p.bad > 0).reverse()} columns=${[
    { label: t('call.time'), cell: (p) => html`<${Time} at=${new Date(p.at).toISOString()} style="short" />` },
    { label: t('stats.successful'), cell: (p) => number(p.ok), number: true },
    { label: t('stats.failed'), cell: (p) => number(p.bad), number: true },
    { label: 'p50', cell: (p) => milliseconds(p.p50), number: true, opt: true },
    { label: 'p95', cell: (p) => milliseconds(p.p95), number: true },
    { label: 'p99', cell: (p) => milliseconds(p.p99), number: true, opt: true },
  ]} /></details>`

// data has failed calls on top of the successful ones: all of them are drawn first.
const data = (kind, all) => [all.map((p) => p.at / 1000), ...(kind === 'calls'
  ? [all.map((p) => p.ok + p.bad), all.map((p) => p.ok)] : ['p50', 'p95', 'p99'].map((name) => all.map((p) => p[name])))]

// colour resolves a token of style.css where the chart stands.
function colour(place, token) {
  place.style.color = `var(${token})`
  const resolved = getComputedStyle(place).color
  place.style.color = ''
  return resolved
}

function options(kind, all, place, width, height) {
  const of = (token) => colour(place, token)
  const fraction = (all[0]?.width ?? hour) < hour ? 'clock' : (all.at(-1)?.at - all[0]?.at > 3 * day ? 'day' : 'clock')
  const bars = (label, token, value) => ({ label, fill: of(token), stroke: of(token), width: 0, points: { show: false }, paths: window.uPlot.paths.bars({ size: [0.75, 40], align: 1 }), value })
  const line = (label, token, dash) => ({ label, stroke: of(token), width: 1.5, dash, spanGaps: true, points: { show: all.length < 40, size: 4 }, value: (_, value) => milliseconds(value) })
  const axis = { stroke: of('--muted'), grid: { stroke: of('--line'), width: 1 }, ticks: { stroke: of('--line'), width: 1 }, font: '11px system-ui' }
  const compact = new Intl.NumberFormat(locale(), { notation: 'compact', maximumFractionDigits: 1 })
  const shown = kind === 'calls' ? (value) => compact.format(value) : milliseconds
  const room = (_, values) => 16 + 6.5 * Math.max(3, ...(values ?? []).map((value) => value.length))
  return {
    width, height, padding: [8, 30, 0, 0], cursor: { y: false, points: { size: 6 } }, legend: { live: true }, hooks: { setLegend: [(u) => u.root.classList.toggle('idle', u.cursor.idx === null || u.cursor.idx === undefined)] },
    tzDate: (seconds) => (timeZone() ? window.uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC') : new Date(seconds * 1000)),
    series: [{ label: t('call.time'), value: (_, seconds) => (seconds === null ? '—' : moment(seconds * 1000, 'short')) }, ...(kind === 'calls' ? [
      bars(t('stats.failed'), '--bad', (_, value, __, i) => number(i === null || i === undefined ? null : all[i].bad)),
      bars(t('stats.successful'), '--good', (_, value) => number(value)),
    ] : [line('p50', '--good'), line('p95', '--warn'), line('p99', '--bad', [4, 3])])],
    axes: [{ ...axis, space: 90, size: 34, values: (_, times) => times.map((at) => label(at * 1000, fraction)) },
      { ...axis, size: room, space: 36, incrs: kind === 'calls' ? steps : undefined, values: (_, values) => values.map(shown) }],
    scales: { x: { range: () => [all[0].at / 1000, (all.at(-1).at + all.at(-1).width) / 1000] }, y: { range: (_, __, high) => [0, Math.max(1, (high ?? 0) * 1.1)] } },
  }
}

// label writes a time of the axis: the hour, or at midnight the day.
function label(at, fraction) {
  if (fraction === 'day') return moment(at, 'day')
  const clock = moment(at, 'clock')
  return clock === '00:00' ? moment(at, 'day') : clock
}

// Calls are whole: so are the steps of their axis.
const steps = [1, 2, 5].flatMap((n) => Array.from({ length: 10 }, (_, power) => n * 10 ** power)).sort((a, b) => a - b)
