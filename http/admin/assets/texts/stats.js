// Charts and their ranges.
import { add } from '../texts.js'

add({
  'chart.calls': ['Вызовы по времени: успешные и неудачные', 'Calls over time: successful and failed'],
  'chart.latency': ['Время ответа: p50, p95, p99', 'Response time: p50, p95, p99'],
  'chart.latencyTitle': ['Время ответа', 'Response time'],
  'range.label': ['Период', 'Range'],
  'range.15m': ['15 минут', '15 minutes'],
  'range.1h': ['час', '1 hour'],
  'range.6h': ['6 часов', '6 hours'],
  'range.24h': ['сутки', '24 hours'],
  'range.7d': ['неделя', '7 days'],
  'range.30d': ['30 дней', '30 days'],
  'range.1y': ['год', '1 year'],
  'range.own': ['свой', 'custom'],
  'range.hours': ['За этот период вызовов слишком много, чтобы показать их по минутам: показаны часы.', 'Too many calls for minutes: hours are shown.'],
  'span.15m': ['за 15 минут', 'in 15 minutes'],
  'span.1h': ['за час', 'in an hour'],
  'span.6h': ['за 6 часов', 'in 6 hours'],
  'span.24h': ['за сутки', 'in 24 hours'],
  'span.7d': ['за неделю', 'in 7 days'],
  'span.30d': ['за 30 дней', 'in 30 days'],
  'span.1y': ['за год', 'in a year'],
  'span.own': ['за выбранный период', 'in the chosen time'],
  'bucket.minute': ['по минутам', 'by the minute'],
  'bucket.hour': ['по часам', 'by the hour'],
  'bucket.day': ['по дням', 'by the day'],
})
