// One webhook: its settings, and the tabs beside them.
import { api, exact, part } from './api.js'
import { callPage, calls } from './calls.js'
import { confirm, reveal, say } from './dialogs.js'
import { button, card, facts, foreign, h } from './dom.js'
import { describe } from './forms.js'
import { badge, text, when } from './format.js'
import { history } from './history.js'
import { statistics } from './stats.js'
import { test } from './test.js'
import { t } from './texts.js'

const tabs = { calls, stats: statistics, test, history }

export async function webhook(page) {
  const { id, tab, item, signal } = page
  const webhook = await api.get(`/webhooks/${part(id)}`, {}, signal)
  const content = item && tab === 'calls' ? callPage : tabs[tab] ?? overview
  return h('div', {},
    h('div', { class: 'heading' }, h('h1', {}, webhook.name), badge(webhook.status)),
    h('p', { class: 'url quiet' }, webhook.url),
    actions(webhook),
    tabList(webhook.id, tab ?? ''),
    await content({ ...page, webhook }))
}

function tabList(id, chosen) {
  const link = (tab, label) => h('a', {
    href: `#/webhooks/${part(id)}${tab && '/' + tab}`, 'aria-current': tab === chosen && 'page',
  }, label)
  return h('nav', { class: 'tabs', 'aria-label': t('nav.webhooks') },
    link('', t('tab.overview')), Object.keys(tabs).map((tab) => link(tab, t(`tab.${tab}`))))
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
    [t('webhook.secret'), t(webhook.has_secret ? 'webhook.signed' : 'webhook.unsigned')],
    [t('webhook.maxRetries'), webhook.max_retries],
    [t('webhook.retryDelay'), webhook.retry_delay],
    [t('webhook.timeout'), webhook.timeout],
    [t('webhook.batch'), batch ? t('webhook.batchOf', batch.max_events, batch.max_wait) : t('webhook.noBatch')],
    [t('webhook.payloadVersion'), webhook.payload_version],
    [t('webhook.created'), when(webhook.created_at)],
    [t('webhook.updated'), when(webhook.updated_at)],
    [t('webhook.version'), webhook.version],
    [t('webhook.id'), h('code', {}, webhook.id)],
  ]))
}

const isEmpty = (filters) => !filters || Object.keys(filters).length === 0
