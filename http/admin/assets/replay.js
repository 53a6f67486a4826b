// Sending history again to one webhook, and how far that has come.
import { api, part } from './api.js'
import { confirm } from './dialogs.js'
import { button, card, facts, h } from './dom.js'
import { check, choice, describe, field, input, localTime, refuse, submitting } from './forms.js'
import { badge, number, text, when } from './format.js'
import { typeOptions } from './lists.js'
import { t } from './texts.js'

export async function replay({ webhook }) {
  const from = input({ type: 'datetime-local' })
  const to = input({ type: 'datetime-local' })
  const type = choice([['', t('app.all')], ...await typeOptions()])
  const failed = check(t('replay.onlyFailed'), {})
  const path = `/webhooks/${part(webhook.id)}/replay`
  const send = async () => {
    for (const [name, control] of [['from', from], ['to', to]]) if (control.value === '') refuse(name, t('replay.needed'))
    const asked = { from: localTime(from.value), to: localTime(to.value), only_failed: failed.querySelector('input').checked }
    if (type.value !== '') asked.event_types = [type.value]
    const { matched } = await api.post(path, { ...asked, dry_run: true })
    if (!await confirm(t('replay.ask', number(matched)), t('replay.askNote'), t('replay.send'))) return
    const started = await api.post(path, asked)
    location.hash = `#/webhooks/${part(webhook.id)}/replay/${part(started.replay_id)}`
  }
  return h('div', {}, card(t('replay.title'), h('p', { class: 'hint' }, t('replay.note')),
    submitting(send, t('replay.send'),
      h('div', { class: 'columns' }, field('from', t('filter.from'), from), field('to', t('filter.to'), to), field('event_types', t('filter.type'), type)),
      failed)), await list(webhook))
}

const again = 2000 // milliseconds between looks at what is under way

// What can be asked of a replay in each state.
const actions = { counting: ['pause', 'cancel'], running: ['pause', 'cancel'], paused: ['resume', 'cancel'] }

export async function replayPage({ webhook, item, signal }) {
  const path = `/webhooks/${part(webhook.id)}/replays/${part(item)}`
  const place = h('div', { role: 'status' })
  const ask = (action) => async () => {
    if (action === 'cancel' && !await confirm(t('replay.cancelAsk'), t('replay.cancelNote'), t('replay.cancel'))) return
    await api.post(`${path}/${action}`).then(show, failed)
  }
  const show = (progress) => {
    const ended = progress.delivered + progress.failed + progress.cancelled
    place.replaceChildren(card(t('replay.title'),
      progress.matched > 0 && h('progress', { max: progress.matched, value: ended, 'aria-label': t('replay.progress') }),
      facts([
        [t('event.state'), badge(progress.state)],
        [t('filter.from'), when(progress.from)], [t('filter.to'), when(progress.to)],
        [t('filter.type'), text((progress.event_types ?? []).join(', ') || t('app.all'))],
        [t('replay.matched'), progress.matched === null ? '…' : number(progress.matched)], [t('replay.queued'), number(progress.queued)],
        [t('state.delivered'), number(progress.delivered)], [t('state.failed'), number(progress.failed)],
        [t('state.cancelled'), number(progress.cancelled)],
      ]),
      h('div', { class: 'actions' }, (actions[progress.state] ?? []).map((action) => button(t(`replay.${action}`), ask(action))))))
    clearTimeout(timer)
    if (progress.finished_at === null && !signal.aborted) timer = setTimeout(follow, again)
  }
  const failed = (error) => signal.aborted || place.append(h('p', { class: 'error' }, describe(error)))
  const look = () => api.get(path, {}, signal)
  const follow = () => look().then(show, failed)
  let timer
  show(await look())
  return h('div', {}, place)
}

// list shows the replays of the webhook there were, the newest first.
async function list(webhook) {
  const { items } = await api.get(`/webhooks/${part(webhook.id)}/replays`, { limit: 20 })
  if (items.length === 0) return null
  return card(t('replay.list'), h('ul', {}, items.map((one) => h('li', {},
    h('a', { href: `#/webhooks/${part(webhook.id)}/replay/${part(one.replay_id)}` }, when(one.created_at)), ' ', badge(one.state)))))
}
