// Jobs: history that is sent again, retries of all that failed, rebuilds and archives.
import { api, part, session } from './api.js'
import { Archives } from './archives.js'
import { actorName } from './audit-words.js'
import { Check, Field, Form, Text, refuse } from './controls.js'
import { confirm, say } from './dialogs.js'
import { duration, inputTime, localTime, moment } from './format.js'
import { List } from './list.js'
import { router, to } from './router.js'
import { Rebuilds } from './system.js'
import { number, t } from './texts.js'
import './texts/access.js'
import { Act, Badge, Card, Copy, Facts, Figure, Page, Progress, Time, Trouble, useLoad } from './ui.js'
import { html, useRef, useState } from './view.js'
import { WebhookChoice, isKey } from './webhook-choice.js'

const ended = (job) => job.delivered + job.failed + job.cancelled
const isOver = (job) => job.finished_at !== null
const every = 2000 // milliseconds between looks at what is under way

const rate = (job) => (job.rate === null ? t('job.unpaced') : t('job.rate', job.rate))
const done = (job) => (job.matched === null ? t('state.counting') : html`<${Progress} value=${ended(job)} max=${job.matched} label=${t('job.progress')} />`)

export function Jobs({ parameters }) {
  const webhook = parameters.get('webhook')
  return html`<${Page} title=${t('nav.jobs')} sub=${t('job.sub')} actions=${session.may('replays:write') && html`<a class="button primary" href="#/jobs/new">${t('job.new')}</a>`}>
    ${(session.may('audit:read') || session.may('webhooks:read')) && html`<${Rebuilds} />`}
    <${Card} title=${t('job.list')} flush><${JobList} webhook=${webhook} /></${Card}>
    ${session.may('audit:read') && html`<${Archives} />`}</${Page}>`
}

// JobList lists the jobs, those of one webhook if it is given, and looks at them until they are over.
export function JobList({ webhook }) {
  const [open, setOpen] = useState(false)
  return html`<${List} path=${webhook ? `/webhooks/${part(webhook)}/replays` : '/webhooks/replays'} id=${(job) => job.replay_id} caption=${t('nav.jobs')} empty=${t('job.none')}
    onPage=${(page) => setOpen(!page.items.every(isOver))} every=${open ? every : undefined} fresh=${{ kinds: ['delivery'], webhook }} columns=${columns()} />`
}

