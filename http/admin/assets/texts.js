// The texts of the panel, in Russian and in English: those that several pages share, and how
// any text is read.
import { settings } from './settings.js'

const texts = {
  'app.title': ['MediLab Webhooks', 'MediLab Webhooks'],
  'app.skip': ['К содержанию', 'Skip to content'],
  'app.menu': ['Разделы', 'Sections'],
  'app.language': ['English', 'Русский'],
  'app.loading': ['Загрузка…', 'Loading…'],
  'app.refresh': ['Обновить', 'Refresh'],
  'app.signOut': ['Выйти', 'Sign out'],
  'app.api': ['Документация API', 'API documentation'],
  'app.closed': ['Страница недоступна', 'This page is not open to you'],
  'app.needs': ['Нужно право {0}.', 'It needs the right {0}.'],
  'app.notFound': ['Такой страницы нет.', 'There is no such page.'],
  'app.filters': ['Отбор', 'Filters'],
  'app.more': ['Показать ещё', 'Show more'],
  'app.all': ['все', 'all'],
  'app.none': ['Ничего не найдено.', 'Nothing was found.'],

  'nav.webhooks': ['Вебхуки', 'Webhooks'],
  'nav.events': ['События', 'Events'],
  'nav.deliveries': ['Доставки', 'Deliveries'],
  'nav.alerts': ['Оповещения', 'Alerts'],
  'nav.system': ['Система', 'System'],

  'login.title': ['Вход', 'Sign in'],
  'login.token': ['Токен API', 'API token'],
  'login.hint': ['Токен обменивается на сеанс; в браузере он не хранится.', 'It is exchanged for a session, and not kept in the browser.'],
  'login.enter': ['Войти', 'Sign in'],
  'login.wrong': ['Токен неизвестен, просрочен или отозван.', 'The token is unknown, expired or revoked.'],
  'login.empty': ['Введите токен.', 'Enter a token.'],
  'login.odd': ['В токене есть недопустимые символы.', 'The token has characters that no token has.'],

  'action.create': ['Новый вебхук', 'New webhook'],
  'action.save': ['Сохранить', 'Save'],
  'action.edit': ['Изменить', 'Edit'],
  'action.delete': ['Удалить', 'Delete'],
  'action.activate': ['Включить', 'Activate'],
  'action.deactivate': ['Выключить', 'Deactivate'],
  'action.cancel': ['Отмена', 'Cancel'],
  'action.no': ['Нет', 'No'],
  'action.continue': ['Продолжить', 'Continue'],
  'action.close': ['Закрыть', 'Close'],
  'action.filter': ['Показать', 'Show'],
  'action.rotate': ['Сменить секрет', 'Rotate the secret'],
  'action.trigger': ['Создать событие', 'Trigger an event'],
  'action.send': ['Отправить', 'Send'],
  'action.retry': ['Повторить', 'Retry'],
  'action.cancelDelivery': ['Отменить доставку', 'Cancel the delivery'],

  'state.active': ['включён', 'active'],
  'state.inactive': ['выключен', 'inactive'],
  'state.success': ['успех', 'success'],
  'state.failed': ['неудача', 'failed'],
  'state.pending': ['ожидает', 'pending'],
  'state.delivered': ['доставлено', 'delivered'],
  'state.cancelled': ['отменено', 'cancelled'],
  'state.type_not_subscribed': ['не подписан', 'not subscribed'],
  'state.not_registered_yet': ['тогда ещё не зарегистрирован', 'not registered then'],
  'state.imported': ['импортировано, не отправлялось', 'imported, not sent'],
  'state.filtered': ['отсеяно фильтром', 'filtered out'],
  'state.deleted': ['удалён', 'deleted'],
  'state.running': ['идёт', 'under way'],
  'state.counting': ['идёт подсчёт', 'counting'],
  'state.paused': ['приостановлено', 'paused'],
  'state.completed': ['завершено', 'completed'],
  'state.open': ['открыто', 'open'],
  'state.resolved': ['снято', 'resolved'],

  'webhook.name': ['Название', 'Name'],
  'webhook.lastCall': ['Последний вызов', 'Last call'],
  'webhook.rate': ['Успешность', 'Success rate'],
  'webhook.noLimit': ['без ограничения', 'no limit'],
  'webhook.orderBy': ['По порядку', 'In order'],
  'webhook.orderSkip': ['продолжать со следующей', 'go on with the next'],
  'webhook.noOrder': ['порядок не важен', 'in any order'],
  'webhook.sequence': ['Номера доставок', 'Delivery numbers'],
  'webhook.version': ['Версия', 'Version'],
  'webhook.created': ['Создан', 'Created'],
  'webhook.updated': ['Изменён', 'Changed'],
  'webhook.id': ['ID', 'ID'],
  'webhook.signed': ['задан, вызовы подписаны', 'set, calls are signed'],
  'webhook.unsigned': ['не задан, вызовы без подписи', 'not set, calls are unsigned'],
  'webhook.noFilters': ['нет: подходят все события', 'none: all events match'],
  'webhook.noBatch': ['нет: одно событие на вызов', 'none: one event a call'],
  'webhook.batchOf': ['до {0} события или {1} с|до {0} событий или {1} с|до {0} событий или {1} с', 'up to {0} event or {1} s|up to {0} events or {1} s'],
  'webhook.keyHint': ['номер или id', 'number or id'],
  'webhook.searchHint': ['название, описание или адрес', 'name, description or URL'],
  'webhook.list': ['Вебхуки', 'Webhooks'],
  'webhook.empty': ['Вебхуков пока нет.', 'There are no webhooks yet.'],
  'webhook.deleteAsk': ['Удалить вебхук «{0}»?', 'Delete the webhook “{0}”?'],
  'webhook.deleteNote': ['Ожидающие доставки будут отменены. История останется.', 'Pending deliveries are cancelled. The history stays.'],
  'webhook.deleted': ['Вебхук удалён.', 'The webhook is deleted.'],
  'webhook.activated': ['Вебхук включён.', 'The webhook is active.'],
  'webhook.deactivated': ['Вебхук выключен. Ожидающие доставки ждут.', 'The webhook is inactive. Pending deliveries wait.'],
  'webhook.rotateAsk': ['Сменить секрет?', 'Rotate the secret?'],
  'webhook.rotateNote': ['Будет создан новый секрет. Прежний ещё подписывает вызовы, пока не пройдёт срок перехода.', 'A new secret is made. The old one goes on signing beside it until the overlap ends.'],
  'webhook.rotated': ['Новый секрет', 'The new secret'],
  'webhook.rotatedNote': ['Сохраните его: он показан один раз.', 'Keep it: it is shown this once.'],

  'webhook.deletedNote': ['Вебхук удалён; его история остаётся.', 'The webhook is deleted; its history stays.'],

  'access.title': ['Зачем вы смотрите данные пациентов?', 'Why do you read patients’ data?'],
  'access.note': ['Причина записывается в журнал вместе с тем, что вы открывали. Её спрашивают один раз за сеанс.', 'The reason goes into the log with what you open. It is asked for once a session.'],
  'access.reason': ['Причина', 'Reason'],

  'tab.calls': ['Вызовы', 'Calls'],
  'tab.test': ['Тест', 'Test'],
  'tab.replay': ['Задания', 'Jobs'],
  'tab.history': ['История', 'History'],

  'call.list': ['Вызовы', 'Calls'],
  'call.empty': ['Вызовов нет.', 'There are no calls.'],
  'call.time': ['Время', 'Time'],
  'call.event': ['Событие', 'Event'],
  'call.attempt': ['Попытка', 'Attempt'],
  'call.response': ['Ответ', 'Answer'],
  'call.duration': ['Длительность', 'Duration'],
  'call.error': ['Ошибка', 'Error'],
  'call.test': ['тест', 'test'],
  'call.late': ['итог пришёл поздно', 'outcome came late'],
  'call.request': ['Запрос', 'Request'],
  'call.requestHeaders': ['Заголовки запроса', 'Request headers'],
  'call.payload': ['Тело запроса', 'Payload'],
  'call.answer': ['Ответ получателя', 'The receiver’s answer'],
  'call.responseHeaders': ['Заголовки ответа', 'Response headers'],
  'call.responseBody': ['Тело ответа', 'Response body'],
  'call.noAnswer': ['Ответа не было.', 'There was no answer.'],
  'call.noPayload': ['Нет: вызов не отправлен или его прервал сбой.', 'None: nothing was sent, or a crash cut the call off.'],
  'call.emptyBody': ['Пустое тело.', 'The body is empty.'],
  'call.truncated': ['Показано начало: хранится не более 10 КБ.', 'The beginning: at most 10 KB is kept.'],
  // What came of a call, by the sender's word for it; in English the error says it itself.
  'outcome.http_status': ['Получатель ответил ошибкой', 'The receiver answered with an error'],
  'outcome.timeout': ['Вызов не уложился в таймаут', 'The call ran out its timeout'],
  'outcome.interrupted': ['Вызов прервал сбой сервиса', 'A crash cut the call off'],
  'outcome.refused_target': ['Адрес запрещён настройкой', 'The address is not allowed'],
  'outcome.dns': ['Имя сервера не найдено', 'The name was not found'],
  'outcome.no_descriptors': ['У этого сервера кончились файловые дескрипторы', 'This server has no free file descriptor'],
  'outcome.no_ports': ['У этого сервера кончились порты', 'This server has no free port'],
  'outcome.no_memory': ['Этому серверу не хватает памяти', 'This server has no memory for a connection'],
  'outcome.no_name_server': ['DNS этого сервера не отвечает', 'This server’s name server does not answer'],
  'outcome.no_proxy': ['Прокси этого сервера не работает', 'This server’s proxy does not work'],
  'outcome.connect': ['Нет соединения с получателем', 'No connection to the receiver'],
  'outcome.tls_expired': ['Сертификат получателя просрочен', 'The certificate has expired'],
  'outcome.tls_wrong_host': ['Сертификат выдан другому серверу', 'The certificate is another host’s'],
  'outcome.tls_self_signed': ['Сертификат подписан самим получателем', 'The certificate is self-signed'],
  'outcome.tls_untrusted': ['Издатель сертификата неизвестен', 'The certificate’s issuer is unknown'],
  'outcome.tls_old_protocol': ['Получатель знает только старый TLS', 'The receiver speaks an old TLS only'],
  'outcome.tls_failed': ['Не удалось установить TLS', 'TLS failed'],
  'outcome.reset': ['Получатель оборвал соединение', 'The receiver cut the connection'],
  'outcome.bad_response': ['Ответ получателя не похож на HTTP', 'The answer is no HTTP'],
  'outcome.auth_failed': ['Сервер токенов не выдал токен', 'The token server gave no access token'],
  'outcome.unreadable_secret': ['Секрет не открыть: нет ключа', 'No key opens the secret'],
  'outcome.unreadable_event': ['Запись о событии не читается', 'The event cannot be read'],
  'outcome.invalid_request': ['Запрос нельзя отправить', 'The request cannot be sent'],

  'call.delivery': ['Доставка', 'Delivery'],

  'filter.status': ['Итог', 'Result'],
  'filter.type': ['Тип события', 'Event type'],
  'filter.from': ['С', 'From'],
  'filter.to': ['По', 'To'],

  'parked.list': ['Отложенные события', 'Parked events'],
  'parked.note': ['События от служб клиники, которые не удалось принять.', 'Events of the clinic’s own services that could not be accepted.'],
  'parked.empty': ['Отложенных событий нет.', 'There are no parked events.'],
  'parked.by': ['Кто', 'By'],
  'parked.retried': ['Событие принято.', 'The event is accepted.'],
  'parked.discard': ['Удалить', 'Discard'],
  'parked.discarded': ['Событие удалено.', 'The event is discarded.'],
  'parked.discardAsk': ['Удалить отложенное событие?', 'Discard the parked event?'],
  'parked.discardNote': ['Оно и его данные исчезнут навсегда и никому не будут отправлены. Кто это сделал, останется в журнале.', 'It and its data are gone for good, and go to nobody. Who did it stays in the log.'],

  'stats.total': ['Вызовов', 'Calls'],
  'stats.successful': ['Успешных', 'Successful'],
  'stats.failed': ['Неудачных', 'Failed'],
  'stats.exhausted': ['Не доставлено', 'Given up'],
  'stats.lastSuccess': ['Последний успех', 'Last success'],
  'stats.byType': ['По типам событий', 'By event type'],
  'stats.byStatus': ['По ответам', 'By answer'],
  'stats.chart': ['Вызовы по времени', 'Calls over time'],
  'stats.chartTable': ['Те же числа таблицей', 'The same as a table'],
  'stats.noCalls': ['За этот период вызовов не было.', 'There were no calls in this period.'],

  'history.list': ['Изменения', 'Changes'],
  'history.who': ['Когда и кто', 'When and who'],
  'history.what': ['Что', 'What'],

  'event.list': ['События', 'Events'],
  'event.empty': ['Событий нет.', 'There are no events.'],
  'event.type': ['Тип', 'Type'],
  'event.accepted': ['Принято', 'Accepted'],
  'event.occurred': ['Произошло', 'Occurred'],
  'event.source': ['Источник', 'Source'],
  'event.correlation': ['Корреляция', 'Correlation id'],
  'event.data': ['Данные', 'Data'],
  'event.new': ['Новое событие', 'New event'],
  'event.dataField': ['Данные события (event_data)', 'Event data (event_data)'],
  'event.triggered': ['Событие принято.', 'The event is accepted.'],
  'event.explain': ['Почему доставлено или нет', 'Why delivered or not'],
  'event.webhook': ['Вебхук', 'Webhook'],
  'event.verdict': ['Решение', 'Verdict'],
  'sent.replay': ['повторная отправка', 'replay'],
  'sent.test': ['проверка', 'test'],
  'event.attempts': ['Попыток', 'Attempts'],
  'event.state': ['Состояние', 'State'],
  'event.filterWant': ['{0}: нужно {1}, в событии {2}', '{0}: wants {1}, the event has {2}'],
  'event.filterNothing': ['ничего', 'nothing'],
  'event.actions': ['Действия', 'Actions'],
  'event.retried': ['Доставка будет повторена сейчас.', 'The delivery is tried again now.'],
  'event.cancelled': ['Доставка отменена.', 'The delivery is cancelled.'],
  'event.cancelAsk': ['Отменить доставку?', 'Cancel the delivery?'],
  'event.cancelNote': ['Попыток больше не будет. Доставки, которые ждут эту, пойдут дальше.', 'No further attempt is made. Deliveries that wait behind it go on.'],
  'event.noWebhooks': ['Webhook’ов тогда не было.', 'There were no webhooks then.'],

  'alert.list': ['Оповещения', 'Alerts'],
  'alert.empty': ['Оповещений нет.', 'There are no alerts.'],
  'alert.kind': ['Оповещение', 'Alert'],
  'alert.raised': ['Поднято', 'Raised'],
  'alert.resolved': ['Снято', 'Resolved'],
  'alert.acknowledged': ['Принято к сведению', 'Acknowledged'],
  'alert.acknowledge': ['Принять к сведению', 'Acknowledge'],
  'alert.calls': ['Неудачные вызовы', 'Failed calls'],
  'alert.inactive': ['Вебхук неактивен', 'Inactive'],
  'alert.low_success_rate': ['Низкий процент успешности', 'Low success rate'],
  'alert.consecutive_failures': ['Неудачи подряд', 'Failures in a row'],
  'alert.timeout': ['Превышен таймаут', 'A call ran out its timeout'],
  'alert.given_up': ['Доставки прекращены', 'Deliveries given up'],
  'alert.auto_deactivated': ['Выключен: одни неудачи', 'Deactivated: nothing but failures'],
  'alert.gone': ['Получатель ответил 410', 'The receiver answered 410'],
  'alert.node': ['Серверу чего-то не хватает', 'A server lacks something'],
  'alert.log_lost': ['База потеряла конец журнала', 'The database lost the end of the log'],
  'alert.told.inactive': ['Без вызовов или выключен {0}, порог {1}', 'Without a call, or off, for {0}; the limit is {1}'],
  'alert.told.low_success_rate': ['Успешны {0} % вызовов, порог {1} %', '{0} % of the calls succeed; the limit is {1} %'],
  'alert.told.consecutive_failures': ['Неудач подряд больше {1}', 'Failures in a row: more than {1}'],
  'alert.told.given_up': ['Не доставлено: {0}', 'Not delivered: {0}'],
  'alert.told.log_lost': ['Потеряны позиции с {0} по {1}', 'Positions {0} to {1} are lost'],
  'alert.told.log_lost.to': ['Потеряны позиции по {0}', 'Positions up to {0} are lost'],
  'alert.told.timeout': ['Вызов не уложился в {1} с', 'A call did not end within {1} s'],

  'system.position': ['Позиция', 'Position'],
  'system.head': ['Конец журнала', 'End of the log'],

  'unit.ms': ['мс', 'ms'],
  'unit.s': ['с', 's'],

  'error.network': ['Сервер не отвечает. Проверьте соединение и повторите.', 'The server does not answer. Check the connection and try again.'],
  'error.unauthorized': ['Нужен действующий токен', 'A valid token is needed'],
  'error.notFound': ['Этого нет или больше нет', 'This does not exist, or no longer'],
  'error.stale': ['Данные изменились. Обновите страницу и повторите', 'The data has changed. Refresh the page and try again'],
  'error.own': ['Ошибка в панели. Обновите страницу.', 'The panel failed. Refresh the page.'],
  'error.noNumber': ['Это не число.', 'This is not a number.'],
  'error.noTime': ['Укажите дату и время полностью.', 'Give the whole date and time.'],
  'error.title': ['Не получилось', 'That did not work'],
}

