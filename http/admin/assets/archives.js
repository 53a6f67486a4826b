// What of the log is in archives, by the log's own record of it; the terminal makes them, and
// brings them back.
import { api } from './api.js'
import { actorName } from './audit-words.js'
import { Table } from './list.js'
import { t } from './texts.js'
import './texts/access.js'
import { Badge, Card, Empty, Time, Trouble } from './ui.js'
import { html, useEffect, useState } from './view.js'

const stream = 'archive-00000000-0000-0000-0000-000000000000'

export function Archives() {
  const [found, setFound] = useState({})
  const load = (signal) => {
    const entries = []
    const each = (entry) => entries.push(entry) > 0
    return api.lines('GET', '/audit/events', { parameters: { stream, type: 'log.*' }, each, signal })
      .then(() => setFound({ list: archivesOf(entries) }), (error) => { if (!signal?.aborted) setFound({ error }) })
  }
  useEffect(() => {
    const control = new AbortController()
    load(control.signal)
    return () => control.abort()
  }, [])
  return html`<${Card} title=${t('archive.list')} note=${t('archive.note')} flush>
    ${found.error ? html`<${Trouble} error=${found.error} retry=${() => load()} />` : !found.list ? html`<p class="empty" aria-busy="true">${t('app.loading')}</p>`
      : found.list.length === 0 ? html`<${Empty}>${t('archive.none')}</${Empty}>` : html`<${Table} caption=${t('archive.list')} rows=${found.list} id=${(one) => one.position} columns=${[
        { label: t('archive.entries'), cell: (one) => t('archive.range', one.data.first, one.data.archived_to) },
        { label: t('archive.to'), opt: true, cell: (one) => html`<${Time} at=${one.data.to} style="short" />` },
        { label: t('archive.made'), cell: (one) => html`<${Time} at=${one.recorded_at} style="short" /><span class="sub" title=${one.metadata?.actor}>${actorName(one.metadata?.actor)}</span>` },
        { label: t('event.state'), cell: (one) => html`<${Badge} tone=${one.restored ? 'none' : 'good'}>${t(one.restored ? 'archive.restored' : 'archive.archived')}</${Badge}>` }]} />`}</${Card}>`
}

// archivesOf folds the entries of the stream: the newest archive first. What was brought back is
// no longer archived, up to where the one before ends.
function archivesOf(entries) {
  const all = []
  for (const entry of entries) {
    if (entry.type === 'log.archived') all.unshift({ ...entry, restored: false })
    else all.forEach((one) => { if (one.data.archived_to > entry.data.archived_to) one.restored = true })
  }
  return all
}
