// Webhooks, their calls, deliveries and alerts.
import { add } from '../texts.js'

add({
  'webhook.health': ['Здоровье', 'Health'],
  'webhook.day': ['Сутки', '24 hours'],
  'webhook.dayTitle': ['{0} вызов за сутки, неудачных {1}|{0} вызова за сутки, неудачных {1}|{0} вызовов за сутки, неудачных {1}', '{0} call in 24 hours, {1} failed|{0} calls in 24 hours, {1} failed'],
  'webhook.failures': ['Неудачи', 'Failures'],
  'webhook.pending': ['Ждут', 'Waiting'],
  'webhook.sort': ['Порядок', 'Order'],
  'sort.urgency': ['по срочности', 'by urgency'],
  'sort.name': ['по названию', 'by name'],
  'sort.number': ['сначала новые', 'newest first'],
  'sort.failures': ['по неудачам подряд', 'by failures in a row'],
  'sort.pending': ['по ожидающим', 'by waiting'],
  'sort.last_call': ['по последнему вызову', 'by last call'],
  'webhook.totalActive': ['включён {0}|включены {0}|включены {0}', '{0} active|{0} active'],
  'webhook.totalFailing': ['С ошибками', 'Failing'],
  'call.why': ['Почему и что делать', 'Why, and what to do'],
  'call.noFailures': ['Неудачных вызовов нет.', 'No call has failed.'],
  'delivery.behind': ['ждёт', 'waits behind'],
  'alert.service': ['Сам сервис', 'The service itself'],
  'alert.show': ['показать', 'show'],
  'alert.known': ['Принято к сведению.', 'Acknowledged.'],
  'nav.calls': ['Все вызовы', 'All calls'],
})