const languages = ['ru', 'en']

// add makes the texts of an area known. Each area has a file of its own,
// texts/<area>.js, that calls it, a line for each text as here: Russian, English;
// a page imports the file of its texts. A text with plural forms lists them,
// separated by |: one, few, many in Russian; one, other in English. The form goes by
// the first value.
export const add = (more) => Object.assign(texts, more)

export const language = () => settings.get('language')

// known returns the text of a name, or undefined.
export const known = (name) => (Object.hasOwn(texts, name) ? texts[name][languages.indexOf(language())] : undefined)

// t returns a text, its {0}, {1}, … filled in; numbers as the language writes them.
export function t(name, ...values) {
  let text = known(name) ?? name
  const forms = text.split('|')
  if (forms.length > 1 && typeof values[0] === 'number') text = forms[form(values[0], forms.length)]
  return text.replace(/\{(\d)\}/g, (place, i) => (typeof values[i] === 'number' ? number(values[i], 2) : values[i] ?? place))
}

const orders = { ru: ['one', 'few', 'many'], en: ['one', 'other'] }

// form is the index of the plural form; fractions are few in Russian: 1,5 строки.
function form(value, count) {
  const rule = new Intl.PluralRules(language()).select(value)
  const at = orders[language()].indexOf(rule)
  return at >= 0 ? at : Math.min(1, count - 1)
}

export const locale = () => (language() === 'ru' ? 'ru-RU' : 'en-GB')

// number writes a number as the language does; null and undefined are a dash.
export function number(value, digits = 0) {
  if (value === null || value === undefined) return '—'
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value)
}
