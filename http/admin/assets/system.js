// The system: its nodes, read models, queue, keys, and the end of the log.
import { api, part, session } from './api.js'
import { confirm, say } from './dialogs.js'
import { duration } from './format.js'
import { Table } from './list.js'
import { to } from './router.js'
import { known, number, t } from './texts.js'
import './texts/access.js'
import './texts/events.js'
import { Act, Badge, Card, Copy, Facts, Figure, Loaded, Page, Progress, Time, Word, useLoad, words } from './ui.js'
import { html, store, useStore } from './view.js'

// Rebuilds that this tab has begun go on while the reader looks at other pages.
const rebuilds = { ...store(), of: new Map() }

// endRebuilds ends them all without a word.
export function endRebuilds() {
  rebuilds.of.forEach(({ stop }) => stop(left))
  rebuilds.of.clear()
  rebuilds.changed()
}

const left = 'left' // why a rebuild was ended: not by a press

async function rebuild(name) {
  const control = new AbortController()
  const { signal } = control
  const tell = (state) => { if (!signal.aborted) { rebuilds.of.set(name, { ...state, stop: (why) => control.abort(why) }); rebuilds.changed() } }
  tell({ done: 0, total: 0 })
  try {
    await api.lines('POST', `/projections/${part(name)}/rebuild`, { each: tell, signal })
    const { error, rebuilt } = rebuilds.of.get(name)
    say(rebuilt ? t('system.rebuilt', modelName(name)) : error ?? t('error.network'))
  } catch (error) {
    if (signal.reason === left) return
    say(signal.aborted ? t('system.notRebuilt', modelName(name)) : words(error))
  }
  rebuilds.of.delete(name)
  rebuilds.changed()
}

export const modelName = (name) => known(`model.${name}`) ?? name

const every = 3000 // milliseconds

// Rebuilds lists all rebuilds under way. Those that this tab began can be cancelled.
export function Rebuilds() {
  const { data } = useLoad('/system', {}, { every })
  useStore(rebuilds)
  return data?.projections.filter((model) => model.rebuilding || rebuilds.of.has(model.name)).map(({ name, rebuilt_position }) => {
    const own = rebuilds.of.get(name)
    return html`<${Card} key=${name} title=${t('job.rebuild', modelName(name))} more=${own && html`<${Act} tone="small" run=${async () => own.stop()}>${t('action.cancel')}</${Act}>`}>
      <${Progress} value=${own?.done ?? rebuilt_position ?? 0} max=${own?.total || data.log.position} label=${t('system.rebuilding')} /></${Card}>`
  })
}

export function System() {
  const load = useLoad('/system', {}, { every })
  useStore(rebuilds)
  return html`<${Page} title=${t('nav.system')}><${Loaded} of=${load}>${(now) => html`
    <div class="figures">
      <${Figure} label=${t('system.nodes')} value=${number(now.nodes.length)} />
      <${Figure} label=${t('system.pending')} value=${number(now.pending_deliveries)} note=${now.oldest_due_seconds >= 1 ? t('system.oldest', duration(now.oldest_due_seconds)) : ''} href="#/deliveries?state=pending" />
      <${Figure} label=${t('event.parkedLink')} value=${number(now.emitted_parked)} tone=${now.emitted_parked > 0 ? 'bad' : ''} note=${now.emitted_parked > 0 ? t('system.mend') : ''} href=${to('#/events/parked')} />
      <${Figure} label=${t('system.deadLetters')} value=${number(now.dead_letters)} tone="bad" note=${now.dead_letters > 0 ? t('system.deadNote') : ''} />
      <${Figure} label=${t('system.emitted')} value=${number(now.emitted_waiting)} /></div>
    <${Card} title=${t('system.nodes')} flush><${Table} caption=${t('system.nodes')} rows=${now.nodes} id=${(node) => node.id} columns=${[
      { label: t('system.node'), cut: true, cell: (node) => html`${node.name}<span class="sub">${node.reads.length > 0 && t('system.reads', node.reads.map((one) => known(`reads.${one}`) ?? one).join(', '))}</span>` },
      { label: t('event.state'), cell: (node) => html`<${Badge} tone=${node.lacks ? 'bad' : 'good'}>${node.lacks ? t('system.lacks', known(`outcome.${node.lacks}`) ?? node.lacks) : t('system.alive')}</${Badge}>` },
      { label: t('system.calls'), number: true, opt: true, cell: (node) => number(node.deliveries) }, { label: t('system.joined'), cell: (node) => html`<${Time} at=${node.joined_at} style="ago" />` }]} /></${Card}>
    <${Card} title=${t('system.models')} note=${t('system.modelsNote')} flush><${Table} caption=${t('system.models')} rows=${now.projections} id=${(model) => model.name} columns=${[
      { label: t('system.model'), whole: true, cell: (model) => html`<${Word} name=${model.name} words=${known(`model.${model.name}`)} />` }, { label: t('event.state'), cut: true, cell: (model) => html`${state(model)}${model.lag_events > 0 && html`<span class="sub narrow">${t('system.lag')}: ${number(model.lag_events)}</span>`}` },
      { label: t('system.lag'), number: true, opt: true, cell: (model) => number(model.lag_events) }, { label: t('system.position'), number: true, opt: true, cell: (model) => number(model.position) },
      session.may('admin') && { label: t('event.actions'), cell: (model) => html`<${Act} tone="small" disabled=${rebuilds.of.size > 0 || model.rebuilding} run=${async () => {
        if (await confirm(t('system.rebuildAsk', modelName(model.name)), t('system.rebuildNote'), t('system.rebuild'))) rebuild(model.name)
      }}>${t('system.rebuild')}</${Act}>` }].filter(Boolean)} /></${Card}>
    <div class="two"><${Card} title=${t('system.head')} more=${session.may('audit:read') && html`<a href="#/audit">${t('nav.audit')}</a>`}><${Facts} pairs=${[
        [t('system.head'), number(now.log.position)], [t('system.recorded'), html`<${Time} at=${now.log.recorded_at} />`], [t('system.seal'), html`<${Copy} value=${now.log.seal} />`]]} /></${Card}>
      <${Card} title=${t('system.keys')} note=${t('system.keysNote')}><ul>${now.keys.map((key) => html`<li key=${key.id}><code>${key.id}</code> <${Badge} tone=${key.primary ? 'good' : 'none'}>${t(key.primary ? 'system.primary' : key.staged ? 'system.staged' : 'system.opens')}</${Badge}></li>`)}</ul></${Card}></div>`}</${Loaded}></${Page}>`
}

function state(model) {
  const own = rebuilds.of.get(model.name)
  if (own?.done !== undefined) return html`<${Progress} value=${own.done} max=${own.total} label=${t('system.rebuilding')} />`
  const [tone, word] = model.rebuilding ? ['warn', 'rebuilding'] : model.outdated ? ['bad', 'outdated'] : ['good', 'live']
  return html`<${Badge} tone=${tone}>${t(`system.${word}`)}</${Badge}>`
}
