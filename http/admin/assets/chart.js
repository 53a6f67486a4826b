// A chart of calls over time, drawn by uPlot (a script of its own: the global uPlot).
import { h } from './dom.js'
import { language, t } from './texts.js'

const height = 260

// Calls are whole: so are the steps of their axis.
const steps = [1, 2, 5].flatMap((n) => Array.from({ length: 10 }, (_, power) => n * 10 ** power)).sort((a, b) => a - b)

// chart draws a series; it follows the width of its place until it is gone.
export function chart(series) {
  const place = h('div', { class: 'chart', role: 'img', 'aria-label': t('stats.chart') })
  let plot = null
  const watcher = new ResizeObserver(() => {
    if (!place.isConnected) return
    const width = Math.floor(place.clientWidth)
    if (plot) plot.setSize({ width, height })
    else plot = new window.uPlot(options(width), data(series), place)
  })
  watcher.observe(place)
  return place
}

const data = (series) => [
  series.map((p) => Date.parse(p.at) / 1000),
  series.map((p) => p.successful_calls),
  series.map((p) => p.failed_calls),
]

function options(width) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name)
  const line = (label, stroke) => ({ label, stroke, width: 2, points: { show: true, size: 5, fill: stroke } })
  const axis = { stroke: colour('--text'), grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 } }
  const locale = language() === 'ru' ? 'ru-RU' : 'en-GB'
  const short = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })
  return {
    width, height,
    fmtDate: () => (date) => short.format(date),
    series: [{ label: t('stats.time') }, line(t('stats.successful'), colour('--good')), line(t('stats.failed'), colour('--bad'))],
    axes: [{ ...axis, space: 130, values: (_, times) => times.map((at) => short.format(at * 1000)) }, { ...axis, size: 60, incrs: steps }],
    scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
  }
}