const columns = () => [
  { label: t('job.kind'), whole: true, cell: (job) => html`<a href=${`#/jobs/${job.replay_id}`}>${t(`job.${job.kind}`)}</a>` },
  { label: t('event.state'), cell: (job) => html`<${Badge} state=${job.state} />` },
  { label: t('job.progress'), cut: true, cell: (job) => done(job) },
  { label: t('job.failed'), number: true, opt: true, cell: (job) => number(job.failed) },
  { label: t('job.by'), opt: true, cell: (job) => actorName(job.requested_by) },
  { label: t('job.created'), opt: true, cell: (job) => html`<${Time} at=${job.created_at} style="short" />` },
]

const span = 30000 // milliseconds in which the pace is measured

// usePace says how many deliveries of the job end a second: of late, as far as this page has seen it,
// else since it began; and how long the rest takes at that. Of one that is over it says how long it took.
function usePace({ data: job, loading }) {
  const seen = useRef([])
  if (!job || job.matched === null || job.state === 'paused') {
    seen.current = []
    return null
  }
  const took = (Date.parse(job.finished_at ?? new Date().toISOString()) - Date.parse(job.created_at)) / 1000
  if (isOver(job)) return ended(job) > 0 && t('job.took', duration(took), number(ended(job) / Math.max(took, 0.001), 1))
  const points = seen.current
  if (!loading && points.at(-1)?.job !== job) points.push({ job, at: Date.now() })
  while (points.length > 2 && Date.now() - points[1].at > span) points.shift()
  const [first, last] = [points[0], points.at(-1)]
  const pace = points.length < 2 ? ended(job) / took : (ended(job) - ended(first.job)) / (last.at - first.at) * 1000
  const left = job.matched - ended(job)
  return [t('job.measured', number(pace, 1)), pace > 0 && left > 0 && t('job.left', duration(left / pace))].filter(Boolean).join(', ')
}

// What can be asked of a job in each state.
const actions = { counting: ['pause', 'cancel'], running: ['pause', 'cancel'], paused: ['resume', 'cancel'] }

export function Job({ id }) {
  const path = `/webhooks/replays/${part(id)}`
  const [over, setOver] = useState(false)
  const load = useLoad(path, {}, { every: over ? undefined : every })
  const webhook = useLoad(`/webhooks/${part(load.data?.webhook_id ?? '')}`, {}, { skip: !load.data?.webhook_id })
  const job = load.data
  const pace = usePace(load)
  if (job && isOver(job) && !over) setOver(true)
  const ask = (action) => async (key) => {
    if (action === 'cancel' && !await confirm(t('job.cancelAsk'), t('job.cancelNote'), t('job.cancel'))) return
    await api.post(`${path}/${action}`, undefined, { key })
    await load.reload()
  }
  // A server that is away for a while takes nothing from the page: it goes on by itself.
  if (!job) return html`<h1>${t('nav.jobs')}</h1>${load.error ? html`<${Trouble} error=${load.error} retry=${load.reload} />` : html`<p class="empty" aria-busy="true">${t('app.loading')}</p>`}`
  return html`<${Page} title=${t(`job.${job.kind}`)} badge=${html`<${Badge} state=${job.state} />`} sub=${html`<a href="#/jobs">${t('nav.jobs')}</a> · <${Copy} value=${job.replay_id} />`}
      actions=${session.may('replays:write') && (actions[job.state] ?? []).map((action) => html`<${Act} key=${action} tone=${action === 'cancel' ? 'danger' : ''} run=${ask(action)}>${t(`job.${action}`)}</${Act}>`)}>
    ${load.error && html`<${Trouble} error=${load.error} retry=${load.reload} />`}
    <${Card}><div role="status">${done(job)}</div>${pace && html`<p class="hint">${pace}</p>`}</${Card}>
    <div class="figures">${[['job.matched', job.matched, ''], ['job.queued', job.queued, ''], ['job.delivered', job.delivered, 'good'], ['job.failed', job.failed, 'bad'], ['job.cancelled', job.cancelled, '']].map(([label, value, tone]) => html`
      <${Figure} key=${label} label=${t(label)} value=${number(value)} tone=${tone} href=${label === 'job.failed' && job.webhook_id ? `#/deliveries?state=failed&webhook=${job.webhook_id}` : undefined} />`)}</div>
    <${Card} title=${t('job.asked')}><${Facts} pairs=${[
      [t('event.webhook'), job.webhook_id ? html`<a href=${`#/webhooks/${job.webhook_id}`}>${webhook.data?.name ?? job.webhook_id}</a>` : t('app.all')],
      job.from && [t('filter.from'), html`<${Time} at=${job.from} />`], job.to && [t('filter.to'), html`<${Time} at=${job.to} />`],
      [t('filter.type'), job.event_types?.join(', ') ?? t('app.all')], [t('job.onlyFailed'), t(`answer.${job.only_failed || job.kind === 'retry'}`)],
      job.response_status && [t('job.status'), job.response_status], [t('job.pace'), rate(job)], [t('job.by'), actorName(job.requested_by)],
      [t('job.created'), html`<${Time} at=${job.created_at} />`], job.finished_at && [t('job.finished'), html`<${Time} at=${job.finished_at} />`]]} /></${Card}></${Page}>`
}

// bounds says which part of history a job sends, and how fast.
const bounds = ({ from, to, rate: pace = null }) => [
  from && `${t('filter.from')}: ${moment(from)}`, to && `${t('filter.to')}: ${moment(to)}`, t('job.paced', rate({ rate: pace }))].filter(Boolean).join(' · ')

export function NewJob({ parameters }) {
  const [kind, setKind] = useState(parameters.get('kind') ?? 'replay')
  const [asked, setAsked] = useState({ webhook: parameters.get('webhook') ?? '', from: inputTime(Date.now() - 86400000), to: inputTime(Date.now()), types: '', rate: '', failed: false, status: '' })
  const set = (name) => (event) => setAsked((old) => ({ ...old, [name]: event.target.type === 'checkbox' ? event.target.checked : event.target.value }))
  const send = async (key) => {
    if (kind === 'replay' ? !isKey(asked.webhook) : asked.webhook !== '' && !isKey(asked.webhook)) refuse('webhook', t('job.needsWebhook'))
    for (const name of ['from', 'to']) if (asked[name] === '' && kind === 'replay') refuse(name, t('job.needsTime'))
    const types = asked.types.split(/[\s,]+/).filter(Boolean)
    const body = { from: localTime(asked.from), to: localTime(asked.to), event_types: types.length > 0 ? types : undefined, rate: asked.rate === '' ? undefined : Number(asked.rate),
      ...(kind === 'replay' ? { only_failed: asked.failed } : { state: 'failed', webhook: asked.webhook || undefined, response_status: asked.status || undefined }) }
    const path = kind === 'replay' ? `/webhooks/${part(asked.webhook)}/replay` : '/webhooks/deliveries/retry'
    const { matched } = await api.post(path, { ...body, dry_run: true })
    if (matched === 0) return say(t('job.nothing'))
    if (!await confirm(t('job.ask', matched), html`${bounds(body)}. ${t('job.askNote')}`, t('action.send'))) return
    const started = await api.post(path, body, { key })
    const page = to(`#/jobs/${started.replay_id}`)
    page ? router.go(page) : say(t('job.started'))
  }
  const list = to('#/jobs')
  const text = (name, type, more) => (control) => html`<${Text} ...${control} ...${more} type=${type} value=${asked[name]} onInput=${set(name)} />`
  return html`<${Page} title=${t('job.new')} sub=${list && html`<a href=${list}>${t('nav.jobs')}</a>`}><${Card}><${Form} send=${send} label=${t('job.count')} actions=${list && html`<a class="button" href=${list}>${t('action.cancel')}</a>`}>
    <div class="field"><div class="chips" role="group" aria-label=${t('job.kind')}>${['replay', 'retry'].map((one) => html`<button key=${one} type="button" class="chip" aria-pressed=${one === kind} onClick=${() => setKind(one)}>${t(`job.${one}`)}</button>`)}</div>
    <p class="hint">${t(`job.${kind}Note`)}</p></div>
    <${Field} name="webhook" label=${t('event.webhook')} hint=${kind === 'retry' ? t('job.anyWebhook') : undefined}>${(control) => html`<${WebhookChoice} ...${control} value=${asked.webhook} choose=${(webhook) => setAsked((old) => ({ ...old, webhook }))} />`}</${Field}>
    <div class="columns"><${Field} name="from" label=${t('filter.from')}>${text('from', 'datetime-local')}</${Field}><${Field} name="to" label=${t('filter.to')}>${text('to', 'datetime-local')}</${Field}></div>
    <${Field} name="event_types" label=${t('filter.type')} hint=${t('job.typesHint')}>${text('types')}</${Field}>
    <${Field} name="rate" label=${t('job.pace')} hint=${t('job.paceHint')}>${text('rate', 'number', { min: 0.01, max: 10000, step: 'any' })}</${Field}>
    ${kind === 'replay' ? html`<div class="field"><${Check} checked=${asked.failed} onChange=${set('failed')} label=${t('job.onlyFailed')} /></div>`
      : html`<${Field} name="response_status" label=${t('job.status')} hint=${t('job.statusHint')}>${text('status')}</${Field}>`}</${Form}></${Card}></${Page}>`
}
