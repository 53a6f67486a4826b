// Sending history again to one webhook, and how far that has come.
import { api, part } from './api.js'
import { confirm } from './dialogs.js'
import { card, facts, h } from './dom.js'
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
  return card(t('replay.title'), h('p', { class: 'hint' }, t('replay.note')),
    submitting(send, t('replay.send'),
      h('div', { class: 'columns' }, field('from', t('filter.from'), from), field('to', t('filter.to'), to), field('event_types', t('filter.type'), type)),
      failed))
}

const again = 2000 // milliseconds between looks at what is under way

export async function replayPage({ webhook, item, signal }) {
  const look = () => api.get(`/webhooks/${part(webhook.id)}/replays/${part(item)}`, {}, signal)
  const place = h('div', { role: 'status' })
  const show = (progress) => {
    place.replaceChildren(card(t('replay.title'), facts([
      [t('event.state'), badge(progress.state)],
      [t('filter.from'), when(progress.from)], [t('filter.to'), when(progress.to)],
      [t('filter.type'), text((progress.event_types ?? []).join(', ') || t('app.all'))],
      [t('replay.matched'), number(progress.matched)], [t('state.pending'), number(progress.pending)],
      [t('state.delivered'), number(progress.delivered)], [t('state.failed'), number(progress.failed)],
      [t('state.cancelled'), number(progress.cancelled)],
    ])))
    if (progress.state === 'running' && !signal.aborted) setTimeout(follow, again)
  }
  const follow = () => look().then(show, (error) => signal.aborted || place.append(h('p', { class: 'error' }, describe(error))))
  show(await look())
  return h('div', {}, place)
}
