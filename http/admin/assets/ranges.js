// The range of a page's charts and figures, which its address has, and the choice of one.
import { rangeOf, ranges, widths } from './charts.js'
import { inputTime, localTime } from './format.js'
import { router } from './router.js'
import { t } from './texts.js'
import './texts/stats.js'
import { useInSight } from './ui.js'
import { html, useMemo } from './view.js'

// useRange returns the range of the address; one that ends now moves on with time.
export function useRange(parameters) {
  const width = widths[rangeOf(parameters).bucket]
  return useMemo(() => rangeOf(parameters), [parameters.toString(), Math.floor(Date.now() / width)])
}

// Ranges is the choice of a range, for the page with the address.
export function Ranges({ page, range }) {
  const row = useInSight([range.name])
  const at = (query) => `#/${page}?${new URLSearchParams(query)}`
  const submit = (event) => {
    event.preventDefault()
    const { from, to } = event.target.elements
    if (from.value < to.value) router.go(at({ from: localTime(from.value), to: localTime(to.value) }))
  }
  const local = (name) => (range.name === 'own' ? inputTime(range[name]) : '')
  return html`<div class="toolbar ranges"><nav class="chips" ref=${row} aria-label=${t('range.label')}>${Object.keys(ranges).map((one) => html`
      <a key=${one} class="button chip" href=${at({ range: one })} aria-current=${one === range.name ? 'true' : undefined}>${t(`range.${one}`)}</a>`)}</nav>
    <details open=${range.name === 'own'}><summary>${t('range.own')}</summary><form class="toolbar" onSubmit=${submit}>
      <input type="datetime-local" name="from" aria-label=${t('filter.from')} defaultValue=${local('from')} required /><input type="datetime-local" name="to" aria-label=${t('filter.to')} defaultValue=${local('to')} required />
      <button type="submit">${t('action.filter')}</button></form></details></div>`
}
