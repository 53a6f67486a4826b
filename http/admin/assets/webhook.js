// One webhook: its settings, and the tabs beside them.
import { api, exact, part } from './api.js'
import { callPage, calls } from './calls.js'
import { confirm, reveal, say } from './dialogs.js'
import { button, card, facts, foreign, h } from './dom.js'
import { describe } from './forms.js'
import { badge, text, when } from './format.js'
import { history } from './history.js'
import { replay, replayPage } from './replay.js'
import { statistics } from './stats.js'
import { test } from './test.js'
import { t } from './texts.js'

const tabs = { calls, stats: statistics, test, replay, history }

// What stays of a deleted webhook, and the pages below a tab.
const remaining = { calls, stats: statistics, history }
const items = { calls: callPage, replay: replayPage }

export async function webhook(page) {
  const { id, tab, item, signal } = page
  const webhook = await find(id, signal)
  const content = item ? items[tab] : webhook.deleted ? remaining[tab] ?? history : tabs[tab] ?? overview
  if (!content) return h('p', { class: 'empty' }, t('app.notFound'))
  if (webhook.deleted) {
    return h('div', {}, h('div', { class: 'heading' }, h('h1', {}, webhook.name), badge('deleted')), h('p', { class: 'quiet' }, t('webhook.deletedNote')),
      tabList(webhook.id, tab ?? 'history', remaining), await content({ ...page, webhook }))
  }
  return h('div', {},
    h('div', { class: 'heading' }, h('h1', {}, webhook.name), badge(webhook.status)),
    h('p', { class: 'url quiet' }, webhook.url),
    actions(webhook),
    tabList(webhook.id, tab ?? '', { '': overview, ...tabs }),
    await content({ ...page, webhook }))
}

// find gives the webhook; of a deleted one only what its history tells.
async function find(id, signal) {
  try {
    return await api.get(`/webhooks/${part(id)}`, {}, signal)
  } catch (error) {
    if (error.status !== 404) throw error
    const { items } = await api.get(`/webhooks/${part(id)}/history`, { limit: 1000 }, signal)
    const names = items.flatMap((one) => one.changes).filter((change) => change.field === 'name' && change.became)
    return { id, name: names[0]?.became ?? id, deleted: true }
  }
}

function tabList(id, chosen, shown) {
  return h('nav', { class: 'tabs', 'aria-label': t('nav.webhooks') }, Object.keys(shown).map((tab) => h('a', {
    href: `#/webhooks/${part(id)}${tab && '/' + tab}`, 'aria-current': tab === chosen && 'page',
  }, t(`tab.${tab || 'overview'}`))))
}

function actions(webhook) {
  const path = `/webhooks/${part(webhook.id)}`
  const reload = () => window.dispatchEvent(new Event('hashchange'))
  // doing runs a change and says what became of it.
  const doing = (change) => async () => {
    try {
      await change()
    } catch (error) {
      say(describe(error))
    }
  }
  const turn = webhook.is_active ? 'deactivate' : 'activate'
  return h('div', { class: 'actions' },
    h('a', { class: 'button', href: `#${path}/edit` }, t('action.edit')),
    button(t(`action.${turn}`), doing(async () => {
      await api.post(`${path}/${turn}`)
      say(t(`webhook.${turn}d`))
      reload()
    })),
    button(t('action.rotate'), doing(async () => {
      if (!await confirm(t('webhook.rotateAsk'), t('webhook.rotateNote'), t('action.rotate'))) return
      const rotated = await api.post(`${path}/rotate-secret`, {})
      reload()
      reveal(t('webhook.rotated'), t('webhook.rotatedNote'), rotated.secret)
    })),
    button(t('action.delete'), doing(async () => {
      if (!await confirm(t('webhook.deleteAsk', webhook.name), t('webhook.deleteNote'), t('action.delete'))) return
      await api.delete(path)
      say(t('webhook.deleted'))
      location.hash = '#/webhooks'
    }), { class: 'danger' }))
}

function overview({ webhook }) {
  const headers = Object.keys(webhook.headers ?? {})
  const { batch } = webhook
  return card(null, facts([
    [t('webhook.description'), text(webhook.description)],
    [t('webhook.events'), h('ul', { class: 'chips' }, webhook.events.map((one) => h('li', {}, h('code', {}, one))))],
    [t('webhook.filters'), isEmpty(webhook.filters) ? t('webhook.noFilters') : foreign(exact(webhook, 'filters'), t('webhook.filters'))],
    [t('webhook.headers'), headers.length === 0 ? text('') : h('ul', {}, headers.map((name) => h('li', {}, h('code', {}, `${name}: ${webhook.headers[name]}`))))],
    [t('webhook.secret'), webhook.public_key || t(webhook.has_secret ? 'webhook.signed' : 'webhook.unsigned')],
    [t('webhook.maxRetries'), webhook.max_retries],
    [t('webhook.retryDelay'), webhook.retry_delay],
    [t('webhook.timeout'), webhook.timeout],
    [t('webhook.maxConcurrent'), webhook.max_concurrent ?? t('webhook.noLimit')],
    [t('webhook.rateLimit'), webhook.rate_limit ?? t('webhook.noLimit')],
    [t('webhook.autoDeactivate'), text(webhook.auto_deactivate_after)],
    [t('webhook.batch'), batch ? t('webhook.batchOf', batch.max_events, batch.max_wait) : t('webhook.noBatch')],
    [t('webhook.orderBy'), webhook.order_by ? [h('code', {}, webhook.order_by), ' · ', t(webhook.order_on_failure === 'block' ? 'webhook.orderBlock' : 'webhook.orderSkip')] : t('webhook.noOrder')],
    [t('webhook.sequence'), t(webhook.sequence ? 'webhook.numbered' : 'webhook.notNumbered')],
    [t('webhook.payloadVersion'), webhook.payload_version],
    [t('webhook.fields'), webhook.fields ? h('ul', { class: 'chips' }, webhook.fields.map((one) => h('li', {}, h('code', {}, one)))) : t('webhook.allFields')],
    [t('webhook.recipient'), text([webhook.recipient?.name, webhook.recipient?.country, webhook.recipient?.purpose].filter(Boolean).join(' · '))],
    [t('webhook.created'), when(webhook.created_at)],
    [t('webhook.updated'), when(webhook.updated_at)],
    [t('webhook.version'), webhook.version],
    [t('webhook.id'), h('code', {}, webhook.id)],
  ]))
}

const isEmpty = (filters) => !filters || Object.keys(filters).length === 0
